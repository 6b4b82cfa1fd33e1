package proxy

import (
	"context"
	"net/url"
	"sync"
	"testing"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/session"
)

// listing keeps what is noted.
type listing struct {
	mu    sync.Mutex
	noted []session.Entry
}

func (l *listing) NoteSignIn(e session.Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.noted = append(l.noted, e)
}

func (l *listing) Sessions(context.Context, session.Which) ([]session.Entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.noted, nil
}

// The list of sign-ins is written at a sign-in, and at no other request: not when a
// page is opened, the organization is switched or the callback is asked for again.
func TestASignInIsOneLineOfTheList(t *testing.T) {
	t.Parallel()
	who := alice()
	who.Orgs = []identity.Org{who.Org, {ID: "main:birch", Name: "Birch"}}
	list := &listing{}
	s := newTestSite(t, setup{Login: fixedLogin{who: who}, Tuned: func(o *Options) { o.Listing = list }})
	b := s.browser(t)
	callback := s.callback("main", url.Values{"code": {"c"}, "state": {s.begin(t, b, "/page")}})
	b.Open(callback)
	b.Open(callback)
	b.Open(s.url + "/page")
	b.Post(b.Open(s.url+prefix+"/account"), prefix+"/organization", url.Values{"org": {"main:birch"}})
	s.get(t, prefix+"/callback/main?error=access_denied&state=none", navigate()...)
	noted, _ := list.Sessions(t.Context(), session.Which{})
	if len(noted) != 1 {
		t.Fatalf("%d lines: %+v", len(noted), noted)
	}
	e := noted[0]
	if e.Person != "main:alice-1" || e.Org != "main:acme" || len(e.Orgs) != 2 || e.From != "127.0.0.1" ||
		e.Browser == "" || e.SID == "" || !e.Until.After(e.Since) {
		t.Errorf("%+v", e)
	}
}
