package gateway_test

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// newHTTP2Rig is a rig that speaks HTTP/2 over TLS with apps, and with a third party whose
// certificate trusted is for.
func newHTTP2Rig(t testing.TB, origin string, trusted *tls.Config) *rig {
	t.Helper()
	third := &http.Transport{TLSClientConfig: trusted.Clone(), ForceAttemptHTTP2: true, DisableCompression: true}
	r, g := newGateway(t, origin, third)
	s := httptest.NewUnstartedServer(g)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	client := s.Client().Transport.(*http.Transport)
	client.DisableCompression = true
	r.url, r.client = s.URL, client
	return r
}

// newHTTP2Third is a third party that speaks HTTP/2 as it should, and what trusts it.
func newHTTP2Third(t testing.TB, h http.HandlerFunc) (string, *tls.Config) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL, s.Client().Transport.(*http.Transport).TLSClientConfig
}

// Whatever a third party does with the stream, an app gets a whole answer or sees that there
// is none, and the third party gets one request, or two where it did nothing with the first or
// the method is safe.
func TestP22_AThirdPartyThatBreaksHTTP2GetsNoRequestTwice(t *testing.T) {
	t.Parallel()
	const protocol, internal, refused = 1, 2, 7
	head := testenv.Header2(false, ":status", "200", "content-type", "text/plain")
	long := testenv.Header2(false, ":status", "200", "content-type", "text/plain", "content-length", "10")
	openHead := func(stream uint32) []byte { // a header block that goes on in the next frame
		frame := head(stream)
		frame[4] &^= 0x4
		return frame
	}
	ok := testenv.Data2(true, "whole")
	for name, c := range map[string]struct {
		answer     func(uint32) []byte
		want       string // what an app gets; "": 502, or an answer that breaks off
		post, read int    // how many requests arrive
	}{
		"reset before":             {testenv.Reset(internal), "", 1, 1},
		"reset before, protocol":   {testenv.Reset(protocol), "", 1, 2},
		"refused":                  {testenv.Reset(refused), "", 2, 2},
		"reset in the header":      {testenv.Frames2(openHead, testenv.Reset(internal)), "", 1, 2},
		"reset after the header":   {testenv.Frames2(head, testenv.Reset(internal)), "", 1, 1},
		"reset, without a fault":   {testenv.Frames2(head, testenv.Reset(0)), "", 1, 1},
		"refused after the header": {testenv.Frames2(head, testenv.Reset(refused)), "", 1, 1},
		"reset in the body": {testenv.Frames2(head, testenv.Data2(false, "x"), testenv.Reset(internal)), "", 1,
			1},
		"GOAWAY below":           {testenv.GoAway(false, 0), "", 2, 2},
		"GOAWAY, then an answer": {testenv.Frames2(testenv.GoAway(true, 0), head, ok), "whole", 1, 1},
		"GOAWAY in the body":     {testenv.Frames2(head, testenv.GoAway(true, 0), ok), "whole", 1, 1},
		"hangs up":               {testenv.HangUp, "", 1, 2},
		"less than it says":      {testenv.Frames2(long, testenv.Data2(true, "short")), "", 1, 1},
		"nothing of what it says": {testenv.Frames2(testenv.Header2(true, ":status", "200", "content-length", "10")),
			"", 1, 1},
		"more than it says": {testenv.Frames2(long, testenv.Data2(true, "longer than ten")), "", 1, 1},
		"two lengths": {testenv.Frames2(testenv.Header2(false, ":status", "200", "content-length", "5",
			"content-length", "6"), ok), "whole", 1, 1},
		"trailers": {testenv.Frames2(head, testenv.Data2(false, "whole"), testenv.Header2(true, "x-later",
			"canary/access-1", "set-cookie", "a=b")), "whole", 1, 1},
		"trailers that say a status": {testenv.Frames2(head, testenv.Data2(false, "whole"),
			testenv.Header2(true, ":status", "500")), "", 1, 1},
		"1xx before": {testenv.Frames2(testenv.Header2(false, ":status", "103", "link", "</canary/access-1>"),
			testenv.Header2(false, ":status", "102", "set-cookie", "a=b"), head, ok), "whole", 1, 1},
		"1xx as the end": {testenv.Header2(true, ":status", "103"), "", 1, 1},
		"101":            {testenv.Frames2(testenv.Header2(false, ":status", "101"), head, ok), "", 1, 1},
		"no status":      {testenv.Frames2(testenv.Header2(false, "content-type", "text/plain"), ok), "", 1, 1},
		"a status of 99": {testenv.Frames2(testenv.Header2(false, ":status", "099"), ok), "", 1, 1},
		"a body first":   {testenv.Frames2(ok, head), "", 1, 2},
		"answers twice":  {testenv.Frames2(head, ok, head, ok), "whole", 1, 1},
		"another's cookies": {testenv.Frames2(testenv.Header2(false, ":status", "200", "set-cookie", "a=b"), ok),
			"whole", 1, 1},
		"echoes its header": {testenv.Frames2(testenv.Header2(false, ":status", "200", "x-echo",
			"Bearer canary/access-1"), ok), "whole", 1, 1},
		"a connection's own": {testenv.Frames2(testenv.Header2(false, ":status", "200", "connection", "x-a", "x-a",
			"1", "transfer-encoding", "chunked"), ok), "whole", 1, 1},
	} {
		for _, method := range []string{"GET", "POST"} {
			t.Run(method+" "+name, func(t *testing.T) {
				t.Parallel()
				peer := testenv.StartHTTP2Peer(t, true, func(int) func(uint32) []byte { return c.answer })
				r := newHTTP2Rig(t, peer.URL, peer.TLS)
				r.connect("freebusy")
				target, body, most := busy, "", c.read
				if method == "POST" {
					target, body, most = "/gateway/calendar/freeBusy", `{"a":1}`, c.post
				}
				res, got, err := r.try(method, target, body, "Content-Type", "application/json")
				if err != nil { // the stream was reset before its header
					res = &http.Response{StatusCode: 502}
				}
				broken := res.StatusCode == 502 || strings.HasSuffix(got, "(broken off)")
				if c.want == "" && !broken || c.want != "" && (res.StatusCode != 200 || got != c.want) {
					t.Errorf("answered %d %q", res.StatusCode, got)
				}
				for _, h := range []http.Header{res.Header, res.Trailer} {
					if h["Set-Cookie"] != nil || h["X-Later"] != nil || h["X-Echo"] != nil || h["Link"] != nil ||
						h["Transfer-Encoding"] != nil || h["Connection"] != nil {
						t.Errorf("header %v", h)
					}
				}
				if n := peer.Got(); n == 0 || n > most {
					t.Errorf("%d requests arrived, %d may", n, most)
				}
			})
		}
	}
}

