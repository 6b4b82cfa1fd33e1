package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-ical"
	"github.com/emersion/go-webdav/caldav"
)

// appsGuide is the page whose settings of Radicale these tests use.
const appsGuide = "../../docs/apps.md"

// startRadicale serves calendars, with the settings of the guide.
func startRadicale(t *testing.T) (address string) {
	t.Helper()
	found, dir := need(t, program("radicale", "radicale")), t.TempDir()
	address = need(t, freeAddress)
	text, err := os.ReadFile(appsGuide)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)\n## Radicale\n.*?```ini\n(.*?)```").FindSubmatch(text)
	if m == nil {
		t.Fatalf("%s has no settings of Radicale", appsGuide)
	}
	settings := readdressed(t, string(m[1]), "127.0.0.1:5232", address) +
		"[storage]\nfilesystem_folder = " + filepath.Join(dir, "collections") + "\n"
	file := filepath.Join(dir, "radicale.conf")
	if err := os.WriteFile(file, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	runApp(t, dir, address, found, "--config", file)
	return address
}

// startWSGI serves a program that shows what of the request it is told, by gunicorn. It
// cannot tell X_Forwarded_User from X-Forwarded-User.
func startWSGI(t *testing.T) (address string) {
	t.Helper()
	found, dir := need(t, program("gunicorn", "gunicorn")), t.TempDir()
	address = need(t, freeAddress)
	const shows = `def app(environ, start):
    start('200 OK', [('Content-Type', 'text/plain; charset=utf-8')])
    told = sorted(k + '=' + v for k, v in environ.items() if k.startswith('HTTP_') or k == 'REMOTE_USER')
    return ['\n'.join(told).encode('latin-1')]
`
	if err := os.WriteFile(filepath.Join(dir, "shows.py"), []byte(shows), 0o600); err != nil {
		t.Fatal(err)
	}
	runApp(t, dir, address, found, "--bind", address, "shows:app")
	return address
}

// startWiki serves a TiddlyWiki below /wiki, which takes who somebody is from X-Login and
// lets mira write.
func startWiki(t *testing.T) (address string) {
	t.Helper()
	need(t, program("nodejs", "node"))
	script, err := filepath.Abs(need(t, func() (string, error) { return npmPackage("tiddlywiki", "tiddlywiki.js") }))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if out, err := exec.Command("node", script, dir, "--init", "server").CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	address = need(t, freeAddress)
	runApp(t, dir, address, "node", script, dir, "--listen", "host=127.0.0.1", "port="+portOf(address)[1:],
		"path-prefix=/wiki", "authenticated-user-header=X-Login", "readers=(authenticated)", "writers=mira")
	return address
}

