package proxy

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// One JSON line per request, whatever is in it: control characters must not
// begin a second line (Envoy CVE-2024-45808).
func TestP18_OneLinePerRequestWhateverTheInput(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	who := alice()
	who.Subject, who.Org.ID, who.Name = "a\r\n{\"user\":\"root\"}\x1b[2J\u202e\u2028", "main:\u202eacme\n",
		"\x1b]0;x\x07"
	cookie, w := s.mint(t, who), s.wire(t)
	for name, tt := range map[string]struct {
		method, target string
		lines          []string
		want           map[string]any
	}{
		"a person of two lines": {"GET", "/x", nil, map[string]any{"status": 200.0, "user": "main:" + who.Subject,
			"org": who.Org.ID}},
		"line breaks escaped": {"GET", "/%0d%0a%7B%22user%22%3A%22root%22%7D", nil,
			map[string]any{"status": 400.0, "path": ""}},
		"an escape sequence": {"GET", "/%1b[2J", nil, map[string]any{"status": 400.0, "path": ""}},
		"right to left": {"GET", "/%E2%80%AEgpj.exe", nil,
			map[string]any{"status": 200.0, "path": "/%E2%80%AEgpj.exe"}},
		"right to left, raw": {"GET", "/\u202egpj.exe", nil,
			map[string]any{"status": 200.0, "path": "/%E2%80%AEgpj.exe"}},
		"quotes and braces": {"GET", `/","level":"ERROR","x":{`, nil,
			map[string]any{"status": 200.0, "path": "/%22,%22level%22:%22ERROR%22,%22x%22:%7B"}},
		"an odd agent": {"GET", "/x", []string{"User-Agent: \x1b[31m\u202e\"}", "Referer: \x1b",
			"X-Forwarded-For: \u202e"}, map[string]any{"status": 400.0}},
		"an agent in colour": {"GET", "/x", []string{"User-Agent: \u202e\"}\\n"},
			map[string]any{"status": 200.0, "client": "127.0.0.1"}},
		"an odd method": {strings.Repeat("M", 300), "/x", nil,
			map[string]any{"status": 200.0, "method": strings.Repeat("M", 32) + "…"}},
		"a long path": {"GET", "/" + strings.Repeat("x", 5000), nil,
			map[string]any{"status": 200.0, "path": "/" + strings.Repeat("x", 1023) + "…"}},
		"a secret in the query": {"GET", "/x?code=canary&password=canary", []string{"Referer: http://x/?canary",
			"Authorization: Bearer canary", "X-Api-Key: canary"}, map[string]any{"status": 200.0, "path": "/x"}},
		"a request id of one's own": {"GET", "/x", []string{"X-Request-Id: canary\u202e"},
			map[string]any{"status": 200.0}},
	} {
		t.Run(name, func(t *testing.T) {
			a := w.do(tt.method, rawRequest(tt.method, tt.target, s.host,
				append(tt.lines, "Cookie: "+cookie+"; other=canary")...))
			id := a.header.Get("X-Request-Id")
			if id == "" && tt.want["status"] == 400.0 { // refused by net/http, nothing to log
				return
			}
			line := s.log.event(t, id)
			for key, want := range tt.want {
				if line[key] != want {
					t.Errorf("%s is logged as %q, want %q", key, line[key], want)
				}
			}
			closed := []string{"time", "level", "msg", "request_id", "method", "host", "path", "status", "bytes", "ms",
				"client", "route", "decision", "reason", "user", "org", "session", "error"}
			for key := range line {
				if !slices.Contains(closed, key) {
					t.Errorf("an unknown field %s: %v", key, line[key])
				}
			}
		})
	}
	text := s.log.text(t)
	checkNoSecrets(t, text)
	for _, r := range text {
		if r < ' ' && r != '\n' || r == 0x7f || r == utf8.RuneError {
			t.Fatalf("the log holds %U", r)
		}
	}
}

