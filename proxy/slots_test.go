package proxy

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// machine is a client at an address of its own, as a proxy on the list tells it.
type machine struct {
	s       *testSite
	headers []string
}

func (m machine) browser(t *testing.T) *testenv.Browser {
	b := m.s.browser(t)
	for _, line := range m.headers {
		name, value, _ := strings.Cut(line, ": ")
		b.Header.Set(name, value)
	}
	return b
}

// flood has n callbacks of m with made-up codes wait at the token endpoint, or be
// turned away, and returns how many came to wait. With oneCookie all are of one
// flow cookie, else of one each.
func (m machine) flood(t *testing.T, n int, oneCookie bool, crowd *sync.WaitGroup) int {
	t.Helper()
	b := m.browser(t)
	before := m.s.provider.Hits(testenv.Token)
	turnedAway := make(chan struct{}, n)
	var targets []string
	var headers [][]string
	for range n { // all begin before the first comes back: what waits has a deadline
		if !oneCookie {
			b = m.browser(t)
		}
		state := b.Open(m.s.url + "/deep").URL.Query().Get("state")
		cookie := b.Cookies(m.s.url)[0]
		headers = append(headers, navigate(append([]string{"Cookie: " + cookie.Name + "=" + cookie.Value},
			m.headers...)...))
		targets = append(targets, prefix+"/callback/main?"+url.Values{"code": {"guess"}, "state": {state},
			"iss": {m.s.provider.URL}}.Encode())
	}
	for i := range targets {
		crowd.Go(func() {
			if a := m.s.get(t, targets[i], headers[i]...); a.status == http.StatusServiceUnavailable &&
				strings.Contains(a.body, tooMany) {
				turnedAway <- struct{}{}
			}
		})
	}
	testenv.Eventually(t, "all wait or were turned away",
		func() bool { return m.s.provider.Hits(testenv.Token)-before+len(turnedAway) == n })
	return m.s.provider.Hits(testenv.Token) - before
}

// One machine with made-up codes, at a provider that is slow to refuse them,
// shuts nobody out.
func TestP17_OneMachineTakesHalfOfTheSlotsAtMost(t *testing.T) {
	t.Parallel()
	const flows = 16
	for name, tt := range map[string]struct {
		headers   []string
		unlisted  bool // the proxy is not on the list
		oneCookie bool
		waits     int
	}{
		"one cookie":    {[]string{"X-Forwarded-For: 203.0.113.7"}, false, true, flows / 2},
		"a cookie each": {[]string{"X-Forwarded-For: 203.0.113.7"}, false, false, flows / 2},
		"IPv6":          {[]string{"X-Forwarded-For: 2001:470:1:2::7"}, false, false, flows / 2},
		"one cookie, says that it forwards": {[]string{"X-Forwarded-For: 198.51.100.1, 203.0.113.7"}, false, true,
			flows / 2},
		"a cookie each, says that it forwards": {[]string{"X-Forwarded-For: 198.51.100.1, 203.0.113.7"}, false, false,
			flows * 3 / 4},
		"one cookie, a private address":    {[]string{"X-Forwarded-For: 10.1.2.3"}, false, true, flows / 2},
		"a private address is a company's": {[]string{"X-Forwarded-For: 10.1.2.3"}, false, false, flows},
		"one cookie, forged header":        {[]string{"X-Forwarded-For: 203.0.113.7"}, true, true, flows / 2},
		"an unlisted proxy is a company's": {[]string{"X-Forwarded-For: 203.0.113.7"}, true, false, flows},
	} {
		t.Run(name, func(t *testing.T) {
			o := setup{SignIn: true, Flows: flows, Call: time.Minute, Trusted: prefixes(t, "127.0.0.0/8")}
			if tt.unlisted {
				o.Trusted = nil
			}
			s := newTestSite(t, o)
			fault, _, release := held()
			s.provider.Set(fault)
			var crowd sync.WaitGroup
			defer crowd.Wait()
			end := sync.OnceFunc(func() { close(release) })
			defer end()
			if got := (machine{s, tt.headers}).flood(t, flows+4, tt.oneCookie, &crowd); got != tt.waits {
				t.Errorf("%d of one machine wait, want %d", got, tt.waits)
			}
			// To begin a sign-in asks nobody, so it takes no slot, even with none left.
			b := machine{s, []string{"X-Forwarded-For: 198.51.100.9"}}.browser(t)
			v := s.arrives(t, b, "mira")
			// Nor does a sign-in that was cancelled there.
			other := machine{s, []string{"X-Forwarded-For: 198.51.100.8"}}.browser(t)
			if page := other.Submit(other.Open(s.url+"/deep"), "cancel", "1"); page.Status != http.StatusForbidden {
				t.Errorf("cancelled at the provider: %d", page.Status)
			}
			if tt.waits == flows {
				return
			}
			crowd.Go(func() {
				if page := b.Open(v.callback); page.URL.String() != s.url+"/deep?x=1" || s.sessionOf(b) == nil {
					t.Errorf("an honest one ended at %s with %d", page.URL, page.Status)
				}
			})
			testenv.Eventually(t, "the honest one's code is redeemed",
				func() bool { return s.provider.Hits(testenv.Token) == tt.waits+1 })
			end()
		})
	}
}