// runApp runs an app until the test ends.
func runApp(t *testing.T, dir, address, name string, args ...string) {
	t.Helper()
	p, err := start(dir, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	p.showIfFailed(t)
	p.listens(t, address)
}

// member asks as somebody who is signed in, with more headers.
type member struct {
	*http.Client
	cookie string
	more   [][2]string
}

func (m member) Do(r *http.Request) (*http.Response, error) {
	r.Header.Set("Cookie", m.cookie)
	for _, h := range m.more {
		r.Header[h[0]] = append(r.Header[h[0]], h[1]) // in this very spelling
	}
	return m.Client.Do(r)
}

// forged are what a client sends that wants to be somebody, in spellings that an app could
// take for the header that it reads.
func forged(name, somebody string) (all [][2]string) {
	for _, spelled := range []string{name, strings.ReplaceAll(name, "-", "_"), strings.ReplaceAll(name, "-", "."),
		strings.ToUpper(name), strings.ToLower(strings.ReplaceAll(name, "-", "_"))} {
		all = append(all, [2]string{spelled, somebody})
	}
	return append(all, [2]string{"Connection", name})
}

// Apps that nobody here wrote are told who somebody is, and by nobody else.
func TestRealAppsKnowWhoIsSignedIn(t *testing.T) {
	t.Parallel()
	calendars, wsgi, wiki := startRadicale(t), startWSGI(t), startWiki(t)
	s := overHTTP(need(t, freeAddress))
	route := "{name: %s, path: %s, upstream: http://%s, allow: authenticated, encoded: forward, headers: %s}"
	s.Routes = []string{fmt.Sprintf(route, "radicale", "/", calendars, "{preset: radicale}"),
		fmt.Sprintf(route, "wsgi", "/wsgi", wsgi, "{preset: forwarded}"),
		fmt.Sprintf(route, "wiki", "/wiki", wiki, "{preset: none, set: {X-Login: subject}}")}
	c := ownCorp(t, s)
	as := func(person string, more ...[2]string) member {
		return member{newClient(t, http1), c.signIn(t, person), more}
	}
	t.Run("Radicale", func(t *testing.T) {
		lies := forged("X-Remote-User", "corp:mira")
		radicaleKeepsCalendars(t, c, as("mira"), as("tom", lies...), member{newClient(t, http1), "", lies})
	})
	t.Run("gunicorn", func(t *testing.T) {
		wsgiIsToldOnce(t, c, as("mira", forged("X-Forwarded-User", "corp:tom")...))
	})
	t.Run("TiddlyWiki", func(t *testing.T) {
		wikiLetsOneWrite(t, c, as("mira"), as("tom", forged("X-Login", "mira")...))
	})
}

// radicaleKeepsCalendars has a CalDAV client of somebody else's keep an appointment, which
// is found, moved and seen by its owner alone.
func radicaleKeepsCalendars(t *testing.T, c *corp, mira, tom, stranger member) {
	ctx := t.Context()
	client, err := caldav.NewClient(mira, c.url)
	check(t, err)
	principal, err := client.FindCurrentUserPrincipal(ctx)
	check(t, err)
	if principal != "/corp:mira/" {
		t.Fatalf("Radicale takes mira for %q", principal)
	}
	calendar := principal + "work/"
	dav(t, mira, "MKCALENDAR", c.url+calendar, "", http.StatusCreated)
	_, err = client.PutCalendarObject(ctx, calendar+"one.ics", appointment("one"))
	check(t, err)
	if err := client.Move(ctx, calendar+"one.ics", calendar+"two.ics", nil); err != nil {
		t.Errorf("an appointment that is moved: %v", err)
	}
	if found := appointments(ctx, t, client, calendar); !slices.Equal(found, []string{calendar + "two.ics one"}) {
		t.Errorf("the calendar has %q", found)
	}
	dav(t, tom, "PROPFIND", c.url+calendar, "", http.StatusForbidden)
	dav(t, tom, http.MethodGet, c.url+calendar+"two.ics", "", http.StatusForbidden)
	dav(t, tom, "MOVE", c.url+"/corp:tom/x", c.url+calendar+"two.ics", http.StatusForbidden)
	dav(t, stranger, "PROPFIND", c.url+calendar, "", http.StatusUnauthorized)
}

func wsgiIsToldOnce(t *testing.T, c *corp, mira member) {
	resp, err := mira.Do(request(t, http.MethodGet, c.url+"/wsgi/x"))
	check(t, err)
	_, body := text(resp)
	check(t, resp.Body.Close())
	if strings.Contains(body, "tom") || !strings.Contains(body, "\nHTTP_X_FORWARDED_USER=corp:mira\n") {
		t.Errorf("gunicorn tells its program:\n%s", body)
	}
}

func wikiLetsOneWrite(t *testing.T, c *corp, mira, tom member) {
	for _, who := range []struct {
		member
		name  string
		write int
	}{{mira, "mira", http.StatusNoContent}, {tom, "tom", http.StatusUnauthorized}} {
		resp, err := who.Do(request(t, http.MethodGet, c.url+"/wiki/status"))
		check(t, err)
		if status, body := text(resp); !strings.Contains(body, `"username":"`+who.name+`"`) {
			t.Errorf("the wiki takes %s for somebody else: %d %s", who.name, status, body)
		}
		check(t, resp.Body.Close())
		r := request(t, http.MethodPut, c.url+"/wiki/recipes/default/tiddlers/a%2Fb%20c")
		r.Body, r.Header = io.NopCloser(strings.NewReader(`{"title": "a/b c", "text": "hello"}`)),
			http.Header{"X-Requested-With": {"TiddlyWiki"}, "Content-Type": {"application/json"}}
		resp, err = who.Do(r)
		check(t, err)
		if resp.StatusCode != who.write {
			status, body := text(resp)
			t.Errorf("%s writes: %d %s", who.name, status, body)
		}
		check(t, resp.Body.Close())
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func request(t *testing.T, method, url string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, url, nil)
	check(t, err)
	return r
}

// dav sends a request without a body, and wants a status.
func dav(t *testing.T, who member, method, url, destination string, want int) {
	t.Helper()
	r := request(t, method, url)
	if destination != "" {
		r.Header.Set("Destination", destination)
	}
	resp, err := who.Do(r)
	check(t, err)
	if status, body := text(resp); status != want {
		t.Errorf("%s %s: %d, want %d\n%s", method, url, status, want, body)
	}
	check(t, resp.Body.Close())
}

// appointment is a calendar with one.
func appointment(uid string) *ical.Calendar {
	event := ical.NewEvent()
	event.Props.SetText(ical.PropUID, uid)
	event.Props.SetText(ical.PropSummary, uid)
	event.Props.SetDateTime(ical.PropDateTimeStamp, time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC))
	event.Props.SetDateTime(ical.PropDateTimeStart, time.Date(2026, 11, 30, 9, 0, 0, 0, time.UTC))
	cal := ical.NewCalendar()
	cal.Props.SetText(ical.PropVersion, "2.0")
	cal.Props.SetText(ical.PropProductID, "-//Sallyport//tests//EN")
	cal.Children = append(cal.Children, event.Component)
	return cal
}

// appointments are those of a calendar: path and name.
func appointments(ctx context.Context, t *testing.T, client *caldav.Client, calendar string) (found []string) {
	t.Helper()
	list, err := client.QueryCalendar(ctx, calendar, &caldav.CalendarQuery{
		CompRequest: caldav.CalendarCompRequest{Name: "VCALENDAR", AllProps: true, AllComps: true},
		CompFilter:  caldav.CompFilter{Name: "VCALENDAR", Comps: []caldav.CompFilter{{Name: "VEVENT"}}}})
	check(t, err)
	for _, o := range list {
		for _, e := range o.Data.Events() {
			name, err := e.Props.Text(ical.PropSummary)
			check(t, err)
			found = append(found, o.Path+" "+name)
		}
	}
	return found
}
