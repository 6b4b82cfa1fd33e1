package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

const appPassword = "canary-app-password"

// startCalendarServer runs a Radicale with two calendars of mira's, of which Plans has five
// events in two months, and one of tom's.
func startCalendarServer(t *testing.T) (base string) {
	t.Helper()
	found, dir := need(t, program("radicale", "radicale")), t.TempDir()
	address := need(t, freeAddress)
	users, file := filepath.Join(dir, "users"), filepath.Join(dir, "config")
	for name, text := range map[string]string{users: "mira:" + appPassword + "\ntom:" + appPassword + "\n",
		file: "[server]\nhosts = " + address + "\n[auth]\ntype = htpasswd\nhtpasswd_filename = " + users +
			"\nhtpasswd_encryption = plain\ndelay = 0\n[storage]\nfilesystem_folder = " +
			filepath.Join(dir, "collections") + "\n[web]\ntype = none\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	runApp(t, dir, address, found, "--config", file)
	base = "http://" + address
	for _, calendar := range []string{"/mira/plans/", "/mira/holidays/", "/tom/secrets/"} {
		user, name := strings.Split(calendar, "/")[1], strings.Split(calendar, "/")[2]
		askRadicale(t, user, "MKCALENDAR", base+calendar, `<C:mkcalendar xmlns:D="DAV:" `+
			`xmlns:C="urn:ietf:params:xml:ns:caldav"><D:set><D:prop><D:displayname>`+
			strings.ToUpper(name[:1])+name[1:]+`</D:displayname></D:prop></D:set></C:mkcalendar>`)
	}
	for i, day := range []string{"1102", "1109", "1116", "1207", "1214"} {
		askRadicale(t, "mira", "PUT", fmt.Sprintf("%s/mira/plans/%d.ics", base, i), fmt.Sprintf("BEGIN:VCALENDAR\r\n"+
			"VERSION:2.0\r\nPRODID:-//Example//EN\r\nBEGIN:VEVENT\r\nUID:%d\r\nDTSTAMP:20261101T000000Z\r\n"+
			"DTSTART:2026%sT090000Z\r\nDTEND:2026%[2]sT100000Z\r\nSUMMARY:Event %[1]d\r\nEND:VEVENT\r\n"+
			"END:VCALENDAR\r\n", i, day))
	}
	return base
}

// askRadicale asks it directly, and wants it done.
func askRadicale(t *testing.T, user, method, address, body string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth(user, appPassword)
	r.Header.Set("Depth", "1")
	if method == "PUT" {
		r.Header.Set("Content-Type", "text/calendar")
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode >= 300 {
		t.Fatalf("%s %s: %s %v", method, address, res.Status, err)
	}
	return string(text)
}

// A library of somebody else's, through the gateway, to a calendar server of somebody else's:
// the password is pasted in a browser; from one address the library finds the calendars, and
// reads events of two months. What changes something does not arrive.
func TestP12_ACalDAVLibraryFindsAndReadsThroughTheGateway(t *testing.T) {
	t.Parallel()
	need(t, program("nodejs", "node"))
	need(t, func() (string, error) { return npmPackage("tsdav", "package.json") })
	third := startCalendarServer(t)
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
  apps: [{id: planner, name: Planner, token: "literal:%s", routes: [app], connectors: [dav]}]
  connectors: [{id: dav, type: caldav, name: Team calendar, base_url: %q}]
`, strings.TrimSpace(string(key)), app.token, third)
	}
	c := ownCorp(t, s)
	b := newPerson(t)
	b.signInAtProvider(c.url+"/page", "mira")
	b.open(c.url + "/.sallyport/connect/dav?app=planner&return_to=/page?back")
	b.heading("Planner asks to use Team calendar")
	b.do(chromedp.SendKeys(chromedp.CSS("#user"), "mira"), chromedp.SendKeys(chromedp.CSS("#key"), appPassword))
	b.press("Connect")
	b.at(c.url + "/page?back")
	_, answer := app.asks("POST", "/v1/leases")
	lease, _ := answer["lease"].(string)
	before := askRadicale(t, "mira", "PROPFIND", third+"/mira/plans/", "")

	options, err := json.Marshal(map[string]string{"url": "http://" + app.at + "/gateway/dav/", "user": lease,
		"token": app.token})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "node", "caldav-client.mjs", string(options)).Output()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		t.Fatalf("%v: %s", err, failed.Stderr)
	}
	var saw struct {
		Calendars []string
		Events    [][]string
		All       []string
		Refused   []struct {
			What, Message string
			Status        int
		}
	}
	if err := json.Unmarshal(out, &saw); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if !slices.Equal(saw.Calendars, []string{"Holidays", "Plans"}) ||
		fmt.Sprint(saw.Events) != "[[Event 0 Event 1 Event 2] [Event 3 Event 4]]" || len(saw.All) != 5 {
		t.Errorf("the library saw %+v", saw)
	}
	for _, r := range saw.Refused {
		if r.Status != http.StatusForbidden {
			t.Errorf("%+v", r)
		}
	}
	if len(saw.Refused) != 4 {
		t.Errorf("%d were refused", len(saw.Refused))
	}
	if after := askRadicale(t, "mira", "PROPFIND", third+"/mira/plans/", ""); after != before {
		t.Errorf("the calendar was %s\nand is %s", before, after)
	}
}
