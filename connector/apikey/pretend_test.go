package apikey_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

// pretend is a third party as its documents have it: where its key is expected, how it refuses
// one, and what it answers.
type pretend struct {
	kind string // of apikey.Known
	// key is what people paste, and sent the value of the Authorization header with it.
	key, sent string
	// with are further headers, of the configuration, without which it refuses.
	with map[string]string
	// refused is how it refuses a key.
	refused     int
	refusedBody string
	// list is a path of what people paste a key for, and listBody what is there.
	list, listBody string
	echo           string // where it answers with the credential, in all its forms
	// change is a request that changes something, which some keys may make.
	change string
	// quirk answers what is special about it; false: nothing special.
	quirk func(http.ResponseWriter, *http.Request) bool

	url   string
	mu    sync.Mutex // guards asked
	asked []string   // methods and targets, and the status of each
}

// pretends are the third parties of apikey.All. The keys are of the form that each gives out.
func pretends() []*pretend {
	return []*pretend{
		// Its errors have a type and a list (api-docs.incident.io, Making requests).
		{kind: "incidentio_key", key: "inc_" + strings.Repeat("0a", 32), sent: "Bearer inc_" + strings.Repeat("0a", 32),
			refused: 401, refusedBody: `{"type":"authentication_error","status":401,"request_id":"631766c4"}`,
			echo: "/v2/schedules/echo", list: "/v2/schedules",
			listBody: `{"schedules":[{"id":"01G0J1EXE7","name":"Primary","timezone":"Etc/UTC"}],` +
				`"pagination_meta":{"page_size":25}}`,
			change: "POST /v2/schedule_overrides"},
		// The addresses of its lists end in a slash; without it there is a redirect to that.
		{kind: "grafana_irm_key", key: "glsa_canary0123456789", sent: "glsa_canary0123456789",
			with:    map[string]string{"X-Grafana-URL": "https://acme.grafana.net"},
			refused: 403, refusedBody: `{"detail":"Invalid token."}`,
			echo: "/api/v1/schedules/echo/", list: "/api/v1/schedules/",
			listBody: `{"count":1,"next":null,"previous":null,"results":[` +
				`{"id":"SBM7DV7BKFUYU","name":"Demo","type":"web","on_call_now":["U4DNY931HHJS5"]}]}`,
			change: "POST /api/v1/on_call_shifts/",
			quirk: func(w http.ResponseWriter, r *http.Request) bool {
				if strings.HasSuffix(r.URL.Path, "/") {
					return false
				}
				http.Redirect(w, r, r.URL.Path+"/", http.StatusMovedPermanently)
				return true
			}},
		// JSON:API. A global key is of no user: who asks for that user is refused.
		{kind: "rootly_key", key: "rootly_" + strings.Repeat("0a", 32),
			sent:    "Bearer rootly_" + strings.Repeat("0a", 32),
			refused: 401, refusedBody: `{"errors":[{"title":"Invalid token","status":"401"}]}`,
			echo: "/v1/schedules/echo", list: "/v1/schedules",
			listBody: `{"data":[{"id":"1","type":"schedules","attributes":{"name":"Primary"}}],"meta":{}}`,
			change:   "DELETE /v1/override_shifts/7",
			quirk: func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != "/v1/users/me" {
					return false
				}
				http.Error(w, `{"errors":[{"title":"Forbidden","status":"403"}]}`, http.StatusForbidden)
				return true
			}},
		// Who sends no credential is somebody without an account, and gets what everybody may see.
		{kind: "jira", key: "mira@acme.example:ATATT3xFfGF0canary", refused: 401,
			sent:        "Basic bWlyYUBhY21lLmV4YW1wbGU6QVRBVFQzeEZmR0YwY2FuYXJ5",
			refusedBody: "Client must be authenticated to access this resource.",
			echo:        "/rest/api/3/issue/echo", list: "/rest/api/3/search/jql",
			listBody: `{"issues":[{"id":"10002","key":"ED-1"}],"isLast":true}`,
			change:   "PUT /rest/api/3/issue/ED-1",
			quirk: func(w http.ResponseWriter, r *http.Request) bool {
				if r.Header.Get("Authorization") != "" || !strings.HasSuffix(r.URL.Path, "/jql") {
					return false
				}
				_, _ = io.WriteString(w, `{"issues":[],"isLast":true}`)
				return true
			}},
		// It refuses programs that do not say which they are.
		{kind: "github", key: "github_pat_11ABCDEFG0canary", sent: "Bearer github_pat_11ABCDEFG0canary", refused: 401,
			refusedBody: `{"message":"Bad credentials","status":"401"}`,
			echo:        "/repos/octocat/echo", list: "/repos/octocat/hello/issues",
			listBody: `[{"number":1347,"title":"Found a bug"}]`,
			change:   "POST /repos/octocat/hello/issues",
			quirk: func(w http.ResponseWriter, r *http.Request) bool {
				if r.Header.Get("User-Agent") != "" {
					return false
				}
				http.Error(w, "Request forbidden by administrative rules.", http.StatusForbidden)
				return true
			}},
	}
}

func (p *pretend) start(t *testing.T) {
	t.Helper()
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	p.url = s.URL
}

func (p *pretend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, r.Method+" "+r.RequestURI)
	w.Header().Set("Content-Type", "application/json")
	refused := r.Header.Get("Authorization") != p.sent
	for name, value := range p.with {
		refused = refused || !slices.Equal(r.Header.Values(name), []string{value})
	}
	switch {
	case p.quirk != nil && p.quirk(w, r):
	case refused:
		w.WriteHeader(p.refused)
		_, _ = io.WriteString(w, p.refusedBody)
	case p.kind == "jira" && r.Method == http.MethodPost && r.URL.Path == p.list: // a search, which changes nothing
		_, _ = io.WriteString(w, p.listBody)
	case r.Method != http.MethodGet:
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, "{}")
	case r.URL.Path == p.list:
		_, _ = io.WriteString(w, p.listBody)
	case r.URL.Path == p.echo:
		_ = json.NewEncoder(w).Encode([]string{p.sent, p.key, p.key[strings.Index(p.key, ":")+1:]})
	default:
		_, _ = fmt.Fprintf(w, `{"id":%q}`, r.URL.Path)
	}
}

// requests are those that came, and are forgotten then.
func (p *pretend) requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	asked := p.asked
	p.asked = nil
	return asked
}
