package proxy

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
)

// A trip to a provider that was begun for something else than a sign-in does not
// end as one, with or without a session.
func TestP06_ACallbackOfAnotherPurposeIsNoSignIn(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{SignIn: true})
	for name, cookie := range map[string]string{"nobody": "", "somebody signed in": s.mint(t, alice())} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, s.url+"/", nil)
		h, err := s.sessions.Begin(w, r, session.Flow{Purpose: "connect", Provider: "main", ReturnTo: "/deep"})
		testenv.Check(t, err)
		flow, _, _ := strings.Cut(w.Header().Get("Set-Cookie"), ";")
		a := s.get(t, prefix+"/callback/main?code=x&state="+h.State, navigate("Cookie: "+flow, "Cookie: "+cookie)...)
		if a.status != 400 || !strings.Contains(a.body, "something else than to sign in") ||
			a.header.Get("Location") != "" {
			t.Errorf("%s: %d %v", name, a.status, a.header)
		}
	}
}

// quicker is a list of ended sessions that learns of another switch between the
// reading of a session and its end.
type quicker struct {
	*session.Memory
	is atomic.Bool
}

func (q *quicker) Supersede(ctx context.Context, c session.Cut) (bool, error) {
	if q.is.Load() {
		return false, nil
	}
	return q.Memory.Supersede(ctx, c)
}

// Of two switches at once the later one leads to a sign-in on this site, and back.
func TestASwitchThatCameTooLateLeadsToASignIn(t *testing.T) {
	t.Parallel()
	list := &quicker{Memory: session.NewMemory(session.MemoryOptions{})}
	s := newTestSite(t, setup{Ended: list})
	who := alice()
	who.Orgs = []identity.Org{who.Org, {ID: "main:birch", Name: "Birch"}}
	cookie := s.mint(t, who)
	list.is.Store(true)
	a := s.ask(t, "POST", prefix+"/organization", "org=main%3Abirch&return_to=%2Fdeep", "Origin: "+s.url,
		"Cookie: "+cookie,
		"Content-Type: application/x-www-form-urlencoded")
	if want := s.url + prefix + "/login?return_to=%2Fdeep"; a.status != 303 || a.header.Get("Location") != want {
		t.Errorf("%d %q, want %q", a.status, a.header.Get("Location"), want)
	}
}

// What an endpoint takes is said where it refuses a method (RFC 9110 §15.5.6).
func TestARefusedMethodIsToldWhichOnesAreTaken(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	for path, want := range map[string]string{
		"login": "GET, HEAD", "callback/main": "GET, HEAD", "account": "GET, HEAD", "session": "GET, HEAD",
		"jwks.json": "GET, HEAD", "handoff": "GET", "renew": "GET",
		"logout": "GET, HEAD, POST", "organization": "GET, HEAD, POST",
	} {
		if a := s.ask(t, "PUT", prefix+"/"+path, ""); a.status != 405 || a.header.Get("Allow") != want {
			t.Errorf("%s: %d, Allow %q, want %q", path, a.status, a.header.Get("Allow"), want)
		}
	}
}