// Calls of two apps, for two people, are under way at once on one connection, and their bodies
// come in pieces that mix: each gets its own and nothing else, and each request has the
// credential of its own person.
func TestP12_CallsThatShareAConnectionNeverMix(t *testing.T) {
	t.Parallel()
	const calls, pieces = 40, 20
	var waiting sync.WaitGroup
	waiting.Add(2 * calls)
	credentials := sync.Map{} // by person
	third := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := strings.Split(r.URL.Path, "/")[2]
		if was, loaded := credentials.LoadOrStore(who, r.Header.Get("Authorization")); loaded &&
			was != r.Header.Get("Authorization") {
			t.Errorf("a request for %s has the credential of another", who)
		}
		if r.URL.RawQuery == "" { // the call that opens the connection
			return
		}
		waiting.Done()
		waiting.Wait() // all of them are here before one is answered
		w.Header().Set("Content-Type", "text/plain")
		for range pieces {
			_, _ = io.WriteString(w, r.URL.RawQuery+"\n")
			_ = http.NewResponseController(w).Flush()
		}
	}))
	third.EnableHTTP2 = true
	third.StartTLS()
	defer third.Close()
	r := newHTTP2Rig(t, third.URL, third.Client().Transport.(*http.Transport).TLSClientConfig)
	go func() {
		for t.Context().Err() == nil {
			<-r.events // the rig has room for few
		}
	}()
	r.connect("freebusy")
	bob := identity.Identity{Provider: "google", Subject: "bob", Email: "bob@acme.test", EmailVerified: true}
	_, err := r.broker.Connect(t.Context(), bob, grant.Ask{Connector: "calendar", App: "raw"}, nil,
		identity.Handshake{State: "s", Verifier: "v", Nonce: "n"}, false)
	testenv.Check(t, err)
	// Eighty that begin at once would each begin a connection, and a busy machine has no time for
	// so many handshakes.
	if res, body := r.ask("GET", "/gateway/calendar/calendars/ann/busy", ""); res.StatusCode != 200 {
		t.Fatal(res.StatusCode, body)
	}
	assertions := map[string]string{"ann": r.assertion("planner"), "bob": r.assertionOf(&bob, "raw")}
	var all sync.WaitGroup
	for i := range 2 * calls {
		all.Go(func() {
			who, token := "ann", appToken
			if i%2 == 1 {
				who, token = "bob", "raw-"+appToken
			}
			mark := fmt.Sprintf("call=%s-%d", who, i)
			res, body := r.ask("GET", "/gateway/calendar/calendars/"+who+"/busy?"+mark, "", "Authorization",
				"Bearer "+token, "X-Sallyport-Assertion", assertions[who])
			if res.StatusCode != 200 || body != strings.Repeat(mark+"\n", pieces) {
				t.Errorf("%s: %d %q", mark, res.StatusCode, body)
			}
		})
	}
	all.Wait()
}

