package oauth

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

const canary = "c4nary-do-not-print"

// server answers with f and counts the requests.
func server(t *testing.T, f http.HandlerFunc) (*httptest.Server, *atomic.Int32) {
	t.Helper()
	var hits atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		f(w, r)
	}))
	t.Cleanup(srv.Close)
	return srv, &hits
}

func answer(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

func client(t *testing.T, o Options) *Client {
	t.Helper()
	o.Provider = "test"
	c, err := NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func request(url string) TokenRequest {
	return TokenRequest{URL: url, ClientID: "app", ClientSecret: "secret-" + canary, Auth: Basic,
		Form: map[string][]string{
			"grant_type": {"authorization_code"}, "code": {"code-" + canary},
		}}
}

func kindOf(t *testing.T, err error) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want an *Error", err)
	}
	if strings.Contains(e.Error(), canary) {
		t.Fatalf("the error text holds something secret: %v", e)
	}
	return e
}

// RFC 6749 §5.2, and what servers do besides. Each row also shows that the code
// went out once: x/oauth2 would have sent it again in the other style.
func TestFailedExchangesAreClassedAndNeverRepeated(t *testing.T) {
	long := `{"access_token":"` + strings.Repeat("x", 2<<20) + `"}`
	rows := []struct {
		name   string
		answer http.HandlerFunc
		kind   Kind
		code   string
	}{
		{"grant refused", answer(400, "application/json", `{"error":"invalid_grant","error_description":"`+canary+`"}`),
			Rejected, "invalid_grant"},
		{"grant refused with 200", answer(200, "application/json", `{"error":"invalid_grant"}`), Rejected,
			"invalid_grant"},
		{"wrong secret", answer(401, "application/json", `{"error":"invalid_client"}`), Misconfigured,
			"invalid_client"},
		{"client not allowed", answer(400, "application/json", `{"error":"unauthorized_client"}`), Misconfigured,
			"unauthorized_client"},
		{"our request is wrong", answer(400, "application/json", `{"error":"invalid_request"}`), Misconfigured,
			"invalid_request"},
		{"error in another content type", answer(400, "text/plain", `{"error":"invalid_scope"}`), Misconfigured,
			"invalid_scope"},
		{"code nobody registered", answer(400, "application/json", `{"error":"`+canary+`"}`), Misconfigured, ""},
		{"code nobody registered with 200", answer(200, "application/json", `{"error":"`+canary+`"}`), Rejected, ""},
		{"400 without a reason", answer(400, "text/html", canary), Misconfigured, ""},
		{"no such address", answer(404, "text/html", canary), Misconfigured, ""},
		{"slow down", answer(429, "application/json", `{"error":"slow_down"}`), Unavailable, "slow_down"},
		{"rate limit", answer(429, "text/plain", canary), Unavailable, ""},
		{"failing", answer(500, "text/html", canary), Unavailable, ""},
		{"failing, and blaming the grant", answer(503, "application/json", `{"error":"invalid_grant"}`), Unavailable,
			"invalid_grant"},
		{"temporarily, it says", answer(400, "application/json", `{"error":"temporarily_unavailable"}`), Unavailable,
			"temporarily_unavailable"},
		{"a page", answer(200, "text/html", "<html>"+canary), Rejected, ""},
		{"a list", answer(200, "application/json", `["`+canary+`"]`), Rejected, ""},
		{"nothing", answer(204, "application/json", ""), Rejected, ""},
		{"too long", answer(200, "application/json", long), Rejected, ""},
		{"cut off", cutOff, Rejected, ""},
		{"the connection breaks", hangUp, Unavailable, ""},
		{"a header that is none", malformed, Unavailable, ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			srv, hits := server(t, row.answer)
			_, err := client(t, Options{}).Exchange(context.Background(), request(srv.URL))
			e := kindOf(t, err)
			if e.Kind != row.kind || e.Code != row.code {
				t.Errorf("got %v (code %q), want %s (code %q)", e, e.Code, row.kind, row.code)
			}
			if hits.Load() != 1 {
				t.Errorf("the code was sent %d times", hits.Load())
			}
		})
	}
}

func cutOff(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "1000")
	io.WriteString(w, `{"access_token":"`+canary)
}

