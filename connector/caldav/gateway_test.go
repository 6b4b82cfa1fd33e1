package caldav_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-proxy/sallyport/connector/caldav"
	"github.com/sallyport-proxy/sallyport/gateway/gatewaytest"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/grant/granttest"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/oauth"
)

var mira = identity.Identity{Provider: "corp", Subject: "mira"}

// lending is the gateway in front of a pretend calendar, for an app and a person.
type lending struct {
	*grant.Broker
	url, assertion string
	log            *bytes.Buffer // of the gateway and the broker; read it after the last request
	metrics        *prometheus.Registry
}

// startLending lends by store. roots vouch for the calendar.
func startLending(t *testing.T, c *caldav.Connector, store grant.Store, roots *x509.CertPool) *lending {
	t.Helper()
	l := &lending{log: new(bytes.Buffer), metrics: prometheus.NewRegistry()}
	log := slog.New(slog.NewTextHandler(l.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	k := grant.SealingKey{ID: "k"}
	copy(k.Secret[:], "canary-key")
	ring, err := grant.NewKeyring([]grant.SealingKey{k})
	testenv.Check(t, err)
	l.Broker, err = grant.New(grant.Options{Store: store, Keys: ring, Log: log,
		Offers: []grant.Offer{{Connector: c, Owner: grant.OwnedByUser, Offered: []string{caldav.Read}}},
		Apps: []grant.App{{ID: "planner", Name: "Planner", Routes: []string{"app"},
			Connectors: map[string][]string{"dav": {caldav.Read}}}},
		Redirect: func(string) string { return "" }})
	testenv.Check(t, err)
	t.Cleanup(func() {
		l.Close()
		testenv.Check(t, l.Wait(context.Background()))
	})
	g := gatewaytest.Start(t, gatewaytest.Options{Broker: l.Broker, Connector: c, Log: log, Metrics: l.metrics,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}})
	l.url, l.assertion = g.URL, g.Assertion(t, mira)
	return l
}

// ask sends a request of the app, and returns all of the answer as text too.
func (l *lending) ask(t *testing.T, method, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, l.url+path, strings.NewReader(body))
	testenv.Check(t, err)
	req.Header.Set("Authorization", "Bearer "+gatewaytest.Token)
	req.Header.Set("X-Sallyport-Assertion", l.assertion)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true}}
	res, err := client.Do(req)
	testenv.Check(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		b = append(b, "\nBROKEN OFF"...)
	}
	return res, string(b)
}

func (l *lending) connect(t *testing.T, key string) error {
	t.Helper()
	_, err := l.ConnectKey(t.Context(), mira, grant.Ask{Connector: "dav", App: "planner"}, key, false)
	return err
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

// What a client finds, it asks for, from the one address that it was given: whose account it
// is, where its calendars are, which there are, what is in them. Nothing that changes
// anything gets to the server, and nothing of somebody else's is asked for.
func TestP12_AClientFindsAndReadsTheCalendarsOfRadicale(t *testing.T) {
	base := startRadicale(t)
	l := startLending(t, calendars(t, base, client(t)), granttest.NewStore(nil), nil)
	if err := l.connect(t, "mira:not-the-password"); grant.ClassOf(err) != grant.Yours {
		t.Errorf("another password: %v", err)
	}
	testenv.Check(t, l.connect(t, "mira:canary-app-password"))
	xml := []string{"Content-Type", "application/xml", "Depth", "0"}
	href := func(body, inside string) string {
		t.Helper()
		m := regexp.MustCompile(`(?s)<[^>]*` + inside + `[^>]*>.*?href>([^<]*)<`).FindStringSubmatch(body)
		if m == nil {
			t.Fatalf("there is no %s in %s", inside, body)
		}
		return m[1]
	}
	_, body := l.ask(t, "PROPFIND", dav+"/", question0("<current-user-principal/>"), xml...)
	principal := href(body, "current-user-principal")
	_, body = l.ask(t, "PROPFIND", principal, question0("<C:calendar-home-set/>"), xml...)
	home := href(body, "calendar-home-set")
	if principal != dav+"/mira/" || home != dav+"/mira/" {
		t.Fatalf("%s, %s", principal, home)
	}
	_, body = l.ask(t, "PROPFIND", home, question0("<resourcetype/>"), "Content-Type", "application/xml", "Depth", "1")
	calendar := dav + "/mira/plans/"
	if !strings.Contains(body, ">"+calendar+"<") {
		t.Errorf("the calendars are %s", body)
	}
	const query = `<C:calendar-query xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><prop><getetag/></prop>` +
		`<C:filter><C:comp-filter name="VCALENDAR"/></C:filter></C:calendar-query>`
	_, body = l.ask(t, "REPORT", calendar, query, "Content-Type", "application/xml", "Depth", "1")
	one := calendar + "1.ics"
	if !strings.Contains(body, ">"+one+"<") {
		t.Errorf("the events are %s", body)
	}
	multiget := func(href string) string {
		return `<C:calendar-multiget xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><prop><C:calendar-data/>` +
			`</prop><href>` + href + `</href></C:calendar-multiget>`
	}
	res, body := l.ask(t, "REPORT", calendar, multiget(one), "Content-Type", "application/xml", "Depth", "1")
	if res.StatusCode != http.StatusMultiStatus || !strings.Contains(body, "SUMMARY:Release") {
		t.Errorf("%s %s", res.Status, body)
	}
	if res, body = l.ask(t, "GET", one, ""); res.StatusCode != http.StatusOK || !strings.Contains(body, "Release") {
		t.Errorf("GET: %s %s", res.Status, body)
	}
	for _, tt := range [][2]string{{"PUT", one}, {"DELETE", one}, {"PROPPATCH", calendar}, {"MKCALENDAR", home + "new/"},
		{"MKCOL", home + "new/"}, {"POST", calendar}, {"MOVE", one}, {"COPY", one}, {"LOCK", one}, {"ACL", calendar},
		{"PATCH", one}, {"PROPFIND", dav + "/tom/plans/"}, {"GET", dav + "/tom/plans/1.ics"}, {"GET", dav + "/"},
		{"REPORT", dav + "/"}, {"PROPFIND", dav + "/mira%2f..%2ftom/"}, {"GET", dav + "/miracle/1.ics"}} {
		if res, body := l.ask(t, tt[0], tt[1], ""); res.StatusCode != http.StatusForbidden &&
			res.StatusCode != http.StatusBadRequest {
			t.Errorf("%s %s: %s %s", tt[0], tt[1], res.Status, body)
		}
	}
	for what, body := range map[string]string{"of tom": multiget(dav + "/tom/plans/1.ics"),
		"not of ours": multiget("/mira/plans/1.ics"), "of two": strings.Replace(multiget(one), "</C:cal", "<href>"+dav+
			"/tom/plans/1.ics</href></C:cal", 1), "no XML": "a", "with entities": "<!DOCTYPE a>" + multiget(one)} {
		res, body := l.ask(t, "REPORT", calendar, body, "Content-Type", "application/xml", "Depth", "1")
		if res.StatusCode != http.StatusForbidden && res.StatusCode != http.StatusBadRequest {
			t.Errorf("a report %s: %s %s", what, res.Status, body)
		}
	}
	if res, _ := l.ask(t, "PROPFIND", dav+"/", question0("<resourcetype/>"), "Content-Type", "application/xml", "Depth",
		"1"); res.StatusCode != http.StatusForbidden {
		t.Errorf("all of the server: %s", res.Status)
	}
	if strings.Contains(l.log.String(), "canary-app") {
		t.Errorf("the log has the password: %s", l.log)
	}
}
