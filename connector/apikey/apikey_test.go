package apikey

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/connector"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/oauth"
)

const key = "canary-0123456789"

func options(t *testing.T, base string) Options {
	t.Helper()
	client, err := oauth.NewClient(oauth.Options{Provider: "test"})
	if err != nil {
		t.Fatal(err)
	}
	rule, err := grant.ParseRule("GET /oncalls")
	if err != nil {
		t.Fatal(err)
	}
	return Options{ID: "oncall", BaseURL: base, Probe: "GET /me", OAuth: client,
		Accesses: []grant.Access{{Name: "read", Rules: []grant.Rule{rule}}}}
}

func TestAConfigurationThatCannotWorkIsRefusedWithItsKey(t *testing.T) {
	for _, c := range []struct {
		key    string
		change func(*Options)
	}{
		{"base_url", func(o *Options) { o.BaseURL = "http://api.test" }},
		{"inject.header", func(o *Options) { o.Header = "X Key" }},
		{"inject.header", func(o *Options) { o.Header = "Cookie" }},
		{"inject.header", func(o *Options) { o.Header = "Host" }},
		{"inject.format", func(o *Options) { o.Format = "Bearer" }},
		{"inject.format", func(o *Options) { o.Format = "%s%s" }},
		{"inject.format", func(o *Options) { o.Format = "%d %s" }},
		{"inject.format", func(o *Options) { o.Format = "Token\r\nX: %s" }},
		{"probe", func(o *Options) { o.Probe = "" }},
		{"probe", func(o *Options) { o.Probe = "DELETE /me" }},
		{"probe", func(o *Options) { o.Probe = "GET me" }},
		{"probe", func(o *Options) { o.Probe = "GET //evil.test/" }},
		{"probe", func(o *Options) { o.Probe = "GET /me now" }},
		{"forward_headers", func(o *Options) { o.Header, o.Forward = "X-Api-Key", []string{"x-api-key"} }},
		{"forward_headers", func(o *Options) {
			o.Headers, o.Forward = map[string]string{"X-Version": "2"}, []string{"x-version"}
		}},
		{"headers.Cookie", func(o *Options) { o.Headers = map[string]string{"Cookie": "a"} }},
		{"headers.authorization", func(o *Options) { o.Headers = map[string]string{"authorization": "a"} }},
		{"headers.x-api-key", func(o *Options) {
			o.Header, o.Headers = "X-Api-Key", map[string]string{"x-api-key": "a"}
		}},
		{"headers.X-Version", func(o *Options) { o.Headers = map[string]string{"X-Version": "2\r\nX-Evil: 1"} }},
		{"headers.X-Version", func(o *Options) { o.Headers = map[string]string{"X-Version": ""} }},
		{"inject.basic", func(o *Options) { o.Basic, o.Format = true, "Basic %s" }},
		{"inject.basic", func(o *Options) { o.Basic, o.Header = true, "X-Api-Key" }},
		{"scopes", func(o *Options) { o.Accesses[0].Scopes = []string{"a"} }},
		{"rules.read", func(o *Options) { o.Accesses[0].Rules = nil }},
		{"key_url", func(o *Options) { o.KeyURL = "javascript:alert(1)" }},
	} {
		o := options(t, "https://api.test")
		c.change(&o)
		_, err := New(o)
		if fault, ok := errors.AsType[*connector.Fault](err); !ok || fault.Key != c.key {
			t.Errorf("want a fault of %s: %v", c.key, err)
		}
	}
}

// A key gets to the third party as it was pasted, and in no other place than its header.
func TestP08_AKeyIsProbedInItsHeader(t *testing.T) {
	var asked atomic.Pointer[http.Request]
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked.Store(r) }))
	defer srv.Close()
	for format, want := range map[string]string{"": "Bearer " + key, "Token token=%s": "Token token=" + key,
		"%s": key} {
		o := options(t, srv.URL+"/api")
		o.Format, o.Probe = format, "GET /me?limit=1"
		c, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.Accept(t.Context(), " "+key+"\n", grant.Request{})
		if err != nil || got.Tokens.Access != key || got.Tokens.AccessIssued.IsZero() {
			t.Errorf("%q: %v", format, err)
		}
		r := asked.Load()
		if r.Header.Get("Authorization") != want || r.RequestURI != "/api/me?limit=1" {
			t.Errorf("asked for %s with %q", r.RequestURI, r.Header.Get("Authorization"))
		}
	}
}

func TestWhatTheAnswerToAProbeMeans(t *testing.T) {
	for status, want := range map[int]grant.Class{
		200: "", 204: "", 401: grant.Yours, 403: grant.Yours, 408: grant.Later, 429: grant.Later, 500: grant.Later,
		503: grant.Later, 302: grant.Ours, 404: grant.Ours, 405: grant.Ours, 400: grant.Ours,
	} {
		var hits atomic.Int32
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			hits.Add(1)
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
		}))
		c, err := New(options(t, srv.URL))
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Accept(t.Context(), key, grant.Request{})
		e, ok := errors.AsType[*grant.Error](err)
		if want == "" && err != nil || want != "" && (!ok || e.Class != want) {
			t.Errorf("%d means %v", status, err)
		}
		if hits.Load() != 1 {
			t.Errorf("%d: asked %d times", status, hits.Load())
		}
		if err != nil && strings.Contains(err.Error(), key) {
			t.Errorf("the text is %q", err)
		}
		srv.Close()
	}
}

// GitHub says with 403, too, that there were too many requests, and when to come again: "Rate limits
// for the REST API". That is no word about the key, which would be refused for good.
func TestP12_ARateLimitIsNotTakenForARefusedKey(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "60")
		w.WriteHeader(http.StatusForbidden)
	}))
	defer srv.Close()
	c, err := New(options(t, srv.URL))
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Accept(t.Context(), key, grant.Request{})
	if e, ok := errors.AsType[*grant.Error](err); !ok || e.Class != grant.Later || e.RetryAfter != time.Minute {
		t.Errorf("it means %v", err)
	}
}

func TestWhatCannotBeAKeyIsNotSent(t *testing.T) {
	var hits atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	defer srv.Close()
	c, err := New(options(t, srv.URL))
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "short", "Bearer " + key, key + "\r\nX-Evil: 1", key + "\x00", key + "é",
		key + "\u200b",
		key + "\x7f", strings.Repeat("k", 4097)} {
		_, err := c.Accept(t.Context(), bad, grant.Request{})
		e, ok := errors.AsType[*grant.Error](err)
		if !ok || e.Class != grant.Yours || e.Reason != connector.KeyMalformed || strings.Contains(err.Error(), key) ||
			!strings.HasPrefix(e.Sentence, "That cannot be a key: ") || strings.Contains(e.Sentence, key) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if hits.Load() != 0 {
		t.Errorf("asked %d times", hits.Load())
	}
}