// An answer without an end goes on for as long as the app reads and the person lends it, and
// the third party is let go when either is over.
func TestP12_AnAnswerWithoutAnEndEndsWithWhatItRestsOn(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(r *rig, leave context.CancelFunc){
		"the app resets its stream": func(_ *rig, leave context.CancelFunc) { leave() },
		"the person ends it": func(r *rig, _ context.CancelFunc) {
			testenv.Check(r, r.broker.Withdraw(r.Context(), ann, "calendar", "planner"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gone := make(chan struct{})
			origin, trusted := newHTTP2Third(t, func(w http.ResponseWriter, r *http.Request) {
				defer close(gone)
				w.Header().Set("Content-Type", "text/plain")
				for tick := time.NewTicker(10 * time.Millisecond); r.Context().Err() == nil; <-tick.C {
					_, _ = io.WriteString(w, "more\n")
					_ = http.NewResponseController(w).Flush()
				}
			})
			r := newHTTP2Rig(t, origin, trusted)
			r.connect("freebusy")
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			req, err := http.NewRequestWithContext(ctx, "GET", r.url+busy, nil)
			testenv.Check(t, err)
			req.Header.Set("Authorization", "Bearer "+appToken)
			req.Header.Set("X-Sallyport-Assertion", r.assertion("planner"))
			res, err := r.client.RoundTrip(req)
			testenv.Check(t, err)
			defer res.Body.Close()
			if _, err := io.ReadFull(res.Body, make([]byte, 20)); err != nil || res.ProtoMajor != 2 {
				t.Fatal(res.Proto, err)
			}
			end(r, leave)
			if _, err := io.Copy(io.Discard, res.Body); err == nil {
				t.Error("the answer looks whole")
			}
			select {
			case <-gone:
			case <-time.After(time.Minute):
				t.Error("the third party still answers")
			}
		})
	}
}

// What ends while the app waits for an answer is told as to the next request.
func TestP12_WhatEndsWhileAnAnswerIsWaitedForIsToldAsAfterwards(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		end    func(r *rig) error
		status int
		says   string
	}{
		"the person ends it": {func(r *rig) error {
			return r.broker.Withdraw(r.Context(), ann, "calendar", "planner")
		}, http.StatusConflict, `"missing":["freebusy"`},
		"the person signs out": {func(r *rig) error {
			return r.sessions.EndSignIn(r.Context(), r.signedIn)
		}, http.StatusUnauthorized, "person-unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := make(chan struct{}, 1)
			origin, trusted := newHTTP2Third(t, func(_ http.ResponseWriter, r *http.Request) {
				asked <- struct{}{}
				<-r.Context().Done()
			})
			r := newHTTP2Rig(t, origin, trusted)
			r.connect("freebusy")
			ended := make(chan error, 1)
			go func() { <-asked; ended <- tt.end(r) }()
			told := func() (problem map[string]any) {
				res, body := r.ask("GET", busy, "")
				if res.StatusCode != tt.status || !strings.Contains(body, tt.says) {
					t.Errorf("%d %s", res.StatusCode, body)
				}
				testenv.Check(t, json.Unmarshal([]byte(body), &problem))
				delete(problem, "request_id")
				delete(problem, "connect_url") // sealed anew each time
				return problem
			}
			meanwhile := told()
			testenv.Check(t, <-ended)
			if afterwards := told(); !reflect.DeepEqual(meanwhile, afterwards) {
				t.Errorf("meanwhile %v, afterwards %v", meanwhile, afterwards)
			}
		})
	}
}

// app is one connection of an app that writes frames as it likes.
type app struct {
	*tls.Conn
	*rig
}

func (r *rig) app() app {
	r.Helper()
	config := r.client.(*http.Transport).TLSClientConfig.Clone()
	config.NextProtos = []string{"h2"}
	c, err := tls.Dial("tcp", strings.TrimPrefix(r.url, "https://"), config)
	testenv.Check(r, err)
	r.Cleanup(func() { _ = c.Close() })
	testenv.Check(r, c.SetDeadline(time.Now().Add(time.Minute)))
	_, err = io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	testenv.Check(r, err)
	return app{c, r}
}

