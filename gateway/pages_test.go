package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/sallyport-proxy/sallyport/gateway"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// pageLinks has the connector of a rig name the members that are addresses of further pages.
func pageLinks(o *gateway.Options) {
	for _, app := range o.Apps {
		if c := app.Connectors["calendar"]; c != nil {
			c.About.PageLinks = []string{"@odata.nextLink"}
		}
	}
}

// An app follows the address of the next page as it got it, and is answered; the third party
// gets its own path and query back, byte for byte, and is never asked past the gateway.
func TestP12_AnAppThatFollowsTheNextPageStaysAtTheGateway(t *testing.T) {
	peer := testenv.NewRawUpstream(t)
	r := newRig(t, peer.URL()+"/v3", pageLinks)
	r.connect("freebusy")
	const next = "/calendars/a%40b.test/busy?$skiptoken=x%2F2%2Bx&$top=1"
	body := `{"value":[],"@odata.nextLink":"` + peer.URL() + `/v3` + next + `"}`
	peer.Respond(func([]byte) []byte {
		return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json;odata.metadata=minimal\r\n"+
			"ETag: \"1\"\r\nAccept-Ranges: bytes\r\nContent-Digest: sha-256=:x:\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	})
	res, got := r.ask("GET", busy, "", "Accept-Encoding", "gzip")
	if want := `{"value":[],"@odata.nextLink":"` + r.url + "/gateway/calendar" + next + `"}`; got != want {
		t.Fatalf("%d %s, want %s", res.StatusCode, got, want)
	}
	if h := res.Header; h.Get("Etag") != `W/"1"` || h["Accept-Ranges"] != nil || h["Content-Digest"] != nil {
		t.Errorf("headers of other bytes: %v", h)
	}
	if asked := string(peer.Last(t)); !strings.Contains(asked, "\r\nAccept-Encoding: identity\r\n") {
		t.Errorf("asked %q", asked)
	}
	if res, got := r.ask("GET", "/gateway/calendar"+next, ""); res.StatusCode != 200 {
		t.Errorf("the next page: %d %s", res.StatusCode, got)
	}
	if asked := string(peer.Last(t)); !strings.HasPrefix(asked, "GET /v3"+next+" HTTP/1.1\r\n") {
		t.Errorf("the next page is asked for with %q", asked)
	}
	host := r.raw("GET " + busy + " HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\nAuthorization: Bearer " +
		appToken + "\r\nX-Sallyport-Assertion: " + r.assertion("planner") + "\r\n\r\n")
	if !strings.Contains(host, r.url+"/gateway/calendar"+next) || strings.Contains(host, "evil") {
		t.Errorf("with a hostile Host: %q", host)
	}
}

// Only an answer that is JSON and went well is changed, and its header with it; a HEAD says
// what a GET would.
func TestAnAnswerThatHasNoPagesStaysAsItIs(t *testing.T) {
	peer := testenv.NewRawUpstream(t)
	r := newRig(t, peer.URL(), pageLinks)
	r.connect("freebusy")
	body := `{"@odata.nextLink":"` + peer.URL() + `/a"}`
	for head, changed := range map[string]bool{
		"200 OK\r\nContent-Type: application/json":                                         true,
		"200 OK\r\nContent-Type: APPLICATION/json; charset=utf-8":                          true,
		"201 Created\r\nContent-Type: application/json":                                    true,
		"206 Partial Content\r\nContent-Type: application/json\r\nContent-Range: bytes 0-": false,
		"404 Not Found\r\nContent-Type: application/json":                                  false,
		"302 Found\r\nContent-Type: application/json":                                      false,
		"200 OK\r\nContent-Type: application/jsonp":                                        false,
		"200 OK\r\nContent-Type: text/plain":                                               false,
		"200 OK\r\nContent-Type: application/json\r\nContent-Type: text/plain":             false,
		"200 OK\r\nX: y": false,
	} {
		peer.Respond(func(asked []byte) []byte {
			answer := fmt.Sprintf("HTTP/1.1 %s\r\nETag: \"1\"\r\nContent-Length: %d\r\n\r\n", head, len(body))
			if !strings.HasPrefix(string(asked), "HEAD") {
				answer += body
			}
			return []byte(answer)
		})
		want, length, tag := body, int64(len(body)), `"1"`
		if changed {
			want, length, tag = `{"@odata.nextLink":"`+r.url+`/gateway/calendar/a"}`, -1, `W/"1"`
		}
		res, got := r.ask("GET", busy, "")
		if got != want || res.Header.Get("Etag") != tag || !changed && res.ContentLength != length {
			t.Errorf("%q: %s, want %s; %v", head, got, want, res.Header)
		}
		if res, _ = r.ask("HEAD", busy, ""); res.ContentLength != length || res.Header.Get("Etag") != tag {
			t.Errorf("%q: a HEAD has the length %d and %v", head, res.ContentLength, res.Header)
		}
	}
	peer.Respond(func([]byte) []byte { return []byte("HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n\r\n") })
	res, _ := r.ask("GET", busy, "", "If-None-Match", `W/"1"`)
	if res.StatusCode != 304 || res.Header.Get("Etag") != `W/"1"` {
		t.Errorf("what is kept is still good: %d %v", res.StatusCode, res.Header)
	}
}

// The first page is with the app before the third party goes on, its next page is the
// gateway's, and an answer that breaks off is not whole. Nor is a credential seen in it.
func TestP08_AnAnswerWithPagesIsPassedOnAsItComes(t *testing.T) {
	next, end := make(chan string), make(chan struct{})
	peer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for piece := range next {
			_, _ = io.WriteString(w, piece)
			_ = http.NewResponseController(w).Flush()
		}
		<-end
		panic(http.ErrAbortHandler)
	}))
	defer peer.Close()
	r := newRig(t, peer.URL, pageLinks)
	r.connect("freebusy")
	req, err := http.NewRequestWithContext(t.Context(), "GET", r.url+busy, nil)
	testenv.Check(t, err)
	req.URL, err = url.Parse(r.url + busy)
	testenv.Check(t, err)
	req.Header.Set("Authorization", "Bearer "+appToken)
	req.Header.Set("X-Sallyport-Assertion", r.assertion("planner"))
	first := `{"@odata.nextLink":"` + peer.URL + `/a?token=canary%2Faccess-1","value":["canary/access-1"`
	go func() { next <- first }()
	res, err := http.DefaultClient.Do(req)
	testenv.Check(t, err)
	defer res.Body.Close()
	want := `{"@odata.nextLink":"` + r.url + `/gateway/calendar/a?token=*****************","value":["***************"`
	got := make([]byte, len(want))
	if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != want {
		t.Fatalf("%s, %v, want %s", got, err, want)
	}
	next <- `,"` // which goes no further, and then it breaks off
	close(next)
	close(end)
	if rest, err := io.ReadAll(res.Body); err == nil || string(rest) != `,"` {
		t.Errorf("%q, %v", rest, err)
	}
}

