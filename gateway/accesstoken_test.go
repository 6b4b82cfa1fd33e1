package gateway_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/gateway"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/login"
	"github.com/sallyport-proxy/sallyport/oauth"
)

const (
	grantsAudience = "sallyport-grants"
	plannerAccount = "system:serviceaccount:team:planner"
	otherAccount   = "system:serviceaccount:team:other"
)

// cluster issues the tokens of service accounts. It is a provider that can misbehave.
type cluster struct {
	*testenv.Faults
	t     testing.TB
	clock *testenv.Clock
}

func startCluster(t testing.TB) *cluster {
	t.Helper()
	return &cluster{t: t, clock: testenv.StandingClock(time.Now().Truncate(time.Second)),
		Faults: testenv.StartProvider(t, demo.ProviderOptions{ClientID: "nobody", ClientSecret: "s",
			RedirectURIs: []string{"http://localhost/"}})}
}

// claims are those of a token as a kubelet projects it into a pod, for an hour (Kubernetes
// documentation, "Managing Service Accounts", Bound service account token).
func (c *cluster) claims() map[string]any {
	now := c.clock.Now()
	return map[string]any{"iss": c.URL, "sub": plannerAccount, "aud": []string{grantsAudience}, "jti": "c4nary-jti",
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"kubernetes.io": map[string]any{"namespace": "team", "pod": map[string]any{"name": "planner-0"},
			"serviceaccount": map[string]any{"name": "planner"}}}
}

// token is signed, without typ, as Kubernetes does it.
func (c *cluster) token(bend ...func(map[string]any)) string {
	c.t.Helper()
	claims := c.claims()
	for _, b := range bend {
		b(claims)
	}
	token, err := c.Provider.Sign(map[string]any{"typ": nil}, claims)
	testenv.Check(c.t, err)
	return token
}

func (c *cluster) tokens(subjects ...string) *gateway.AccessTokens {
	c.t.Helper()
	client, err := oauth.NewClient(oauth.Options{Provider: "cluster", Timeout: 2 * time.Second})
	testenv.Check(c.t, err)
	p, err := login.New(login.Options{ID: "cluster", Use: login.UseTokens, Issuer: c.URL, Now: c.clock.Now,
		Client: client})
	testenv.Check(c.t, err)
	v, err := p.TokenVerifier(login.BearerOptions{Audiences: []string{grantsAudience}, Quirks: []string{"any_typ"}})
	testenv.Check(c.t, err)
	return &gateway.AccessTokens{TokenVerifier: v, Issuer: c.URL, Subjects: subjects}
}

// newClusterRig has the apps planner and other, each with a service account.
func newClusterRig(t testing.TB, c *cluster, origin string) *rig {
	t.Helper()
	r := newRig(t, origin, func(o *gateway.Options) {
		o.Apps[0].AccessTokens, o.Apps[2].AccessTokens = c.tokens(plannerAccount), c.tokens(otherAccount)
	})
	r.connect("freebusy")
	return r
}

