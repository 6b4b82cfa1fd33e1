package session

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// A cookie for a domain is one for all hosts of it and for no other host, and says so to
// the browser. The flow cookie stays that of one host.
func TestP09_ACookieForADomainIsGoodOnItsHostsOnly(t *testing.T) {
	c := newClock()
	m := newManager(t, c, func(o *Options) { o.Secure, o.Domain = true, "example.com" })
	w := httptest.NewRecorder()
	if err := m.Write(w, "app.example.com", m.Start(alice())); err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("GET", "https://app.example.com/", nil)
	if _, err := m.Begin(w, r, Flow{Purpose: "login"}); err != nil {
		t.Fatal(err)
	}
	lines := w.Header()["Set-Cookie"]
	pair, attributes, _ := strings.Cut(lines[0], "; ")
	if !strings.HasPrefix(pair, "__Secure-sallyport=") ||
		attributes != "Path=/; Domain=example.com; Max-Age=43200; HttpOnly; SameSite=Lax; Secure" {
		t.Errorf("the session cookie is %s", lines[0])
	}
	if len(lines) != 3 || !strings.HasPrefix(lines[1], "__Host-sallyport=; Path=/; Max-Age=0;") ||
		!strings.HasPrefix(lines[2], "__Host-sallyport-flow=") || strings.Contains(lines[1]+lines[2], "Domain") {
		t.Errorf("the others are %q", lines[1:])
	}
	for host, good := range map[string]bool{"app.example.com": true, "example.com": true, "a.b.example.com": true,
		"badexample.com": false, "example.com.evil.net": false, "example.net": false, "com": false, "": false} {
		if _, err := m.Read(pair, host); (err == nil) != good {
			t.Errorf("at %q: %v", host, err)
		}
		if m.Shared(host) != good {
			t.Errorf("%q shares the cookie: %t", host, !good)
		}
	}
	w = httptest.NewRecorder()
	m.Clear(w)
	cleared := (&http.Response{Header: w.Header()}).Cookies()
	if !slices.ContainsFunc(cleared, func(c *http.Cookie) bool {
		return c.Name == "__Secure-sallyport" && c.Domain == "example.com" && c.MaxAge < 0 && c.Secure
	}) {
		t.Errorf("signing out sends %v", cleared)
	}
	// Those of a host are not those of a domain, by whichever name.
	for _, o := range []func(*Options){
		func(o *Options) { o.Secure = true },
		func(o *Options) { o.Secure, o.Domain = true, "app.example.com" },
	} {
		other := newManager(t, c, o)
		w = httptest.NewRecorder()
		if err := other.Write(w, "app.example.com", other.Start(alice())); err != nil {
			t.Fatal(err)
		}
		_, value, _ := strings.Cut(strings.Split(w.Header().Get("Set-Cookie"), ";")[0], "=")
		if _, err := m.Read("__Secure-sallyport="+value, "app.example.com"); err == nil {
			t.Error("a cookie of another reach is taken")
		}
	}
	plain := Options{Keys: c.ring(1), Domain: "example.com", AbsoluteTimeout: 1e12, IdleTimeout: 1e12}
	if _, err := New(plain); err == nil {
		t.Error("a cookie for a domain would go over plain http")
	}
}