// A whole life: sign-in, use, denial, sign-out, a bad cookie. The log tells the
// story and holds nothing that anybody could use.
func TestP18_TheLogTellsTheStoryWithoutSecrets(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{SignIn: true})
	b := s.browser(t)
	asked := b.Open(s.url + "/deep?token=canary")
	page := b.SignIn(asked, "mira")
	b.Open(page.Hops[len(page.Hops)-2].URL.String()) // the callback once more
	denied := b.Open(s.url + "/admin?x=canary")
	account := b.Open(s.url + prefix + "/account")
	out := b.Submit(account, "", "")
	forged := s.get(t, "/x?canary", "Cookie: "+strings.Split(s.mint(t, alice()), "=")[0]+"=canary")
	type logged struct{ path, route, decision, reason, user, session string }
	for name, tt := range map[string]struct {
		id   string
		want logged
	}{
		"asked to sign in": {asked.Hops[0].Header.Get("X-Request-Id"),
			logged{"/deep", "app", "login", "no_session", "", ""}},
		"signed in": {page.Hops[len(page.Hops)-2].Header.Get("X-Request-Id"),
			logged{prefix + "/callback/main", observe.RouteOwn, "", "", "main:mira", ""}},
		"used": {page.Header.Get("X-Request-Id"),
			logged{"/deep", "app", "forward", "authenticated", "main:mira", ""}},
		"denied": {denied.Header.Get("X-Request-Id"),
			logged{"/admin", "admin", "deny", "no_rule", "main:mira", ""}},
		"signed out": {out.Hops[0].Header.Get("X-Request-Id"),
			logged{prefix + "/logout", observe.RouteOwn, "", "", "main:mira", ""}},
		"a bad cookie": {forged.header.Get("X-Request-Id"),
			logged{"/x", "app", "login", "no_session", "", "the session cookie is not one of ours"}},
	} {
		line := s.log.event(t, tt.id)
		text := func(key string) string { v, _ := line[key].(string); return v }
		if got := (logged{text("path"), text("route"), text("decision"), text("reason"), text("user"), text("session")}); got != tt.want {
			t.Errorf("%s: logged %+v, want %+v", name, got, tt.want)
		}
	}
	checkNoSecrets(t, s.log.text(t))
	for _, c := range b.Cookies(s.url) {
		if strings.Contains(s.log.text(t), c.Value[:20]) {
			t.Errorf("%s was logged", c.Name)
		}
	}
}

// CVE-2023-45142: nothing that a client chooses becomes a label.
func TestP17_MetricLabelsAreClosedLists(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Login: fixedLogin{who: alice()}})
	w, cookie := s.wire(t), s.mint(t, bob())
	for i := range 200 {
		method := fmt.Sprintf("M%d", i)
		w.do(method, rawRequest(method, fmt.Sprintf("/path-%d", i), s.host, "Cookie: "+cookie,
			fmt.Sprintf("User-Agent: agent-%d", i)))
		w.do("GET", rawRequest("GET", "/x", fmt.Sprintf("host-%d.example", i)))
		w.do("GET", rawRequest("GET", fmt.Sprintf("%s/callback/provider-%d?error=e%d", prefix, i, i), s.host))
	}
	for _, path := range []string{"/admin", "/open", "/a%2fb", prefix + "/session", prefix + "/nothing"} {
		s.get(t, path, "Cookie: "+cookie)
	}
	b := s.browser(t)
	b.Open(s.callback("main", url.Values{"code": {"c"}, "state": {s.begin(t, b, "/")}}))
	s.close() // every handler has counted
	labels := map[string]map[string]bool{}
	families, err := s.metrics.Gather()
	testenv.Check(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if labels[l.GetName()] == nil {
					labels[l.GetName()] = map[string]bool{}
				}
				labels[l.GetName()][l.GetValue()] = true
			}
		}
	}
	for name, allowed := range map[string][]string{
		"route": {"app", "admin", "open", observe.RouteOwn, observe.RouteNone}, "method": {"GET", "other"},
		"code": {"200", "302", "303", "400", "401", "403", "404"}, "mode": {"proxy"},
		"decision": {"forward", "login", "deny"}, "reason": {"authenticated", "public", "no_session", "no_rule",
			"no_route", "ambiguous"},
		"provider": {"main"}, "result": {"ok"},
	} {
		got := slices.Sorted(maps.Keys(labels[name]))
		if slices.ContainsFunc(got, func(v string) bool { return !slices.Contains(allowed, v) }) || len(got) == 0 {
			t.Errorf("label %s has the values %q, want some of %q", name, got, allowed)
		}
		delete(labels, name)
	}
	if len(labels) > 0 {
		t.Errorf("labels nobody expects: %v", labels)
	}
}

