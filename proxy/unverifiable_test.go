package proxy

import (
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/session"
)

// agedStore is a store of which is told how long ago it was last read.
type agedStore struct {
	*session.Memory
	age atomic.Int64
}

func (s *agedStore) Age() time.Duration { return time.Duration(s.age.Load()) }

// While nobody can know who has signed out elsewhere, a cookie that was stolen and ended must not
// show who it was of, nor change what they lend or for which organization they are here. What
// only ends sessions stays open.
func TestP10_OwnPagesAreClosedToSessionsThatMayHaveEnded(t *testing.T) {
	t.Parallel()
	store := &agedStore{Memory: session.NewMemory(session.MemoryOptions{})}
	l := newLendingSite(t, func(o *setup) {
		o.Ended = store
		tuned := o.Tuned
		o.Tuned = func(o *Options) {
			tuned(o)
			o.MaxAge = time.Minute
		}
	})
	who := alice()
	who.Orgs = []identity.Org{who.Org, {ID: "main:other", Name: "Other"}}
	cookie := l.mint(t, who)
	if a := l.connect(t, cookie, prefix+"/connect/calendar?app=notes&access=busy"); a.status != 303 {
		t.Fatal(a.status, a.body)
	}
	location, onItsWay := l.agree(t, cookie, prefix+"/connect/calendar?app=notes&access=events")
	yes := url.Values{"form": {l.open(t, cookie, connectBoard)}, "answer": {"yes"}}.Encode()
	back := func() answer { return l.back(t, onItsWay, callbackOf(stateIn(t, location))) }
	page := func(path string) func() answer {
		return func() answer { return l.get(t, path, navigate("Cookie: "+cookie)...) }
	}
	send := func(path, body string) func() answer {
		return func() answer { return l.ask(t, "POST", path, body, l.fromPage("Cookie: "+cookie)...) }
	}
	own := map[string]func() answer{
		"the account page":             page(prefix + "/account"),
		"the choice of organizations":  page(prefix + "/organization"),
		"another organization":         send(prefix+"/organization", "org=main:other"),
		"the page that asks":           page(connectBoard),
		"a consent":                    send(connectBoard, yes),
		"what a third party sends":     back,
		"an app's consent is taken":    send(prefix+"/disconnect/calendar", "app=notes"),
		"a grant is ended":             send(prefix+"/disconnect/calendar", ""),
		"who is signed in, to scripts": page(prefix + "/session"),
	}
	store.age.Store(int64(time.Hour))
	for name, ask := range own {
		a := ask()
		if a.status != 503 || a.header.Get("Retry-After") != "5" || len(a.header["Set-Cookie"]) > 0 ||
			strings.Contains(a.body, "Alice") || strings.Contains(a.body, "Calendar") {
			t.Errorf("%s: %d %v %s", name, a.status, a.header, a.body)
		}
	}
	k, ok := l.kept(t, alice(), "calendar")
	if _, board := k.Consent("board"); !ok || k.Status != grant.Active || board || len(k.Consents) != 1 {
		t.Errorf("what is lent has changed: %v %+v", ok, k)
	}
	if redeemed, revoked := l.calendar.calls(); redeemed != 1 || revoked != 0 {
		t.Errorf("%d codes were redeemed, %d grants ended at the third party", redeemed, revoked)
	}
	if a := l.get(t, prefix+"/account", navigate()...); a.status != 302 {
		t.Errorf("who is not signed in is told %d", a.status)
	}
	store.age.Store(0)
	if a := back(); a.status != 303 || a.header.Get("Location") == "" {
		t.Errorf("what came too early does not count later: %d %s", a.status, a.body)
	}
	if a := page(prefix + "/account")(); a.status != 200 || !strings.Contains(a.body, "Alice") {
		t.Errorf("the account page stays closed: %d", a.status)
	}
	store.age.Store(int64(time.Hour))
	if a := send(prefix+"/logout", "everywhere=1")(); a.status != 303 {
		t.Errorf("nobody can sign out: %d %s", a.status, a.body)
	}
}
