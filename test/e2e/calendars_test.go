package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// calendars are a small Microsoft and a small Google at one address, for the clients of both:
// somebody agrees to all that is asked for at once, and a list has three pages.
type calendars struct {
	base string

	mu    sync.Mutex // guards asked and nonce
	asked []string   // of the APIs
	nonce string     // of the newest connection
}

func startCalendars(t *testing.T) *calendars {
	t.Helper()
	c := &calendars{}
	mux := http.NewServeMux()
	for _, path := range []string{"/organizations/oauth2/v2.0/authorize", "/o/oauth2/v2/auth"} {
		mux.HandleFunc("GET "+path, c.authorize)
	}
	mux.HandleFunc("POST /organizations/oauth2/v2.0/token", c.token("graph", map[string]any{
		"iss": "https://login.microsoftonline.com/" + directory + "/v2.0", "tid": directory, "oid": directory, "ver": "2.0"}))
	mux.HandleFunc("POST /token", c.token("google", map[string]any{"iss": "https://accounts.google.com",
		"email": "mira@corp.example", "email_verified": true}))
	mux.HandleFunc("/v1.0/", c.api(func(r *http.Request) any {
		if r.Method == http.MethodPost {
			return map[string]any{"value": []any{map[string]any{"scheduleId": "mira"}}}
		}
		q, page := r.URL.Query(), 0
		_, _ = fmt.Sscanf(q.Get("$skiptoken"), "R0usmc/%d+x", &page)
		list := map[string]any{"value": []any{map[string]any{"subject": fmt.Sprintf("event %d", page)}}}
		if page < 2 {
			q.Set("$skiptoken", fmt.Sprintf("R0usmc/%d+x", page+1))
			list["@odata.nextLink"] = c.base + r.URL.EscapedPath() + "?" + q.Encode()
		}
		return list
	}))
	mux.HandleFunc("/calendar/v3/", c.api(func(r *http.Request) any {
		if r.Method == http.MethodPost {
			busy := []any{map[string]any{"start": "2026-11-02T09:00:00Z", "end": "2026-11-02T10:00:00Z"}}
			return map[string]any{"calendars": map[string]any{"primary": map[string]any{"busy": busy}}}
		}
		page := 0
		_, _ = fmt.Sscanf(r.URL.Query().Get("pageToken"), "p/%d=", &page)
		list := map[string]any{"items": []any{map[string]any{"summary": fmt.Sprintf("event %d", page)}}}
		if page < 2 {
			list["nextPageToken"] = fmt.Sprintf("p/%d=", page+1)
		}
		return list
	}))
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	c.base = s.URL
	return c
}

// directory is the GUID of a tenant, and of a person in it.
const directory = "0aa0e6f4-5b1c-4a41-9d5c-6f5d1f7c2b11"

func (c *calendars) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	c.mu.Lock()
	c.nonce = q.Get("nonce")
	c.mu.Unlock()
	http.Redirect(w, r, q.Get("redirect_uri")+"?"+url.Values{"code": {q.Get("scope")}, "state": {q.Get("state")}}.Encode(),
		http.StatusFound)
}

func (c *calendars) token(client string, claims map[string]any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		claims["nonce"] = c.nonce
		c.mu.Unlock()
		claims["aud"], claims["sub"] = client, "mira"
		claims["iat"], claims["exp"] = time.Now().Unix(), time.Now().Add(time.Hour).Unix()
		payload, _ := json.Marshal(claims)
		text := base64.RawURLEncoding.EncodeToString
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"token_type": "Bearer", "access_token": "canary-of-" + client,
			"refresh_token": "refresh-of-" + client, "expires_in": 3600, "scope": r.PostFormValue("code"),
			"id_token": text([]byte(`{"alg":"RS256"}`)) + "." + text(payload) + "." + text([]byte("none"))})
	}
}

func (c *calendars) api(answer func(*http.Request) any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.asked = append(c.asked, r.Method+" "+r.RequestURI)
		c.mu.Unlock()
		if !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer canary-of-") {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer(r))
	}
}

