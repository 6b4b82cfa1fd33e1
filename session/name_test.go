package session

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Two instances on one host, at two ports or behind two paths: browsers keep cookies per
// host, so with one name each sign-in replaces the other's session. Without TLS the port is
// in the name, which does not tell paths apart.
func TestTwoInstancesOnOneHostKeepTheirSessions(t *testing.T) {
	c := newClock()
	tls := func(name, domain string) func(*Options) {
		return func(o *Options) { o.Secure, o.Name, o.Domain = true, name, domain }
	}
	plain := func(port, name string) func(*Options) {
		return func(o *Options) { o.Secure, o.Port, o.Name = false, port, name }
	}
	for name, tc := range map[string]struct {
		first, second func(*Options)
		stays         bool
	}{
		"one name":                       {tls("", ""), tls("", ""), false},
		"two names":                      {tls("", ""), tls("sallyport-two", ""), true},
		"one name for a domain":          {tls("", "example.com"), tls("", "example.com"), false},
		"two names for a domain":         {tls("", "example.com"), tls("sallyport-two", "example.com"), true},
		"a domain and a host":            {tls("", "example.com"), tls("sallyport-two", ""), true},
		"a host and a domain":            {tls("sallyport-two", ""), tls("", "example.com"), true},
		"without TLS, two ports":         {plain("80", ""), plain("8080", ""), true},
		"without TLS, one port":          {plain("80", ""), plain("80", ""), false},
		"without TLS, one port, 2 names": {plain("80", ""), plain("80", "sallyport-two"), true},
	} {
		first := newManager(t, c, tc.first)
		second := newManager(t, c, tc.second, func(o *Options) { o.Keys = c.ring(2) })
		jar := map[string]string{} // by name, as a browser keeps them for one host
		for _, m := range []*Manager{first, second} {
			w := httptest.NewRecorder()
			if err := m.Write(w, "app.example.com", m.Start(alice())); err != nil {
				t.Fatal(err)
			}
			for _, cookie := range w.Result().Cookies() {
				if jar[cookie.Name] = cookie.Value; cookie.MaxAge < 0 {
					delete(jar, cookie.Name)
				}
			}
			r := httptest.NewRequest("GET", "https://app.example.com/", nil)
			if _, err := m.Begin(w, r, Flow{Purpose: "login"}); err != nil {
				t.Fatal(err)
			}
		}
		var lines []string
		for cookie, value := range jar {
			lines = append(lines, cookie+"="+value)
			if !ReservedCookie(cookie) {
				t.Errorf("%s: an app would see or could set the cookie %s", name, cookie)
			}
		}
		sent := strings.Join(lines, "; ")
		if _, err := second.Read(sent, "app.example.com"); err != nil {
			t.Errorf("%s: the second instance: %v", name, err)
		}
		if _, err := first.Read(sent, "app.example.com"); (err == nil) != tc.stays {
			t.Errorf("%s: the first instance: %v", name, err)
		}
		if kept := StripCookies([]string{sent + "; app=1"}); len(kept) != 1 || kept[0] != "app=1" {
			t.Errorf("%s: the app is told %q", name, kept)
		}
		w := httptest.NewRecorder()
		second.SignOut(context.Background(), w, Session{})
		for _, cookie := range (&http.Response{Header: w.Header()}).Cookies() {
			if _, known := jar[cookie.Name]; !known && cookie.Name != second.hostCookie {
				t.Errorf("%s: signing out takes away %s", name, cookie.Name)
			}
		}
	}
}

func TestCookieNamesThatCouldMeetAnotherInstancesAreRefused(t *testing.T) {
	for name, good := range map[string]bool{
		"sallyport": true, "sallyport-two": true, "sallyport-2": true, "sallyport-a-b": true,
		"": false, "app": false, "sallyporttwo": false, "Sallyport-two": false, "sallyport-two-flow": false,
		"sallyport-flow": false,
		"sallyport-a;b":  false, "sallyport-a b": false, "sallyport-ä": false, "sallyport_two": false,
		"sallyport-" + strings.Repeat("x", 40): false,
	} {
		if err := CheckCookieName(name); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
}
