package command

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
)

// Somebody signs in at a running Sallyport; an operator sees that beside it, ends it,
// and the next page asks for a sign-in.
func TestAnOperatorEndsASessionOfARunningProcess(t *testing.T) {
	t.Parallel()
	b := startBinary(t, map[string][2]string{"google": {demo.Google, "type: google, issuer: OP"}},
		session.NewKey(time.Unix(1.7e9, 0)).Text(), "store: sqlite:"+filepath.Join(t.TempDir(), "sallyport.db"))
	operator := func(args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		// The client secret is not there: an operator needs none.
		code := run(append([]string{"sessions"}, append(args, "-c", b.config)...), &console{stdout: &out, stderr: &errs,
			env: func(name string) (string, bool) { return "", false }})
		if code != exitOK {
			t.Fatalf("%q: exit code %d: %s", args, code, errs.String())
		}
		return out.String()
	}
	list := func() []listedSession {
		t.Helper()
		var l struct{ Sessions []listedSession }
		if err := json.Unmarshal([]byte(operator("list", "--format", "json")), &l); err != nil {
			t.Fatal(err)
		}
		return l.Sessions
	}
	ann, other := testenv.NewBrowser(t, nil), testenv.NewBrowser(t, nil)
	for _, browser := range []*testenv.Browser{ann, other} {
		page := browser.SignIn(browser.Open("http://"+b.public+"/.sallyport/login?return_to=%2Fdeep"), "mira")
		if page.Body != "the app" {
			t.Fatalf("%d\n%s", page.Status, page.Body)
		}
	}
	testenv.Within(t, 2*time.Second, "both sign-ins are listed", func() bool { return len(list()) == 2 })
	for range 5 {
		ann.Open("http://" + b.public + "/page")
	}
	newest, oldest := list()[0], list()[1]
	if len(list()) != 2 || newest.Session == oldest.Session || newest.Person != oldest.Person ||
		!strings.HasPrefix(newest.Person, "google:") || newest.From != "127.0.0.1" || newest.Browser == "" ||
		newest.Since < oldest.Since {
		t.Errorf("%+v", list())
	}
	app := func(browser *testenv.Browser) bool { return browser.Open("http://"+b.public+"/page").Body == "the app" }
	operator("end", "--session", oldest.Session)
	testenv.Within(t, 2*time.Second, "the first one is signed out", func() bool { return !app(ann) })
	if !app(other) {
		t.Error("the other one of the same person is signed out too")
	}
	if l := list(); len(l) != 1 || l[0].Session != newest.Session {
		t.Errorf("the list still has %+v", l)
	}
	operator("end", "--person", newest.Person)
	testenv.Within(t, 2*time.Second, "the second one is signed out", func() bool { return !app(other) })
	if l := list(); len(l) != 0 {
		t.Errorf("the list still has %+v", l)
	}
	if output, err := os.ReadFile(b.output); err != nil || bytes.Contains(output, []byte(`"level":"ERROR"`)) {
		t.Errorf("errors in the log: %v\n%s", err, output)
	}
	b.stop(t)
}
