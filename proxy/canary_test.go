package proxy

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// badDays are ways in which a sign-in fails at each step, some of them with a
// word in the answer that must go no further. (What another issuer calls itself
// may: it is logged, for the operator to compare.)
func badDays(word string) []testenv.Fault {
	return []testenv.Fault{
		{}, // a good one
		{Endpoint: testenv.Discovery, Status: 500, Body: word},
		{Endpoint: testenv.Discovery, JSON: testenv.With("issuer", "https://another.example")},
		{Endpoint: testenv.Token, Status: 500, Body: word}, {Endpoint: testenv.Token, Status: 400,
			Body: `{"error":"invalid_grant","error_description":"` + word + `"}`},
		{Endpoint: testenv.Token, Body: `{"ok":false,"error":"` + word + `"}`},
		{Endpoint: testenv.Token, Truncate: true},
		{Endpoint: testenv.Token, JSON: func(a map[string]any) { a["token_type"] = a["access_token"] }},
		{Endpoint: testenv.Token, JSON: func(a map[string]any) { a["id_token"] = a["access_token"] }},
		{Endpoint: testenv.Token, Claims: func(c map[string]any) { c["iss"] = c["nonce"] }},
		{Endpoint: testenv.Token, Claims: func(c map[string]any) { c["aud"] = c["nonce"] }},
		{Endpoint: testenv.Token, Claims: testenv.With("sub", []string{word})},
		{Endpoint: testenv.Token, Claims: testenv.With("org_id", []string{word, word})},
		{Endpoint: testenv.Token, Resign: testenv.SignedByStranger},
		{Endpoint: testenv.JWKS, Status: 500, Body: word}, {Endpoint: testenv.Keys, Body: word},
		{Endpoint: testenv.Userinfo, Status: 401, Body: word},
		{Endpoint: testenv.Userinfo, JSON: testenv.With("sub", "another")},
		{Endpoint: testenv.Organization, Status: 403, Body: word},
		{Endpoint: testenv.Me, JSON: testenv.With("id", word)},
	}
}

// P8, P18: what passes between a provider and us is seen nowhere else, however a
// sign-in goes: not in a log line at the most talkative level, in a page, in a
// header to the app, in a metric, nor inside the session cookie.
func TestP08_NothingSecretIsSeenWhateverHappens(t *testing.T) {
	t.Parallel()
	all := offers(t)
	m := newSeveral(t, setup{Call: 2 * time.Second}, all...)
	secrets, seen, good := &testenv.Secrets{}, &strings.Builder{}, 0
	visit := func(page testenv.Page) testenv.Page {
		secrets.OfPage(page)
		for _, hop := range page.Hops {
			if !strings.HasPrefix(hop.URL.String(), m.url) {
				continue
			}
			for name, values := range hop.Header {
				if name == "Set-Cookie" || name == "Location" && strings.HasPrefix(values[0], "http") &&
					!strings.HasPrefix(values[0], m.url) {
					continue // the cookies' own place, and the way to a provider
				}
				fmt.Fprintln(seen, name, values)
			}
			seen.WriteString(hop.Body)
		}
		return page
	}
	for _, o := range all {
		for i, fault := range badDays("c4nary-of-a-provider") {
			m.clock.Advance(11 * time.Minute) // past every wait
			m.ops[o.id].Set(fault)
			b := m.browser(t)
			page := visit(b.Choose(b.Open(m.url+"/deep"), "provider", o.id))
			if strings.HasPrefix(page.URL.String(), m.ops[o.id].URL) {
				page = visit(b.SignIn(page, "mira"))
			}
			if s := m.sessionOf(b); s != nil {
				good++
				fmt.Fprintf(seen, "%+v", *s)
				account := visit(b.Open(m.url + prefix + "/account"))
				visit(b.Open(m.url + prefix + "/session"))
				visit(b.Submit(account, "", "")) // signs out
			} else if i == 0 || page.Status < 400 {
				t.Errorf("%s on a good day: %d at %s\n%s", o.id, page.Status, page.URL, page.Body)
			}
		}
		m.ops[o.id].Set()
		b := m.browser(t)
		visit(b.Submit(visit(b.Choose(b.Open(m.url+"/deep"), "provider", o.id)), "cancel", "1"))
		_, q := m.answerOf(t, b, b.Open(m.url+prefix+"/login?provider="+o.id), "sam")
		visit(m.browser(t).Open(m.callback(o.id, q))) // in a browser that began nothing
		secrets.OfProvider(m.ops[o.id])
		m.checkMarks(t, o)
		secrets.Add("client_secret", "c4nary+secret/of="+o.id)
	}
	if good < len(all) {
		t.Errorf("%d sign-ins went well", good)
	}
	secrets.Add("word of a provider", "c4nary-of-a-provider")
	secrets.Add("session key", m.key.Text())
	for _, what := range []string{"access_token", "refresh_token", "id_token", "code", "state", "nonce",
		"code_challenge", "code_verifier", "client_secret"} {
		if !secrets.Has(what) {
			t.Errorf("no %s was ever there", what)
		}
	}
	metrics := httptest.NewRecorder()
	promhttp.HandlerFor(m.metrics, promhttp.HandlerOpts{}).ServeHTTP(metrics,
		httptest.NewRequest("GET", "/metrics", nil))
	if !strings.Contains(metrics.Body.String(),
		`sallyport_provider_request_duration_seconds_count{call="token",provider="google"}`) {
		t.Errorf("the metrics are\n%s", metrics.Body)
	}
	for where, text := range map[string]string{"the log": m.log.text(t), "pages, headers or the session": seen.String(),
		"metrics":       metrics.Body.String(),
		"what apps got": fmt.Sprintf("%s", m.app.Requests())} {
		if found := secrets.In(text); found != nil || len(text) < 1000 {
			t.Errorf("%s (%d bytes) show: %v", where, len(text), found)
		}
		if shown := testenv.MarksIn(text); shown != nil {
			t.Errorf("%s show %q, with which tokens begin", where, shown)
		}
	}
}

// checkMarks: tokens look as real ones do, or the search for their marks would
// find nothing in any case.
func (m *several) checkMarks(t *testing.T, o offer) {
	t.Helper()
	handedOut, expected := strings.Join(m.ops[o.id].Answers(testenv.Token), "\n"), testenv.Marks(o.shape)
	if o.id == "ms" || o.id == "slack" || o.id == "partner" || o.id == "gh" {
		expected = expected[:1] // no refresh tokens there
	}
	for _, mark := range expected {
		if !strings.Contains(handedOut, `_token":"`+mark) {
			t.Errorf("%s hands out no token that begins with %q", o.id, mark)
		}
	}
	idToken := o.id != "pd" && o.id != "gh" // they have none
	if len(m.ops[o.id].Requests(testenv.Token)) == 0 || idToken && !strings.Contains(handedOut, "eyJ") {
		t.Errorf("%s hands out nothing", o.id)
	}
}
