package oauth

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

// A caller whose refresh token counts once must know whether it may have been used.
func TestAnErrorSaysWhetherTheProviderMayHaveActed(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	hung, _ := server(t, hangUp)
	refusing, _ := server(t, answer(400, "application/json", `{"error":"invalid_grant"}`))
	cut, _ := server(t, cutOff)
	moved, _ := server(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x", http.StatusFound) })
	for name, row := range map[string]struct {
		request TokenRequest
		want    Sent
	}{
		"nobody listens":    {request(gone.URL), Never},
		"no URL":            {request("http://[::1"), Never},
		"the peer hangs up": {request(hung.URL), Maybe},
		"a refusal":         {request(refusing.URL), Answered},
		"half an answer":    {request(cut.URL), Answered},
		"a redirect":        {request(moved.URL), Answered},
	} {
		_, err := client(t, Options{}).Exchange(t.Context(), row.request)
		if e := kindOf(t, err); e.Sent != row.want {
			t.Errorf("%s: %s, want %s (%v)", name, e.Sent, row.want, err)
		}
	}
	_, err := client(t, Options{Transport: deaf{}}).Exchange(t.Context(), request(gone.URL))
	if e := kindOf(t, err); e.Sent != Maybe {
		t.Errorf("a transport that tells nothing: %s", e.Sent)
	}
}

type deaf struct{}

func (deaf) RoundTrip(*http.Request) (*http.Response, error) { return nil, http.ErrHandlerTimeout }

func TestAnErrorHasTheProvidersOwnCodes(t *testing.T) {
	for name, row := range map[string]struct {
		status int
		body   string
		code   string
		sub    []string
	}{
		"Microsoft": {400, `{"error":"invalid_grant","suberror":"consent_required","error_codes":[65001,90094]}`,
			"invalid_grant", []string{"consent_required", "65001", "90094"}},
		"Google": {400, `{"error":"invalid_grant","error_subtype":"invalid_rapt"}`, "invalid_grant",
			[]string{"invalid_rapt"}},
		"Slack":          {200, `{"ok":false,"error":"token_revoked"}`, "token_revoked", nil},
		"no codes":       {400, `{"error":"a b","suberror":"\n","error_codes":"x"}`, "", nil},
		"an object":      {400, `{"error":{"message":"x"},"error_codes":[{"a":1},"7"]}`, "", nil},
		"a long one":     {400, `{"error":"` + strings.Repeat("x", 65) + `"}`, "", nil},
		"a page":         {502, `<html>`, "", nil},
		"more than many": {400, `{"error_codes":[1,2,3,4,5,6,7,8,9]}`, "", strings.Split("12345678", "")},
	} {
		srv, hits := server(t, answer(row.status, "application/json", row.body))
		_, err := client(t, Options{}).Exchange(t.Context(), request(srv.URL))
		if e := kindOf(t, err); e.OwnCode != row.code || !slices.Equal(e.SubCodes, row.sub) || hits.Load() != 1 {
			t.Errorf("%s: %q %q after %d", name, e.OwnCode, e.SubCodes, hits.Load())
		}
	}
}

func TestRetryAfterIsReadAndBounded(t *testing.T) {
	now := time.Date(2026, 11, 28, 8, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"30": 30 * time.Second, "0": 0, "": 0, "-5": 0, "soon": 0, "99999999999999999999": time.Hour, "4000000000": time.Hour,
		"1764000000000": time.Hour, "0.5": 0,
		"Sat, 28 Nov 2026 08:01:00 GMT": time.Minute, "Sat, 28 Nov 2026 07:00:00 GMT": 0,
		"Sat, 28 Nov 2099 07:00:00 GMT": time.Hour,
	} {
		if got := retryAfter(value, now); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
	srv, _ := server(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	_, err := client(t, Options{}).Exchange(t.Context(), request(srv.URL))
	if e := kindOf(t, err); e.RetryAfter != 7*time.Second {
		t.Errorf("%v", e.RetryAfter)
	}
}
