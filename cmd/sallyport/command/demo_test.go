package command

import (
	"bytes"
	"context"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

func TestTheDemoTakesAnotherPortOnlyWhereNobodyChoseOne(t *testing.T) {
	taken := takenAddress(t)
	defer taken.Close()
	address := taken.Addr().String()

	free, note, err := freeAddress(t.Context(), address, false)
	if err != nil || free == address {
		t.Fatalf("took %q: %v", free, err)
	}
	if want := address + " is taken by another program, so this demo took " + free; !strings.HasPrefix(note, want) {
		t.Errorf("it says %q, want %q", note, want)
	}
	if _, _, err := freeAddress(t.Context(), address, true); err == nil ||
		!strings.Contains(err.Error(), "choose another with --listen") {
		t.Errorf("an address that was chosen and is taken: %v", err)
	}
}

// TestP21_TheDemoStaysOnThisMachine: its people have no passwords.
func TestP21_TheDemoStaysOnThisMachine(t *testing.T) {
	for _, address := range []string{"127.0.0.1:4180", "[::1]:4180", "localhost:0"} {
		if err := loopbackOnly(address); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	for _, address := range []string{":4180", "0.0.0.0:4180", "[::]:4180", "127.0.0.2:4180", "192.0.2.1:4180",
		"example.com:4180", "127.0.0.1", "localhost.evil.example:1"} {
		if loopbackOnly(address) == nil {
			t.Errorf("the demo would listen on %s", address)
		}
	}
}

// outputOf is what a command has written so far.
type outputOf struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (o *outputOf) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *outputOf) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// startDemo runs the demo until the test ends, and returns the URL that it prints.
func startDemo(t *testing.T) string {
	t.Helper()
	at, _ := watchDemo(t)
	return at
}

// watchDemo is startDemo with all that it prints.
func watchDemo(t *testing.T) (string, *outputOf) {
	t.Helper()
	out := &outputOf{}
	d := &demonstration{console: &console{stdout: out, stderr: out,
		env: func(string) (string, bool) { return "", false }}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.run(ctx, "127.0.0.1:0", true) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the demo ended with %v", err)
		}
		if t.Failed() {
			t.Logf("it wrote:\n%s", out)
		}
	})
	var at string
	testenv.Eventually(t, "the demo to be there", func() bool {
		if m := regexp.MustCompile(`(?m)^ +(http://localhost:\d+)/$`).FindStringSubmatch(out.String()); m != nil {
			at = m[1]
		}
		return at != "" && testenv.StatusOf(at+"/public") == http.StatusOK
	})
	return at, out
}

// linkTo is where the link with these words leads.
func linkTo(t *testing.T, page testenv.Page, words string) string {
	t.Helper()
	m := regexp.MustCompile(`href="([^"]*)"[^>]*>` + regexp.QuoteMeta(words) + "<").FindStringSubmatch(page.Body)
	if m == nil {
		t.Fatalf("%s has no link %q:\n%s", page.URL, words, page.Body)
	}
	return html.UnescapeString(m[1])
}

func saysAll(t *testing.T, page testenv.Page, status int, words ...string) {
	t.Helper()
	if page.Status != status {
		t.Errorf("%s: %d, want %d", page.URL, page.Status, status)
	}
	for _, want := range words {
		if !strings.Contains(page.Body, want) {
			t.Errorf("%s does not say %q:\n%s", page.URL, want, page.Body)
		}
	}
}

