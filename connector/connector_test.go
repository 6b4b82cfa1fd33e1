package connector

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/oauth"
)

const canary = "canary-3f1b"

func own() Codes {
	return Codes{"session_over": {grant.Yours, "session_over"}, "admin_needed": {grant.AdminTheir, "admin_needed"}}
}

func answers(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

func breaksOff(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func cutOff(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "1000")
	_, _ = w.Write([]byte(`{"access_token":"`))
}

// Each answer of a token endpoint means one thing for the grant, was asked for once, and
// leaves nothing of itself in the error.
func TestP14_WhatAFailedCallMeans(t *testing.T) {
	for _, c := range []struct {
		name   string
		peer   http.HandlerFunc
		class  grant.Class
		reason string
	}{
		{"the grant has ended", answers(400, `{"error":"invalid_grant"}`), grant.Yours, GrantRefused},
		{"an own sub-code goes first", answers(400, `{"error":"invalid_grant","error_subtype":"session_over"}`),
			grant.Yours, "session_over"},
		{"an own code", answers(400, `{"error":"admin_needed"}`), grant.AdminTheir, "admin_needed"},
		{"our secret", answers(401, `{"error":"invalid_client"}`), grant.Ours, ClientRefused},
		{"our request", answers(400, `{"error":"invalid_request"}`), grant.Ours, RequestRefused},
		{"an unknown code", answers(400, `{"error":"surprise"}`), grant.Later, UnknownCode},
		{"an unknown code with success", answers(200, `{"ok":false,"error":"surprise"}`), grant.Later, UnknownCode},
		{"a page of a firewall", answers(403, "<html>"+canary), grant.Later, UnknownCode},
		{"no such page", answers(404, "<html>"+canary), grant.Ours, WrongEndpoint},
		{"a redirect", answers(307, ""), grant.Ours, WrongEndpoint},
		{"401 without a word", answers(401, ""), grant.Ours, ClientRefused},
		{"too many", answers(429, `{"error":"invalid_grant"}`), grant.Later, Busy},
		{"down, whatever it says", answers(503, `{"error":"invalid_grant"}`), grant.Later, Busy},
		{"it says it is down", answers(400, `{"error":"temporarily_unavailable"}`), grant.Later, Busy},
		{"the answer is lost", breaksOff, grant.Lost, NoAnswer},
		{"the answer is cut off", cutOff, grant.Lost, Garbled},
		{"garbage", answers(200, canary), grant.Lost, Garbled},
		{"twice the same name", answers(200, `{"access_token":"a","access_token":"`+canary+`"}`), grant.Lost, Garbled},
		{"a token of another type", answers(200, `{"access_token":"a","token_type":"mac"}`), grant.Lost, Garbled},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv, hits := peer(t, c.peer)
			_, err := client(t).Exchange(t.Context(), request(srv.URL))
			err = own().Failed(err)
			e, ok := errors.AsType[*grant.Error](err)
			if !ok || e.Class != c.class || e.Reason != c.reason {
				t.Errorf("means %v", err)
			}
			if hits() != 1 {
				t.Errorf("asked %d times", hits())
			}
			if text := err.Error(); strings.Contains(text, canary) {
				t.Errorf("the text is %q", text)
			}
			if ok && c.reason == Busy && c.name != "it says it is down" && e.RetryAfter != 7*time.Second {
				t.Errorf("asks to wait %v", e.RetryAfter)
			}
		})
	}
}

func TestWhatWasNotSentIsToldApart(t *testing.T) {
	addr, err := testenv.UnusedAddress()
	if err != nil {
		t.Fatal(err)
	}
	_, err = client(t).Exchange(t.Context(), request("http://"+addr))
	if err = own().Failed(err); grant.ClassOf(err) != grant.Unsent {
		t.Errorf("nobody there: %v", err)
	}
	_, err = client(t).Exchange(t.Context(), oauth.TokenRequest{URL: "http://" + addr})
	if err = own().Failed(err); grant.ClassOf(err) != grant.Ours {
		t.Errorf("without client authentication: %v", err)
	}
	if own().Failed(nil) != nil || grant.ClassOf(own().Failed(errors.New("else"))) != grant.Lost {
		t.Error("no error, or another, means something")
	}
}

