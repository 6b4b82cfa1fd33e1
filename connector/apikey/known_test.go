package apikey_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport-proxy/sallyport/connector"
	"github.com/sallyport-proxy/sallyport/connector/apikey"
	"github.com/sallyport-proxy/sallyport/gateway/gatewaytest"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/grant/granttest"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/oauth"
)

func known(t *testing.T, kind string) apikey.Known {
	t.Helper()
	all := apikey.All()
	at := slices.IndexFunc(all, func(k apikey.Known) bool { return k.Type == kind })
	if at < 0 {
		t.Fatalf("nothing is known of %s", kind)
	}
	return all[at]
}

func TestEveryKnownThirdPartyHasAPretendOne(t *testing.T) {
	var kinds, all []string
	for _, p := range pretends() {
		kinds = append(kinds, p.kind)
	}
	for _, k := range apikey.All() {
		all = append(all, k.Type)
	}
	if !slices.Equal(kinds, all) {
		t.Errorf("%v are known, and there are pretend ones of %v", all, kinds)
	}
}

func TestTheContractOfKnownThirdParties(t *testing.T) {
	for _, p := range pretends() {
		t.Run(p.kind, func(t *testing.T) {
			granttest.TestConnector(t, granttest.ThirdParty{
				New: func(t *testing.T, base string, client *oauth.Client) grant.Connector {
					o := apikey.Options{ID: "k", BaseURL: base, Headers: p.with, OAuth: client}
					c, err := known(t, p.kind).New(o)
					testenv.Check(t, err)
					return c
				},
				Key: p.key,
			})
		})
	}
}

// rig is the gateway in front of a pretend third party, for an app and a person.
type rig struct {
	*grant.Broker
	url, assertion string
	accesses       []string
}

var mira = identity.Identity{Provider: "google", Subject: "mira"}

func newRig(t *testing.T, p *pretend) *rig {
	t.Helper()
	calls, err := oauth.NewClient(oauth.Options{Provider: "k"})
	testenv.Check(t, err)
	t.Cleanup(calls.CloseIdleConnections)
	c, err := known(t, p.kind).New(apikey.Options{ID: "k", BaseURL: p.url, Headers: p.with, OAuth: calls})
	testenv.Check(t, err)
	var names []string
	for _, a := range c.About().Accesses {
		names = append(names, a.Name)
	}
	k := grant.SealingKey{ID: "k"}
	ring, err := grant.NewKeyring([]grant.SealingKey{k})
	testenv.Check(t, err)
	r := &rig{accesses: names}
	r.Broker, err = grant.New(grant.Options{Store: granttest.NewStore(nil), Keys: ring,
		Log:    slog.New(slog.DiscardHandler),
		Offers: []grant.Offer{{Connector: c, Owner: grant.OwnedByUser, Offered: names}},
		Apps: []grant.App{{ID: "planner", Routes: []string{"app"},
			Connectors: map[string][]string{"k": names}}},
		Redirect: func(string) string { return "" }})
	testenv.Check(t, err)
	t.Cleanup(func() {
		r.Close()
		testenv.Check(t, r.Wait(context.Background()))
	})
	g := gatewaytest.Start(t, gatewaytest.Options{Broker: r.Broker, Connector: c})
	r.url, r.assertion = g.URL+g.Path, g.Assertion(t, mira)
	return r
}

func (r *rig) connect(t *testing.T, key, access string) error {
	t.Helper()
	_, err := r.ConnectKey(t.Context(), mira, grant.Ask{Connector: "k", App: "planner", Access: []string{access}}, key,
		false)
	return err
}

// ask sends a request of the app, with headers that it would like to send.
func (r *rig) ask(t *testing.T, method, path string, header ...string) (status int, body string) {
	t.Helper()
	return r.send(t, method, path, "", header...)
}

