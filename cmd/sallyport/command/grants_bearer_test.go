package command

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// serviceAccounts issues the tokens of a cluster's service accounts, as Kubernetes has them:
// the header names a key and no type.
type serviceAccounts struct {
	*testenv.Faults
	t *testing.T
}

func startServiceAccounts(t *testing.T) *serviceAccounts {
	t.Helper()
	return &serviceAccounts{t: t, Faults: testenv.StartProvider(t, demo.ProviderOptions{ClientID: "nobody",
		ClientSecret: "s", RedirectURIs: []string{"http://localhost/"}})}
}

func (c *serviceAccounts) token(account string, bend ...func(map[string]any)) string {
	c.t.Helper()
	claims := map[string]any{"iss": c.URL, "sub": "system:serviceaccount:team:" + account,
		"aud": []string{"sallyport-grants"}, "iat": time.Now().Unix(), "nbf": time.Now().Unix(),
		"exp": time.Now().Add(time.Hour).Unix(), "jti": "c4nary-of-" + account}
	for _, b := range bend {
		b(claims)
	}
	token, err := c.Provider.Sign(map[string]any{"typ": nil}, claims)
	testenv.Check(c.t, err)
	return token
}

// useWith asks the gateway with lines of Authorization.
func (s *lendingStory) useWith(path string, lines ...string) (status int, body string) {
	s.t.Helper()
	req, err := http.NewRequest("GET", "http://"+s.grants+path, nil)
	testenv.Check(s.t, err)
	req.Header["Authorization"] = lines
	s.mu.Lock()
	req.Header.Set("X-Sallyport-Assertion", s.assertion)
	s.mu.Unlock()
	res, err := http.DefaultClient.Do(req)
	testenv.Check(s.t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	testenv.Check(s.t, err)
	return res.StatusCode, string(text)
}

// P12: an app in a cluster needs no secret: the token of its service account proves it, and no
// other one does. Where the file does not name the account any more, it proves nobody, also
// one that was good a moment ago; and no token is in what the program writes or sends.
func TestP12_AnAppIsProvedByItsServiceAccount(t *testing.T) {
	s, accounts := startLending(t, "sqlite:"+filepath.Join(t.TempDir(), "sallyport.db")), startServiceAccounts(t)
	s.connect()
	output := s.stop(t)
	text, err := os.ReadFile(s.config)
	testenv.Check(t, err)
	edit := func(from, to string) {
		t.Helper()
		if strings.Count(string(text), from) != 1 {
			t.Fatalf("%q is not there once", from)
		}
		text = []byte(strings.Replace(string(text), from, to, 1))
		write(t, s.config, string(text))
	}
	const named = `subjects: ["system:serviceaccount:team:planner"]`
	edit("}]\nroutes:", fmt.Sprintf("}, {id: cluster, type: oidc, use: tokens, issuer: %q}]\nroutes:", accounts.URL))
	edit(`token: "literal:`+lentToken+`"`,
		"bearer: {provider: cluster, audiences: [sallyport-grants], quirks: [any_typ], "+named+"}")
	s.binary.run(t, t.TempDir(), s.config)
	var checked strings.Builder
	const says = "A token of cluster for sallyport-grants proves planner where its subject is " +
		"system:serviceaccount:team:planner.\n"
	if code := run([]string{"check", s.config}, &console{stdout: &checked, stderr: io.Discard}); code != 0 ||
		!strings.Contains(checked.String(), says) {
		t.Errorf("check: %d\n%s", code, checked.String())
	}

	good := accounts.token("planner")
	for range 20 {
		if status, body := s.useWith("/gateway/jira/issues/7", "Bearer "+good); status != http.StatusOK ||
			body != "the issues of /v3/issues/7" {
			t.Fatalf("by its account: %d %s", status, body)
		}
	}
	if n := accounts.Hits(testenv.JWKS); n != 1 {
		t.Errorf("keys were fetched %d times", n)
	}
	header := map[string]any{"alg": "RS256", "kid": accounts.Provider.PublicJWKS().Keys[0].KeyID}
	sign := func(by testenv.Signer) string {
		token, err := by(accounts.Provider, header, map[string]any{"iss": accounts.URL, "aud": "sallyport-grants",
			"sub": "system:serviceaccount:team:planner", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()})
		testenv.Check(t, err)
		return "Bearer " + token
	}
	before := s.there.calls()
	for name, lines := range map[string][]string{
		"another account":      {"Bearer " + accounts.token("other")},
		"another audience":     {"Bearer " + accounts.token("planner", testenv.With("aud", accounts.URL))},
		"another issuer":       {"Bearer " + startServiceAccounts(t).token("planner")},
		"another one's keys":   {"Bearer " + startServiceAccounts(t).token("planner", testenv.With("iss", accounts.URL))},
		"expired":              {"Bearer " + accounts.token("planner", testenv.With("exp", time.Now().Unix()))},
		"not yet":              {"Bearer " + accounts.token("planner", testenv.With("nbf", time.Now().Add(time.Hour).Unix()))},
		"alg none":             {sign(testenv.Unsigned)},
		"HS256":                {sign(testenv.SignedWithPublicKey)},
		"two tokens":           {"Bearer " + good, "Bearer " + good},
		"the token it had":     {"Bearer " + lentToken},
		"nothing":              nil,
		"the provider's words": {"Bearer cluster:system:serviceaccount:team:planner"},
	} {
		if status, body := s.useWith("/gateway/jira/issues", lines...); status != http.StatusUnauthorized ||
			!strings.Contains(body, "app-unknown") {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	if n := s.there.calls() - before; n != 0 {
		t.Errorf("the third party was called %d times for an app that was not proved", n)
	}

	// While the app moves, its old token counts beside the account; then it is named no more.
	reload := func(from, to, what string, done func() bool) {
		t.Helper()
		edit(from, to)
		testenv.Check(t, s.process.Process.Signal(syscall.SIGHUP))
		testenv.Eventually(t, what, done)
	}
	is := func(want int, auth string) func() bool {
		return func() bool {
			status, body := s.useWith("/gateway/jira/issues", "Bearer "+auth)
			return status == want && (want == http.StatusOK || strings.Contains(body, "app-unknown"))
		}
	}
	reload("bearer: {provider", `token: "literal:`+lentToken+`", bearer: {provider`, "the token counts too",
		is(http.StatusOK, lentToken))
	if !is(http.StatusOK, good)() {
		t.Error("beside a token the account proves nothing")
	}
	reload(named, `subjects: ["system:serviceaccount:team:planner-2"]`, "the account proves nothing",
		is(http.StatusUnauthorized, good))
	for range 5 {
		if !is(http.StatusUnauthorized, good)() {
			t.Error("an account that the file does not name proves something")
		}
	}
	if !is(http.StatusOK, accounts.token("planner-2"))() {
		t.Error("the account that is named proves nothing")
	}

	output += s.stop(t)
	var secrets testenv.Secrets
	for i, part := range strings.Split(good, ".") {
		if i > 0 {
			secrets.Add("token", part)
		}
	}
	s.there.mu.Lock()
	sent := ""
	for _, r := range s.there.called {
		sent += fmt.Sprint(r.URL, r.Header)
	}
	s.there.mu.Unlock()
	audit, err := os.ReadFile(filepath.Join(s.dir, "audit"))
	testenv.Check(t, err)
	for where, text := range map[string]string{"output": output, "audit": string(audit), "third party": sent} {
		if found := secrets.In(text); text == "" || len(found) > 0 || strings.Contains(text, "c4nary-of") {
			t.Errorf("%s, %d bytes: %q", where, len(text), found)
		}
	}
	if !strings.Contains(output, "made for another audience") {
		t.Error("the log does not say why a token proved nothing")
	}
}