// A third party that never answers is given up when the caller does, and the outcome is
// unknown.
func TestP14_AHangingCallIsLost(t *testing.T) {
	arrived := make(chan struct{})
	release := make(chan struct{})
	srv, hits := peer(t, func(http.ResponseWriter, *http.Request) { close(arrived); <-release })
	defer close(release)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	_, err := client(t).Exchange(ctx, request(srv.URL))
	if err = own().Failed(err); grant.ClassOf(err) != grant.Lost || hits() != 1 {
		t.Errorf("%v, asked %d times", err, hits())
	}
}

func TestWhatARevocationCameTo(t *testing.T) {
	for _, c := range []struct {
		name string
		peer http.HandlerFunc
		want grant.Revocation
	}{
		{"done", answers(200, ""), grant.Revoked},
		{"done, and the rest is lost", cutOff, grant.Revoked},
		{"it was over", answers(400, `{"error":"invalid_token"}`), grant.Revoked},
		{"not for this kind", answers(400, `{"error":"unsupported_token_type"}`), grant.NotSupported},
		{"our secret", answers(401, `{"error":"invalid_client"}`), grant.RevokeFailed},
		{"down", answers(503, `{"error":"invalid_token"}`), grant.RevokeFailed},
		{"a redirect", answers(302, ""), grant.RevokeFailed},
		{"no answer", breaksOff, grant.RevokeFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv, hits := peer(t, c.peer)
			r := request(srv.URL)
			r.Form = url.Values{"token": {canary}}
			got, err := own().Ended(client(t).Revoke(t.Context(), r))
			if got != c.want || (err != nil) != (c.want == grant.RevokeFailed) || hits() != 1 {
				t.Errorf("%q, %v, asked %d times", got, err, hits())
			}
			if err != nil && strings.Contains(err.Error(), canary) {
				t.Errorf("the text is %q", err)
			}
		})
	}
}

func TestWhatComesBackWithTheBrowser(t *testing.T) {
	for _, c := range []struct {
		callback url.Values
		class    grant.Class
	}{
		{url.Values{"error": {"access_denied"}, "code": {"c"}}, grant.Yours},
		{url.Values{"error": {"admin_needed"}}, grant.AdminTheir},
		{url.Values{"error": {"invalid_scope"}}, grant.Ours},
		{url.Values{"error": {"server_error"}}, grant.Later},
		{url.Values{"error": {canary}}, grant.Later},
		{url.Values{}, grant.Ours},
		{url.Values{"code": {"c", canary}}, grant.Ours},
	} {
		_, err := own().Code(c.callback)
		if e, ok := errors.AsType[*grant.Error](err); !ok || e.Class != c.class || strings.Contains(e.Error(), canary) {
			t.Errorf("%v: %v", c.callback, err)
		}
	}
	if code, err := own().Code(url.Values{"code": {"c"}, "state": {"s"}}); code != "c" || err != nil {
		t.Errorf("%q, %v", code, err)
	}
}

func TestScopesAreSets(t *testing.T) {
	if got := Scopes(" b a\tb "); !slices.Equal(got, []string{"a", "b"}) || Scopes("") != nil {
		t.Errorf("%q", got)
	}
	if got := Missing([]string{"c", "a", "c"}, Scopes("b a")); !slices.Equal(got, []string{"c"}) {
		t.Errorf("missing %q", got)
	}
	e, ok := errors.AsType[*grant.Error](Narrow([]string{"c"}))
	if !ok || e.Class != grant.Narrow || e.Missing[0] != "c" {
		t.Error("it is not told what is missing")
	}
	if Narrow(nil) != nil {
		t.Error("nothing is missing, and it is an error")
	}
}