// What the demo promises of grants, as a person does it: connect, read, fail to write, and
// disconnect. No token is ever on a page.
func TestTheDemoAppReadsACalendarThatIsLentToIt(t *testing.T) {
	at, out := watchDemo(t)
	if strings.Contains(out.String(), "level=WARN") { // the page to open would be far above
		t.Errorf("it warns of itself:\n%s", out)
	}
	b := testenv.NewBrowser(t, nil)
	page := b.SignIn(b.Open(at+"/.sallyport/login?provider=demo&return_to=/calendar"), "mira")
	saysAll(t, page, 200, "not connected", "You have not lent this app a calendar yet",
		"<code>POST /gateway/calendar/calendar/v3/freeBusy</code></th><td class=\"mono\">409")
	connect := func() testenv.Page {
		t.Helper()
		ours := b.Click(page, linkTo(t, page, "Connect a calendar"))
		saysAll(t, ours, 200, "Demo app", "Google Calendar", "see when you are busy, but not with what")
		google := b.Submit(ours, "answer", "yes")
		saysAll(t, google, 200, "Pretend Google", "Whose account?", "See when you are free or busy")
		return google
	}
	b.Post(connect(), "", url.Values{"answer": {"cancel"}})
	page = b.Open(at + "/calendar")
	saysAll(t, page, 200, "not connected")

	page = b.Post(connect(), "", url.Values{"person": {"mira"}, "answer": {"allow"}})
	if page.URL.String() != at+"/calendar" {
		t.Errorf("connecting leads to %s", page.URL)
	}
	saysAll(t, page, 200, `<span class="tag good">connected</span>`, "mira@acme.example</th>", ":30 to ", "UTC",
		"<code>POST /gateway/calendar/calendar/v3/freeBusy</code></th><td class=\"mono\">200")

	// More is another question. Who leaves something out there goes on with what they had.
	const events, more = "https://www.googleapis.com/auth/calendar.events.readonly", "Let it read the events too"
	widen := func(scopes ...string) testenv.Page {
		t.Helper()
		ours := b.Click(page, linkTo(t, page, more))
		saysAll(t, ours, 200, "see when you are busy, but not with what", "read the events of your calendars")
		return b.Post(b.Submit(ours, "answer", "yes"), "", url.Values{"person": {"mira"}, "answer": {"allow"},
			"scope": scopes})
	}
	const freebusy = "https://www.googleapis.com/auth/calendar.freebusy"
	if narrow := widen(freebusy); narrow.Status < 400 || !strings.Contains(narrow.Body, "calendar.events.readonly") {
		t.Errorf("less was granted, and the page says %d:\n%s", narrow.Status, narrow.Body)
	}
	page = b.Open(at + "/calendar")
	saysAll(t, page, 200, `<span class="tag good">connected</span>`, more, " UTC<br>")
	page = widen(freebusy, events)
	saysAll(t, page, 200, `<span class="tag good">connected</span>`, " UTC: Stand-up<br>",
		"<code>GET /gateway/calendar/calendar/v3/calendars/primary/events</code></th><td class=\"mono\">200")
	if strings.Contains(page.Body, more) {
		t.Errorf("it asks for more than there is:\n%s", page.Body)
	}

	wrote := b.Submit(page, "", "")
	saysAll(t, wrote, 200, "403 ", "POST /calendar/v3/freeBusy", "connected</span>",
		"<code>POST /gateway/calendar/calendar/v3/calendars/primary/events</code></th><td class=\"mono\">403")

	account := b.Open(at + linkTo(t, page, "Disconnect on your account page"))
	saysAll(t, account, 200, "Google Calendar", "Demo app")
	forms := strings.SplitAfter(account.Body, "</form>")
	i := slices.IndexFunc(forms, func(text string) bool { return strings.Contains(text, "Disconnect for all apps") })
	if i < 0 {
		t.Fatalf("the account page has no button that disconnects:\n%s", account.Body)
	}
	account.Body = forms[i]
	saysAll(t, b.Submit(account, "", ""), 200, "Google Calendar")
	saysAll(t, b.Open(at+"/calendar"), 200, "not connected")
	for _, p := range []testenv.Page{page, wrote, account} {
		for _, token := range []string{"ya29.", "1//0"} {
			if strings.Contains(p.Body, token) || strings.Contains(fmt.Sprint(p.Hops), token) {
				t.Errorf("%s shows a token of Google's", p.URL)
			}
		}
	}
}

// The second host has assertions of its own, and they count too.
func TestTheDemoAppLendsOnItsSecondHostToo(t *testing.T) {
	at := startDemo(t)
	second := strings.Replace(at, "localhost", "127.0.0.1", 1)
	b := testenv.NewBrowser(t, nil)
	b.SignIn(b.Open(at+"/.sallyport/login?provider=demo&return_to=/"), "zoe")
	page := b.Open(second + "/calendar")
	ours := b.Click(page, linkTo(t, page, "Connect a calendar"))
	page = b.Post(b.Submit(ours, "answer", "yes"), "", url.Values{"person": {"zoe"}, "answer": {"allow"}})
	if page.URL.String() != second+"/calendar" {
		t.Errorf("connecting leads to %s", page.URL)
	}
	saysAll(t, page, 200, "zoe@mail.example", `<span class="tag good">connected</span>`)
}

