package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	slackID     = "12345.67890"
	slackSecret = "canary-secret-of-the-slack-app"
)

// startSlack runs the Slack of npm emulate, on the Node.js of npm node, with an app that may
// come back to redirect.
func startSlack(t *testing.T, redirect string) (base string) {
	t.Helper()
	scopes := []string{"app_mentions:read", "channels:read", "groups:read", "im:read", "chat:write", "im:history",
		"reactions:read", "reactions:write"}
	var channels []map[string]string
	for n := range 7 {
		channels = append(channels, map[string]string{"name": fmt.Sprintf("channel-%d", n)})
	}
	address := startEmulate(t, "slack", "", map[string]any{
		"team":          map[string]string{"name": "Acme Rockets", "domain": "acme"},
		"users":         []any{map[string]string{"name": "ines", "real_name": "Ines Duarte", "email": "ines@corp.example"}},
		"channels":      channels,
		"strict_scopes": true,
		"oauth_apps": []any{map[string]any{"client_id": slackID, "client_secret": slackSecret, "app_id": "A000000001",
			"name": "Planner", "redirect_uris": []string{redirect}, "scopes": scopes}},
	})
	return "http://" + address
}

// Slack's own library, through the gateway, to a Slack that nobody here wrote: the app is
// installed in a browser, and what a planner does works, past the second page. What is not
// of its access does not reach Slack, and says so to the library.
func TestP12_SlacksOwnLibraryWorksThroughTheGateway(t *testing.T) {
	t.Parallel()
	need(t, program("nodejs", "node"))
	need(t, func() (string, error) { return npmPackage("@slack/web-api", "package.json") })
	s := overHTTP(need(t, freeAddress))
	slack := startSlack(t, s.PublicURL+"/.sallyport/connect/slack/callback")
	app := &lender{t: t, at: need(t, freeAddress), token: strings.Repeat("planner-token-", 3)}
	page := httptest.NewServer(app)
	t.Cleanup(page.Close)
	key, err := exec.Command(world.binary, "genkey").Output()
	if err != nil {
		t.Fatal(err)
	}
	s.Organizations, s.Stored, s.GrantsAt = true, true, app.at
	s.Routes = []string{fmt.Sprintf("{name: app, path: /, upstream: %q, allow: authenticated}", page.URL)}
	s.Grants = func(*provider) string {
		return fmt.Sprintf(`
  encryption_keys: ["literal:%s"]
  apps: [{id: planner, name: Planner, token: "literal:%s", routes: [app], connectors: [{id: slack, access: [read, post]}]}]
  connectors:
    - id: slack
      type: slack
      client_id: "%s"
      client_secret: "literal:%s"
      owner: org
      managed_by: [{emails: [ines@corp.example]}]
      access: [read, post]
      base_url: %s
`, strings.TrimSpace(string(key)), app.token, slackID, slackSecret, slack)
	}
	c := ownCorp(t, s)
	b := newPerson(t)
	b.open(c.url + "/page")
	b.heading(atProvider)
	b.click("button[value=ines]")
	b.heading(whichOrg)
	b.click("button[value=acme]")
	b.at(c.url + "/page")
	status, answer := app.asks("GET", "/gateway/slack/api/conversations.list")
	link, _ := answer["connect_url"].(string)
	if status != http.StatusConflict || link == "" {
		t.Fatalf("%d %v", status, answer)
	}
	b.open(strings.Replace(link, "access=read", "access=read,post", 1) + "&return_to=/page?back")
	b.heading("Planner asks to use Slack")
	b.press("Go on to Slack")
	b.click("form.user-form button")
	b.at(c.url + "/page?back")

	_, answer = app.asks("POST", "/v1/leases")
	lease, _ := answer["lease"].(string)
	options, err := json.Marshal(map[string]string{"url": "http://" + app.at + "/gateway/slack/api/",
		"token": app.token + "~" + lease})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "node", "slack-client.mjs", string(options)).Output()
	if err != nil {
		var failed *exec.ExitError
		if errors.As(err, &failed) {
			t.Fatalf("%v: %s", err, failed.Stderr)
		}
		t.Fatal(err)
	}
	var saw struct {
		Bot, Posted string
		Pages       int
		Channels    []string
		Refused     []struct {
			What, Code, Error string
			Status            int
			Platform          bool
			Body              struct{ Type, Path string }
		}
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &saw); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("the library saw %+v", saw)
	for n := range 7 {
		if name := fmt.Sprintf("channel-%d", n); !slices.Contains(saw.Channels, name) {
			t.Errorf("%s is on no page", name)
		}
	}
	if saw.Pages < 4 || saw.Bot == "" || saw.Posted != "On call this week: Mira & Jonas <3 é" {
		t.Errorf("%+v", saw)
	}
	for _, r := range saw.Refused {
		switch {
		case r.What == "what Slack refuses" && (!r.Platform || r.Error != "channel_not_found"),
			r.What == "a method of no access" && (r.Status != http.StatusForbidden ||
				!strings.HasSuffix(r.Body.Type, "/rule-denied") || r.Body.Path != "/api/conversations.create"),
			// The library puts it in the place of the app's own.
			r.What == "a token in the arguments" && r.Status != http.StatusUnauthorized:
			t.Errorf("%+v", r)
		}
	}
	if len(saw.Refused) != 3 {
		t.Errorf("%d were refused", len(saw.Refused))
	}
}
