package gateway_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/assertion"
	"github.com/sallyport-proxy/sallyport/gateway"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

func notifierFor(t *testing.T, address string) *gateway.Notifier {
	t.Helper()
	signer, err := assertion.New(assertion.Options{Issuer: "https://site.test",
		Seeds: [][]byte{make([]byte, assertion.SeedBytes)}, Signing: func(time.Time) int { return 0 }})
	testenv.Check(t, err)
	to, err := url.Parse(address)
	testenv.Check(t, err)
	n := gateway.NewNotifier(signer, map[string]*url.URL{"planner": to})
	t.Cleanup(n.Close)
	return n
}

func aNotice() grant.Notice {
	return grant.Notice{ID: 36, App: "planner", Kind: grant.NoticeNeedsReconnect, Status: grant.RevokedUpstream,
		Key: grant.Key{Connector: "calendar", Owner: grant.Owner{Kind: grant.OwnedByOrg, ID: "acme"}},
		At:  time.UnixMilli(1_790_000_000_123)}
}

// What arrives at an app, byte by byte but for the signature and the time of sending.
func TestAnAppIsToldAsRFC8935HasIt(t *testing.T) {
	var got *http.Request
	var body []byte
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		w.WriteHeader(http.StatusAccepted)
	}))
	defer app.Close()
	n := notifierFor(t, app.URL+"/events?key=secret")
	testenv.Check(t, n.Notify(t.Context(), aNotice()))
	if got.Method != "POST" || got.RequestURI != "/events?key=secret" ||
		got.Header.Get("Content-Type") != "application/secevent+jwt" ||
		got.Header.Get("Accept") != "application/json" ||
		got.Header.Get("User-Agent") != "Sallyport" || got.Header.Get("Authorization") != "" || got.ContentLength <= 0 {
		t.Errorf("%s %s %v", got.Method, got.RequestURI, got.Header)
	}
	parts := strings.Split(string(body), ".")
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	testenv.Check(t, err)
	var claims map[string]any
	testenv.Check(t, json.Unmarshal(payload, &claims))
	if claims["iat"] == nil {
		t.Error("no iat")
	}
	delete(claims, "iat")
	plain, err := json.Marshal(claims)
	testenv.Check(t, err)
	const want = `{"aud":"planner","events":{"https://sallyport-proxy.github.io/events/needs-reconnect":` +
		`{"connector":"calendar","owner":"org:acme","status":"revoked_upstream"}},"iss":"https://site.test",` +
		`"jti":"1790000000123-10","toe":1790000000}`
	if string(plain) != want {
		t.Errorf("told\n%s\nwant\n%s", plain, want)
	}
}

// Apps that refuse, fail, lead elsewhere, break off and say nothing: each is asked once, and
// its error tells nothing of its address.
func TestAnAppThatDoesNotTakeANotice(t *testing.T) {
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	for name, tt := range map[string]struct {
		answer  string // nothing: silence
		cut     bool
		refused bool
		want    string
	}{
		"refuses":      {answer: "HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}", refused: true, want: "400"},
		"has no place": {answer: "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", want: "answered 404"},
		"is ill":       {answer: "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", want: "answered 503"},
		"leads elsewhere": {answer: "HTTP/1.1 307 There\r\nLocation: " + other.URL + "\r\nContent-Length: 0\r\n\r\n",
			want: "answered 307"},
		"breaks off":   {cut: true, want: "does not answer"},
		"talks wrong":  {answer: "hello?\r\n\r\n", want: "does not answer"},
		"says nothing": {want: "does not answer"},
		"takes it, and goes on for ever": {answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" +
			strings.Repeat("10000\r\n"+strings.Repeat("x", 0x10000)+"\r\n", 2)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			testenv.Check(t, err)
			defer l.Close()
			var asked atomic.Int32
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					defer c.Close()
					r, err := http.ReadRequest(bufio.NewReader(c))
					if err != nil {
						continue
					}
					_, _ = io.Copy(io.Discard, r.Body)
					asked.Add(1)
					if tt.cut {
						c.Close()
					}
					_, _ = io.WriteString(c, tt.answer)
				}
			}()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			if name == "says nothing" {
				cancel()
				ctx, cancel = context.WithTimeout(t.Context(), time.Second)
			}
			defer cancel()
			err = notifierFor(t, fmt.Sprintf("http://%s/events?key=s3cret", l.Addr())).Notify(ctx, aNotice())
			switch {
			case tt.want == "":
				testenv.Check(t, err)
			case err == nil || !strings.Contains(err.Error(), tt.want) ||
				errors.Is(err, grant.ErrNoticeRefused) != tt.refused:
				t.Errorf("%v, want something with %q", err, tt.want)
			case strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "hello"):
				t.Errorf("it tells too much: %v", err)
			}
			if asked.Load() != 1 || elsewhere.Load() != 0 {
				t.Errorf("asked %d times, elsewhere %d", asked.Load(), elsewhere.Load())
			}
		})
	}
}
