package proxy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/assertion"
	"github.com/sallyport-proxy/sallyport/gateway"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/grant/granttest"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/store"
	"github.com/sallyport-proxy/sallyport/store/sqlite"
)

const (
	webhook       = prefix + "/webhooks/calendar"
	webhookSecret = "canary-signing-secret"
)

// board is an app that gets events. It does what it is told to with each.
type board struct {
	*httptest.Server
	mu        sync.Mutex
	got       []*http.Request
	bodies    [][]byte
	behave    http.HandlerFunc // nil: it takes it
	elsewhere atomic.Int32
}

func newBoard(t *testing.T) *board {
	t.Helper()
	b := &board{}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/events" {
			b.elsewhere.Add(1)
			return
		}
		body, _ := io.ReadAll(r.Body)
		b.mu.Lock()
		b.got, b.bodies = append(b.got, r), append(b.bodies, body)
		behave := b.behave
		b.mu.Unlock()
		if behave != nil {
			behave(w, r)
		}
	}))
	t.Cleanup(b.Close)
	return b
}

func (b *board) set(behave http.HandlerFunc) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.behave = behave
}

func (b *board) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.got)
}

// webhookSite is a site that takes events of a pretend third party for a board. Somebody has
// connected the account "1".
type webhookSite struct {
	*testSite
	lent *logSink // the log of the broker

	mu    sync.Mutex // guards steps
	steps []grant.Event
}

// audit is told by the broker.
func (s *webhookSite) audit(e grant.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steps = append(s.steps, e)
}

func newWebhookSite(t *testing.T, rows grant.Store, app *board, change ...func(*setup)) *webhookSite {
	t.Helper()
	c := &calendar{account: grant.Account{ID: "1"}, began: make(chan struct{}, 100),
		about: grant.About{ID: "calendar", Name: "Calendar", ClientID: "client", Refresh: thirdParty,
			Accesses: []grant.Access{{Name: "busy", Scopes: []string{"busy"}}}}}
	signer, err := assertion.New(assertion.Options{Issuer: "https://site.test",
		Seeds: [][]byte{make([]byte, assertion.SeedBytes)}, Signing: func(time.Time) int { return 0 }})
	testenv.Check(t, err)
	to, err := url.Parse(app.URL + "/events")
	testenv.Check(t, err)
	notifier := gateway.NewNotifier(signer, map[string]*url.URL{"board": to})
	t.Cleanup(notifier.Close)
	ring, err := grant.NewKeyring([]grant.SealingKey{{ID: "0123456789abcdef", Secret: [32]byte{1},
		Created: time.Now().Add(-time.Hour)}})
	testenv.Check(t, err)
	other := &calendar{about: c.about}
	other.about.ID = "plain"
	site := &webhookSite{lent: newLogSink()}
	broker, err := grant.New(grant.Options{Store: rows, Keys: ring, Relay: notifier.Relay, Log: site.lent.logger(),
		Audit: site.audit,
		Offers: []grant.Offer{{Connector: granttest.Signing{OAuth: c}, Owner: grant.OwnedByUser, Offered: []string{"busy"},
			SigningSecrets: []string{webhookSecret}},
			{Connector: other, Owner: grant.OwnedByUser, Offered: []string{"busy"}}},
		Apps: []grant.App{{ID: "board", Name: "Board", Told: true,
			Connectors: map[string][]string{"calendar": {"busy"}, "plain": {"busy"}}}},
		Redirect: func(string) string { return "https://site.test/callback" }})
	testenv.Check(t, err)
	t.Cleanup(broker.Close)
	who := identity.Identity{Provider: "main", Subject: "alice-1"}
	ask := grant.Ask{Connector: "calendar", App: "board", Access: []string{"busy"}}
	if _, err := broker.Connect(t.Context(), who, ask, url.Values{"code": {"1"}}, identity.Handshake{},
		false); err != nil {
		t.Fatal(err)
	}
	o := setup{Tuned: func(o *Options) { o.Webhooks, o.Lender = broker, broker }}
	for _, f := range change {
		f(&o)
	}
	site.testSite = newTestSite(t, o)
	return site
}