// P12: a token proves the app of its subject where all of it is right, and no other app.
func TestP12_AnAccessTokenProvesTheAppOfItsSubjectAlone(t *testing.T) {
	peer, c := testenv.NewRawUpstream(t), startCluster(t)
	r := newClusterRig(t, c, peer.URL())
	bearer := func(token string) string { return "Bearer " + token }
	if res, body := r.ask("GET", busy, "", "Authorization", bearer(c.token())); res.StatusCode != 200 {
		t.Fatalf("a good token: %d %s", res.StatusCode, body)
	}
	if ev := <-r.events; ev.App != "planner" {
		t.Errorf("proved is %s", ev.App)
	}
	// The other app is not configured for the assertions of the planner's route.
	res, body := r.ask("GET", busy, "", "Authorization", bearer(c.token(testenv.With("sub", otherAccount))))
	if res.StatusCode != 401 || problemOf(t, res, body).Type != "person-unknown" {
		t.Errorf("the other app's token: %d %s", res.StatusCode, body)
	}
	if ev := <-r.events; ev.App != "other" {
		t.Errorf("proved is %s", ev.App)
	}
	res, body = r.ask("POST", "/v1/leases", "", "Authorization", bearer(c.token()))
	var lease struct {
		Lease string `json:"lease"`
	}
	if testenv.Check(t, json.Unmarshal([]byte(body), &lease)); res.StatusCode != 201 {
		t.Fatalf("%d: %s", res.StatusCode, body)
	}
	basic := base64.StdEncoding.EncodeToString([]byte(lease.Lease + ":" + c.token()))
	for name, auth := range map[string]string{"bearer": bearer(c.token() + "~" + lease.Lease), "Basic": "Basic " + basic} {
		if res, body := r.ask("GET", busy, "", "X-Sallyport-Assertion", "", "Authorization", auth); res.StatusCode != 200 {
			t.Errorf("a lease in %s: %d %s", name, res.StatusCode, body)
		}
	}
	signed := func(s testenv.Signer) string {
		token, err := s(c.Provider, map[string]any{"alg": "RS256", "kid": c.Provider.PublicJWKS().Keys[0].KeyID}, c.claims())
		testenv.Check(t, err)
		return token
	}
	with, without, now := testenv.With, testenv.Without, c.clock.Now()
	stranger := startCluster(t)
	head, rest, _ := strings.Cut(c.token(), ".")
	before := len(peer.Requests())
	for name, token := range map[string]string{
		"of no app":                    c.token(with("sub", "system:serviceaccount:team:stranger")),
		"of another namespace":         c.token(with("sub", "system:serviceaccount:team2:planner")),
		"a longer subject":             c.token(with("sub", plannerAccount+"2")),
		"a shorter subject":            c.token(with("sub", plannerAccount[:len(plannerAccount)-1])),
		"in capitals":                  c.token(with("sub", strings.ToUpper(plannerAccount))),
		"a blank behind":               c.token(with("sub", plannerAccount+" ")),
		"a list of subjects":           c.token(with("sub", []string{plannerAccount})),
		"no subject":                   c.token(without("sub")),
		"in another claim":             c.token(without("sub"), with("Sub", plannerAccount)),
		"the account in kubernetes.io": c.token(without("sub"), with("username", plannerAccount)),
		"for another audience":         c.token(with("aud", []string{"https://kubernetes.default.svc"})),
		"for no audience":              c.token(without("aud")),
		"an audience that begins so":   c.token(with("aud", grantsAudience+"-2")),
		"expired":                      c.token(with("exp", now.Add(-time.Second).Unix())),
		"without an end":               c.token(without("exp")),
		"not yet":                      c.token(with("nbf", now.Add(5*time.Minute).Unix())),
		"issued later":                 c.token(with("iat", now.Add(5*time.Minute).Unix())),
		"of another issuer":            c.token(with("iss", "https://kubernetes.default.svc")),
		"of nearly that issuer":        c.token(with("iss", c.URL+"/")),
		"of no issuer":                 c.token(without("iss")),
		"a stranger's signature":       signed(testenv.SignedByStranger),
		"a stranger's token":           stranger.token(with("iss", c.URL)),
		"alg none":                     signed(testenv.Unsigned),
		"HS256 with the public key":    signed(testenv.SignedWithPublicKey),
		"an ID token":                  c.token(with("nonce", "n")),
		"bound to a key":               c.token(with("cnf", map[string]any{"jkt": "x"})),
		"another header":               head + "A." + rest,
		"cut":                          c.token()[:len(c.token())-1],
		"no signature":                 head + "." + strings.Split(rest, ".")[0] + ".",
		"more behind it":               c.token() + ".x",
		"a blank inside":               strings.Replace(c.token(), ".", ". ", 1),
		"a payload that is none":       head + ".bm9uZQ.x",
		"too long":                     c.token(with("pad", strings.Repeat("x", 64<<10))),
	} {
		res, body := r.ask("GET", busy, "", "Authorization", bearer(token))
		if res.StatusCode != 401 || problemOf(t, res, body).Type != "app-unknown" ||
			res.Header.Get("Www-Authenticate") == "" {
			t.Errorf("%s: %d %s", name, res.StatusCode, body)
		}
	}
	for name, lines := range map[string][]string{
		"two tokens":            {bearer(c.token()), bearer(c.token())},
		"a token and the app's": {bearer(c.token()), bearer(appToken)},
		"two in one":            {bearer(c.token() + ", " + bearer(c.token()))},
		"another scheme":        {"DPoP " + c.token()},
	} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", r.url+"/v1/grants", nil)
		testenv.Check(t, err)
		req.Header["Authorization"] = lines
		req.Header.Set("X-Sallyport-Assertion", r.assertion("planner"))
		res, err := http.DefaultClient.Do(req)
		testenv.Check(t, err)
		if res.Body.Close(); res.StatusCode != 401 {
			t.Errorf("%s: %d", name, res.StatusCode)
		}
	}
	if n := len(peer.Requests()) - before; n != 0 {
		t.Errorf("the third party was asked %d times for apps that were not proved", n)
	}
	// What its app may do for whom is as with a token of the configuration.
	if res, body := r.ask("GET", busy, "", "Authorization", bearer(c.token()), "X-Sallyport-Assertion", ""); res.StatusCode !=
		401 || problemOf(t, res, body).Type != "person-unknown" {
		t.Errorf("for nobody: %d %s", res.StatusCode, body)
	}
	// No leeway: the same token, which is known, ends to the second.
	token := c.token()
	if res, body := r.ask("GET", busy, "", "Authorization", bearer(token)); res.StatusCode != 200 {
		t.Errorf("in its last hour: %d %s", res.StatusCode, body)
	}
	c.clock.Advance(time.Hour)
	if res, body := r.ask("GET", busy, "", "Authorization", bearer(token)); res.StatusCode != 401 ||
		problemOf(t, res, body).Type != "app-unknown" {
		t.Errorf("at its end: %d %s", res.StatusCode, body)
	}
}