// An app that answers with something odd must not have it logged: it may be
// somebody's cookie (P8, P18).
func TestP18_WhatAnAppAnswersIsNotLogged(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	cookie := "Cookie: " + s.mint(t, alice())
	for name, answer := range map[string]string{
		"a header without a colon": "HTTP/1.1 200 OK\r\nSet-Cookie session=canary\r\nConnection: close\r\n\r\n",
		"a bad first line":         "canary\r\nConnection: close\r\n\r\n",
		"a bad status":             "HTTP/1.1 canary OK\r\nConnection: close\r\n\r\n",
		"a bad length":             "HTTP/1.1 200 OK\r\nContent-Length: canary\r\nConnection: close\r\n\r\n",
		"a bad encoding":           "HTTP/1.1 200 OK\r\nTransfer-Encoding: canary\r\nConnection: close\r\n\r\n",
		"a bad upgrade":            "HTTP/1.1 101 X\r\nUpgrade: canary\r\nConnection: Upgrade\r\n\r\n",
	} {
		s.app.Respond(func([]byte) []byte { return []byte(answer) })
		a := s.get(t, "/x", cookie)
		if a.status != http.StatusBadGateway {
			t.Errorf("%s: %d", name, a.status)
		}
		if line, err := json.Marshal(s.log.event(t, a.header.Get("X-Request-Id"))); err != nil ||
			strings.Contains(string(line), "canary") {
			t.Errorf("%s: logged %s", name, line)
		}
	}
}

// The same holds for what comes behind a body, from the app and from the client.
func TestP18_BrokenTrailersAreNotLogged(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	head := "POST /x HTTP/1.1\r\nHost: " + s.host + "\r\nCookie: " + s.mint(t, alice()) + "\r\nConnection: close\r\n"
	const broken = "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nSet-Cookie session=canary\r\n\r\n"
	sent := s.talk(t, head+broken)
	if len(sent) != 1 || sent[0].status != http.StatusBadRequest {
		t.Fatalf("a client's: %v", statuses(sent))
	}
	s.app.Respond(func([]byte) []byte { return []byte("HTTP/1.1 200 OK\r\nConnection: close\r\n" + broken) })
	r, err := http.NewRequestWithContext(t.Context(), "GET", s.url+"/x", nil)
	testenv.Check(t, err)
	r.Header.Set("Cookie", s.mint(t, alice()))
	res, err := s.transport.RoundTrip(r)
	testenv.Check(t, err)
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("an app's: %q looks whole", b)
	}
	for from, id := range map[string]string{"a client's": sent[0].header.Get("X-Request-Id"),
		"an app's": res.Header.Get("X-Request-Id")} {
		if line := fmt.Sprint(s.log.event(t, id)); strings.Contains(line, "canary") ||
			!strings.Contains(line, "malformed MIME header") {
			t.Errorf("%s: logged %s", from, line)
		}
	}
}

// Where a fault of ours came before a verdict, none is told: reasons are a closed
// list, and a metric's label.
func TestWhatWasNotDecidedHasNoDecision(t *testing.T) {
	t.Parallel()
	ev := &event{}
	ev.admitted(&admission.Answer{Route: &admission.Route{Route: &authz.Route{Name: "app"}}})
	if ev.Route != "app" || ev.Decision != "" || ev.Reason != "" {
		t.Errorf("route %q, decision %q, reason %q", ev.Route, ev.Decision, ev.Reason)
	}
}

// Whatever is refused before its address is read has a client all the same: nobody scans with
// TRACE, or sends addresses without end, as nobody.
func TestTheLogSaysWhoSentWhatIsRefusedUnread(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Trusted: prefixes(t, "127.0.0.1/32")})
	for status, raw := range map[int]string{
		405: rawRequest("TRACE", "/", s.host, "X-Forwarded-For: 203.0.113.7"),
		414: rawRequest("GET", "/"+strings.Repeat("x", 9000), s.host, "X-Forwarded-For: 203.0.113.7"),
	} {
		a := s.wire(t).do("GET", raw)
		line := s.log.event(t, a.header.Get("X-Request-Id"))
		if a.status != status || line["client"] != "203.0.113.7" {
			t.Errorf("%d, want %d: logged %v", a.status, status, line)
		}
	}
}

// A bug of ours is an error in the log whenever it shows: in the middle of an answer too, which
// has a status of 200 by then.
func TestABugInTheMiddleOfAnAnswerIsAnError(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Transport: brokenTransport{}})
	r, err := http.NewRequestWithContext(t.Context(), "GET", s.url+"/x", nil)
	testenv.Check(t, err)
	r.Header.Set("Cookie", s.mint(t, alice()))
	res, err := s.transport.RoundTrip(r)
	testenv.Check(t, err)
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("%q looks whole", b)
	}
	line := s.log.event(t, res.Header.Get("X-Request-Id"))
	if text, _ := line["error"].(string); line["level"] != "ERROR" || !strings.HasPrefix(text, "panic: a bug") {
		t.Errorf("logged %v", line)
	}
}

// brokenTransport answers with a body that panics once a part of it was read.
type brokenTransport struct{}

func (brokenTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, ContentLength: -1, Request: r,
		Body: io.NopCloser(io.MultiReader(strings.NewReader("half"), brokenReader{}))}, nil
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { panic("a bug") }
