package e2e

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
)

// meddler is a reverse proxy in front of Sallyport that takes away one cookie,
// as a careless front does.
type meddler struct {
	url       string
	takes     atomic.Pointer[string] // the cookie's name
	callbacks atomic.Int32           // completed trips to the provider
}

func newMeddler(t *testing.T, sallyport string) *meddler {
	t.Helper()
	m := &meddler{}
	target := &url.URL{Scheme: "http", Host: sallyport}
	front := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
			if strings.HasPrefix(r.In.URL.Path, "/.sallyport/callback/") {
				m.callbacks.Add(1)
			}
		},
		ModifyResponse: func(r *http.Response) error {
			lines := r.Header["Set-Cookie"]
			delete(r.Header, "Set-Cookie")
			for _, line := range lines {
				if !strings.HasPrefix(line, *m.takes.Load()+"=") {
					r.Header.Add("Set-Cookie", line)
				}
			}
			return nil
		},
	}
	srv := httptest.NewServer(front)
	t.Cleanup(srv.Close)
	m.url = "http://localhost" + portOf(srv.Listener.Addr().(*net.TCPAddr).String())
	return m
}

// meddledCorp is a site whose visitors all come through a meddler.
func meddledCorp(t *testing.T) (*corp, *meddler) {
	t.Helper()
	address := need(t, freeAddress)
	m := newMeddler(t, address)
	m.takes.Store(new(string))
	return ownCorp(t, setup{PublicURL: m.url, Listen: address}), m
}

func TestSignInThatDoesNotStickEndsInADiagnosis(t *testing.T) {
	t.Parallel()
	c, m := meddledCorp(t)
	m.takes.Store(&c.cookie)
	b := newPerson(t)
	b.open(c.url + "/deep?x=1")
	b.heading(atProvider)
	b.click("button[value=mira]") // from here on the provider remembers her, and the browser goes round by itself
	v := b.heading("Signing in does not stick")
	b.says(v, "The browser did not keep the session cookie. It may block cookies, or a proxy in between may "+
		"remove them.",
		"Your browser used", "Request id:")
	b.saysNot(v, "not the same")
	if n := m.callbacks.Load(); n > 4 {
		t.Errorf("the browser went round %d times", n)
	}
	b.readable()
	m.takes.Store(new(string)) // repaired
	b.press("Try once more")
	b.says(b.at(c.url+"/deep?x=1"), "User: corp:mira")
}

func TestP06_WithoutTheFlowCookieThePersonIsAskedToStartAgain(t *testing.T) {
	t.Parallel()
	c, m := meddledCorp(t)
	m.takes.Store(&c.flow)
	b := newPerson(t)
	b.open(c.url + "/deep?x=1")
	b.heading(atProvider)
	b.click("button[value=mira]")
	v := b.heading("Your sign-in was not finished")
	b.says(v, "It came back to a browser that has no record of starting it. To be safe, nobody was signed in.",
		"Cookies are blocked.")
	if n := m.callbacks.Load(); n != 1 {
		t.Errorf("the browser came back %d times", n)
	}
	if _, there := b.cookies(c.url)[c.cookie]; there {
		t.Error("there is a session")
	}
	m.takes.Store(new(string)) // repaired
	b.press("Start again")
	b.sees("the app as Mira", func(v view) bool { return strings.Contains(v.Text, "User: corp:mira") })
}
