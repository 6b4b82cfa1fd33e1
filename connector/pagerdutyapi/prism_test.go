package pagerdutyapi_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sallyport-proxy/sallyport/connector"
	"github.com/sallyport-proxy/sallyport/connector/pagerduty"
	"github.com/sallyport-proxy/sallyport/connector/pagerdutyapi"
	"github.com/sallyport-proxy/sallyport/connector/pagerdutykey"
	"github.com/sallyport-proxy/sallyport/gateway/gatewaytest"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/grant/granttest"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/oauth"
)

const (
	prismKey      = "u+canaryKc66ryYTWUXY"
	prismRedirect = "https://sallyport.test/.sallyport/connect/oncall/callback"
)

var mira = identity.Identity{Provider: "google", Subject: "mira", Email: "mira@elsewhere.example", EmailVerified: true}

// startPrism runs Prism on the description of the API: in front of upstream, where it refuses
// what does not keep to the description, or without one, when its answers are made of it.
func startPrism(t *testing.T, upstream string) *url.URL {
	t.Helper()
	node, err := exec.LookPath("node")
	prism := filepath.Join("..", "..", "test", "e2e", "node_modules", "@stoplight", "prism-cli", "dist", "index.js")
	if err == nil {
		_, err = os.Stat(prism)
	}
	if err != nil {
		if os.Getenv("SALLYPORT_REQUIRE") == "1" {
			t.Fatal(err)
		}
		t.Skipf("Prism is missing (run `npm ci` in test/e2e): %v", err)
	}
	address, err := testenv.UnusedAddress()
	testenv.Check(t, err)
	host, port, _ := strings.Cut(address, ":")
	args := []string{prism, "mock", filepath.Join("testdata", "openapi.yaml")}
	if upstream != "" {
		args[1] = "proxy"
		args = append(args, upstream)
	}
	out := new(bytes.Buffer)
	cmd := exec.Command(node, append(args, "--errors", "-h", host, "-p", port)...)
	cmd.Stdout, cmd.Stderr = out, out
	testenv.Check(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("Prism: %s", out)
		}
	})
	base := &url.URL{Scheme: "http", Host: address}
	testenv.Eventually(t, "Prism answers", func() bool {
		res, err := http.Get(base.String() + "/")
		return err == nil && res.Body.Close() == nil
	})
	return base
}

// relay is PagerDuty's one address: where people agree is ours, and the API is Prism's. It keeps
// what the API was asked and answered.
type relay struct {
	api   *httputil.ReverseProxy
	oauth http.Handler

	mu    sync.Mutex
	asked []exchange
}

type exchange struct {
	line   string // method and path
	status int
	body   string
}

func (r *relay) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if strings.Contains(req.URL.Path, "/oauth/") {
		r.oauth.ServeHTTP(w, req)
		return
	}
	if got := req.Header.Get("Accept"); got != pagerdutyapi.Accept {
		http.Error(w, "this version of the API is unknown: "+got, http.StatusNotAcceptable)
		return
	}
	req.Header.Set("Accept", "application/json") // as the description calls it
	answer := httptest.NewRecorder()
	r.api.ServeHTTP(answer, req)
	r.mu.Lock()
	r.asked = append(r.asked, exchange{req.Method + " " + req.URL.Path, answer.Code, answer.Body.String()})
	r.mu.Unlock()
	w.Header().Set("Content-Type", answer.Header().Get("Content-Type"))
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

// since are the exchanges after the first n.
func (r *relay) since(n int) []exchange {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.asked[n:])
}

// described is a connector in front of the described API, and an app that has been lent access.
type described struct {
	*relay
	onCall         *demo.OnCall
	url, assertion string
}

