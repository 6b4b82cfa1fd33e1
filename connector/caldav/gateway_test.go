package caldav_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sallyport-proxy/sallyport/connector/caldav"
	"github.com/sallyport-proxy/sallyport/gateway/gatewaytest"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/grant/granttest"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// lend lends with a connector by a store in memory. transport reaches the calendars; nil: the
// gateway's own.
func lend(t *testing.T, c *caldav.Connector, transport *http.Transport) *gatewaytest.Lending {
	t.Helper()
	return gatewaytest.Lend(t, gatewaytest.LendOptions{Connector: c, Access: caldav.Read,
		Store: granttest.NewStore(nil), Transport: transport})
}

// startRadicale starts a real server with a calendar of mira's, and one of tom's.
func startRadicale(t *testing.T) (base string) {
	t.Helper()
	program, err := exec.LookPath("radicale")
	if err != nil {
		if os.Getenv("SALLYPORT_REQUIRE") != "" {
			t.Fatal("radicale is missing")
		}
		t.Skip("radicale is missing (Debian: radicale)")
	}
	dir := t.TempDir()
	address, err := testenv.UnusedAddress()
	testenv.Check(t, err)
	users := filepath.Join(dir, "users")
	testenv.Check(t, os.WriteFile(users, []byte("mira:canary-app-password\ntom:canary-of-tom\n"), 0o600))
	file := filepath.Join(dir, "config")
	testenv.Check(t, os.WriteFile(file, []byte("[server]\nhosts = "+address+"\n[auth]\ntype = htpasswd\n"+
		"htpasswd_filename = "+users+"\nhtpasswd_encryption = plain\ndelay = 0\n[storage]\nfilesystem_folder = "+
		filepath.Join(dir, "collections")+"\n[web]\ntype = none\n"), 0o600))
	cmd := exec.Command(program, "--config", file)
	testenv.Check(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	base = "http://" + address
	testenv.Eventually(t, "Radicale answers", func() bool {
		res, err := http.Get(base + "/")
		if err != nil {
			return false
		}
		return res.Body.Close() == nil
	})
	for user, password := range map[string]string{"mira": "canary-app-password", "tom": "canary-of-tom"} {
		put := func(method, path, kind, body string) {
			req, err := http.NewRequestWithContext(t.Context(), method, base+path, strings.NewReader(body))
			testenv.Check(t, err)
			req.SetBasicAuth(user, password)
			req.Header.Set("Content-Type", kind)
			res, err := http.DefaultClient.Do(req)
			testenv.Check(t, err)
			if res.Body.Close(); res.StatusCode != http.StatusCreated {
				t.Fatalf("%s %s: %s", method, path, res.Status)
			}
		}
		put("MKCALENDAR", "/"+user+"/plans/", "application/xml", "")
		put("PUT", "/"+user+"/plans/1.ics", "text/calendar", event)
	}
	return base
}

const event = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//Example//EN\r\nBEGIN:VEVENT\r\nUID:1\r\n" +
	"DTSTAMP:20261101T000000Z\r\nDTSTART:20261102T090000Z\r\nSUMMARY:Release\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"

func client(t *testing.T) *oauth.Client {
	t.Helper()
	c, err := oauth.NewClient(oauth.Options{Provider: "dav"})
	testenv.Check(t, err)
	return c
}

const dav = "/gateway/dav"

func question0(properties string) string {
	return `<propfind xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><prop>` + properties + `</prop></propfind>`
}

// walked is where a client gets to, from the one address that it was given.
type walked struct{ principal, home, calendar, event string }

// walkOf asks as a client does: whose account it is (RFC 5397), where its calendars are (RFC
// 4791 §6.2.1), which there are, what is in the one that ends in a path (RFC 4791 §7.8).
func walkOf(t *testing.T, l *gatewaytest.Lending, calendar string) (w walked) {
	t.Helper()
	href := func(method, at, depth, body, inside string) string {
		t.Helper()
		res, answer := l.Ask(t, method, at, body, "Content-Type", "application/xml", "Depth", depth)
		m := regexp.MustCompile(`(?s)` + inside).FindStringSubmatch(answer)
		if m == nil {
			t.Fatalf("%s %s: there is no %s in %s %s", method, at, inside, res.Status, answer)
		}
		return m[1]
	}
	of := func(property string) string { return `<[^>]*` + property + `[^>]*>.*?href[^>]*>([^<]*)<` }
	w.principal = href("PROPFIND", dav+"/", "0", question0("<current-user-principal/>"), of("current-user-principal"))
	w.home = href("PROPFIND", w.principal, "0", question0("<C:calendar-home-set/>"), of("calendar-home-set"))
	w.calendar = href("PROPFIND", w.home, "1", question0("<resourcetype/>"), `>([^<]*`+calendar+`)<`)
	const query = `<C:calendar-query xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><prop><getetag/></prop>` +
		`<C:filter><C:comp-filter name="VCALENDAR"/></C:filter></C:calendar-query>`
	w.event = href("REPORT", w.calendar, "1", query, `>([^<]*1\.ics)<`)
	res, body := l.Ask(t, "GET", w.event, "")
	if res.StatusCode != http.StatusOK || !strings.Contains(body, "SUMMARY:Release") {
		t.Errorf("GET %s: %s %s", w.event, res.Status, body)
	}
	return w
}

// What a client finds, it asks for, from the one address that it was given: whose account it
// is, where its calendars are, which there are, what is in them. Nothing that changes
// anything gets to the server, and nothing of somebody else's is asked for.
func TestP12_AClientFindsAndReadsTheCalendarsOfRadicale(t *testing.T) {
	base := startRadicale(t)
	l := lend(t, calendars(t, base, client(t)), nil)
	if err := l.Paste(t, "mira:not-the-password"); grant.ClassOf(err) != grant.Yours {
		t.Errorf("another password: %v", err)
	}
	testenv.Check(t, l.Paste(t, "mira:canary-app-password"))
	walk := walkOf(t, l, "/plans/")
	if walk != (walked{dav + "/mira/", dav + "/mira/", dav + "/mira/plans/", dav + "/mira/plans/1.ics"}) {
		t.Fatalf("%+v", walk)
	}
	home, calendar, one := walk.home, walk.calendar, walk.event
	multiget := func(href string) string {
		return `<C:calendar-multiget xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><prop><C:calendar-data/>` +
			`</prop><href>` + href + `</href></C:calendar-multiget>`
	}
	res, body := l.Ask(t, "REPORT", calendar, multiget(one), "Content-Type", "application/xml", "Depth", "1")
	if res.StatusCode != http.StatusMultiStatus || !strings.Contains(body, "SUMMARY:Release") {
		t.Errorf("%s %s", res.Status, body)
	}
	for _, tt := range [][2]string{{"PUT", one}, {"DELETE", one}, {"PROPPATCH", calendar}, {"MKCALENDAR", home + "new/"},
		{"MKCOL", home + "new/"}, {"POST", calendar}, {"MOVE", one}, {"COPY", one}, {"LOCK", one}, {"ACL", calendar},
		{"PATCH", one}, {"PROPFIND", dav + "/tom/plans/"}, {"GET", dav + "/tom/plans/1.ics"}, {"GET", dav + "/"},
		{"REPORT", dav + "/"}, {"PROPFIND", dav + "/mira%2f..%2ftom/"}, {"GET", dav + "/miracle/1.ics"}} {
		if res, body := l.Ask(t, tt[0], tt[1], ""); res.StatusCode != http.StatusForbidden &&
			res.StatusCode != http.StatusBadRequest {
			t.Errorf("%s %s: %s %s", tt[0], tt[1], res.Status, body)
		}
	}
	for what, body := range map[string]string{"of tom": multiget(dav + "/tom/plans/1.ics"),
		"not of ours": multiget("/mira/plans/1.ics"), "of two": strings.Replace(multiget(one), "</C:cal", "<href>"+dav+
			"/tom/plans/1.ics</href></C:cal", 1), "no XML": "a", "with entities": "<!DOCTYPE a>" + multiget(one)} {
		res, body := l.Ask(t, "REPORT", calendar, body, "Content-Type", "application/xml", "Depth", "1")
		if res.StatusCode != http.StatusForbidden && res.StatusCode != http.StatusBadRequest {
			t.Errorf("a report %s: %s %s", what, res.Status, body)
		}
	}
	if res, _ := l.Ask(t, "PROPFIND", dav+"/", question0("<resourcetype/>"), "Content-Type", "application/xml", "Depth",
		"1"); res.StatusCode != http.StatusForbidden {
		t.Errorf("all of the server: %s", res.Status)
	}
	if strings.Contains(l.Log.String(), "canary-app") {
		t.Errorf("the log has the password: %s", l.Log)
	}
}

// An app asks for many long answers at once and reads none of them. The hrefs of each are read as a
// whole, of a few at a time; short answers wait for nobody, and all that were asked for arrive whole.
func TestP17_LongAnswersOfAnAppAreInMemoryAFewAtATime(t *testing.T) {
	const at, length, most = 6, 12 << 20, 4
	var sent atomic.Int32
	base := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/dav/mira/long" {
			server(map[string]string{"/": "/principals/mira/"}, map[string]string{"/principals/mira/": "/dav/mira/"})(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(http.StatusMultiStatus)
		fmt.Fprint(w, `<multistatus xmlns="DAV:"><response><href>/dav/mira/1.ics</href></response>`)
		one := "<response><status>" + strings.Repeat("x", 4096) + "</status></response>"
		for n := 0; n < length; n += len(one) {
			if _, err := io.WriteString(w, one); err != nil {
				return
			}
		}
		fmt.Fprint(w, `</multistatus>`)
		sent.Add(1)
	}))
	defer base.Close()
	l := lend(t, calendars(t, base.URL, client(t)), nil)
	testenv.Check(t, l.Paste(t, "mira:canary-app-password"))
	var all sync.WaitGroup
	read := make(chan struct{})
	for range at {
		all.Go(func() {
			res := l.Open(t, "PROPFIND", dav+"/dav/mira/long", "", "Depth", "1")
			defer res.Body.Close()
			<-read
			body, err := io.ReadAll(res.Body)
			if err != nil || !strings.HasPrefix(string(body), `<multistatus xmlns="DAV:"><response><href>`+dav+
				`/dav/mira/1.ics</href>`) || !strings.HasSuffix(string(body), "</multistatus>") || len(body) < length {
				t.Errorf("%d bytes, %v", len(body), err)
			}
		})
	}
	testenv.Eventually(t, "some are there", func() bool { return sent.Load() >= most })
	res, body := l.Ask(t, "PROPFIND", dav+"/", question0("<current-user-principal/>"), "Content-Type", "application/xml",
		"Depth", "0")
	if res.StatusCode != http.StatusMultiStatus {
		t.Errorf("a short one meanwhile: %s %s", res.Status, body)
	}
	if n := sent.Load(); n > most {
		t.Errorf("%d long answers are in memory at a time", n)
	}
	close(read)
	all.Wait()
	if n := sent.Load(); n != at {
		t.Errorf("%d were sent", n)
	}
}