// deliver sends a message as its third party does.
func (s *webhookSite) deliver(t *testing.T, body []byte, header http.Header) answer {
	t.Helper()
	r, err := http.NewRequest("POST", s.url+webhook, bytes.NewReader(body))
	testenv.Check(t, err)
	r.Header = header
	return s.send(t, r)
}

func goodEvent(id string) ([]byte, http.Header) {
	h, body := granttest.Sign(webhookSecret, granttest.SignedBody{ID: id, Accounts: []string{"1"}}, time.Now())
	return body, h
}

// signedText is a message with a body that is not as our own JSON would be.
func signedText(text string) ([]byte, http.Header) {
	h, _ := granttest.Sign(webhookSecret, granttest.SignedBody{}, time.Now())
	h.Set(granttest.SignatureHeader, granttest.Signature(webhookSecret, h.Get(granttest.SignedAtHeader), []byte(text)))
	return []byte(text), h
}

func refusedAs(t *testing.T, what string, a answer, status int) {
	t.Helper()
	want := map[string]string{"error": "invalid_request", "message": refusedWebhook[status],
		"request_id": a.header.Get("X-Request-Id")}
	if status == http.StatusServiceUnavailable {
		want["error"] = "temporarily_unavailable"
	}
	var said map[string]string
	if err := json.Unmarshal([]byte(a.body), &said); err != nil {
		t.Errorf("%s: %q: %v", what, a.body, err)
	}
	if a.status != status || !maps.Equal(said, want) || want["message"] == "" || want["request_id"] == "" || (a.header.Get("Retry-After") != "") != (status == 503) ||
		a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s: %d %q %v, want %d", what, a.status, a.body, a.header, status)
	}
}

// An app gets what the third party sent, byte for byte, with what it needs to verify it, and
// nothing else of the request.
func TestAnEventReachesItsAppByteForByte(t *testing.T) {
	t.Parallel()
	app := newBoard(t)
	s := newWebhookSite(t, granttest.NewStore(nil), app)
	for i, text := range []string{
		`{"id":"Ev%d","accounts":["1"]}`,
		" {\"id\" :\t\"Ev%d\",\r\n \"accounts\":[ \"1\" ], \"n\":1.0e400, \"text\":\"\\u00e4\xc3\xa4\xff\\/\" } \n",
		`{"id":"Ev%d","accounts":["1"],"padding":"` + strings.Repeat("x", maxWebhook-44) + `"}`,
	} {
		body, h := signedText(fmt.Sprintf(text, i))
		for name, value := range map[string]string{"Cookie": "a=b", "Authorization": "Bearer canary",
			"X-Sallyport-Connector": "forged", "X-Forwarded-User": "main:bob", "X-Request-Id": "canary",
			"User-Agent": "Pretend/1", "Forwarded": "for=canary", "Traceparent": "canary"} {
			h.Set(name, value)
		}
		if a := s.deliver(t, body, h); a.status != 200 || a.body != "" || a.header.Get("Set-Cookie") != "" {
			t.Fatalf("%d: %d %q %v", i, a.status, a.body, a.header)
		}
		got := app.got[i]
		if !bytes.Equal(app.bodies[i], body) {
			t.Errorf("%d: %d bytes arrived, %d were sent, or others", i, len(app.bodies[i]), len(body))
		}
		want := http.Header{"Accept-Encoding": nil, "Content-Length": {fmt.Sprint(len(body))},
			"User-Agent": {"Sallyport"}, "X-Sallyport-Connector": {"calendar"}, "Content-Type": h["Content-Type"],
			granttest.SignatureHeader: h[granttest.SignatureHeader], granttest.SignedAtHeader: h[granttest.SignedAtHeader]}
		for name, values := range got.Header {
			if !slices.Equal(values, want[name]) {
				t.Errorf("%d: the app got %s: %q", i, name, values)
			}
			delete(want, name)
		}
		delete(want, "Accept-Encoding")
		if len(want) > 0 || got.Method != "POST" {
			t.Errorf("%d: the app did not get %v", i, want)
		}
	}
}