// say sends frames on stream 1 and returns the status that comes back; "": the stream or the
// connection was ended without one.
func (a app) say(frames ...func(uint32) []byte) string {
	a.Helper()
	if _, err := a.Write(testenv.Frames2(frames...)(1)); err != nil {
		return ""
	}
	fields := hpack.NewDecoder(4096, nil)
	for head := make([]byte, 9); ; {
		if _, err := io.ReadFull(a, head); err != nil {
			return ""
		}
		payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		if _, err := io.ReadFull(a, payload); err != nil {
			return ""
		}
		switch stream := binary.BigEndian.Uint32(head[5:]); {
		case head[3] == 7, head[3] == 3 && stream == 1: // GOAWAY, RST_STREAM
			return ""
		case head[3] == 1 && stream == 1:
			list, err := fields.DecodeFull(payload)
			testenv.Check(a, err)
			if status := list[0].Value; status[0] != '1' {
				return status
			}
		}
	}
}

// frames are what an app writes on stream 1, one after the other.
type frames []func(uint32) []byte

// trick is a request as an app may write it into frames.
type trick struct {
	frames frames
	want   string // "": the stream ends without an answer, or with 400
	whole  bool   // a request arrives
}

// tricks are for an app that shows assertion.
func tricks(assertion string) map[string]trick {
	get := []string{":method", "GET", ":scheme", "https", ":authority", "gate.test", ":path", busy}
	post := []string{":method", "POST", ":scheme", "https", ":authority", "gate.test", ":path",
		"/gateway/calendar/freeBusy", "content-type", "text/plain"}
	proof := []string{"authorization", "Bearer " + appToken, "x-sallyport-assertion", assertion}
	with := func(fields []string, more ...string) []string {
		return slices.Concat(fields, proof, more)
	}
	instead := func(name, value string) []string {
		fields := with(get)
		fields[slices.Index(fields, name)+1] = value
		return fields
	}
	header, data := testenv.Header2, testenv.Data2
	return map[string]trick{

		"as it should be":     {frames{header(true, with(get)...)}, "200", true},
		"the same host twice": {frames{header(true, with(get, "host", "gate.test")...)}, "200", true},
		"another host beside": {frames{header(true, with(get, "host", "evil.test")...)}, "", false},
		"two hosts beside": {frames{header(true, with(get, "host", "gate.test", "host", "gate.test")...)}, "",
			false},
		"no host":              {frames{header(true, slices.Delete(with(get), 4, 6)...)}, "200", true},
		"another host":         {frames{header(true, instead(":authority", "evil.test")...)}, "200", true},
		"somebody at the host": {frames{header(true, instead(":authority", "evil@gate.test")...)}, "", false},
		"a path in the host":   {frames{header(true, instead(":authority", "evil.test/x?y")...)}, "200", true},
		"a whole address":      {frames{header(true, instead(":path", "https://evil.test"+busy)...)}, "", false},
		"two slashes":          {frames{header(true, instead(":path", "/"+busy)...)}, "", false},
		"a star":               {frames{header(true, instead(":path", "*")...)}, "", false},
		"a fragment":           {frames{header(true, instead(":path", busy+"#x")...)}, "", false},
		"a line in the path":   {frames{header(true, instead(":path", busy+"\r\nx: y")...)}, "", false},
		"two paths": {frames{header(true, with(append(slices.Clone(get), ":path", "/v1/grants"))...)}, "",
			false},
		"a path behind fields": {frames{header(true, with(get, ":path", "/v1/grants")...)}, "", false},
		"another method": {frames{header(true, append(instead(":method", "GET"), "x-http-method-override",
			"DELETE")...)}, "", false},
		"a tunnel": {frames{header(false, append(slices.Clone(instead(":method", "CONNECT")[:8]),
			slices.Concat([]string{":protocol", "websocket"}, proof)...)...)}, "", false},
		"cookies in crumbs": {frames{header(true, with(get, "cookie", "a=b", "cookie", "c=d")...)}, "200", true},
		"an upgrade":        {frames{header(true, with(get, "upgrade", "h2c")...)}, "", false},
		"chunks": {frames{header(false, with(post, "transfer-encoding", "chunked")...), data(true, "x")},
			"", false},
		"Connection": {frames{header(true, with(get, "connection", "authorization")...)}, "", false},
		"upper case": {frames{header(true, with(get, "X-Sallyport-Lease", "x")...)}, "", false},
		"two people": {frames{header(true, with(get, "x-sallyport-assertion", assertion)...)}, "", false},
		"a line in a value": {frames{header(true, with(get, "accept", "a\r\nauthorization: Bearer x")...)}, "",
			false},
		"a nought in a value": {frames{header(true, with(get, "accept", "a\x00b")...)}, "", false},
		"a body":              {frames{header(false, with(post)...), data(true, "hello")}, "200", true},
		"a body of its length": {frames{header(false, with(post, "content-length", "5")...), data(true, "hello")},
			"200", true},
		"more than it says": {frames{header(false, with(post, "content-length", "3")...), data(true, "hello")},
			"", false},
		"less than it says": {frames{header(false, with(post, "content-length", "9")...), data(true, "hello")},
			"", false},
		"nothing of what it says": {frames{header(true, with(post, "content-length", "9")...)}, "", false},
		"a body for nothing": {frames{header(false, with(post, "content-length", "0")...), data(true, "hello")},
			"", false},
		"a length with a sign": {frames{header(false, with(post, "content-length", "+5")...), data(true, "hello")},
			"", false},
		"two lengths": {frames{header(false, with(post, "content-length", "5", "content-length", "6")...),
			data(true, "hello")}, "", false},
		"a credential after the body": {frames{header(false, with(post, "trailer", "authorization")...),
			data(false, "hello"), header(true, "authorization", "Bearer x")}, "", false},
		"more after the body": {frames{header(false, with(post, "trailer", "x-later")...),
			data(false, "hello"), header(true, "x-later", "1")}, "200", true},
	}
}

