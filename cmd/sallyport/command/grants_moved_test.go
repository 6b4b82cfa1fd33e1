package command

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// elsewhere is a server that somebody writes into the configuration in the place of the third
// party. It takes whatever it is sent, and counts it.
type elsewhere struct {
	*httptest.Server
	mu  sync.Mutex
	got []string // method, path, credential
}

func newElsewhere(t *testing.T) *elsewhere {
	e := &elsewhere{}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		e.mu.Lock()
		defer e.mu.Unlock()
		e.got = append(e.got, r.Method+" "+r.URL.Path+" "+r.Header.Get("Authorization")+" "+string(body))
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"access_token":"theirs","refresh_token":"theirs","token_type":"Bearer","expires_in":60}`)
	}))
	t.Cleanup(e.Close)
	return e
}

func (e *elsewhere) seen() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.got...)
}

// reload replaces texts of the configuration of s, and waits until that is taken into use.
func (s *lendingStory) reload(from, to string) {
	s.t.Helper()
	reloads := func() int { return strings.Count(read(s.t, s.output), `"msg":"config reloaded"`) }
	before := reloads()
	text, err := os.ReadFile(s.config)
	testenv.Check(s.t, err)
	if !strings.Contains(string(text), from) {
		s.t.Fatalf("the configuration does not have %q", from)
	}
	write(s.t, s.config, strings.ReplaceAll(string(text), from, to))
	testenv.Check(s.t, s.process.Process.Signal(syscall.SIGHUP))
	testenv.Eventually(s.t, "the configuration is taken into use", func() bool { return reloads() > before })
}

// Whoever can change the configuration, and nothing else, gets no credential by writing an
// address of theirs into it: while requests and a refresh are under way, of the API, of the
// endpoint that refreshes and of the one that ends, the new address is sent nothing. Apps,
// people and operators read what changed, and where it is put back nobody has to do anything.
func TestP12_AChangedAddressGetsNoCredential(t *testing.T) {
	eachSharedStore(t, func(t *testing.T, address string) {
		s, evil := startLending(t, address), newElsewhere(t)
		there := s.there.URL
		s.connect()
		s.works("after connecting")
		refused := func(what string) {
			t.Helper()
			status, body := s.use("GET", "/gateway/jira/issues")
			if status != http.StatusConflict || !strings.Contains(body, "grant-required") ||
				!strings.Contains(body, `"missing":["reconnect"]`) || !strings.Contains(body, evil.URL) ||
				!strings.Contains(body, there) {
				t.Errorf("%s: %d %s", what, status, body)
			}
			if got := evil.seen(); len(got) != 0 {
				t.Fatalf("%s: the new address was sent %q", what, got)
			}
		}

		// Requests of an app all the while.
		end, wrong := make(chan struct{}), make(chan string, 100)
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for {
					select {
					case <-end:
						return
					default:
					}
					switch status, body := s.use("GET", "/gateway/jira/issues"); {
					case status == http.StatusOK && body == "the issues of /v3/issues":
					case status == http.StatusConflict && strings.Contains(body, `"reconnect"`):
					default:
						select {
						case wrong <- body:
						default:
						}
					}
				}
			})
		}
		s.reload("base_url: "+there, "base_url: "+evil.URL)
		refused("another API")
		if _, body := s.use("GET", "/v1/grants"); !strings.Contains(body, `"status":"needs_reconnect"`) {
			t.Errorf("the app reads %s", body)
		}
		page := s.browser.Open("http://" + s.public + "/.sallyport/account")
		if !strings.Contains(page.Body, "It was connected when the address of the API was "+there) ||
			!strings.Contains(page.Body, evil.URL) {
			t.Errorf("the person reads\n%s", page.Body)
		}
		grants := s.listed()
		if len(grants) != 1 || grants[0].Status != "needs_reconnect" || grants[0].Reason != "moved" {
			t.Errorf("the operator reads %+v", grants)
		}
		shown := s.command("grants", "show", grants[0].ID)
		for _, line := range []string{there + ", with requests", there + ", to refresh or end it",
			"needs_reconnect (moved)", evil.URL} {
			if !strings.Contains(shown, line) {
				t.Errorf("`grants show` lacks %q:\n%s", line, shown)
			}
		}
		s.reload("base_url: "+evil.URL, "base_url: "+there)
		s.works("put back")

		// A refresh is under way where the endpoint for it becomes another one.
		held, goOn := make(chan struct{}), make(chan struct{})
		s.there.mu.Lock()
		s.there.access, s.there.held, s.there.goOn = "", held, goOn
		s.there.mu.Unlock()
		<-held
		s.reload(there+"/token", evil.URL+"/token")
		close(goOn)
		refused("another token endpoint")
		s.reload(evil.URL+"/token", there+"/token")
		s.works("put back")
		close(end)
		all.Wait()
		select {
		case body := <-wrong:
			t.Errorf("an app reads %s", body)
		default:
		}
		s.there.mu.Lock()
		refreshes := s.there.refreshes
		s.there.mu.Unlock()
		if refreshes != 1 {
			t.Errorf("it was refreshed %d times", refreshes)
		}

		// Where only the end of a grant goes elsewhere it is lent, and not ended there.
		s.reload(there+"/revoke", evil.URL+"/revoke")
		s.works("another revocation endpoint")
		s.disconnect()
		s.missing()
		s.there.mu.Lock()
		revoked := len(s.there.revoked)
		s.there.mu.Unlock()
		if got := evil.seen(); len(got) != 0 || revoked != 0 {
			t.Errorf("the new address was sent %q, and the old one %d", got, revoked)
		}

		// Who connects again, where the page says another address, lends what is new.
		s.there.mu.Lock()
		old := []string{s.there.access, s.there.refresh}
		s.there.mu.Unlock()
		s.reload("base_url: "+there, "base_url: "+evil.URL)
		s.connect()
		if status, _ := s.use("GET", "/gateway/jira/issues"); status != http.StatusOK || len(evil.seen()) != 1 {
			t.Errorf("what was connected for the new address: %d, it was sent %q", status, evil.seen())
		}
		for _, token := range old {
			if all := strings.Join(evil.seen(), "\n"); token == "" || strings.Contains(all, token) ||
				strings.Contains(all, url.QueryEscape(token)) {
				t.Errorf("%q was shown there: %s", token, all)
			}
		}
		s.stop(t)
	})
}