// P8: the token that proves an app ends at the gateway, whatever becomes of the request.
func TestP08_TheAccessTokenOfAnAppGoesNowhere(t *testing.T) {
	peer, c := testenv.NewRawUpstream(t), startCluster(t)
	r := newClusterRig(t, c, peer.URL())
	var secrets testenv.Secrets
	answers := ""
	for name, token := range map[string]string{
		"good": c.token(), "for another": c.token(testenv.With("aud", "x")),
		"of nobody": c.token(testenv.With("sub", "nobody")), "expired": c.token(testenv.With("exp", 1)),
		"stranger's": startCluster(t).token(testenv.With("iss", c.URL)),
	} {
		for i, part := range strings.Split(token, ".") {
			if i > 0 { // the header is the same in all
				secrets.Add(name, part)
			}
		}
		secrets.Add("jti", "c4nary-jti")
		_, body := r.ask("GET", busy, "", "Authorization", "Bearer "+token)
		answers += body
		_, body = r.ask("POST", "/gateway/calendar/freeBusy", `{"a":1}`, "Authorization", "Bearer "+token, "Content-Type",
			"application/json")
		answers += body
		if ev := <-r.events; len(secrets.In(fmt.Sprintf("%+v", ev))) > 0 {
			t.Errorf("%s: told of the request: %+v", name, ev)
		}
		<-r.events
	}
	if got := peer.Requests(); len(got) != 2 {
		t.Errorf("the third party got %d requests, want 2", len(got))
	}
	for what, text := range map[string]string{"third party": fmt.Sprint(peer.Requests()), "log": r.log.String(),
		"answers": answers} {
		if text == "" {
			t.Errorf("nothing of the %s to look at", what)
		}
		if found := secrets.In(text); len(found) > 0 {
			t.Errorf("the %s got %q", what, found)
		}
	}
	// The log says why, for who has to mend it.
	if log := r.log.String(); !strings.Contains(log, "made for another audience") || !strings.Contains(log, "expired") {
		t.Errorf("the log does not say why: %s", log)
	}
}

// P17: anybody may make up tokens. Those of no app's subject are not looked at; those of one
// cost one fetch of keys in half a minute, and hold up no good token.
func TestP17_MadeUpAccessTokensOfAppsCostOneFetch(t *testing.T) {
	peer, c := testenv.NewRawUpstream(t), startCluster(t)
	r := newClusterRig(t, c, peer.URL())
	status := func(token string) int {
		t.Helper()
		res, _ := r.ask("GET", "/v1/grants", "", "Authorization", "Bearer "+token)
		<-r.events
		return res.StatusCode
	}
	fetched := func(what string, want int) {
		t.Helper()
		if got := c.Hits(testenv.JWKS); got != want {
			t.Errorf("%s: keys were fetched %d times, want %d", what, got, want)
		}
	}
	for i := range 10 {
		if got := status(c.token(testenv.With("sub", fmt.Sprint("system:serviceaccount:team:", i)))); got != 401 {
			t.Errorf("of nobody's subject: %d", got)
		}
	}
	fetched("of nobody's subject", 0)
	good := c.token()
	for range 20 {
		if got := status(good); got != 200 {
			t.Fatalf("good: %d", got)
		}
	}
	if got := status(c.token(testenv.With("sub", otherAccount))); got != 401 {
		t.Errorf("another app's account for this one's person: %d", got)
	}
	// Each app has here a provider of its own; in the program they share one.
	fetched("good ones of two apps", 2)
	madeUp := func(i int) string {
		token, err := c.Provider.Sign(map[string]any{"typ": nil, "kid": fmt.Sprint("made-up-", i)}, c.claims())
		testenv.Check(t, err)
		return token
	}
	var together sync.WaitGroup
	for i := range 50 {
		together.Go(func() {
			if got := status(madeUp(i)); got != 401 {
				t.Errorf("made up: %d", got)
			}
			if got := status(good); got != 200 {
				t.Errorf("good: %d", got)
			}
		})
	}
	together.Wait()
	fetched("made up", 3)
	c.clock.Advance(31 * time.Second)
	for i := range 20 {
		status(madeUp(100 + i))
	}
	fetched("half a minute later", 4)
	// The cluster has a new key: the next token is good as soon as keys may be fetched again.
	testenv.Check(t, c.Provider.RotateKeys())
	if got := status(c.token()); got != 401 {
		t.Errorf("no fetch is left: %d", got)
	}
	c.clock.Advance(31 * time.Second)
	if got := status(c.token()); got != 200 {
		t.Errorf("with a new key: %d", got)
	}
	fetched("a new key", 5)
	c.clock.Advance(time.Minute) // a good token is verified anew after that, against the keys of now
	if got := status(good); got != 401 {
		t.Errorf("with a key that was withdrawn: %d", got)
	}
}