// What cannot be an event is refused with the same few words, whatever is wrong with it, and
// reaches no app.
func TestP17_WhatIsNoEventReachesNoApp(t *testing.T) {
	t.Parallel()
	app := newBoard(t)
	s := newWebhookSite(t, granttest.NewStore(nil), app)
	body, good := goodEvent("Ev1")
	with := func(name, value string) http.Header {
		h := good.Clone()
		h.Set(name, value)
		return h
	}
	late, _ := granttest.Sign(webhookSecret, granttest.SignedBody{}, time.Now().Add(-6*time.Minute))
	late.Set(granttest.SignatureHeader, granttest.Signature(webhookSecret, late.Get(granttest.SignedAtHeader), body))
	large, signedLarge := signedText(`{"id":"Ev1","accounts":["1"],"p":"` + strings.Repeat("x", maxWebhook) + `"}`)
	garbled, signedGarbled := signedText("canary")
	for name, tt := range map[string]struct {
		body   []byte
		header http.Header
		status int
	}{
		"no signature":             {body, http.Header{}, 401},
		"another signature":        {body, with(granttest.SignatureHeader, strings.Repeat("0", 64)), 401},
		"tampered":                 {bytes.Replace(body, []byte("1"), []byte("2"), 1), good, 401},
		"nothing":                  {nil, good, 401},
		"another time":             {body, with(granttest.SignedAtHeader, "1"), 401},
		"late":                     {body, late, 401},
		"no event":                 {garbled, signedGarbled, 400},
		"compressed":               {body, with("Content-Encoding", "gzip"), 415},
		"compressed in no way":     {body, with("Content-Encoding", "identity"), 415},
		"huge":                     {large, signedLarge, 413},
		"huge, of unknown length ": {large, signedLarge, 413},
	} {
		r, err := http.NewRequest("POST", s.url+webhook, bytes.NewReader(tt.body))
		testenv.Check(t, err)
		r.Header = tt.header
		if strings.Contains(name, "unknown") {
			r.ContentLength = -1
		}
		a := s.send(t, r)
		refusedAs(t, name, a, tt.status)
		why := fmt.Sprint(s.log.event(t, a.header.Get("X-Request-Id"))["error"])
		if unsigned := name == "no signature"; strings.Contains(why, "it has no signature") != unsigned {
			t.Errorf("%s: the log says %q", name, why)
		}
	}
	// A length that is too much is refused before a byte of it is asked for.
	a := s.talk(t, "POST "+webhook+" HTTP/1.1\r\nHost: "+s.host+"\r\nExpect: 100-continue\r\nContent-Length: "+
		fmt.Sprint(maxWebhook+1)+"\r\n\r\n")
	if !slices.Equal(statuses(a), []int{413}) {
		t.Errorf("a long one that asks before: %v", statuses(a))
	}
	for path, status := range map[string]int{prefix + "/webhooks/plain": 404, prefix + "/webhooks/": 404,
		prefix + "/webhooks/calendar/x": 404} {
		if a := s.ask(t, "POST", path, string(body)); a.status != status {
			t.Errorf("POST %s: %d, want %d", path, a.status, status)
		}
	}
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE"} {
		if a := s.ask(t, method, webhook, ""); a.status != 405 || a.header.Get("Allow") != "POST" {
			t.Errorf("%s: %d %q", method, a.status, a.header.Get("Allow"))
		}
	}
	if n := app.count(); n != 0 {
		t.Errorf("the app got %d events", n)
	}
	if a := s.deliver(t, body, good); a.status != 200 || app.count() != 1 {
		t.Errorf("the good one: %d, and the app got %d", a.status, app.count())
	}
	if a := newTestSite(t, setup{}).ask(t, "POST", webhook, string(body)); a.status != 404 {
		t.Errorf("where nothing takes events: %d", a.status)
	}
}