// Microsoft's and Google's own libraries through the gateway, with another address and nothing
// else: past the second page, and what is not of the access does not arrive.
func TestP12_LibrariesOfMicrosoftAndGoogleWorkThroughTheGateway(t *testing.T) {
	t.Parallel()
	need(t, program("nodejs", "node"))
	for _, name := range []string{"@microsoft/microsoft-graph-client", "@googleapis/calendar"} {
		need(t, func() (string, error) { return npmPackage(name, "package.json") })
	}
	third := startCalendars(t)
	cert := need(t, world.cert)
	app := &lender{t: t, at: need(t, freeAddress), token: strings.Repeat("planner-token-", 3), tls: cert.pool}
	page := httptest.NewServer(app)
	t.Cleanup(page.Close)
	key, err := exec.Command(world.binary, "genkey").Output()
	if err != nil {
		t.Fatal(err)
	}
	s := overHTTP(need(t, freeAddress))
	s.Stored, s.GrantsAt, s.GrantsCert, s.GrantsKey = true, app.at, cert.certFile, cert.keyFile
	app.at = "localhost" + portOf(app.at)
	s.Routes = []string{fmt.Sprintf("{name: app, path: /, upstream: %q, allow: authenticated}", page.URL)}
	s.Grants = func(*provider) string {
		return fmt.Sprintf(`
  encryption_keys: ["literal:%s"]
  apps:
    - id: planner
      name: Planner
      token: "literal:%s"
      routes: [app]
      connectors: [{id: graph, access: [freebusy, basic]}, {id: google, access: [freebusy, events]}]
  connectors:
    - {id: graph, type: outlook_calendar, tenant: organizations, client_id: graph, client_secret: "literal:canary-secret",
       access: [freebusy, basic], base_url: %[3]s}
    - {id: google, type: google_calendar, client_id: google, client_secret: "literal:canary-secret",
       access: [freebusy, events], base_url: %[3]s}
`, strings.TrimSpace(string(key)), app.token, third.base)
	}
	c := ownCorp(t, s)
	b := newPerson(t)
	b.signInAtProvider(c.url+"/page", "mira")
	for id, name := range map[string]string{"graph": "Outlook Calendar", "google": "Google Calendar"} {
		b.open(c.url + "/.sallyport/connect/" + id + "?app=planner&return_to=/page?" + id)
		b.heading("Planner asks to use " + name)
		b.press("Go on to " + name)
		b.at(c.url + "/page?" + id)
	}
	_, answer := app.asks("POST", "/v1/leases")
	lease, _ := answer["lease"].(string)
	for script, want := range map[string]struct {
		url     string
		refused int
	}{"graph-client.mjs": {app.base() + "/gateway/graph", 2}, "google-client.mjs": {app.base() + "/gateway/google/", 1}} {
		saw := libraryOf(t, cert, script, want.url, app.token+"~"+lease)
		if fmt.Sprint(saw.Events) != "[event 0 event 1 event 2]" || saw.Busy != 1 || len(saw.Refused) != want.refused {
			t.Errorf("%s saw %+v", script, saw)
		}
		for _, r := range saw.Refused {
			if r.Status != http.StatusForbidden {
				t.Errorf("%s: %+v", script, r)
			}
		}
	}
	third.mu.Lock()
	defer third.mu.Unlock()
	arrives := func(text string) bool {
		return slices.ContainsFunc(third.asked, func(s string) bool { return strings.HasPrefix(s, text) })
	}
	if len(third.asked) != 8 || arrives("POST /v1.0/me/events") || arrives("POST /v1.0/$batch") ||
		!arrives("GET /calendar/v3/calendars/team%231%40group.calendar.google.com/events?") {
		t.Errorf("asked for %q", third.asked)
	}
}

// observed is what a library saw.
type observed struct {
	Events  []string
	Busy    int
	Refused []struct {
		What   string
		Status int
	}
}

func libraryOf(t *testing.T, cert certificate, script, url, token string) (saw observed) {
	t.Helper()
	options, err := json.Marshal(map[string]string{"url": url, "token": token})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	node := exec.CommandContext(ctx, "node", script, string(options))
	node.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+cert.certFile)
	out, err := node.Output()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		t.Fatalf("%s: %v: %s", script, err, failed.Stderr)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &saw); err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
	return saw
}
