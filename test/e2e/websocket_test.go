package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// wsClient is what ws-client.mjs is told.
type wsClient struct {
	URL      string `json:"url"`
	Host     string `json:"host"`
	Cookie   string `json:"cookie,omitempty"`
	Origin   string `json:"origin,omitempty"`
	CA       string `json:"ca,omitempty"`
	Seed     int    `json:"seed"`
	Messages int    `json:"messages"`
	Deflate  bool   `json:"deflate"`
	Hold     bool   `json:"hold"`
	Close    []any  `json:"close,omitempty"`
	Ask      []any  `json:"ask,omitempty"`
}

// webSocket is a client of c at path.
func (c *corp) webSocket(t testing.TB, path string, o wsClient) *process {
	t.Helper()
	scheme, host, _ := strings.Cut(c.url, "://")
	o.URL, o.Host = strings.Replace(scheme, "http", "ws", 1)+"://127.0.0.1"+portOf(host)+path, host
	if scheme == "https" {
		o.CA = need(t, world.cert).certFile
	}
	options, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	p, err := start(".", "node", "ws-client.mjs", string(options))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	return p
}

// wsSeen is what ws-client.mjs tells.
type wsSeen struct {
	Messages, Bytes, Pings, Fragments, Wrong, Code int
	Deflate                                        bool
	Reason                                         string
}

var (
	wsOpen  = regexp.MustCompile(`(?m)^open$`)
	wsEnded = regexp.MustCompile(`(?m)^seen (\{.*\})$`)
)

func (p *process) mustSay(t testing.TB, re *regexp.Regexp) []string {
	t.Helper()
	m, err := p.says(re)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (p *process) wsSeen(t testing.TB) (seen wsSeen) {
	t.Helper()
	if err := json.Unmarshal([]byte(p.mustSay(t, wsEnded)[1]), &seen); err != nil {
		t.Fatal(err)
	}
	return seen
}

// Text and binary, empty and up to 1 MiB, in pieces, packed and not, pings in
// between: npm ws at both ends agrees on every byte, and on why it ended.
func TestWebSocketsPassByteForByte(t *testing.T) {
	t.Parallel()
	messages := 60
	if long() {
		messages = 3000
	}
	for _, front := range []func(*testing.T) *corp{theFront, thePlainFront} {
		c := front(t)
		cookie := c.signIn(t, "mira")
		for i, kind := range []string{"http", "https", "unix"} {
			for _, deflate := range []bool{true, false} {
				t.Run(fmt.Sprintf("%.5s %s deflate=%v", c.url, kind, deflate), func(t *testing.T) {
					code := 4000 + i
					if deflate {
						code += 100
					}
					o := wsClient{Cookie: cookie, Deflate: deflate, Messages: messages, Seed: code,
						Close: []any{code, "client " + t.Name()[:20]}}
					want := fmt.Sprintf("closed %d client %s", code, t.Name()[:20])
					if deflate { // then the server has the last word
						o.Close, o.Ask = nil, []any{code, "server, in words"}
					}
					p := c.webSocket(t, "/ws-"+kind, o)
					seen := p.wsSeen(t)
					if seen.Wrong != 0 || seen.Messages != messages || seen.Pings == 0 || seen.Fragments == 0 ||
						seen.Deflate != deflate {
						t.Errorf("the client saw %+v", seen)
					}
					if deflate && (seen.Code != code || seen.Reason != "server, in words") {
						t.Errorf("the client saw it closed with %d %q", seen.Code, seen.Reason)
					}
					if !deflate {
						need(t, world.upstreams).echo.mustSay(t, regexp.MustCompile(regexp.QuoteMeta(want)))
					}
				})
			}
		}
	}
}

func TestWebSocketNeedsASessionAndItsOwnOrigin(t *testing.T) {
	t.Parallel()
	c := thePlainFront(t)
	cookie := c.signIn(t, "mira")
	for _, row := range []struct {
		name, path, cookie, origin, want string
	}{
		{"signed in, own origin", "/ws-http", cookie, c.url, "open"},
		{"signed in, no browser", "/ws-http", cookie, "", "open"},
		{"nobody", "/ws-http", "", c.url, "refused 401"},
		{"another origin", "/ws-http", cookie, "https://evil.example", "refused 403"},
		{"another port of the host", "/ws-http", cookie, "http://localhost:1", "refused 403"},
		{"a route without WebSockets", "/refused.Service", cookie, c.url, "refused 403"},
		{"public", "/open-ws-http", "", c.url, "open"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := c.webSocket(t, row.path, wsClient{Cookie: row.cookie, Origin: row.origin, Hold: true})
			if m := p.mustSay(t, regexp.MustCompile(`(?m)^(open|refused \d+|error .*)$`)); m[1] != row.want {
				t.Errorf("%s, not %s", m[1], row.want)
			}
		})
	}
}