// startDescribed lends read or write access by kind. prism answers; without one the pretend PagerDuty
// does, and another Prism looks at what it says.
func startDescribed(t *testing.T, kind string, write bool, prism *url.URL) *described {
	t.Helper()
	d := &described{relay: &relay{}}
	server := httptest.NewServer(d.relay)
	t.Cleanup(server.Close)
	var err error
	d.onCall, err = demo.NewOnCall(demo.OnCallOptions{Origin: server.URL, ClientID: "me", ClientSecret: "s3cret",
		RedirectURIs: []string{prismRedirect}, Keys: []demo.OnCallKey{{Key: prismKey, Person: "jonas"}}})
	testenv.Check(t, err)
	d.relay.oauth = d.onCall
	if prism == nil {
		behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Host = strings.TrimPrefix(server.URL, "http://") // Prism asks by its own name for it
			d.onCall.ServeHTTP(w, r)
		}))
		t.Cleanup(behind.Close)
		prism = startPrism(t, behind.URL)
	}
	d.relay.api = httputil.NewSingleHostReverseProxy(prism)

	client, err := oauth.NewClient(oauth.Options{Provider: "oncall"})
	testenv.Check(t, err)
	t.Cleanup(client.CloseIdleConnections)
	var c grant.Connector
	access := pagerdutykey.Read
	if kind == pagerdutykey.Type {
		c, err = pagerdutykey.New(pagerdutykey.Options{ID: "oncall", Base: server.URL, OAuth: client})
		if write {
			access = pagerdutykey.ReadWrite
		}
	} else {
		c, err = pagerduty.New(pagerduty.Options{Client: connector.Client{ID: "oncall", ClientID: "me",
			ClientSecret: "s3cret", Base: server.URL, OAuth: client}, Scopes: pagerduty.Classic})
		if write {
			access = pagerduty.Write
		}
	}
	testenv.Check(t, err)
	k := grant.SealingKey{ID: "k"}
	copy(k.Secret[:], "canary-key")
	ring, err := grant.NewKeyring([]grant.SealingKey{k})
	testenv.Check(t, err)
	broker, err := grant.New(grant.Options{Store: granttest.NewStore(nil), Keys: ring,
		Log:    slog.New(slog.DiscardHandler),
		Offers: []grant.Offer{{Connector: c, Owner: grant.OwnedByUser, Offered: []string{access}}},
		Apps: []grant.App{{ID: gatewaytest.App, Routes: []string{gatewaytest.Route},
			Connectors: map[string][]string{"oncall": {access}}}},
		Redirect: func(string) string { return prismRedirect }})
	testenv.Check(t, err)
	t.Cleanup(func() {
		broker.Close()
		testenv.Check(t, broker.Wait(context.Background()))
	})
	ask := grant.Ask{Connector: "oncall", App: gatewaytest.App, Access: []string{access}}
	if kind == pagerdutykey.Type {
		_, err = broker.ConnectKey(t.Context(), mira, ask, prismKey, false)
		testenv.Check(t, err)
	} else {
		agree(t, broker, ask)
	}
	g := gatewaytest.Start(t, gatewaytest.Options{Broker: broker, Connector: c})
	d.url, d.assertion = g.URL+g.Path, g.Assertion(t, mira)
	return d
}

// agree connects by the page of the pretend PagerDuty.
func agree(t *testing.T, broker *grant.Broker, ask grant.Ask) {
	t.Helper()
	hands := identity.Handshake{State: "st", Nonce: "no", Verifier: "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"}
	p, err := broker.Prepare(t.Context(), mira, ask)
	testenv.Check(t, err)
	to, err := broker.AuthURL(p, hands)
	testenv.Check(t, err)
	browser := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := browser.PostForm(to, url.Values{"answer": {"allow"}, "person": {"jonas"}})
	testenv.Check(t, err)
	defer res.Body.Close()
	at, err := res.Location()
	testenv.Check(t, err)
	_, err = broker.Connect(t.Context(), mira, ask, at.Query(), hands, false)
	testenv.Check(t, err)
}

// ask sends a request of the app. prefer is Prism's: it asks for one of the described answers.
func (d *described) ask(t *testing.T, method, path, body, prefer string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, d.url+path, strings.NewReader(body))
	testenv.Check(t, err)
	req.Header.Set("Authorization", "Bearer "+gatewaytest.Token)
	req.Header.Set("X-Sallyport-Assertion", d.assertion)
	req.Header.Set("Accept", pagerdutyapi.Accept)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if prefer != "" {
		req.Header.Set("Prefer", prefer)
	}
	res, err := http.DefaultClient.Do(req)
	testenv.Check(t, err)
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	testenv.Check(t, err)
	return res.StatusCode, string(answer)
}

