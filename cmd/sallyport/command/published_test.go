package command

import (
	"bytes"
	"encoding/json"
	"html"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/proxy/pages"
	"github.com/sallyport-proxy/sallyport/session"
)

// published is the table in which an app that plans who is on call tells its users what they
// are asked for. It signs people in, and connects calendars, on-call products and Slack.
const published = `
Action | Scopes Requested | Includes Offline Access | Note
Login | email, profile | Yes [0] |
Login | User.Read | Yes [0] | Microsoft accounts only
Connect to Calendar | read only [1] | Yes |
Connect to On-Call Product | API Key | Yes |
Slack App Install | ` + publishedSlack + ` | Yes |
`

const publishedSlack = "app_mentions:read, channels:read, groups:read,im:read, chat:write, im:history, " +
	"reactions:read, reactions:write"

// publishedNotes are its footnotes, in words of our own, by what they come to.
var publishedNotes = map[string]string{
	"[0]": "the screen of OpenID Connect may promise offline access; no token is retained, so there is none",
	"[1]": "the scope is named by the provider of the calendar",
}

// readOnly are the scopes of [1]: the narrowest that shows when somebody is busy.
var readOnly = map[string]string{
	"google_calendar":  "https://www.googleapis.com/auth/calendar.freebusy",
	"outlook_calendar": "Calendars.ReadBasic",
}

// publishedConnectors are those of a configuration that does what the table says.
const publishedConnectors = `
    - {id: google-calendar, type: google_calendar, client_id: a, client_secret: "env:CANARY_SECRET"}
    - {id: outlook, type: outlook_calendar, tenant: organizations, client_id: b, client_secret: "env:CANARY_SECRET"}
    - {id: pagerduty, type: pagerduty_key}
    - {id: incidents, type: incidentio_key}
    - {id: grafana, type: grafana_irm_key, base_url: "https://oncall.example.com"}
    - {id: rootly, type: rootly_key}
    - id: slack
      type: slack
      client_id: c
      client_secret: env:CANARY_SECRET
      owner: org
      managed_by: [{email_domains: [acme.example]}]
      access: [read, mentions, reactions, post, react, history]
`

// publishedRow is how a row of the table comes out of the configuration.
type publishedRow struct {
	at      []string // the providers and connectors that it is about
	beside  []string // scopes that are asked for too, and that other rows, columns or nobody's data explain
	offline bool
}

// publishedRows are by action and first scope.
func publishedRows() map[string]publishedRow {
	// Who an account is, and what Microsoft calls offline access, for which there is a column.
	account := []string{"openid", "email", "profile", "offline_access"}
	return map[string]publishedRow{
		// [0]: here it is not asked for either.
		"Login: email":                         {at: []string{"google", "microsoft"}, beside: []string{"openid", "User.Read"}},
		"Login: User.Read":                     {at: []string{"microsoft"}, beside: []string{"openid", "email", "profile"}},
		"Connect to Calendar: read only [1]":   {at: []string{"google-calendar", "outlook"}, beside: account, offline: true},
		"Connect to On-Call Product: API Key":  {at: []string{"pagerduty", "incidents", "grafana", "rootly"}, offline: true},
		"Slack App Install: app_mentions:read": {at: []string{"slack"}, offline: true},
	}
}

// What people are asked for is what such an app tells them, and everybody is told the same.
func TestThePermissionSummaryIsWhatAnAppPublishes(t *testing.T) {
	b := startPublished(t)
	t.Run("row by row", func(t *testing.T) { testPublishedRows(t, b) })
	t.Run("on the account page", func(t *testing.T) { testPublishedPage(t, b) })
	b.stop(t)
}

// testPublishedRows: the configuration asks for what the table says and for nothing else.
func testPublishedRows(t *testing.T, b *binary) {
	asked := map[string]pages.Permission{}
	for _, p := range permissionsOf(t, b.config) {
		asked[p.ID()] = p
	}
	rows, told := publishedRows(), map[string]bool{}
	for line := range strings.Lines(strings.TrimSpace(published)) {
		cell := strings.Split(strings.TrimSuffix(strings.TrimSpace(line), " |"), " | ")
		if cell[0] == "Action" {
			continue
		}
		for _, mark := range regexp.MustCompile(`\[\d\]`).FindAllString(line, -1) {
			if publishedNotes[mark] == "" {
				t.Errorf("there is no note %s", mark)
			}
		}
		want := regexp.MustCompile(`, ?`).Split(cell[1], -1)
		name := cell[0] + ": " + want[0]
		row, ok := rows[name]
		if !ok {
			t.Errorf("nothing does what the row %q says", name)
		}
		delete(rows, name)
		if onlyMicrosoft := len(cell) > 3; onlyMicrosoft && (cell[3] != "Microsoft accounts only" ||
			slices.ContainsFunc(row.at, func(id string) bool { return asked[id].Type != "microsoft" })) {
			t.Errorf("%s: the note is %q, and it is of %v", name, cell[3], row.at)
		}
		for _, id := range row.at {
			told[id] = true
			p, want := asked[id], slices.Clone(want)
			switch want[0] {
			case "read only [1]":
				want = []string{readOnly[p.Type]}
			case "API Key":
				want = []string{"API key"}
			}
			var got []string
			for _, scope := range p.Scopes {
				// At another Graph than Microsoft's own, the scope has its address.
				scope := strings.TrimPrefix(scope.Name, b.providers["microsoft"].URL+"/")
				if !slices.Contains(row.beside, scope) {
					got = append(got, scope)
				}
			}
			slices.Sort(want)
			slices.Sort(got)
			if !slices.Equal(got, want) || p.Offline != row.offline {
				t.Errorf("%s: %s asks for %q, offline %t", name, id, got, p.Offline)
			}
			kept := cell[2] == "Yes"
			dropped := cell[2] == "Yes [0]" && strings.HasPrefix(p.Note, "All tokens are thrown away") &&
				slices.Contains(p.Discarded, "the access token") && !p.Offline
			if !dropped && kept != p.Offline {
				t.Errorf("%s: the table says %q of offline access, and %s says %t, %s, %q", name, cell[2], id, p.Offline,
					p.Note, p.Discarded)
			}
		}
	}
	if len(rows) > 0 {
		t.Errorf("the table has no rows %v", rows)
	}
	if all := slices.Sorted(maps.Keys(asked)); !slices.Equal(slices.Sorted(maps.Keys(told)), all) {
		t.Errorf("the table tells of %v only; there are %v", told, all)
	}
}

