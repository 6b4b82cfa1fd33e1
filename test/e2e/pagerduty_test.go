package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

const pagerdutyKey = "a+canaryKc66ryYTWUXY"

// pagerdutyAPI is as much of PagerDuty's REST API as the test needs, with a key of an account.
type pagerdutyAPI struct {
	mu    sync.Mutex
	asked []string // method, path and From, of all but the probes
}

func (p *pagerdutyAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.Header.Get("Authorization") != "Token token="+pagerdutyKey ||
		r.Header.Get("Accept") != "application/vnd.pagerduty+json;version=2":
		w.WriteHeader(http.StatusUnauthorized)
		return
	case r.URL.Path == "/users/me":
		fmt.Fprint(w, `{"user":{"id":"PIYKDBN","email":"ines@corp.example"}}`)
		return
	case r.URL.Path == "/abilities":
		fmt.Fprint(w, `{"abilities":[]}`)
		return
	}
	p.mu.Lock()
	p.asked = append(p.asked, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+r.Header.Get("From")))
	p.mu.Unlock()
	if r.Method != http.MethodGet {
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, `{"override":{"id":"PQ"}}`)
		return
	}
	offset, _ := strconv.Atoi(r.URL.Query().Get("offset"))
	var entries []map[string]string
	for n := offset; n < min(offset+2, 7); n++ {
		entries = append(entries, map[string]string{"id": fmt.Sprintf("P%d", n)})
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"oncalls": entries, "offset": offset, "limit": 2,
		"more": offset+2 < 7})
}

// PagerDuty's own library, through the gateway: a key is pasted in a browser, and what a
// planner does works, past the second page. Each change is of the user whose key it is,
// whatever the library is told to say.
func TestP12_PagerDutysOwnLibraryWorksThroughTheGateway(t *testing.T) {
	t.Parallel()
	need(t, program("nodejs", "node"))
	need(t, func() (string, error) { return npmPackage("@pagerduty/pdjs", "package.json") })
	api := &pagerdutyAPI{}
	third := httptest.NewServer(api)
	t.Cleanup(third.Close)
	s := overHTTP(need(t, freeAddress))
	app := &lender{t: t, at: need(t, freeAddress), token: strings.Repeat("planner-token-", 3)}
	page := httptest.NewServer(app)
	t.Cleanup(page.Close)
	key, err := exec.Command(world.binary, "genkey").Output()
	if err != nil {
		t.Fatal(err)
	}
	s.Stored, s.GrantsAt = true, app.at
	s.Routes = []string{fmt.Sprintf("{name: app, path: /, upstream: %q, allow: authenticated}", page.URL)}
	s.Grants = func(*provider) string {
		return fmt.Sprintf(`
  encryption_keys: ["literal:%s"]
  apps: [{id: planner, name: Planner, token: "literal:%s", routes: [app], connectors: [pagerduty-com]}]
  connectors: [{id: pagerduty-com, type: pagerduty_key, access: [read_write], base_url: %q}]
`, strings.TrimSpace(string(key)), app.token, third.URL)
	}
	c := ownCorp(t, s)
	b := newPerson(t)
	b.open(c.url + "/page")
	b.heading(atProvider)
	b.click("button[value=ines]")
	b.at(c.url + "/page")
	status, answer := app.asks("GET", "/gateway/pagerduty-com/oncalls")
	link, _ := answer["connect_url"].(string)
	if status != http.StatusConflict || link == "" {
		t.Fatalf("%d %v", status, answer)
	}
	b.open(link + "&return_to=/page?back")
	b.heading("Planner asks to use PagerDuty")
	b.do(chromedp.SendKeys(chromedp.CSS("#key"), pagerdutyKey))
	b.press("Connect")
	b.at(c.url + "/page?back")

	_, answer = app.asks("POST", "/v1/leases")
	lease, _ := answer["lease"].(string)
	options, err := json.Marshal(map[string]string{"url": "http://" + app.at + "/gateway/pagerduty-com",
		"token": app.token + "~" + lease})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "node", "pagerduty-client.mjs", string(options)).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var saw struct {
		Pages, Changed int
		Oncalls        []string
		Me             string
		Refused        struct {
			Status int
			Type   string
		}
	}
	if err := json.Unmarshal(out, &saw); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if !slices.Equal(saw.Oncalls, []string{"P0", "P1", "P2", "P3", "P4", "P5", "P6"}) || saw.Pages != 4 ||
		saw.Me != "ines@corp.example" || saw.Changed != http.StatusCreated ||
		saw.Refused.Status != http.StatusForbidden || !strings.HasSuffix(saw.Refused.Type, "/rule-denied") {
		t.Errorf("the library saw %+v", saw)
	}
	want := append(slices.Repeat([]string{"GET /oncalls"}, 4), "POST /schedules/PX/overrides ines@corp.example")
	if !slices.Equal(api.asked, want) {
		t.Errorf("PagerDuty was asked %q", api.asked)
	}
}
