package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
)

// cappedList has the newest sign-ins alone, as a store does.
type cappedList struct{ listing }

func (l *cappedList) Sessions(_ context.Context, which session.Which) ([]session.Entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []session.Entry
	for _, e := range l.noted {
		if which.Matches(&e) {
			list = append(list, e)
		}
	}
	slices.SortStableFunc(list, func(a, b session.Entry) int { return b.Since.Compare(a.Since) })
	return list[:min(len(list), which.Most)], nil
}

// manyMore notes sign-ins of mira's that are newer than all that are there.
func (s *testSite) manyMore(l *cappedList, b *testenv.Browser, n int) {
	for i := range n {
		e := s.sessions.Start(s.sessionOf(b).Identity)
		entry := e.Entry("192.0.2.7", "Firefox on Linux")
		entry.Since = entry.Since.Add(time.Duration(i+1) * time.Second)
		l.NoteSignIn(entry)
	}
}

// People with more sessions than the page lists see the newest, the one in their browser
// among them whichever it is, and can end all, also those that no list reaches.
func TestP10_PeopleWithMoreSessionsThanTheListHasCanEndThemAll(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		more, lines int
		says        bool
	}{{47, 49, false}, {48, 50, false}, {49, 50, true}, {200, 50, true}, {1200, 50, true}} {
		list := &cappedList{}
		s, mira, phone, jonas := listed(t, func(o *setup) {
			o.Tuned = func(o *Options) { o.Listing, o.Durable = list, true }
		})
		s.manyMore(list, mira, tt.more)
		page := s.account(t, mira)
		if n := strings.Count(page.Body, `aria-label="End this session`); n != tt.lines {
			t.Errorf("%d more: %d lines", tt.more, n)
		}
		if strings.Contains(page.Body, "These are the 50 newest.") != tt.says {
			t.Errorf("%d more: does the page say that there are others?\n%s", tt.more, page.Body)
		}
		if n := strings.Count(page.Body, "this browser</span>"); n != 1 ||
			!strings.Contains(page.Body, `value="`+s.sessionOf(mira).SID()+`"`) {
			t.Errorf("%d more: %d lines are of this browser", tt.more, n)
		}
		mira.Post(page, prefix+"/logout", url.Values{"everywhere": {"1"}})
		if s.sessionOf(mira) != nil || s.sessionOf(phone) != nil || s.sessionOf(jonas) == nil {
			t.Errorf("%d more: who is signed in: mira %v, phone %v, jonas %v", tt.more, s.sessionOf(mira),
				s.sessionOf(phone), s.sessionOf(jonas))
		}
	}
}

// Browsers send a form twice when somebody clicks twice or goes back. The second time
// does no harm, and says nothing that is not so.
func TestP10_FormsThatEndSessionsCanBeSentTwice(t *testing.T) {
	t.Parallel()
	send := func(s *testSite, cookie, path, form string) answer {
		return s.ask(t, "POST", prefix+path, form, cookie, "Content-Type: application/x-www-form-urlencoded",
			"Origin: "+s.url, "Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document",
			"Accept: text/html")
	}
	s, mira, phone, _ := listed(t)
	page := s.account(t, mira)
	if cache := page.Header.Get("Cache-Control"); !strings.Contains(cache, "no-store") {
		t.Errorf("the page may come back as it was: %q", cache)
	}
	cookie, sid := s.cookieOf(t, mira), s.sessionOf(phone).SID()
	for range 2 {
		if a := send(s, cookie, "/sessions/end", "session="+sid); a.status != 303 ||
			a.header.Get("Location") != s.url+prefix+"/account#sessions" {
			t.Errorf("another browser's: %d %v", a.status, a.header)
		}
	}
	if s.sessionOf(phone) != nil || s.sessionOf(mira) == nil {
		t.Error("the wrong one has ended")
	}
	own := s.sessionOf(mira).SID()
	for range 2 {
		if a := send(s, cookie, "/sessions/end", "session="+own); a.status != 303 ||
			a.header.Get("Location") != s.url+prefix+"/logout?provider=main" {
			t.Errorf("one's own: %d %v", a.status, a.header)
		}
	}
	s.signIn(t, mira, "/x", "mira")
	cookie = s.cookieOf(t, mira)
	for range 2 {
		if a := send(s, cookie, "/logout", "everywhere=1"); a.status != 303 ||
			a.header.Get("Location") != s.url+prefix+"/logout?everywhere=1&provider=main" {
			t.Errorf("everywhere: %d %v", a.status, a.header)
		}
	}
	// Long after, it is another wish, and the session that would have to prove it is over.
	s.signIn(t, phone, "/x", "mira")
	s.clock.Advance(2 * time.Minute)
	if a := send(s, cookie, "/logout", "everywhere=1"); a.status != 303 ||
		a.header.Get("Location") != s.url+prefix+"/logout?everywhere=late&provider=main" {
		t.Errorf("everywhere, late: %d %v", a.status, a.header)
	}
	if s.sessionOf(phone) == nil {
		t.Error("a session that is over has ended another one of its person")
	}
}