// A message that trickles in is given up, and one that breaks off is none.
func TestP17_AMessageThatDoesNotComeIsGivenUp(t *testing.T) {
	t.Parallel()
	app := newBoard(t)
	s := newWebhookSite(t, granttest.NewStore(nil), app)
	body, h := goodEvent("Ev1")
	var head strings.Builder
	testenv.Check(t, h.Write(&head))
	raw := "POST " + webhook + " HTTP/1.1\r\nHost: " + s.host + "\r\n" + head.String() + "Content-Length: " +
		fmt.Sprint(len(body)) + "\r\n\r\n" + string(body[:len(body)-1])
	if got := statuses(s.talk(t, raw)); !slices.Equal(got, []int{408}) || app.count() != 0 {
		t.Errorf("%v, and the app got %d", got, app.count())
	}
}

// An app that does not take an event is asked once for each time that the third party sends
// it, and the third party is told to send it again.
func TestP22_WhatAnAppDoesNotTakeComesAgain(t *testing.T) {
	t.Parallel()
	for name, behave := range map[string]http.HandlerFunc{
		"hangs":    func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"resets":   func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"is ill":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"refuses":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(400) },
		"says 304": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(304) },
		"leads elsewhere": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		},
		"leads elsewhere with POST": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusPermanentRedirect)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app := newBoard(t)
			s := newWebhookSite(t, granttest.NewStore(nil), app)
			body, h := goodEvent("Ev1")
			app.set(behave)
			for i := range 2 {
				refusedAs(t, name, s.deliver(t, body, h), 503)
				if n := app.count(); n != i+1 || app.elsewhere.Load() != 0 {
					t.Errorf("asked %d times, and elsewhere %d", n, app.elsewhere.Load())
				}
			}
			app.set(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) })
			for range 3 {
				if a := s.deliver(t, body, h); a.status != 200 || app.count() != 3 {
					t.Errorf("then: %d, and it was asked %d times", a.status, app.count())
				}
			}
		})
	}
}

// Two replicas on one file: an event that both get at the same time arrives once, also when a
// third one was killed while it handed it over.
func TestP22_AnEventArrivesOnceWhicheverReplicaGetsIt(t *testing.T) {
	t.Parallel()
	app := newBoard(t)
	path := filepath.Join(t.TempDir(), "sallyport.db")
	var sites []*webhookSite
	var rows *store.Grants
	for range 2 {
		s, err := sqlite.Open(t.Context(), path, store.Options{})
		testenv.Check(t, err)
		t.Cleanup(func() { _ = s.Close() })
		rows = s.Grants()
		sites = append(sites, newWebhookSite(t, rows, app))
	}
	both := func(id string) (got []int) {
		body, h := goodEvent(id)
		answers := make([]answer, len(sites))
		var all sync.WaitGroup
		for i, s := range sites {
			all.Go(func() { answers[i] = s.deliver(t, body, h) })
		}
		all.Wait()
		return statuses(answers)
	}
	app.set(func(http.ResponseWriter, *http.Request) { time.Sleep(300 * time.Millisecond) })
	for i := range 5 {
		if got := both(fmt.Sprint("Ev", i)); !slices.Equal(got, []int{200, 200}) || app.count() != i+1 {
			t.Errorf("event %d: %v, and it arrived %d times in all", i, got, app.count())
		}
	}
	// What a process leaves that is killed while it waits for the app.
	_, err := rows.Claim(t.Context(), "event/calendar/board/Ev9", rows.Now().Add(8*time.Second))
	testenv.Check(t, err)
	if got := both("Ev9"); !slices.Equal(got, []int{503, 503}) || app.count() != 5 {
		t.Errorf("while it may still be on its way: %v, %d", got, app.count())
	}
	testenv.Eventually(t, "it arrives when it comes again", func() bool {
		return slices.Equal(both("Ev9"), []int{200, 200})
	})
	if app.count() != 6 {
		t.Errorf("it arrived %d times in all", app.count())
	}
}