// What an app writes into frames decides nothing that is not its to decide: a third party gets
// its own host, no cookie, one credential and whole bodies, or nothing.
func TestP12_TricksOfHTTP2ReachNoThirdParty(t *testing.T) {
	t.Parallel()
	type arrived struct {
		host, body string
		header     http.Header
		err        error
	}
	for name := range tricks("") {
		t.Run(name, func(t *testing.T) {
			seen := make(chan arrived, 100)
			t.Cleanup(func() { // when gateway and third party have ended: nothing can come any more
				for len(seen) > 0 {
					if a := <-seen; a.err == nil {
						t.Errorf("arrived %+v", a)
					}
				}
			})
			origin, trusted := newHTTP2Third(t, func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				seen <- arrived{r.Host, string(body), r.Header, err}
			})
			r := newHTTP2Rig(t, origin, trusted)
			r.connect("freebusy")
			c := tricks(r.assertion("planner"))[name]
			got := r.app().say(c.frames...)
			if c.want == "" && got != "" && got[0] != '4' && got != "502" || c.want != "" && got != c.want {
				t.Errorf("answered %q", got)
			}
			if !c.whole || got != "200" {
				return
			}
			a := <-seen
			if a.err != nil || "https://"+a.host != origin || a.header["Cookie"] != nil || a.header["Host"] != nil ||
				!slices.Equal(a.header["Authorization"], []string{"Bearer canary/access-1"}) ||
				a.header["Trailer"] != nil {
				t.Errorf("arrived %+v", a)
			}
		})
	}
}

// An app that gives up an upload has the third party see that it is not whole, once.
func TestP22_AnUploadThatAnAppResetsIsNotTakenForAWholeOne(t *testing.T) {
	t.Parallel()
	type end struct {
		body string
		err  error
	}
	begun, ended := make(chan struct{}, 10), make(chan end, 10)
	origin, trusted := newHTTP2Third(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadFull(r.Body, make([]byte, 5))
		begun <- struct{}{}
		rest, err := io.ReadAll(r.Body)
		ended <- end{string(rest), err}
	})
	r := newHTTP2Rig(t, origin, trusted)
	r.connect("freebusy")
	a := r.app()
	head := testenv.Header2(false, ":method", "POST", ":scheme", "https", ":authority", "gate.test", ":path",
		"/gateway/calendar/freeBusy", "content-type", "text/plain", "authorization", "Bearer "+appToken,
		"x-sallyport-assertion", r.assertion("planner"))
	_, err := a.Write(testenv.Frames2(head, testenv.Data2(false, "hello"))(1))
	testenv.Check(t, err)
	<-begun
	_, err = a.Write(testenv.Reset(8)(1)) // CANCEL
	testenv.Check(t, err)
	if e := <-ended; e.err == nil || e.body != "" {
		t.Errorf("the third party took the upload for whole: %+v", e)
	}
	if ev := <-r.events; ev.Err == nil {
		t.Errorf("event %+v", ev)
	}
	if len(begun) != 0 {
		t.Error("it was sent once more")
	}
}
