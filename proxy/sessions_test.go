package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
)

// awayStore is a store whose writes and lists fail, as if its database were away.
type awayStore struct {
	endings
	listing
}

// endings is session.Ended by a name that does not hide its method Ended.
type endings interface{ session.Ended }

var errAway = errors.New("connection refused")

func (s *awayStore) End(ctx context.Context, c session.Cut) error {
	_ = s.endings.End(ctx, c)
	return errors.Join(session.ErrStore, errAway)
}

func (s *awayStore) Sessions(context.Context, session.Which) ([]session.Entry, error) {
	return nil, errAway
}

// listed is a site with a list of sign-ins, and people who are signed in at it: mira with
// two browsers, and jonas with one.
func listed(t *testing.T, change ...func(*setup)) (s *testSite, mira, phone, jonas *testenv.Browser) {
	t.Helper()
	list := &listing{}
	o := setup{SignIn: true, Tuned: func(o *Options) { o.Listing, o.Durable = list, true }}
	for _, c := range change {
		c(&o)
	}
	s = newTestSite(t, o)
	mira, phone, jonas = s.browser(t), s.browser(t), s.browser(t)
	phone.Header.Set("User-Agent", "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 "+
		"(KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1")
	for b, person := range map[*testenv.Browser]string{mira: "mira", phone: "mira", jonas: "jonas"} {
		if page := s.signIn(t, b, "/x", person); page.Status != 200 {
			t.Fatalf("%s ends with %d", person, page.Status)
		}
	}
	return s, mira, phone, jonas
}

func (s *testSite) account(t *testing.T, b *testenv.Browser) testenv.Page {
	t.Helper()
	page := b.Open(s.url + prefix + "/account")
	if page.Status != 200 {
		t.Fatalf("the account page: %d\n%s", page.Status, page.Body)
	}
	return page
}

// What the account page lists, and what its buttons end: a session of one's own, in another
// browser. It can do nothing more, and the app is asked no more for it.
func TestP10_PeopleEndTheirOwnSessionsInOtherBrowsers(t *testing.T) {
	t.Parallel()
	s, mira, phone, jonas := listed(t)
	page := s.account(t, mira)
	away, own, foreign := s.sessionOf(phone).SID(), s.sessionOf(mira).SID(), s.sessionOf(jonas).SID()
	for _, want := range []string{"Safari on iPhone", "from <bdi>127.0.0.1</bdi>", "this browser",
		`value="` + away + `"`, `value="` + own + `"`, "Sign out everywhere"} {
		if !strings.Contains(page.Body, want) {
			t.Errorf("the page lacks %q\n%s", want, page.Body)
		}
	}
	if strings.Contains(page.Body, foreign) || strings.Contains(page.Body, "Mozilla") {
		t.Errorf("the page has what it must not have\n%s", page.Body)
	}
	end := func(b *testenv.Browser, sid string) testenv.Page {
		b.MaxHops = 0
		defer func() { b.MaxHops = 10 }()
		return b.Post(s.account(t, b), prefix+"/sessions/end", url.Values{"session": {sid}})
	}
	// Somebody else's, one that is none, one that is over: all the same answer.
	unknown := "AAAAAAAAAAAAAAAAAAAAAA"
	for _, sid := range []string{foreign, unknown, away, away} {
		if got := end(mira, sid); got.Status != 303 || got.Header.Get("Location") != s.url+prefix+"/account#sessions" {
			t.Errorf("%s: %d %v", sid, got.Status, got.Header)
		}
	}
	if s.sessionOf(phone) != nil || s.sessionOf(mira) == nil || s.sessionOf(jonas) == nil {
		t.Errorf("who is signed in: phone %v, mira %v, jonas %v", s.sessionOf(phone), s.sessionOf(mira),
			s.sessionOf(jonas))
	}
	reached := len(s.app.Requests())
	if got := phone.Open(s.url + "/x"); len(s.app.Requests()) != reached || got.URL.Path == "/x" {
		t.Errorf("the ended session opens %s, and the app got %d requests", got.URL, len(s.app.Requests())-reached)
	}
	for name, form := range map[string]url.Values{"none": {}, "two": {"session": {away, own}},
		"no name": {"session": {"x"}}, "a cookie": {"session": {strings.Repeat("A", 3000)}}} {
		if got := mira.Post(s.account(t, mira), prefix+"/sessions/end", form); got.Status != 400 ||
			!strings.Contains(got.Body, "Nothing was ended") {
			t.Errorf("%s: %d\n%s", name, got.Status, got.Body)
		}
	}
	cookie := s.cookieOf(t, mira)
	form := []string{cookie, "Content-Type: application/x-www-form-urlencoded", "Sec-Fetch-Mode: navigate",
		"Sec-Fetch-Dest: document", "Accept: text/html"}
	if a := s.ask(t, "POST", prefix+"/sessions/end", "session="+own, append(form, "Origin: https://evil.example", "Sec-Fetch-Site: cross-site")...); a.status != 403 {
		t.Errorf("from another site: %d", a.status)
	}
	if a := s.ask(t, "POST", prefix+"/sessions/end", "session="+own, append(form[1:], "Origin: "+s.url, "Sec-Fetch-Site: same-origin")...); a.status != 401 {
		t.Errorf("without a session: %d", a.status)
	}
	if a := s.get(t, prefix+"/sessions/end", cookie); a.status != 405 || a.header.Get("Allow") != "POST" {
		t.Errorf("GET: %d %v", a.status, a.header)
	}
	if s.sessionOf(mira) == nil {
		t.Fatal("what was refused has ended the session")
	}
	if got := end(mira, own); got.Status != 303 || s.sessionOf(mira) != nil ||
		!strings.HasPrefix(got.Header.Get("Location"), s.url+prefix+"/logout") {
		t.Errorf("one's own: %d %v, session %v", got.Status, got.Header, s.sessionOf(mira))
	}
	if got := s.counted(t, "sallyport_sessions_ended_total", "by", "person"); got < 2 {
		t.Errorf("%v ends were counted", got)
	}
}