// Above half a client has a quarter, and gets no more until others are done.
func TestP17_WhileManySignInNobodyHasMoreThanAQuarter(t *testing.T) {
	t.Parallel()
	for _, total := range []int{1, 2, 3, 4, 8, 10, 64, 256} {
		s := &slots{held: map[string]int{}}
		take := func(name string) (n int, releases []func()) {
			for {
				release, err := s.take(total, holder{name, 1})
				if err != nil {
					return n, releases
				}
				n, releases = n+1, append(releases, release)
			}
		}
		quarter, half := (total+3)/4, max(total/2, 1)
		a, ofA := take("a")
		if a != half && a != quarter {
			t.Errorf("%d: alone it takes %d", total, a)
		}
		b, _ := take("b")
		if b > quarter || (total > 1 && b == 0) {
			t.Errorf("%d: the second takes %d", total, b)
		}
		for _, release := range ofA { // as its own end, it gets back no more than a quarter
			release()
			release() // once is enough
			busy := s.used >= total/2
			if again, _ := take("a"); busy && again > 0 && s.held["a"] > quarter {
				t.Errorf("%d: with %d in use it holds %d again", total, s.used, s.held["a"])
			}
		}
	}
	s := &slots{held: map[string]int{}}
	for i := range 100 {
		release, err := s.take(8, holder{fmt.Sprint("browser ", i), 1}, holder{"client", 1})
		testenv.Check(t, err)
		release()
	}
	if len(s.held) != 0 || s.used != 0 {
		t.Errorf("left are %v, %d", s.held, s.used)
	}
}

func TestP17_WhatIsOneMachine(t *testing.T) {
	t.Parallel()
	p := peers{trusted: prefixes(t, "192.0.2.0/24", "2001:470:ffff::/48")}
	for client, want := range map[string]string{
		"203.0.113.7": "203.0.113.7", "2001:470:1:2:3::4": "2001:470:1:2::/64",
		"2001:470:1:2:ffff::": "2001:470:1:2::/64", "2001:470:1:3::": "2001:470:1:3::/64",
		"": "", "127.0.0.1": "", "::1": "", "10.1.2.3": "", "172.16.0.1": "", "192.168.1.1": "", "100.64.0.1": "",
		"169.254.1.1": "", "fe80::1": "", "fd00::1": "",
		"192.0.2.9": "", "2001:470:ffff::1": "", "0.0.0.0": "", "::": "", "224.0.0.1": "",
	} {
		if got, ok := p.machine(client); got != want || ok != (want != "") {
			t.Errorf("%q: %q, want %q", client, got, want)
		}
	}
	for _, tt := range []struct {
		peer  string
		chain []string
		want  bool
	}{
		{"203.0.113.7:1", nil, false}, {"203.0.113.7:1", []string{"198.51.100.1"}, true},
		{"203.0.113.7:1", []string{""}, true},
		{"192.0.2.1:1", []string{"203.0.113.7"}, false}, {"192.0.2.1:1", []string{"198.51.100.1, 203.0.113.7"}, true},
		{"192.0.2.1:1", []string{"203.0.113.7, 192.0.2.2"}, false}, {"192.0.2.1:1", nil, false},
		{"@", []string{"198.51.100.1"}, false},
	} {
		at, err := p.of(&http.Request{RemoteAddr: tt.peer, Host: "app.example",
			Header: http.Header{"X-Forwarded-For": tt.chain}})
		if tt.chain == nil {
			at, err = p.of(&http.Request{RemoteAddr: tt.peer, Host: "app.example", Header: http.Header{}})
		}
		if testenv.Check(t, err); at.forwards != tt.want {
			t.Errorf("%+v: forwards %t", tt, at.forwards)
		}
	}
}

// Too busy for a callback is not too late for it: its code was not sent, so the
// same address works a moment later.
func TestACallbackThatFoundNoSlotWorksWhenItIsLoadedAgain(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{SignIn: true, Flows: 1})
	fault, asked, release := held()
	first, second := s.browser(t), s.browser(t)
	v, w := s.arrives(t, first, "mira"), s.arrives(t, second, "jonas")
	s.provider.Set(fault)
	var done sync.WaitGroup
	done.Go(func() { first.Open(v.callback) })
	receive(t, asked)
	if page := second.Open(w.callback); page.Status != 503 {
		t.Errorf("answered %d", page.Status)
	}
	close(release)
	done.Wait()
	if page := second.Open(w.callback); page.URL.String() != s.url+"/deep?x=1" || s.sessionOf(second) == nil {
		t.Errorf("loaded again, it ends at %s with %d", page.URL, page.Status)
	}
}