// Somebody presses "Sign out everywhere" on a page that is still open, of a session that
// another device has ended. They are told that the others go on.
func TestP10_WhoSignsOutEverywhereTooLateIsToldThatOthersGoOn(t *testing.T) {
	t.Parallel()
	s, mira, phone, _ := listed(t)
	open := s.account(t, phone)
	mira.Post(s.account(t, mira), prefix+"/sessions/end", url.Values{"session": {s.sessionOf(phone).SID()}})
	page := phone.Post(open, prefix+"/logout", url.Values{"everywhere": {"1"}})
	if page.Status != 200 || !strings.Contains(page.Body, "nothing was done about other browsers and devices") ||
		strings.Contains(page.Body, "You are signed out everywhere") {
		t.Errorf("%d\n%s", page.Status, page.Body)
	}
	if s.sessionOf(mira) == nil {
		t.Error("a session that is over has ended another one of its person")
	}
}

// The list is on the public host alone. What another host has of it leads there, or is
// not there; to sign out everywhere works on any host, and ends the sessions on all.
func TestP10_OnOtherHostsTheListIsThePublicHosts(t *testing.T) {
	t.Parallel()
	list := &listing{}
	s := newHosts(t, setup{Login: everybodyIs(alice()), Tuned: func(o *Options) { o.Listing, o.Durable = list, true }})
	b, phone := s.browser(t), s.browser(t)
	for _, d := range []*testenv.Browser{b, phone} {
		if page := d.Open("http://" + wikiHost + "/x"); page.Status != 200 {
			t.Fatalf("the way is %s", way(page))
		}
	}
	hops := b.MaxHops
	b.MaxHops = 0
	if page := b.Open("http://" + wikiHost + prefix + "/account"); page.Status != 303 ||
		page.Header.Get("Location") != "http://"+appHost+prefix+"/account" {
		t.Errorf("the account page of another host: %d %v", page.Status, page.Header)
	}
	b.MaxHops = hops
	page := b.Open("http://" + wikiHost + "/x")
	got := b.Post(page, prefix+"/sessions/end", url.Values{"session": {s.sessionAt(phone, appHost).SID()}})
	if got.Status != 404 || s.sessionAt(phone, wikiHost) == nil {
		t.Errorf("to end a session on another host: %d", got.Status)
	}
	got = b.Post(page, prefix+"/logout", url.Values{"everywhere": {"1"}})
	if got.URL.Host != appHost || !strings.Contains(got.Body, "You are signed out everywhere") {
		t.Errorf("the way is %s\n%s", way(got), got.Body)
	}
	for name, d := range map[string]*testenv.Browser{"this browser": b, "the phone": phone} {
		for _, host := range []string{appHost, wikiHost} {
			if s.sessionAt(d, host) != nil {
				t.Errorf("%s is signed in at %s", name, host)
			}
		}
	}
}

// The audit stream says who ended what of their own, from where, and that it was done.
func TestAuditTellsWhoEndedTheirSessions(t *testing.T) {
	t.Parallel()
	s, mira, phone, jonas := listed(t)
	var stream bytes.Buffer
	audit := observe.NewAudit(&stream, func(r observe.Record, err error) { t.Errorf("lost %v: %v", r, err) })
	s.proxy.observers = append(s.proxy.observers, audit)
	who := s.sessionOf(mira).Identity
	end := func(sid string) {
		mira.Post(s.account(t, mira), prefix+"/sessions/end", url.Values{"session": {sid}})
	}
	ended := s.sessionOf(phone)
	end(ended.SID())
	end(s.sessionOf(jonas).SID()) // not hers: nothing has ended
	end("AAAAAAAAAAAAAAAAAAAAAA") // nobody's
	open := s.account(t, mira)
	mira.Post(open, prefix+"/logout", url.Values{"everywhere": {"1"}})
	mira.Post(open, prefix+"/logout", url.Values{"everywhere": {"1"}}) // without a cookie by now
	if !audit.Close(time.Second) {
		t.Fatal("the stream does not end")
	}
	var got []string
	for dec := json.NewDecoder(&stream); dec.More(); {
		var r observe.Record
		testenv.Check(t, dec.Decode(&r))
		got = append(got, fmt.Sprint(r.Event, " ", r.User, " ", r.Method, " ", r.Path, " ", r.Status, " ", r.Detail))
		if r.Client != "127.0.0.1" || r.RequestID == "" || r.Route != "_own" {
			t.Errorf("%+v", r)
		}
	}
	want := []string{
		"sessions_ended " + who.ID() + " POST " + prefix + "/sessions/end 303 the session " + ended.SID() + ", since " +
			ended.SignedIn.UTC().Format(time.RFC3339) + " from 127.0.0.1, Safari on iPhone",
		"sessions_ended " + who.ID() + " POST " + prefix + "/logout 303 all sessions of the person",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}