func hangUp(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// malformed sends a header line that net/http quotes in its error.
func malformed(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	io.WriteString(conn, "HTTP/1.1 200 OK\r\n"+canary+"\r\n\r\n")
}

// A connection that the server closed while it was idle is where transports
// like to send again.
func TestACodeIsNotSentAgainOnAReusedConnection(t *testing.T) {
	var calls atomic.Int32
	srv, _ := server(t, func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) > 1 {
			hangUp(w, r)
		}
		io.WriteString(w, `{"id_token":"a.b.c"}`)
	})
	c := client(t, Options{})
	if _, err := c.Exchange(context.Background(), request(srv.URL)); err != nil {
		t.Fatal(err)
	}
	_, err := c.Exchange(context.Background(), request(srv.URL))
	if e := kindOf(t, err); e.Kind != Unavailable || calls.Load() != 2 {
		t.Errorf("got %v after %d sends, want unavailable after 2", e, calls.Load())
	}
}

// P22: a provider that speaks HTTP/2 gets a code at most once, whatever it does with
// the request, and is asked for a document at most twice.
func TestP22_ACodeReachesAProviderAtMostOnceOverHTTP2Too(t *testing.T) {
	t.Parallel()
	const protocol, refused = 1, 7
	for name, tt := range map[string]struct {
		answer         func(uint32) []byte
		code, document int
	}{
		"PROTOCOL_ERROR": {testenv.Reset(protocol), 1, 2},
		"REFUSED_STREAM": {testenv.Reset(refused), 2, 2},
		"GOAWAY":         {testenv.GoAway(false, 0), 2, 2},
		"hangs up":       {testenv.HangUp, 1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := testenv.StartHTTP2Peer(t, true, func(int) func(uint32) []byte { return tt.answer })
			metrics := NewMetrics(prometheus.NewRegistry())
			c := client(t, Options{Transport: &http.Transport{TLSClientConfig: p.TLS, ForceAttemptHTTP2: true},
				Timeout: time.Second, Metrics: metrics})
			if _, err := c.Exchange(t.Context(), request(p.URL)); kindOf(t, err).Kind != Unavailable {
				t.Errorf("%v", err)
			}
			code := p.Got()
			if code == 0 || code > tt.code {
				t.Errorf("the provider got the code %d times, it may get it %d times", code, tt.code)
			}
			if n := testutil.ToFloat64(metrics.retries.WithLabelValues("test", "token")); int(n) != code-1 {
				t.Errorf("%v retries are counted", n)
			}
			if res, err := c.HTTPClient("jwks").Get(p.URL); err == nil {
				t.Errorf("answered %d", res.StatusCode)
			}
			if n := p.Got() - code; n == 0 || n > tt.document {
				t.Errorf("the provider was asked for a document %d times, it may be asked %d times", n, tt.document)
			}
		})
	}
}

// P14: a refresh token is sent once, whatever a provider says that it did with it. The
// metric knows of no second attempt either.
func TestP14_ARefreshTokenIsSentOnceWhateverTheProviderSays(t *testing.T) {
	for name, frames := range map[string]func(uint32) []byte{
		"REFUSED_STREAM": testenv.Reset(7), "PROTOCOL_ERROR": testenv.Reset(1), "GOAWAY": testenv.GoAway(false, 0),
		"GOAWAY of its own stream": testenv.GoAway(true, 0), "hangs up": testenv.HangUp,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := testenv.StartHTTP2Peer(t, true, func(int) func(uint32) []byte { return frames })
			c := client(t, Options{Transport: &http.Transport{TLSClientConfig: p.TLS, ForceAttemptHTTP2: true},
				Timeout: time.Second})
			r := request(p.URL)
			r.Once = true
			_, err := c.Exchange(t.Context(), r)
			if e := kindOf(t, err); e.Kind != Unavailable || e.Sent != Maybe || p.Got() != 1 {
				t.Errorf("%v, sent %q, got %d times", e, e.Sent, p.Got())
			}
		})
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	thief, stolen := server(t, answer(200, "application/json", `{}`))
	for _, status := range []int{301, 302, 303, 307, 308} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			srv, _ := server(t, func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, thief.URL+"/?"+canary, status)
			})
			c := client(t, Options{})
			_, err := c.Exchange(context.Background(), request(srv.URL))
			if e := kindOf(t, err); e.Kind != Misconfigured || e.Status != status {
				t.Errorf("token: got %v", e)
			}
			_, err = c.HTTPClient("userinfo").Get(srv.URL)
			if e := kindOf(t, err); e.Kind != Misconfigured || e.Call != "userinfo" {
				t.Errorf("document: got %v", e)
			}
		})
	}
	if stolen.Load() != 0 {
		t.Errorf("%d requests reached the redirect's target", stolen.Load())
	}
}