// A plan takes three third parties: each is connected with a page of ours and one of theirs,
// changes are refused, and what one disconnects is gone while the rest goes on.
func TestTheDemoAppPlansWithThreeThirdParties(t *testing.T) {
	at := startDemo(t)
	b := testenv.NewBrowser(t, nil)
	page := b.SignIn(b.Open(at+"/.sallyport/login?provider=demo&return_to=/plan"), "mira")
	saysAll(t, page, 200, "On-call plan", "Connect Calendar", "Connect PagerDuty", "Connect Slack",
		"<code>GET /v1/grants</code></th><td class=\"mono\">200")
	for _, party := range []struct{ name, ours, theirs string }{
		{"Calendar", "see when you are busy", "Pretend Google"},
		{"PagerDuty", "read schedules, who is on call", "Pretend PagerDuty"},
		{"Slack", "write messages as the bot", "Pretend Slack"},
	} {
		ours := b.Click(page, linkTo(t, page, "Connect "+party.name))
		saysAll(t, ours, 200, "Demo app", party.ours)
		theirs := b.Submit(ours, "answer", "yes")
		saysAll(t, theirs, 200, party.theirs)
		page = b.Post(theirs, "", url.Values{"person": {"mira"}, "answer": {"allow"}})
		if page.URL.String() != at+"/plan" {
			t.Fatalf("connecting %s leads to %s:\n%s", party.name, page.URL, page.Body)
		}
		if strings.Contains(page.Body, "Connect "+party.name+"<") {
			t.Errorf("%s is not connected:\n%s", party.name, page.Body)
		}
	}
	saysAll(t, page, 200, "Mira Okafor</th>", "Jonas Lindqvist</th>", "you are busy ", "Post the plan to Slack")
	said := b.Post(page, "/plan", url.Values{"do": {"post"}})
	saysAll(t, said, 200, "posted to #channel-0",
		"<code>POST /gateway/chat/api/chat.postMessage</code></th><td class=\"mono\">200")
	saysAll(t, b.Post(page, "/plan", url.Values{"do": {"write"}}), 200, "403 ", "GET /schedules",
		"<code>DELETE /gateway/oncall/schedules/PSCHED1</code></th><td class=\"mono\">403")

	account := b.Open(at + linkTo(t, page, "Disconnect on your account page"))
	saysAll(t, account, 200, "Google Calendar", "PagerDuty", "Slack")
	forms := strings.SplitAfter(account.Body, "</form>")
	i := slices.IndexFunc(forms, func(text string) bool {
		return strings.Contains(text, "Disconnect for all apps") && strings.Contains(text, "disconnect/oncall")
	})
	if i < 0 {
		t.Fatalf("the account page has no button that disconnects PagerDuty:\n%s", account.Body)
	}
	account.Body = forms[i]
	saysAll(t, b.Submit(account, "", ""), 200, "PagerDuty")
	page = b.Open(at + "/plan")
	saysAll(t, page, 200, "Connect PagerDuty</a>", "mira@acme.example", "Connect PagerDuty to see it")
	for _, token := range []string{"ya29.", "1//0", "pdus+", "xoxe", "xoxb"} {
		if strings.Contains(page.Body+said.Body, token) {
			t.Errorf("a page shows a token: %s", token)
		}
	}
}

// Slack belongs to an organization: who has none, or does not manage it, cannot connect it, and
// is told so.
func TestTheDemosSlackIsAnOrganizations(t *testing.T) {
	at := startDemo(t)
	for person, provider := range map[string]string{"zoe": "demo", "priya": "ledger"} {
		b := testenv.NewBrowser(t, nil)
		page := b.SignIn(b.Open(at+"/.sallyport/login?provider="+provider+"&return_to=/plan"), person)
		saysAll(t, page, 200, "Connect Calendar", "cannot be connected by you")
		if strings.Contains(page.Body, "Connect Slack</a>") {
			t.Errorf("%s is sent to connect Slack:\n%s", person, page.Body)
		}
	}
}

// At the demo's Google an organization has the name of its domain until its administrator has it
// read. Commands of an operator see it beside the demo, with the file that it names.
func TestTheDemosGoogleTellsANameOnceItWasRead(t *testing.T) {
	at, out := watchDemo(t)
	enter := func(person string) *testenv.Browser {
		b := testenv.NewBrowser(t, nil)
		page := b.SignIn(b.Choose(b.Open(at+"/"), "provider", "google"), person)
		saysAll(t, page, http.StatusOK, "google:cedar.example")
		return b
	}
	ravi := enter("ravi")
	if page := ravi.Open(at + "/"); strings.Contains(page.Body, "Cedar Works") {
		t.Errorf("the name is known before it was read:\n%s", page.Body)
	}
	if page := ravi.Open(at + "/.sallyport/account"); strings.Contains(page.Body, "Read your organization") {
		t.Errorf("somebody else may have it read:\n%s", page.Body)
	}
	nora := enter("nora")
	account := nora.Open(at + "/.sallyport/account")
	m := regexp.MustCompile(`name="form" value="([^"]*)">Read your organization`).FindStringSubmatch(account.Body)
	if m == nil {
		t.Fatalf("no button:\n%s", account.Body)
	}
	saysAll(t, nora.SignIn(nora.Submit(account, "form", html.UnescapeString(m[1])), "nora"), http.StatusOK,
		"Cedar Works", "cedar.example")
	saysAll(t, enter("ravi").Open(at+"/"), http.StatusOK, "Cedar Works", "google:cedar.example")
	file := regexp.MustCompile(`-c (/\S+)`).FindStringSubmatch(out.String())
	if file == nil {
		t.Fatalf("no file for commands:\n%s", out)
	}
	var listed strings.Builder
	code := run([]string{"orgs", "list", "-c", file[1]}, &console{stdout: &listed, stderr: out,
		env: func(string) (string, bool) { return "", false }})
	if code != exitOK || !strings.Contains(listed.String(), "google:cedar.example  Cedar Works  cedar.example") {
		t.Errorf("orgs list: %d\n%s", code, &listed)
	}
}