// A credential is not seen in what is compressed. Who asked for that can read it; what comes
// compressed though nobody asked is not passed on.
func TestP08_WhatIsCompressedUnaskedIsNotPassedOn(t *testing.T) {
	peer := testenv.NewRawUpstream(t)
	plain, pages := newRig(t, peer.URL()), newRig(t, peer.URL(), pageLinks)
	plain.connect("freebusy")
	pages.connect("freebusy")
	for _, c := range []struct {
		r               *rig
		accept, encoded string
		status          int
	}{
		{plain, "", "gzip", 502}, {plain, "identity", "gzip", 502}, {plain, "br", "gzip", 502},
		{plain, "gzip;q=0, br", "gzip", 502}, {plain, "gzip", "gzip, br", 502}, {pages, "gzip", "gzip", 502},
		{plain, "gzip", "gzip", 200}, {plain, "br;q=0.5, GZIP", "gzip", 200}, {plain, "*", "br", 200},
		{plain, "", "identity", 200}, {pages, "gzip", "", 200},
	} {
		peer.Respond(func([]byte) []byte {
			return []byte("HTTP/1.1 200 OK\r\nContent-Encoding: " + c.encoded + "\r\nContent-Length: 1\r\n\r\nx")
		})
		if res, body := c.r.ask("GET", busy, "", "Accept-Encoding", c.accept); res.StatusCode != c.status ||
			c.status == 502 && !strings.Contains(body, `"detail":"The third party's answer is compressed`) {
			t.Errorf("asked for %q, answered %q: %d %s", c.accept, c.encoded, res.StatusCode, body)
		}
	}
}