// RFC 6749 §2.3.1 wants id and secret form-encoded before they are joined for Basic;
// libraries have forgotten it (zitadel/oidc 178e018).
func TestP20_ClientCredentialsSurviveOddCharacters(t *testing.T) {
	const id, secret = "app:1 %", ":%+ /é=&"
	for _, auth := range []ClientAuth{Basic, Post, None} {
		t.Run(string(auth), func(t *testing.T) {
			var gotID, gotSecret string
			var header bool
			srv, _ := server(t, func(w http.ResponseWriter, r *http.Request) {
				gotID, gotSecret, header = r.BasicAuth()
				if header {
					gotID, _ = url.QueryUnescape(gotID)
					gotSecret, _ = url.QueryUnescape(gotSecret)
				}
				if r.ParseForm(); r.PostForm.Has("client_id") {
					gotID, gotSecret = r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
				}
				if r.PostForm.Get("code") != "c" || r.URL.RawQuery != "" {
					t.Errorf("form %v, query %q", r.PostForm, r.URL.RawQuery)
				}
				io.WriteString(w, `{"id_token":"a.b.c"}`)
			})
			form := url.Values{"code": {"c"}}
			_, err := client(t, Options{}).Exchange(context.Background(),
				TokenRequest{URL: srv.URL, ClientID: id, ClientSecret: secret, Auth: auth, Form: form})
			if err != nil {
				t.Fatal(err)
			}
			want := secret
			if auth == None {
				want = ""
			}
			if gotID != id || gotSecret != want || header != (auth == Basic) {
				t.Errorf("server saw id %q, secret %q, header %v", gotID, gotSecret, header)
			}
			if len(form) != 1 {
				t.Error("the caller's form was changed")
			}
		})
	}
	_, err := client(t, Options{}).Exchange(context.Background(), TokenRequest{URL: "http://127.0.0.1:1"})
	if e := kindOf(t, err); e.Kind != Misconfigured {
		t.Errorf("without client authentication: %v", e)
	}
}

// Some servers read Basic as RFC 7617 has it, without form encoding (the quirk
// raw_basic_credentials in docs/providers/oidc.md). A colon in the id would then
// move the border between id and secret.
func TestRawCredentialsAreSentAsTheyAre(t *testing.T) {
	var gotID, gotSecret string
	srv, _ := server(t, func(w http.ResponseWriter, r *http.Request) {
		gotID, gotSecret, _ = r.BasicAuth()
		io.WriteString(w, `{"id_token":"a.b.c"}`)
	})
	r := TokenRequest{URL: srv.URL, ClientID: "app 1%", ClientSecret: ":%+ /é=&", Auth: BasicRaw}
	if _, err := client(t, Options{}).Exchange(context.Background(), r); err != nil || gotID != r.ClientID ||
		gotSecret != r.ClientSecret {
		t.Errorf("%v; server saw id %q, secret %q", err, gotID, gotSecret)
	}
	r.ClientID = "app:1"
	_, err := client(t, Options{}).Exchange(context.Background(), r)
	if e := kindOf(t, err); e.Kind != Misconfigured {
		t.Errorf("a colon in the id: %v", e)
	}
}

func TestTokenAnswersOfRealServersAreRead(t *testing.T) {
	rows := []struct {
		name, contentType, body string
		want                    TokenResponse
	}{
		{"as the RFC has it", "application/json",
			`{"access_token":"at","token_type":"Bearer","expires_in":3600,"id_token":"it","refresh_token":"rt","scope":"openid"}`,
			TokenResponse{AccessToken: "at", IDToken: "it", RefreshToken: "rt", Scope: "openid", ExpiresIn: time.Hour}},
		{"token_type in capitals", "application/json", `{"access_token":"at","token_type":"BEARER"}`,
			TokenResponse{AccessToken: "at"}},
		{"no expires_in", "application/json", `{"id_token":"it","token_type":"bearer"}`, TokenResponse{IDToken: "it"}},
		{"expires_in as a float", "application/json", `{"id_token":"it","expires_in":3600.0}`,
			TokenResponse{IDToken: "it", ExpiresIn: time.Hour}},
		{"expires_in as a string", "application/json", `{"id_token":"it","expires_in":"3600"}`,
			TokenResponse{IDToken: "it", ExpiresIn: time.Hour}},
		{"expires_in null", "application/json", `{"id_token":"it","expires_in":null}`, TokenResponse{IDToken: "it"}},
		{"expires_in nonsense", "application/json", `{"id_token":"it","expires_in":{}}`, TokenResponse{IDToken: "it"}},
		{"expired already", "application/json", `{"id_token":"it","expires_in":-1}`,
			TokenResponse{IDToken: "it", ExpiresIn: -time.Second}},
		{"expires never, nearly", "application/json", `{"id_token":"it","expires_in":1e300}`,
			TokenResponse{IDToken: "it", ExpiresIn: 87600 * time.Hour}},
		{"no access token", "application/json", `{"id_token":"it","access_token":null}`, TokenResponse{IDToken: "it"}},
		{"JSON as text", "text/plain", `{"id_token":"it"}`, TokenResponse{IDToken: "it"}},
		{"JSON as a form", "application/x-www-form-urlencoded", " \r\n{\"id_token\":\"it\"}\n",
			TokenResponse{IDToken: "it"}},
		{"error is null", "application/json", `{"id_token":"it","error":null}`, TokenResponse{IDToken: "it"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			srv, _ := server(t, answer(200, row.contentType, row.body))
			got, err := client(t, Options{}).Exchange(context.Background(), request(srv.URL))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, row.want) {
				t.Errorf("got %#v", struct{ TokenResponse }{got})
			}
		})
	}
}