// wsLimit is far from how long a tunnel may outlive its session, on a busy machine too,
// and far from everything else that would end it. Sallyport's own tests have the time
// to the second, with a clock that they move.
const wsLimit = 20 * time.Second

func TestP10_SignOutClosesWebSocketsAndNoOthers(t *testing.T) {
	t.Parallel()
	c := theFront(t)
	mira, tom := c.signIn(t, "mira"), c.signIn(t, "tom")
	hers, his := c.webSocket(t, "/ws-http", wsClient{Cookie: mira, Hold: true}),
		c.webSocket(t, "/ws-http", wsClient{Cookie: tom, Hold: true})
	hers.mustSay(t, wsOpen)
	his.mustSay(t, wsOpen)
	begun := time.Now()
	c.signOut(t, mira)
	seen := hers.wsSeen(t)
	took := time.Since(begun)
	if seen.Code != 1008 || seen.Reason != "signed out" {
		t.Errorf("the client saw it closed with %d %q", seen.Code, seen.Reason)
	}
	need(t, world.upstreams).echo.mustSay(t, regexp.MustCompile(`(?m)^closed 1001 $`))
	t.Logf("closed %v after the sign-out", took.Round(time.Millisecond))
	if took > wsLimit {
		t.Errorf("closed only %v after the sign-out", took)
	}
	if text, _ := his.out.now(); wsEnded.MatchString(text) {
		t.Error("somebody else's WebSocket was closed too")
	}
}

// Requests come to their end, then WebSockets are closed, then the process ends.
func TestP16_StopClosesWebSocketsAfterRequestsInFlight(t *testing.T) {
	t.Parallel()
	c := ownFront(t, overTLS)
	cookie := c.signIn(t, "mira")
	p := c.webSocket(t, "/ws-http", wsClient{Cookie: cookie, Hold: true})
	p.mustSay(t, wsOpen)
	const slow = time.Second
	answered := make(chan error, 1)
	begun := make(chan struct{})
	client := newClient(t, http1)
	go func() {
		r, _ := http.NewRequest(http.MethodGet, c.url+"/http/wait?for="+slow.String(), nil)
		r.Header.Set("Cookie", cookie)
		close(begun)
		resp, err := client.Do(r)
		if err == nil {
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				err = fmt.Errorf("status %d", resp.StatusCode)
			}
		}
		answered <- err
	}()
	<-begun
	time.Sleep(slow / 4) // it is with the app
	if err := c.process.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	stopped := time.Now()
	if err := <-answered; err != nil {
		t.Errorf("the request in flight: %v", err)
	}
	if text, _ := p.out.now(); wsEnded.MatchString(text) {
		t.Error("the WebSocket was closed before the request was answered")
	}
	if seen := p.wsSeen(t); seen.Code != 1001 || seen.Reason != "the server is stopping" {
		t.Errorf("the client saw it closed with %d %q", seen.Code, seen.Reason)
	}
	t.Logf("WebSocket closed %v after SIGTERM", time.Since(stopped).Round(time.Millisecond))
	select {
	case <-c.process.done:
		t.Logf("ended %v after SIGTERM", time.Since(stopped).Round(time.Millisecond))
	case <-time.After(patience):
		t.Error("still running after SIGTERM")
	}
	if code := c.process.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