// What is added for one third party can never replace state, PKCE or the client.
// What a third party says was granted is kept with the grant, logged where it is more than was asked
// for, and shown to people: it is no longer than that needs, and of visible ASCII.
func TestP17_ScopesThatNobodyAskedForAreBounded(t *testing.T) {
	long := strings.Repeat("x", 1025)
	if got := Scopes("read \x1b[2Jcleared say\"hi\" bl\u202eink " + long); !slices.Equal(got, []string{"read"}) {
		t.Errorf("%q", got)
	}
	if got := Scopes(long); got == nil || len(got) != 0 { // they were told, and none is left
		t.Errorf("%q", got)
	}
	var many strings.Builder
	for n := range 100_000 {
		fmt.Fprintf(&many, "z%d ", n)
	}
	if got := Scopes(many.String() + "read"); len(got) != 500 || got[0] != "read" {
		t.Errorf("%d scopes", len(got))
	}
}

func TestP06_BrowsersAreSentAwayWithStateAndPKCE(t *testing.T) {
	h := identity.Handshake{State: "s", Verifier: "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"} // RFC 7636 appendix B
	r := grant.Request{RedirectURI: "https://sallyport.test/cb", Scopes: []string{"a", "b"}}
	got, err := Authorize("https://as.test/auth?tenant=1", "me", h, r,
		url.Values{"prompt": {"consent"}, "state": {"x"}, "code_challenge_method": {"plain"}, "redirect_uri": {"x"}})
	u, _ := url.Parse(got)
	want := url.Values{"tenant": {"1"}, "response_type": {"code"}, "client_id": {"me"}, "redirect_uri": {r.RedirectURI},
		"state": {"s"}, "code_challenge": {"E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"},
		"code_challenge_method": {"S256"}, "scope": {"a b"}, "prompt": {"consent"}}
	if err != nil || u.Query().Encode() != want.Encode() {
		t.Errorf("%s, %v", got, err)
	}
	for name, bad := range map[string]identity.Handshake{"no state": {Verifier: "v"}, "no verifier": {State: "s"}} {
		if _, err := Authorize("https://as.test/auth", "me", bad, r, nil); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := Authorize("/auth", "me", h, r, nil); err == nil {
		t.Error("a relative endpoint is accepted")
	}
}

func TestTokensOfAnAnswer(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	got, err := Tokens(oauth.TokenResponse{AccessToken: "a", ExpiresIn: time.Hour}, now)
	if err != nil || !got.AccessExpires.Equal(now.Add(time.Hour)) || !got.AccessIssued.Equal(now) || got.Refresh != "" {
		t.Errorf("expires %v, %v", got.AccessExpires, err)
	}
	if got, err = Tokens(oauth.TokenResponse{AccessToken: "a"}, now); err != nil || !got.AccessExpires.IsZero() {
		t.Errorf("nobody said when it expires: %v, %v", got.AccessExpires, err)
	}
	if _, err = Tokens(oauth.TokenResponse{RefreshToken: "r"}, now); grant.ClassOf(err) != grant.Lost {
		t.Errorf("no access token: %v", err)
	}
}

func peer(t *testing.T, h http.HandlerFunc) (*httptest.Server, func() int) {
	t.Helper()
	hits := make(chan struct{}, 100)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		hits <- struct{}{}
		h(w, r)
	}))
	t.Cleanup(srv.Close)
	return srv, func() int { return len(hits) }
}

func client(t *testing.T) *oauth.Client {
	t.Helper()
	c, err := oauth.NewClient(oauth.Options{Provider: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func request(address string) oauth.TokenRequest {
	return oauth.TokenRequest{URL: address, ClientID: "me", ClientSecret: canary, Auth: oauth.Post,
		Form: url.Values{"grant_type": {"refresh_token"}, "refresh_token": {canary}}}
}