func TestTokenAnswersThatCouldBeReadTwoWaysAreRefused(t *testing.T) {
	for name, body := range map[string]string{
		"the ID token comes twice": `{"id_token":"a","id_token":"b"}`,
		"another document follows": `{"id_token":"a"}{"id_token":"b"}`,
		"the ID token is a number": `{"id_token":1}`,
		"the token is not Bearer":  `{"access_token":"a","token_type":"DPoP"}`,
		"not UTF-8":                "{\"id_token\":\"\xff\"}",
	} {
		t.Run(name, func(t *testing.T) {
			srv, _ := server(t, answer(200, "application/json", body))
			got, err := client(t, Options{}).Exchange(context.Background(), request(srv.URL))
			if e := kindOf(t, err); e.Kind != Rejected || !reflect.DeepEqual(got, TokenResponse{}) {
				t.Errorf("got %v and a response", e)
			}
		})
	}
}

// An answer that never ends, or that never stops growing, is given up.
func TestP17_AnAnswerHasADeadlineAndASize(t *testing.T) {
	t.Run("trickle", func(t *testing.T) {
		srv, _ := server(t, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body) // net/http notices that a client left only then
			io.WriteString(w, `{"id_token":"`)
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		})
		_, err := client(t, Options{Timeout: 50 * time.Millisecond}).Exchange(context.Background(), request(srv.URL))
		if e := kindOf(t, err); e.Kind != Unavailable || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", e)
		}
	})
	t.Run("the caller leaves", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		srv, _ := server(t, func(_ http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			cancel()
			<-r.Context().Done()
		})
		_, err := client(t, Options{}).Exchange(ctx, request(srv.URL))
		if e := kindOf(t, err); e.Kind != Unavailable || !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", e)
		}
	})
	t.Run("bomb", func(t *testing.T) {
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		z.Write(bytes.Repeat([]byte(" "), 16<<20))
		z.Close()
		srv, _ := server(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(packed.Bytes())
		})
		_, err := client(t, Options{}).HTTPClient("jwks").Get(srv.URL)
		if e := kindOf(t, err); e.Kind != Rejected || !strings.Contains(e.Error(), "longer than 1048576 bytes") {
			t.Errorf("got %v", e)
		}
	})
	t.Run("just fits", func(t *testing.T) {
		srv, _ := server(t, answer(200, "text/plain", strings.Repeat("x", 100)))
		resp, err := client(t, Options{MaxBody: 100}).HTTPClient("jwks").Get(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(resp.Body); err != nil || len(body) != 100 {
			t.Errorf("read %d bytes, %v", len(body), err)
		}
	})
}

// What a library gets is whole and good, or it is our error.
func TestDocumentsComeWithStatus200OrNotAtAll(t *testing.T) {
	for status, want := range map[int]Kind{201: Rejected, 204: Rejected, 400: Misconfigured, 401: Misconfigured,
		404: Misconfigured, 429: Unavailable, 500: Unavailable, 503: Unavailable} {
		srv, _ := server(t, answer(status, "text/html", canary))
		_, err := client(t, Options{}).HTTPClient("discovery").Get(srv.URL)
		if e := kindOf(t, err); e.Kind != want || e.Status != status || e.Call != "discovery" {
			t.Errorf("%d: got %v, want %s", status, e, want)
		}
	}
}