// GitHub, and others, say where further pages are in the header Link (RFC 8288), with their own
// host. An app that follows one comes back here, whatever connector it is; what leads elsewhere,
// or to no path of the connector, stays as it is, and is never an address of ours.
func TestP12_AnAppThatFollowsALinkHeaderStaysAtTheGateway(t *testing.T) {
	peer := testenv.NewRawUpstream(t)
	r := newRig(t, peer.URL()+"/v3")
	r.connect("freebusy")
	theirs, ours := peer.URL()+"/v3", r.url+"/gateway/calendar"
	const next = "/calendars/a%40b.test/busy?page=2&after=x%2By"
	at := strings.TrimPrefix(busy, "/gateway/calendar")
	for line, want := range map[string]string{
		"<" + theirs + next + `>; rel="next", <` + theirs + `/calendars/1/busy?page=9>; rel="last"`: "<" + ours + next +
			`>; rel="next", <` + ours + `/calendars/1/busy?page=9>; rel="last"`,
		"<" + theirs + next + ">;rel=next":                    "<" + ours + next + ">;rel=next",
		"</v3" + next + ">; rel=next":                         "<" + ours + next + ">; rel=next",
		"<?page=2>; rel=next":                                 "<" + ours + at + "?page=2>; rel=next",
		"</elsewhere>; rel=next":                              "<" + peer.URL() + "/elsewhere>; rel=next",
		"<" + theirs + "/../up>; rel=next":                    "<" + theirs + "/../up>; rel=next",
		"<" + theirs + "/a/%2e%2e/b>; rel=next":               "<" + theirs + "/a/%2e%2e/b>; rel=next",
		"<" + theirs + "x/a>; rel=next":                       "<" + theirs + "x/a>; rel=next",
		"<" + theirs + "@evil.test/a>; rel=next":              "<" + theirs + "@evil.test/a>; rel=next",
		"<https://docs.test/a>; rel=help":                     "<https://docs.test/a>; rel=help",
		`<https://docs.test/a>; title="<` + theirs + `/a>"`:   `<https://docs.test/a>; title="<` + theirs + `/a>"`,
		`<https://docs.test/a>; title="\"<` + theirs + `/a>"`: `<https://docs.test/a>; title="\"<` + theirs + `/a>"`,
		"<" + theirs + next:                                   "<" + theirs + next,
		"mailto:a, <mailto:a@b.test>; rel=author":             "mailto:a, <mailto:a@b.test>; rel=author",
	} {
		peer.Respond(func([]byte) []byte {
			return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nETag: \"1\"\r\nLink: %s\r\n"+
				"Content-Length: 2\r\n\r\n[]", line)
		})
		res, body := r.ask("GET", busy, "")
		if got := res.Header.Get("Link"); got != want || body != "[]" || res.Header.Get("Etag") != `"1"` {
			t.Errorf("%s\nbecame %s\nnot    %s\n%d %s", line, got, want, res.StatusCode, body)
		}
	}
	if res, got := r.ask("GET", "/gateway/calendar"+next, ""); res.StatusCode != 200 {
		t.Errorf("the next page: %d %s", res.StatusCode, got)
	}
	if asked := string(peer.Last(t)); !strings.HasPrefix(asked, "GET /v3"+next+" HTTP/1.1\r\n") {
		t.Errorf("the next page is asked for with %q", asked)
	}
}