// testPublishedPage: the account page of operators, the table for people, Markdown and JSON
// say the same.
func testPublishedPage(t *testing.T, b *binary) {
	browser := testenv.NewBrowser(t, nil)
	page := browser.SignIn(browser.Open("http://"+b.public+"/.sallyport/login?return_to=%2Fdeep&provider=google"), "mira")
	if page.Body != "the app" {
		t.Fatalf("%d at %s\n%s", page.Status, page.URL, page.Body)
	}
	body := browser.Open("http://" + b.public + "/.sallyport/account").Body
	_, body, found := strings.Cut(body, "What providers are asked for")
	if !found {
		t.Fatal("the page has nothing of permissions")
	}
	sections := strings.Split(html.UnescapeString(body), "<h3><bdi>")[1:]
	plain, markdown := printed(t, b.config, "table"), printed(t, b.config, "markdown")
	all := permissionsOf(t, b.config)
	if len(all) != 9 || len(sections) != len(all) {
		t.Fatalf("%d entries, and %d sections on the page", len(all), len(sections))
	}
	for i, p := range all {
		section := sections[i]
		wants := []string{p.ID() + "</bdi>", "(" + p.Type + ", to " + p.Action + ")", "<dd>" + yesNo(p.Offline), p.Note}
		row := []string{"| " + p.Action, p.ID()}
		var names []string
		for _, s := range p.Scopes {
			wants = append(wants, s.Name, s.Means)
			names = append(names, "`"+s.Name+"`")
			if !strings.Contains(plain, s.Name) || !strings.Contains(plain, s.Means) {
				t.Errorf("the table for people has not %s of %s", s.Name, p.ID())
			}
		}
		for _, term := range slices.Concat(p.Kept, p.Checked) {
			wants = append(wants, term.Name, term.Means)
		}
		for _, want := range append(wants, p.Discarded...) {
			if !strings.Contains(section, want) {
				t.Errorf("the page says of %s nothing of %q:\n%s", p.ID(), want, section)
			}
		}
		line := strings.Join(append(row, strings.Join(names, ", "), yesNo(p.Offline), p.Note), " | ") + " |\n"
		if !strings.Contains(markdown, line) {
			t.Errorf("the Markdown has no line %s", line)
		}
		if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(p.Action) + ` +` + regexp.QuoteMeta(p.ID()) + ` .* ` +
			yesNo(p.Offline) + ` +` + regexp.QuoteMeta(p.Note) + `$`).MatchString(plain) {
			t.Errorf("the table for people has no row of %s:\n%s", p.ID(), plain)
		}
	}
}

// startPublished is the program with what the table is about.
func startPublished(t *testing.T) *binary {
	t.Helper()
	dir := t.TempDir()
	var ids []string
	for _, m := range regexp.MustCompile(`\{id: ([a-z-]+),`).FindAllStringSubmatch(publishedConnectors, -1) {
		ids = append(ids, m[1])
	}
	ids = append(ids, "{id: slack, access: [read, mentions, reactions, post, react, history]}")
	return startBinary(t, map[string][2]string{
		"google":    {demo.Google, "type: google, issuer: OP, scopes: [openid, email, profile]"},
		"microsoft": {demo.Microsoft, "type: microsoft, issuer: OP, endpoints: {graph: OP}, tenant: common"},
	}, session.NewKey(time.Unix(1.7e9, 0)).Text(),
		"store: sqlite:"+filepath.Join(dir, "store.db"),
		"grants:\n  encryption_keys: [\"literal:"+session.NewKey(time.Unix(1.7e9, 0)).Text()+"\"]\n  connectors:"+
			publishedConnectors+"  apps:\n    - {id: planner, offline: true, routes: [app], socket: {uid: "+
			strconv.Itoa(os.Getuid())+", path: "+filepath.Join(dir, "planner.sock")+"}, connectors: ["+strings.Join(ids, ", ")+"]}\n")
}

func permissionsOf(t *testing.T, file string) (all []pages.Permission) {
	t.Helper()
	testenv.Check(t, json.Unmarshal([]byte(printed(t, file, "json")), &all))
	return all
}

func printed(t *testing.T, file, format string) string {
	t.Helper()
	var out bytes.Buffer
	c := &console{stdout: &out, stderr: &out, env: func(string) (string, bool) { return "", false }}
	testenv.Check(t, permissions(c, file, format))
	return out.String()
}