// P12: an issuer that is down, lies or hangs proves nobody; what was verified goes on, nobody is
// called unknown who may be known, and nobody has to do anything when it is back.
func TestP12_AnIssuerThatFailsProvesNobody(t *testing.T) {
	for name, fault := range map[string]testenv.Fault{
		"down":                {Status: 503},
		"refuses":             {Status: 403},
		"a page":              {Body: "<html>", ContentType: "text/html"},
		"no keys":             {Body: `{"keys":[]}`},
		"breaks off":          {Truncate: true},
		"says nothing":        {Lose: true},
		"sends elsewhere":     {Redirect: "http://127.0.0.1:1/keys"},
		"larger than 1 MiB":   {Pad: 2 << 20},
		"keys of a symmetric": {Body: `{"keys":[{"kty":"oct","kid":"k","k":"AAAA"}]}`},
		"hangs":               {Stall: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			peer, c := testenv.NewRawUpstream(t), startCluster(t)
			r := newClusterRig(t, c, peer.URL())
			fault.Endpoint = testenv.JWKS
			c.Set(fault)
			var together sync.WaitGroup
			for range 10 { // at once: they share the call
				together.Go(func() {
					res, body := r.ask("GET", busy, "", "Authorization", "Bearer "+c.token())
					if res.StatusCode != 503 || problemOf(t, res, body).Type != "try-later" ||
						res.Header.Get("Retry-After") == "" {
						t.Errorf("%d %s", res.StatusCode, body)
					}
				})
			}
			together.Wait()
			want := 1
			if fault.Lose { // a GET that got no answer is sent once more
				want = 2
			}
			if n := c.Hits(testenv.JWKS); n != want {
				t.Errorf("asked %d times for keys, want %d", n, want)
			}
			// The tokens of the configuration need no issuer.
			if res, body := r.ask("GET", busy, ""); res.StatusCode != 200 {
				t.Errorf("by the app's token: %d %s", res.StatusCode, body)
			}
			c.Set()
			c.clock.Advance(2 * time.Second)
			if res, body := r.ask("GET", busy, "", "Authorization", "Bearer "+c.token()); res.StatusCode != 200 {
				t.Errorf("when it is well: %d %s", res.StatusCode, body)
			}
			c.Set(fault)
			c.clock.Advance(2 * time.Minute)
			if res, body := r.ask("GET", busy, "", "Authorization", "Bearer "+c.token()); res.StatusCode != 200 {
				t.Errorf("with keys that are known: %d %s", res.StatusCode, body)
			}
		})
	}
}

// P12: a token proves one app: two with the same subject are refused.
func TestP12_NoAccessTokenProvesTwoApps(t *testing.T) {
	c := startCluster(t)
	r := newRig(t, "http://127.0.0.1:1")
	apps := func(planner, other *gateway.AccessTokens) error {
		public, _ := url.Parse("https://sallyport.test")
		_, err := gateway.New(gateway.NewProcess(gateway.ProcessOptions{}), gateway.Options{PublicURL: public,
			Prefix: "/_sallyport/", Broker: r.broker, Assertions: r.signer, Sessions: r.sessions, IdleTimeout: time.Hour,
			Apps: []gateway.App{{ID: "planner", AccessTokens: planner}, {ID: "other", AccessTokens: other}}})
		return err
	}
	elsewhere := c.tokens(plannerAccount)
	elsewhere.Issuer = "https://kubernetes.default.svc"
	for name, tt := range map[string]struct {
		other *gateway.AccessTokens
		good  bool
	}{
		"none":                        {nil, true},
		"a subject of its own":        {c.tokens(otherAccount), true},
		"of another cluster":          {elsewhere, true},
		"the same":                    {c.tokens(otherAccount, plannerAccount), false},
		"twice":                       {c.tokens(otherAccount, otherAccount), false},
		"nobody":                      {c.tokens(""), false},
		"of an issuer without a name": {&gateway.AccessTokens{Subjects: []string{otherAccount}}, false},
	} {
		if err := apps(c.tokens(plannerAccount), tt.other); (err == nil) != tt.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}