// All of a person's sessions end, on every device;
// nobody else's does, and they can sign in again at once.
func TestP10_SignOutEverywhereEndsAllSessionsOfThePersonAndNoOthers(t *testing.T) {
	t.Parallel()
	for _, durable := range []bool{true, false} {
		s, mira, phone, jonas := listed(t, func(o *setup) {
			if !durable {
				o.Tuned = nil
			}
		})
		page := mira.Post(s.account(t, mira), prefix+"/logout", url.Values{"everywhere": {"1"}})
		if page.Status != 200 || strings.Contains(page.Body, "You are signed out everywhere") != durable ||
			strings.Contains(page.Body, "It keeps no record of who signed out") == durable {
			t.Errorf("durable %v: %d at %s\n%s", durable, page.Status, page.URL, page.Body)
		}
		if s.sessionOf(mira) != nil || s.sessionOf(phone) != nil || s.sessionOf(jonas) == nil {
			t.Errorf("who is signed in: mira %v, phone %v, jonas %v", s.sessionOf(mira), s.sessionOf(phone),
				s.sessionOf(jonas))
		}
		if page := s.signIn(t, phone, "/x", "mira"); page.Status != 200 || page.URL.Path != "/x" {
			t.Errorf("who signs in again at once is at %s with %d", page.URL, page.Status)
		}
		// What cannot be understood ends nothing, rather than less than was meant.
		for _, form := range []url.Values{{"everywhere": {"yes"}}, {"everywhere": {"1", "0"}}, {"everywhere": {""}}} {
			if page := phone.Post(s.account(t, phone), prefix+"/logout", form); page.Status != 400 ||
				s.sessionOf(phone) == nil {
				t.Errorf("%v: %d, session %v", form, page.Status, s.sessionOf(phone))
			}
		}
	}
}