// One machine that sends what it likes, slowly, leaves room for the third party; and where
// there is no room, the third party is told to come again.
func TestP17_OneMachineLeavesRoomForEvents(t *testing.T) {
	t.Parallel()
	app := newBoard(t)
	s := newWebhookSite(t, granttest.NewStore(nil), app, func(o *setup) {
		o.Trusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	var held []*wire
	hold := func(from string, n int) {
		for range n {
			w := s.wire(t)
			w.dial()
			_, err := io.WriteString(w.conn, "POST "+webhook+" HTTP/1.1\r\nHost: "+s.host+"\r\nX-Forwarded-For: "+from+
				"\r\nContent-Length: 100\r\n\r\nx")
			testenv.Check(t, err)
			held = append(held, w)
		}
	}
	used := func() int {
		slots := s.proxy.slotsOf("webhooks/calendar")
		slots.mu.Lock()
		defer slots.mu.Unlock()
		return slots.used
	}
	hold("203.0.113.7", webhooksAtOnce)
	testenv.Eventually(t, "one machine has half", func() bool { return used() == webhooksAtOnce/2 })
	body, h := goodEvent("Ev1")
	if a := s.deliver(t, body, h); a.status != 200 || app.count() != 1 {
		t.Errorf("beside it: %d, the app got %d", a.status, app.count())
	}
	for i := range 4 { // each a quarter at most
		hold(fmt.Sprintf("198.51.100.%d", i+1), webhooksAtOnce/4)
	}
	testenv.Eventually(t, "many machines have all", func() bool { return used() == webhooksAtOnce })
	body, h = goodEvent("Ev2")
	refusedAs(t, "no room", s.deliver(t, body, h), 503)
	for _, w := range held {
		w.close()
	}
	testenv.Eventually(t, "there is room again", func() bool { return s.deliver(t, body, h).status == 200 })
	if app.count() != 2 {
		t.Errorf("the app got %d events", app.count())
	}
}

// Nothing of an event, and nothing that says who it is about, is in the log.
func TestP18_NothingOfAnEventIsLogged(t *testing.T) {
	t.Parallel()
	app := newBoard(t)
	s := newWebhookSite(t, granttest.NewStore(nil), app)
	var told string
	send := func(body []byte, h http.Header, status int) {
		t.Helper()
		a := s.deliver(t, body, h)
		if a.status != status {
			t.Errorf("%s: %d, want %d", body, a.status, status)
		}
		told += fmt.Sprintln(s.log.event(t, a.header.Get("X-Request-Id")))
	}
	body, h := signedText(`{"id":"canary-1","accounts":["1"],"text":"canary"}`)
	send(body, h, 200)
	app.set(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "canary", 500) })
	body, h = signedText(`{"id":"canary-2","accounts":["1"],"text":"canary"}`)
	send(body, h, 503)
	h.Set(granttest.SignatureHeader, "canary")
	send(body, h, 401)
	body, h = signedText(`canary`)
	send(body, h, 400)
	told += s.log.text(t) + s.lent.text(t)
	if strings.Contains(told, "canary") || !strings.Contains(told, webhook) || !strings.Contains(told, "answered 500") ||
		!strings.Contains(told, "none of the signing secrets") {
		t.Errorf("logged:\n%s", told)
	}
}

// A third party that says that a grant has ended there is told to the audit stream with the
// request in which it said so.
func TestAuditTellsInWhichRequestAThirdPartyEndedAGrant(t *testing.T) {
	t.Parallel()
	s := newWebhookSite(t, granttest.NewStore(nil), newBoard(t))
	now := time.Now()
	h, body := granttest.Sign(webhookSecret, granttest.SignedBody{ID: "e-1", At: now.Add(time.Minute).Unix(),
		Accounts: []string{"1"}, Ended: "app_uninstalled"}, now)
	a := s.deliver(t, body, h)
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.steps[len(s.steps)-1]
	want := grant.Caller{RequestID: a.header.Get("X-Request-Id"), Client: "127.0.0.1"}
	if a.status != http.StatusOK || last.Name != grant.EventFailing || last.By != "" || last.Caller != want {
		t.Errorf("%d %q: told %+v, want %+v", a.status, a.body, last, want)
	}
}