func TestErrorsSayWhyAConnectionFailed(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	secure := httptest.NewUnstartedServer(nil)
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	secure.StartTLS()
	defer secure.Close()
	old := httptest.NewUnstartedServer(nil)
	old.Config.ErrorLog = secure.Config.ErrorLog
	old.TLS = &tls.Config{MaxVersion: tls.VersionTLS11}
	old.StartTLS()
	defer old.Close()
	for address, want := range map[string]string{
		"http://" + free.Addr().String(): "connection refused",
		secure.URL:                       "its certificate was refused",
		old.URL:                          "protocol version", // TLS 1.2 at least (RFC 8996)
	} {
		_, err := client(t, Options{}).Exchange(context.Background(), request(address))
		if e := kindOf(t, err); e.Kind != Unavailable || !strings.Contains(e.Error(), want) {
			t.Errorf("got %v, want it to say %q", e, want)
		}
	}
}

func TestP08_TokensAndSecretsDoNotPrint(t *testing.T) {
	values := []any{
		TokenResponse{AccessToken: canary, IDToken: canary, RefreshToken: canary},
		request("http://127.0.0.1/"),
	}
	for _, v := range values {
		var log bytes.Buffer
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		fmt.Fprintf(&log, "%v %+v %#v %s %q", v, v, v, v, v)
		if strings.Contains(log.String(), canary) {
			t.Errorf("%T prints its secrets: %s", v, &log)
		}
	}
}

func TestCallsAreMeasuredPerProviderAndCall(t *testing.T) {
	srv, _ := server(t, answer(500, "text/plain", ""))
	reg := prometheus.NewRegistry()
	metrics := NewMetrics(reg)
	for _, provider := range []string{"a", "b"} { // two clients share one metric
		c, err := NewClient(Options{Provider: provider, Metrics: metrics})
		if err != nil {
			t.Fatal(err)
		}
		c.Exchange(context.Background(), request(srv.URL))
		c.HTTPClient("jwks").Get(srv.URL)
	}
	if n := testutil.CollectAndCount(reg, "sallyport_provider_request_duration_seconds"); n != 4 {
		t.Errorf("%d series, want 4", n)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []Options{{}, {Provider: "a", Timeout: -1}, {Provider: "a", MaxBody: -1}} {
		if _, err := NewClient(o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}

// Whatever Object takes, encoding/json reads the same way.
func FuzzObject(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":1}`, ` {"a":{"b":[1,2]},"c":null} `, `{"a":1,"a":2}`, `{"a":1}x`, `[]`,
		``, `{"a"`, "{\"\xff\":1}", `{"\u0061":1,"a":2}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := Object(data)
		if err != nil {
			return
		}
		var want map[string]json.RawMessage
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatalf("taken, but it is no object: %q: %v", data, err)
		}
		if len(got) != len(want) {
			t.Fatalf("%q: %d members, want %d", data, len(got), len(want))
		}
		for name := range want {
			if !bytes.Equal(bytes.TrimSpace(got[name]), bytes.TrimSpace(want[name])) {
				t.Fatalf("%q: %s is %s, want %s", data, name, got[name], want[name])
			}
		}
	})
}

// A configuration may name these with plain http, so no DNS server and no proxy
// may have a say in where they are.
func TestNamesBelowLocalhostAreThisMachine(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://192.0.2.1:1")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_,
			_ = w.Write([]byte("{}"))
	}))
	defer server.Close()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewClient(Options{Provider: "main"})
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"idp.localhost", "IDP.Localhost", "localhost"} {
		resp, err := c.HTTPClient("test").Get("http://" + host + ":" + port + "/")
		if err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		resp.Body.Close()
	}
}

// Some servers refuse requests without a User-Agent, and those of Go's library.
func TestARequestSaysWhoseItIs(t *testing.T) {
	var agents []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		agents = append(agents, r.Header.Get("User-Agent"))
		fmt.Fprint(w, `{"access_token":"a"}`)
	}))
	defer srv.Close()
	c, err := NewClient(Options{Provider: "p"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseIdleConnections()
	for _, own := range []string{"", "other/1"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		if own != "" {
			req.Header.Set("User-Agent", own)
		}
		before := len(req.Header)
		if _, err := c.Document(req, "document"); err != nil || len(req.Header) != before {
			t.Errorf("%v, the caller's header is %v", err, req.Header)
		}
	}
	if _, err := c.Exchange(t.Context(), TokenRequest{URL: srv.URL, Auth: None}); err != nil {
		t.Error(err)
	}
	if got := strings.Join(agents, " "); got != "sallyport other/1 sallyport" {
		t.Errorf("%s", got)
	}
}
