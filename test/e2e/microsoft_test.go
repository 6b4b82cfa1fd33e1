package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
)

// emulatedMicrosoft is the Microsoft of npm emulate, which has one tenant's endpoints at its
// root, and no calendars: those are here, for the newest access token alone.
type emulatedMicrosoft struct {
	*httptest.Server

	mu     sync.Mutex
	asked  []string // of the token endpoint and the API
	access string   // the newest access token
	over   bool     // it is not accepted any more
}

func startMicrosoft(t *testing.T, redirect string) *emulatedMicrosoft {
	t.Helper()
	address := startEmulate(t, "microsoft", "https://login.microsoftonline.com", map[string]any{
		"users": []any{map[string]string{"email": "zoe@outlook.example", "name": "Zoe Free"},
			map[string]string{"email": "mira@acme.example", "name": "Mira Okafor", "tenant_id": directory}},
		"oauth_clients": []any{map[string]any{"client_id": "graph", "client_secret": "canary-secret", "name": "Planner",
			"redirect_uris": []string{redirect}}},
	})
	m := &emulatedMicrosoft{}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Path = strings.TrimPrefix(r.In.URL.Path, "/organizations")
		r.SetURL(&url.URL{Scheme: "http", Host: address})
	}, ModifyResponse: m.keep}
	mux := http.NewServeMux()
	mux.HandleFunc("/v1.0/", m.api)
	mux.HandleFunc("POST /organizations/oauth2/v2.0/token", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		form, _ := url.ParseQuery(string(body))
		m.mu.Lock()
		m.asked = append(m.asked, form.Get("grant_type")+" for "+form.Get("scope"))
		m.mu.Unlock()
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		proxy.ServeHTTP(w, r)
	})
	mux.Handle("/", proxy)
	m.Server = httptest.NewServer(mux)
	t.Cleanup(m.Close)
	return m
}

// keep notes the access token of an answer.
func (m *emulatedMicrosoft) keep(res *http.Response) error {
	if !strings.HasSuffix(res.Request.URL.Path, "/token") {
		return nil
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	res.Body = io.NopCloser(strings.NewReader(string(body)))
	var answer struct {
		Access string `json:"access_token"`
	}
	if json.Unmarshal(body, &answer) == nil && answer.Access != "" {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.access, m.over = answer.Access, false
	}
	return nil
}

func (m *emulatedMicrosoft) api(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, r.Method+" "+r.URL.Path)
	w.Header().Set("Content-Type", "application/json")
	if m.over || r.Header.Get("Authorization") != "Bearer "+m.access {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"error":{"code":"InvalidAuthenticationToken"}}`)
		return
	}
	_, _ = io.WriteString(w, `{"value":[{"subject":"Release"}]}`)
}

// since returns what was asked, and forgets it.
func (m *emulatedMicrosoft) since() (asked []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	asked, m.asked = m.asked, nil
	return asked
}

// A Microsoft that nobody here wrote: a personal account is not one of an organization, and
// stores nothing; a calendar is lent and read; an access token that is over is replaced, with
// the scopes that are needed; a write does not arrive.
func TestP12_LendingACalendarWithAMicrosoftNobodyHereWrote(t *testing.T) {
	t.Parallel()
	at := need(t, freeAddress)
	s := overHTTP(at)
	app := &lender{t: t, at: need(t, freeAddress), token: strings.Repeat("planner-token-", 3)}
	page := httptest.NewServer(app)
	t.Cleanup(page.Close)
	key, err := exec.Command(world.binary, "genkey").Output()
	if err != nil {
		t.Fatal(err)
	}
	microsoft := startMicrosoft(t, s.PublicURL+"/.sallyport/connect/graph/callback")
	s.Stored, s.GrantsAt = true, app.at
	s.Routes = []string{fmt.Sprintf("{name: app, path: /, upstream: %q, allow: authenticated}", page.URL)}
	s.Grants = func(*provider) string {
		return fmt.Sprintf(`
  encryption_keys: ["literal:%s"]
  apps:
    - id: planner
      name: Planner
      token: "literal:%s"
      routes: [app]
      connectors: [{id: graph, access: [basic]}]
  connectors:
    - {id: graph, type: outlook_calendar, tenant: organizations, client_id: graph, client_secret: "literal:canary-secret",
       access: [basic], base_url: %s}
`, strings.TrimSpace(string(key)), app.token, microsoft.URL)
	}
	c := ownCorp(t, s)
	b := newPerson(t)
	b.signInAtProvider(c.url+"/page", "mira")
	connect := func(email string) {
		t.Helper()
		b.open(c.url + "/.sallyport/connect/graph?app=planner&return_to=/page?back")
		b.heading("Planner asks to use Outlook Calendar")
		b.press("Go on to Outlook Calendar")
		b.sees("the page of emulate", func(v view) bool { return strings.Contains(v.Text, "Sign in with Microsoft") })
		b.click(`form:has(input[name=email][value="` + email + `"]) button`)
	}
	const list = "/gateway/graph/v1.0/me/calendarView?startDateTime=2026-11-01T00:00:00Z&endDateTime=2026-11-08T00:00:00Z"

	connect("zoe@outlook.example")
	b.sees("a refusal", func(v view) bool { return strings.Contains(v.Text, "Nothing was connected") })
	if status, answer := app.asks("GET", list); status != http.StatusConflict {
		t.Fatalf("with a personal account: %d %v", status, answer)
	}
	microsoft.since()
	connect("mira@acme.example")
	b.at(c.url + "/page?back")
	read := func(want ...string) {
		t.Helper()
		status, answer := app.asks("GET", list)
		if items, _ := answer["value"].([]any); status != http.StatusOK || len(items) != 1 {
			t.Errorf("%d %v", status, answer)
		}
		if asked := microsoft.since(); len(asked) != len(want) || !slices.EqualFunc(asked, want, strings.HasPrefix) {
			t.Errorf("it was asked %q, want %q", asked, want)
		}
	}
	const api = "GET /v1.0/me/calendarView"
	read("authorization_code for ", api)
	microsoft.mu.Lock()
	microsoft.over = true
	microsoft.mu.Unlock()
	read(api, "refresh_token for openid profile email offline_access Calendars.ReadBasic", api)
	read(api) // the newer token is kept
	if status, answer := app.asks("POST", "/gateway/graph/v1.0/me/events"); status != http.StatusForbidden {
		t.Errorf("a write: %d %v", status, answer)
	}
	b.open(c.url + "/.sallyport/account")
	b.press("Disconnect for all apps")
	b.heading("Outlook Calendar is disconnected")
	if asked := microsoft.since(); asked != nil {
		t.Errorf("Microsoft has no way to end it, and was asked %q", asked)
	}
	if status, answer := app.asks("GET", list); status != http.StatusConflict {
		t.Errorf("afterwards: %d %v", status, answer)
	}
}