// The store is away: the page comes without the list, what is ended is over here, and the
// answer says what did not happen.
func TestP10_WithTheStoreAwayPeopleAreToldWhatDidNotHappen(t *testing.T) {
	t.Parallel()
	store := &awayStore{endings: session.NewMemory(session.MemoryOptions{})}
	s, mira, phone, _ := listed(t, func(o *setup) {
		o.Ended = store
		o.Tuned = func(o *Options) { o.Listing, o.Durable = store, true }
	})
	if page := s.account(t, mira); !strings.Contains(page.Body, "The list of your sessions cannot be shown at the "+
		"moment") || strings.Contains(page.Body, errAway.Error()) {
		t.Errorf("the page is\n%s", page.Body)
	}
	page := mira.Post(s.account(t, mira), prefix+"/sessions/end", url.Values{"session": {s.sessionOf(phone).SID()}})
	if page.Status != 503 || page.Header.Get("Retry-After") != "5" || !strings.Contains(page.Body, "The session was "+
		"not ended") || s.sessionOf(phone) == nil {
		t.Errorf("%d %v\n%s", page.Status, page.Header, page.Body)
	}
	page = mira.Post(s.account(t, mira), prefix+"/logout", url.Values{"everywhere": {"1"}})
	if page.Status != 503 || !strings.Contains(page.Body, "You are signed out here, but perhaps not everywhere") ||
		s.sessionOf(mira) != nil || s.sessionOf(phone) != nil {
		t.Errorf("%d, mira %v, phone %v\n%s", page.Status, s.sessionOf(mira), s.sessionOf(phone), page.Body)
	}
}

// A list that hangs holds up nobody's page for long, and one that lies shows nobody
// somebody else's sessions.
func TestP17_AListThatHangsOrLiesHarmsNobody(t *testing.T) {
	t.Parallel()
	var hung hungList
	s, mira, _, jonas := listed(t, func(o *setup) { o.Tuned = func(o *Options) { o.Listing, o.Durable = &hung, true } })
	if page := s.account(t, mira); !strings.Contains(page.Body, "cannot be shown at the moment") {
		t.Errorf("the page is\n%s", page.Body)
	}
	own := s.sessionOf(jonas)
	e := own.Entry("198.51.100.7", "Firefox on Linux")
	over := s.sessionOf(mira).Entry("203.0.113.9", "Chrome on Windows")
	over.Until, over.SID = time.Now().Add(-time.Hour), "AAAAAAAAAAAAAAAAAAAAAA"
	lying := &listing{noted: []session.Entry{e, e, over, {SID: "<script>", Person: "main:mira",
		Until: time.Now().Add(time.Hour)}}}
	s2, mira2, _, _ := listed(t, func(o *setup) { o.Tuned = func(o *Options) { o.Listing, o.Durable = lying, true } })
	if page := s2.account(t, mira2); strings.Contains(page.Body, e.SID) || strings.Contains(page.Body, "203.0.113.9") ||
		strings.Contains(page.Body, "<script>") {
		t.Errorf("the page is\n%s", page.Body)
	}
}

// hungList answers nothing until it is given up.
type hungList struct{ listing }

func (*hungList) Sessions(ctx context.Context, _ session.Which) ([]session.Entry, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// What another device has open ends with the session there, and nobody else's does.
func TestP10_SignOutEverywhereClosesWhatOtherDevicesHaveOpen(t *testing.T) {
	t.Parallel()
	ws := wsApp("", echo)
	s, mira, phone, jonas := listed(t, func(o *setup) {
		o.Routes = wsRoutes("127.0.0.1")
		o.App = serveApp(t, "http", func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Upgrade") != "" {
				ws(w, r)
				return
			}
			_, _ = io.WriteString(w, "ok")
		})
	})
	connect := func(b *testenv.Browser) *wire {
		w, res := s.open(t, "/x", s.cookieOf(t, b))
		if res.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("answered %d", res.StatusCode)
		}
		return w
	}
	theirs, others := connect(phone), connect(jonas)
	mira.Post(s.account(t, mira), prefix+"/logout", url.Values{"everywhere": {"1"}})
	rest, err := io.ReadAll(theirs.in)
	if string(rest) != closeFrame(1008, "signed out") || os.IsTimeout(err) {
		t.Errorf("the WebSocket of the ended session goes on: %q, %v", rest, err)
	}
	_, err = io.WriteString(others.conn, "ping")
	testenv.Check(t, err)
	got := make([]byte, 4)
	if _, err := io.ReadFull(others.in, got); err != nil || string(got) != "ping" {
		t.Errorf("somebody else's WebSocket: %q, %v", got, err)
	}
	testenv.Eventually(t, "one tunnel is counted as ended", func() bool {
		return s.counted(t, "sallyport_tunnels_closed_total", "reason", "ended") == 1
	})
}