func (r *rig) send(t *testing.T, method, path, content string, header ...string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, r.url+path, strings.NewReader(content))
	testenv.Check(t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	req.Header.Set("Authorization", "Bearer "+gatewaytest.Token)
	req.Header.Set("X-Sallyport-Assertion", r.assertion)
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	res, err := transport.RoundTrip(req) // which follows no redirect
	testenv.Check(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	testenv.Check(t, err)
	return res.StatusCode, string(b)
}

// A key that the third party refuses connects nothing; one that it takes is lent within the
// rules, and nothing that changes anything reaches it where only reading was agreed to: also
// where the key could do it.
func TestP12_KeysOfKnownThirdPartiesAreLentToRead(t *testing.T) {
	for _, p := range pretends() {
		t.Run(p.kind, func(t *testing.T) {
			p.start(t)
			r := newRig(t, p)
			bad := p.key[:len(p.key)-1] + "x"
			e, ok := errors.AsType[*grant.Error](r.connect(t, bad, apikey.Read))
			if !ok || e.Class != grant.Yours || e.Reason != connector.KeyRefused || strings.Contains(e.Error(), bad) {
				t.Errorf("a key that it refuses: %v", e)
			}
			testenv.Check(t, r.connect(t, p.key, apikey.Read))
			method, path, _ := strings.Cut(known(t, p.kind).Probe, " ")
			if got := p.requests(); !slices.Equal(got, []string{method + " " + path, method + " " + path}) {
				t.Errorf("it was asked %q", got)
			}
			// What the app says of the headers of the configuration does not count.
			header := []string{"User-Agent", "planner/1"}
			for name := range p.with {
				header = append(header, name, "https://evil.test")
			}
			if status, body := r.ask(t, "GET", p.list, header...); status != 200 || body != p.listBody {
				t.Errorf("the app reads %d %s", status, body)
			}
			if got := p.requests(); !slices.Equal(got, []string{"GET " + p.list}) {
				t.Errorf("it was asked %q", got)
			}
			change, at, _ := strings.Cut(p.change, " ")
			for _, request := range []string{change + " " + at, "DELETE " + p.list, "GET /other/things",
				"POST /graphql"} {
				method, path, _ := strings.Cut(request, " ")
				want := 403
				if request == p.change && len(r.accesses) > 1 {
					want = 409 // the person is asked
				}
				if status, body := r.ask(t, method, path); status != want {
					t.Errorf("%s: %d %s", request, status, body)
				}
			}
			if got := p.requests(); got != nil {
				t.Errorf("%q reached it", got)
			}
		})
	}
}

func TestP12_WhoAgreedToChangesLetsThemThrough(t *testing.T) {
	for _, p := range pretends() {
		t.Run(p.kind, func(t *testing.T) {
			p.start(t)
			r := newRig(t, p)
			if len(r.accesses) == 1 {
				if err := r.connect(t, p.key, apikey.Write); err == nil {
					t.Error("it can be connected for more than reading")
				}
				return
			}
			testenv.Check(t, r.connect(t, p.key, apikey.Write))
			p.requests()
			method, path, _ := strings.Cut(p.change, " ")
			if status, body := r.ask(t, method, path, "Content-Type", "application/vnd.api+json"); status != 201 {
				t.Errorf("%s: %d %s", p.change, status, body)
			}
			if status, body := r.ask(t, "GET", p.list); status != 200 || body != p.listBody {
				t.Errorf("the app reads %d %s", status, body)
			}
			if got := p.requests(); !slices.Equal(got, []string{p.change, "GET " + p.list}) {
				t.Errorf("it was asked %q", got)
			}
		})
	}
}

// A third party that answers with the credential, as it was pasted or as it was sent, tells the
// app nothing.
func TestP12_AKeyThatIsEchoedDoesNotReachTheApp(t *testing.T) {
	for _, p := range pretends() {
		t.Run(p.kind, func(t *testing.T) {
			p.start(t)
			r := newRig(t, p)
			testenv.Check(t, r.connect(t, p.key, apikey.Read))
			status, body := r.ask(t, "GET", p.echo)
			if status != 200 || !strings.Contains(body, "***") {
				t.Fatalf("%d %s", status, body)
			}
			_, token, _ := strings.Cut(p.key, ":")
			for _, secret := range []string{p.key, p.sent[strings.LastIndex(p.sent, " ")+1:], cmp.Or(token, p.key)} {
				if strings.Contains(body, secret) {
					t.Errorf("the app reads %s", body)
				}
			}
		})
	}
}

// Grafana serves lists at addresses that end in a slash, and nothing but a redirect without it.
func TestGrafanaIsAskedWithTheSlashThatTheAppSends(t *testing.T) {
	pretends := pretends()
	p := pretends[slices.IndexFunc(pretends, func(p *pretend) bool { return p.kind == "grafana_irm_key" })]
	p.start(t)
	r := newRig(t, p)
	testenv.Check(t, r.connect(t, p.key, apikey.Read))
	p.requests()
	for path, want := range map[string]int{
		"/api/v1/schedules/SBM7/": 200, "/api/v1/schedules/SBM7/final_shifts/?start_date=2026-11-01": 200,
		"/api/v1/schedules/SBM7": 301, "/api/v1/schedules": 403, "/api/v1/schedules//": 400,
	} {
		if status, body := r.ask(t, "GET", path); status != want {
			t.Errorf("%s: %d %s", path, status, body)
		}
		if got := p.requests(); want < 400 && !slices.Equal(got, []string{"GET " + path}) || want >= 400 && got != nil {
			t.Errorf("%s: it was asked %q", path, got)
		}
	}
}

// A long search is a POST at Jira, and so is its next page.
func TestJiraIsSearchedByPost(t *testing.T) {
	pretends := pretends()
	p := pretends[slices.IndexFunc(pretends, func(p *pretend) bool { return p.kind == "jira" })]
	p.start(t)
	r := newRig(t, p)
	testenv.Check(t, r.connect(t, p.key, apikey.Read))
	const search = `{"jql":"project = ED","fields":["summary"],"nextPageToken":"CAEaAggD"}`
	if status, body := r.send(t, "POST", p.list, search, "Content-Type", "application/json"); status != 200 ||
		body != p.listBody {
		t.Errorf("the app reads %d %s", status, body)
	}
	status, body := r.send(t, "POST", "/rest/api/3/issue", search, "Content-Type", "application/json")
	if status != 403 {
		t.Errorf("the app writes: %d %s", status, body)
	}
}

// At Jira who sends no credential gets what everybody may see: so a key that is not of the form
// is refused before anything is sent.
func TestAKeyOfJiraHasAnAddressAndAToken(t *testing.T) {
	pretends := pretends()
	p := pretends[slices.IndexFunc(pretends, func(p *pretend) bool { return p.kind == "jira" })]
	p.start(t)
	r := newRig(t, p)
	for _, key := range []string{"ATATT3xFfGF0canary", ":ATATT3xFfGF0canary", "mira@acme.example:",
		"mira@acme.example:short", "mira@acme.example ATATT3xFfGF0canary"} {
		e, ok := errors.AsType[*grant.Error](r.connect(t, key, apikey.Read))
		if !ok || e.Class != grant.Yours || e.Reason != connector.KeyMalformed || strings.Contains(e.Error(), "canary") {
			t.Errorf("%s: %v", key, e)
		}
	}
	if got := p.requests(); got != nil {
		t.Errorf("it was asked %q", got)
	}
}

// What is written about a host is not shown for another one, and a host of one's own is
// required where there is no other.
func TestAKnownThirdPartyOnAHostOfOnesOwn(t *testing.T) {
	calls, err := oauth.NewClient(oauth.Options{Provider: "k"})
	testenv.Check(t, err)
	o := apikey.Options{ID: "k", BaseURL: "https://github.acme.example/api/v3", OAuth: calls}
	c, err := known(t, "github").New(o)
	testenv.Check(t, err)
	if about := c.About(); about.KeyURL != "" || about.ClientID != "https://github.acme.example" ||
		c.Origin(grant.Account{}) != "https://github.acme.example/api/v3" {
		t.Errorf("it is %+v", about)
	}
	c, err = known(t, "github").New(apikey.Options{ID: "k", OAuth: calls})
	testenv.Check(t, err)
	if about := c.About(); about.KeyURL == "" || about.Name != "GitHub" || about.Type != "github" {
		t.Errorf("it is %+v", about)
	}
	_, err = known(t, "jira").New(apikey.Options{ID: "k", OAuth: calls})
	if fault, ok := errors.AsType[*connector.Fault](err); !ok || fault.Key != "base_url" {
		t.Errorf("without a site: %v", err)
	}
}

// What a program finds as the address of the next page it asks for, and stays at the gateway: in
// Link at GitHub, where it has a number in the place of a name ("Using pagination in the REST
// API"), and in the answer at Grafana (OnCall API, "Pagination") and Jira ("Get projects
// paginated"). What is not lent does not pass for that it has a number.
func TestP12_FurtherPagesOfKnownThirdPartiesAreAtTheGateway(t *testing.T) {
	for kind, tt := range map[string]struct{ key, list, next, member string }{
		"github":          {"github_pat_11ABCDEFG0canary", "/repos/acme/app/issues", "/repositories/13/issues?page=2", ""},
		"grafana_irm_key": {"glsa_canary0123456789", "/api/v1/schedules/", "/api/v1/schedules/?page=2", "next"},
		"jira": {"ann@acme.example:canary0123", "/rest/api/3/project/search", "/rest/api/3/project/search?startAt=50",
			"nextPage"},
	} {
		var asked []string
		p := &pretend{kind: kind}
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked = append(asked, r.RequestURI)
			w.Header().Set("Content-Type", "application/json")
			if tt.member == "" {
				w.Header().Set("Link", "<"+p.url+tt.next+`>; rel="next"`)
			}
			fmt.Fprintf(w, `{"total":2,%q:%q}`, tt.member, p.url+tt.next)
		}))
		defer srv.Close()
		p.url = srv.URL
		r := newRig(t, p)
		testenv.Check(t, r.connect(t, tt.key, apikey.Read))
		asked = nil
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url+tt.list, nil)
		testenv.Check(t, err)
		req.Header.Set("Authorization", "Bearer "+gatewaytest.Token)
		req.Header.Set("X-Sallyport-Assertion", r.assertion)
		res, err := http.DefaultClient.Do(req)
		testenv.Check(t, err)
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		testenv.Check(t, err)
		at := res.Header.Get("Link")
		if tt.member != "" {
			at = string(body)
		}
		if !strings.Contains(at, r.url+tt.next) {
			t.Errorf("%s: the next page is at %s", kind, at)
		}
		if status, body := r.ask(t, "GET", tt.next); status != 200 {
			t.Errorf("%s: the next page: %d %s", kind, status, body)
		}
		if kind == "github" {
			for path, want := range map[string]int{"/user/61721/repos?page=2": 200, "/organizations/7/repos?page=2": 200,
				"/user/emails": 403, "/user/61721/keys": 403, "/user/1/2/repos": 403} {
				if status, body := r.ask(t, "GET", path); status != want {
					t.Errorf("%s: %d %s", path, status, body)
				}
			}
		} else if !slices.Equal(asked, []string{tt.list, tt.next}) {
			t.Errorf("%s: asked %q", kind, asked)
		}
	}
}