// describedReads has a request for each rule of reading, but for those of /v3, which the document
// does not have.
var describedReads = []string{"/abilities", "/oncalls?limit=3", "/schedules", "/schedules/PSCHED1",
	"/schedules/PSCHED1/users", "/users?limit=2&offset=2", "/users/me", "/users/PUSER01", "/teams", "/teams/PTEAM01",
	"/escalation_policies", "/escalation_policies/PESCAL1", "/services?offset=4", "/services/PSERVI1", "/incidents",
	"/incidents/PINCID1"}

func TestDescribedReadsAreAllThatPasses(t *testing.T) {
	for _, text := range pagerdutyapi.Reads() {
		rule, err := grant.ParseRule(text)
		testenv.Check(t, err)
		if !strings.Contains(text, "/v3/") && !slices.ContainsFunc(describedReads, func(at string) bool {
			path, _, _ := strings.Cut(at, "?")
			return rule.Match("GET", path)
		}) {
			t.Errorf("no request for %s", text)
		}
	}
}

// Prism makes answers of the description, or checks those of our pretend PagerDuty against it:
// each read passes the gateway and arrives byte for byte, and a change reaches nobody.
func TestP12_WhatPagerDutyDescribesPassesTheGateway(t *testing.T) {
	mock := startPrism(t, "")
	for _, kind := range []string{pagerduty.Type, pagerdutykey.Type} {
		for name, prism := range map[string]*url.URL{"Prism answers": mock, "Prism checks": nil} {
			t.Run(kind+", "+name, func(t *testing.T) {
				t.Parallel()
				d := startDescribed(t, kind, false, prism)
				for _, path := range describedReads {
					before := len(d.since(0))
					status, body := d.ask(t, "GET", path, "", "")
					if path == "/abilities" { // no access has it; the connectors ask it themselves
						if status != http.StatusForbidden || len(d.since(before)) != 0 {
							t.Errorf("GET %s: %d", path, status)
						}
						continue
					}
					asked := d.since(before)
					if status != http.StatusOK || len(asked) != 1 || asked[0].body != body {
						t.Errorf("GET %s: %d %s\nPrism: %+v", path, status, body, asked)
					}
				}
				before := len(d.since(0))
				for _, change := range []string{"POST /schedules", "PUT /incidents/PX", "POST /incidents", "POST /users",
					"DELETE /schedules/PX", "PUT /schedules/PX"} {
					method, path, _ := strings.Cut(change, " ")
					if status, body := d.ask(t, method, path, "{}", ""); status != http.StatusForbidden ||
						!strings.Contains(body, "/rule-denied") {
						t.Errorf("%s: %d %s", change, status, body)
					}
				}
				if asked := d.since(before); len(asked) != 0 || d.onCall.Changes() != nil {
					t.Errorf("a change arrived: %+v", asked)
				}
			})
		}
	}
}

// Errors arrive as they are described: 401 and 403 of a read, and 422 of a change whose body
// is not as described. A change that is comes with the address of a person.
func TestP12_WhatPagerDutyDescribesOfErrorsArrives(t *testing.T) {
	mock := startPrism(t, "")
	for _, kind := range []string{pagerduty.Type, pagerdutykey.Type} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			d := startDescribed(t, kind, true, mock)
			for _, tt := range []struct {
				method, path, body, prefer string
				status                     int
			}{
				{"GET", "/oncalls", "", "code=401", 401},
				{"GET", "/oncalls", "", "code=403", 403},
				{"GET", "/oncalls", "", "code=429", 429},
				{"GET", "/schedules/PX", "", "code=404", 404},
				{"POST", "/schedules", `{}`, "", 422},
				{"POST", "/schedules", `{"schedule":{"type":"schedule"}}`, "", 422},
			} {
				before := len(d.since(0))
				status, body := d.ask(t, tt.method, tt.path, tt.body, tt.prefer)
				got := d.since(before)
				if status != tt.status || !slices.Contains(got, exchange{tt.method + " " + tt.path, tt.status, body}) ||
					!strings.Contains(body, `"error":{"code":`) {
					t.Errorf("%+v: %d %s\nPrism: %+v", tt, status, body, got)
				}
			}
			const incident = `{"incident":{"type":"incident","title":"x","service":{"id":"PX","type":"service_reference"}}}`
			if status, body := d.ask(t, "POST", "/incidents", incident, ""); status != http.StatusCreated {
				t.Errorf("a change with an address (From): %d %s", status, body)
			}
		})
	}
}
