package command

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
	"github.com/sallyport-proxy/sallyport/store/storetest"
)

// fleet is several processes of the program for one public address, with one store.
type fleet struct {
	t         *testing.T
	public    string // the address that browsers know; nobody listens there
	app       *httptest.Server
	asked     atomic.Int64 // requests that reached the app
	provider  *testenv.Faults
	key       session.Key
	sessions  *session.Manager // makes cookies as the processes do
	processes []*binary
}

// newFleet starts a process for each store address, which may lead to one database on
// several ways.
func newFleet(t *testing.T, stop time.Duration, stores ...string) *fleet {
	t.Helper()
	f := &fleet{t: t, key: session.NewKey(time.Now().Add(-time.Hour))}
	f.app = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		f.asked.Add(1)
		_, _ = io.WriteString(w, "the app")
	}))
	t.Cleanup(f.app.Close)
	var err error
	f.public, err = testenv.UnusedAddress()
	testenv.Check(t, err)
	f.provider = testenv.StartProvider(t, demo.ProviderOptions{ClientID: "sallyport", ClientSecret: canarySecret,
		RedirectURIs: []string{"http://" + f.public + "/.sallyport/callback/sso"}})
	ring, err := session.NewKeyring([]session.Key{f.key})
	testenv.Check(t, err)
	_, port, err := net.SplitHostPort(f.public)
	testenv.Check(t, err)
	f.sessions, err = session.New(session.Options{Keys: ring, Port: port, AbsoluteTimeout: 12 * time.Hour,
		IdleTimeout: time.Hour})
	testenv.Check(t, err)
	for _, store := range stores {
		f.processes = append(f.processes, f.start(stop, store))
	}
	return f
}

func (f *fleet) start(stop time.Duration, store string) *binary {
	f.t.Helper()
	b := &binary{}
	var err error
	if b.public, err = testenv.UnusedAddress(); err == nil {
		b.admin, err = testenv.UnusedAddress()
	}
	testenv.Check(f.t, err)
	dir := f.t.TempDir()
	b.config = filepath.Join(dir, "config.yaml")
	write(f.t, b.config, fmt.Sprintf(`version: 1
public_url: http://%s
listen: {http: %q, admin: %q}
log: {format: json}
stop: {timeout: %s}
session: {keys: ["literal:%s"]}
store: %q
providers: [{id: sso, type: oidc, issuer: %q, client_id: sallyport, client_secret: "literal:%s"}]
routes: [{name: app, path: /, upstream: %q, allow: authenticated}]
`, f.public, b.public, b.admin, stop, f.key.Text(), store, f.provider.URL, canarySecret, f.app.URL))
	b.run(f.t, dir, b.config)
	return b
}

// restarted is b once more, after it has ended.
func (f *fleet) restarted(b *binary) {
	f.t.Helper()
	b.run(f.t, f.t.TempDir(), b.config)
}

// device is a browser whose connections lead to one process or another, as a balancer has it.
type device struct {
	*testenv.Browser
	at atomic.Pointer[binary]
}

func (f *fleet) device(at *binary) *device {
	d := &device{}
	d.at.Store(at)
	d.Browser = testenv.NewBrowser(f.t, &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if address == f.public {
				address = d.at.Load().public
			}
			return (&net.Dialer{}).DialContext(ctx, network, address)
		}})
	return d
}

func (f *fleet) signIn(at *binary, person string) *device {
	f.t.Helper()
	d := f.device(at)
	page := d.SignIn(d.Open("http://"+f.public+"/.sallyport/login?return_to=%2Fpage"), person)
	if page.Body != "the app" {
		f.t.Fatalf("%s: %d\n%s", person, page.Status, page.Body)
	}
	return d
}

func (f *fleet) cookie(d *device) (header string) {
	for _, c := range d.Cookies("http://" + f.public) {
		header += "; " + c.Name + "=" + c.Value
	}
	return strings.TrimPrefix(header, "; ")
}

func (f *fleet) sessionOf(d *device) session.Session {
	f.t.Helper()
	s, err := f.sessions.Read(f.cookie(d), "127.0.0.1")
	testenv.Check(f.t, err)
	return s
}

// mint is the session of somebody who has signed in, and its cookie.
func (f *fleet) mint(subject string) (session.Session, string) {
	f.t.Helper()
	w, s := httptest.NewRecorder(), f.sessions.Start(identity.Identity{Provider: "sso", Subject: subject})
	testenv.Check(f.t, f.sessions.Write(w, "127.0.0.1", s))
	cookie, _, _ := strings.Cut(w.Header().Get("Set-Cookie"), ";")
	return s, cookie
}

// ask sends a request of a program with a cookie to one process.
func (f *fleet) ask(b *binary, method, path, cookie, form string) (status int, location string) {
	req, err := http.NewRequest(method, "http://"+b.public+path, strings.NewReader(form))
	if err != nil {
		return 0, ""
	}
	req.Host = f.public
	req.Header.Set("Cookie", cookie)
	if form != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	transport := &http.Transport{DisableKeepAlives: true}
	res, err := transport.RoundTrip(req)
	if err != nil {
		return 0, ""
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode, res.Header.Get("Location")
}

func (f *fleet) status(b *binary, cookie string) int {
	status, _ := f.ask(b, "GET", "/page", cookie, "")
	return status
}

func (f *fleet) signOut(b *binary, cookie string) (status int, location string) {
	return f.ask(b, "POST", "/.sallyport/logout", cookie, "")
}

// refusedEverywhere waits until no process lets a session in, for as long as that may
// take, and sees to it that none of them asks the app afterwards.
func (f *fleet) refusedEverywhere(who, cookie string) {
	f.t.Helper()
	testenv.Within(f.t, 2*time.Second, "all processes refuse "+who, func() bool {
		for _, b := range f.processes {
			if f.status(b, cookie) != http.StatusUnauthorized {
				return false
			}
		}
		return true
	})
	reached := f.asked.Load()
	for i, b := range f.processes {
		if got := f.status(b, cookie); got != http.StatusUnauthorized {
			f.t.Errorf("process %d lets %s in again: %d", i, who, got)
		}
	}
	if n := f.asked.Load() - reached; n != 0 {
		f.t.Errorf("%d requests of %s reached the app", n, who)
	}
}

// operator runs a command beside the processes, with the configuration of one of them.
func (f *fleet) operator(b *binary, args ...string) string {
	f.t.Helper()
	var out, errs bytes.Buffer
	code := run(append([]string{"sessions"}, append(args, "-c", b.config)...), &console{stdout: &out, stderr: &errs,
		env: func(string) (string, bool) { return "", false }})
	if code != exitOK {
		f.t.Fatalf("%q: exit code %d: %s", args, code, errs.String())
	}
	return out.String()
}

func (f *fleet) listed(b *binary) (list []listedSession) {
	f.t.Helper()
	var l struct{ Sessions []listedSession }
	testenv.Check(f.t, json.Unmarshal([]byte(f.operator(b, "list", "--format", "json")), &l))
	return l.Sessions
}

// eachSharedStore runs test with an empty store of each kind, side by side: most of the time is
// waiting for other processes. A campaign measures, and so does one thing at a time.
func eachSharedStore(t *testing.T, test func(t *testing.T, address string)) {
	together := func(t *testing.T) {
		if os.Getenv("SALLYPORT_CAMPAIGN") == "" {
			t.Parallel()
		}
	}
	together(t)
	t.Run("sqlite", func(t *testing.T) {
		together(t)
		test(t, "sqlite:"+filepath.Join(t.TempDir(), "sallyport.db"))
	})
	t.Run("postgres", func(t *testing.T) {
		together(t)
		test(t, storetest.NeedServer(t).Database(t))
	})
}

// Processes of the program on one machine, as a balancer has them: people sign in at one,
// see their sessions at another, and are signed out by whichever is told, for all of them.
func TestP10_ProcessesThatShareAStoreSignOutTogether(t *testing.T) {
	for _, many := range []int{2, 3} {
		t.Run(fmt.Sprint(many, " processes"), func(t *testing.T) {
			eachSharedStore(t, func(t *testing.T, address string) {
				stores := make([]string, many)
				for i := range stores {
					stores[i] = address
				}
				f := newFleet(t, 5*time.Second, stores...)
				one, two, last := f.processes[0], f.processes[1], f.processes[many-1]
				laptop, phone, tablet := f.signIn(one, "mira"), f.signIn(one, "mira"), f.signIn(two, "mira")
				jonas := f.signIn(one, "jonas")
				cookies := map[*device]string{}
				for _, d := range []*device{laptop, phone, tablet, jonas} {
					cookies[d] = f.cookie(d)
					for i, b := range f.processes {
						if got := f.status(b, cookies[d]); got != http.StatusOK {
							t.Fatalf("process %d does not know who signed in at another one: %d", i, got)
						}
					}
				}
				sid := func(d *device) string { s := f.sessionOf(d); return s.SID() }
				testenv.Within(t, 2*time.Second, "the list has all sign-ins",
					func() bool { return len(f.listed(last)) == 4 })

				// The laptop lists its person's sessions at another process than it signed in at,
				// and ends the phone's.
				laptop.at.Store(last)
				page := laptop.Open("http://" + f.public + "/.sallyport/account")
				for _, d := range []*device{laptop, phone, tablet} {
					if !strings.Contains(page.Body, sid(d)) {
						t.Errorf("the account page lacks a session:\n%s", page.Body)
					}
				}
				if strings.Contains(page.Body, sid(jonas)) {
					t.Error("the account page has a session of somebody else")
				}
				laptop.Post(page, "/.sallyport/sessions/end", url.Values{"session": {sid(phone)}})
				f.refusedEverywhere("the phone", cookies[phone])

				f.operator(two, "end", "--session", sid(tablet))
				f.refusedEverywhere("the tablet", cookies[tablet])

				who := f.sessionOf(jonas)
				now := time.Now()
				token, err := f.provider.Provider.Sign(map[string]any{"typ": "logout+jwt"}, map[string]any{
					"iss": f.provider.URL, "aud": "sallyport", "sub": who.Identity.Subject, "jti": "j-1",
					"iat": now.Unix(), "exp": now.Add(time.Minute).Unix(), "events": map[string]any{
						"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}})
				testenv.Check(t, err)
				form := url.Values{"logout_token": {token}}.Encode()
				if got, _ := f.ask(last, "POST", "/.sallyport/backchannel-logout/sso", "", form); got != http.StatusOK {
					t.Errorf("back-channel logout: %d", got)
				}
				f.refusedEverywhere("jonas", cookies[jonas])
				got, _ := f.ask(one, "POST", "/.sallyport/backchannel-logout/sso", "", form)
				if got != http.StatusBadRequest {
					t.Errorf("the same logout token at another process: %d", got)
				}

				if got := f.status(one, cookies[laptop]); got != http.StatusOK {
					t.Errorf("who ended other sessions is signed out: %d", got)
				}
				if l := f.listed(one); len(l) != 1 || l[0].Session != sid(laptop) {
					t.Errorf("the list has %+v", l)
				}
				if status, _ := f.signOut(two, cookies[laptop]); status != http.StatusSeeOther {
					t.Errorf("sign-out: %d", status)
				}
				f.refusedEverywhere("the laptop", cookies[laptop])
				for i, b := range f.processes {
					if text := b.stop(t); strings.Contains(text, `"level":"ERROR"`) {
						t.Errorf("process %d: errors in the log\n%s", i, text)
					}
				}
			})
		})
	}
}

// A process is killed while many sign out there. Who was told that they are signed out
// stays so, at the others and where it starts again; and the others still write.
func TestP10_AProcessThatIsKilledWhileItWritesForgetsNoSignOut(t *testing.T) {
	eachSharedStore(t, func(t *testing.T, address string) {
		f := newFleet(t, 5*time.Second, address, address)
		killed, other := f.processes[0], f.processes[1]
		var told sync.Map // the cookies of those who were answered
		var answered, next atomic.Int64
		var cookies []string
		for i := range 400 {
			_, cookie := f.mint(fmt.Sprint("person-", i))
			cookies = append(cookies, cookie)
		}
		var people sync.WaitGroup
		for range 8 { // so that at any moment something is being written
			people.Go(func() {
				for {
					i := int(next.Add(1)) - 1
					if i >= len(cookies) {
						return
					}
					status, to := f.signOut(killed, cookies[i])
					if status == 0 { // it was killed
						return
					}
					if status != http.StatusSeeOther || strings.Contains(to, "elsewhere") {
						t.Errorf("answered %d %s", status, to)
					}
					told.Store(cookies[i], true)
					answered.Add(1)
				}
			})
		}
		testenv.Eventually(t, "some have signed out", func() bool { return answered.Load() >= 20 })
		testenv.Check(t, killed.process.Process.Kill())
		people.Wait()
		_ = killed.process.Wait()
		if n := answered.Load(); n == int64(len(cookies)) {
			t.Fatal("it was killed after everything was written")
		}
		all := func(b *binary) (again int) {
			told.Range(func(cookie, _ any) bool {
				if f.status(b, cookie.(string)) != http.StatusUnauthorized {
					again++
				}
				return true
			})
			return again
		}
		testenv.Within(t, 2*time.Second, "the other process knows the last of them",
			func() bool { return all(other) == 0 })
		_, late := f.mint("late")
		if status, to := f.signOut(other, late); status != http.StatusSeeOther || strings.Contains(to, "elsewhere") {
			t.Errorf("the process that is left cannot write: %d %s", status, to)
		}
		f.restarted(killed)
		reached := f.asked.Load()
		if again := all(killed); again != 0 || f.status(killed, late) != http.StatusUnauthorized {
			t.Errorf("after the restart %d of %d are signed in again", again, answered.Load())
		}
		if n := f.asked.Load() - reached; n != 0 {
			t.Errorf("%d requests reached the app", n)
		}
		t.Logf("%d had signed out", answered.Load())
	})
}

// The database hangs when somebody signs out, and the process is told to stop. It waits
// for the database as long as it may; what it could not write it says.
func TestP10_AStopWaitsForTheStoreAndSaysWhatIsLost(t *testing.T) {
	for name, back := range map[string]bool{"the store comes back": true, "the store stays away": false} {
		t.Run(name, func(t *testing.T) {
			server := storetest.NeedServer(t)
			direct := server.Database(t)
			wire := storetest.NewWire(t, server.Address)
			stop := 30 * time.Second // longer than any machine needs once the store is back
			if !back {
				stop = 3 * time.Second
			}
			f := newFleet(t, stop, strings.Replace(direct, server.Address, wire.Address(), 1), direct)
			stopping, other := f.processes[0], f.processes[1]
			s, cookie := f.mint("mira-of-acme")
			for _, b := range f.processes {
				if got := f.status(b, cookie); got != http.StatusOK {
					t.Fatalf("not signed in: %d", got)
				}
			}
			wire.Set(storetest.Hanging)
			if status, to := f.signOut(stopping, cookie); status != http.StatusSeeOther ||
				!strings.Contains(to, "elsewhere=later") {
				t.Fatalf("sign-out: %d %s", status, to)
			}
			if got := f.status(stopping, cookie); got != http.StatusUnauthorized {
				t.Errorf("where they signed out they are let in: %d", got)
			}
			testenv.Check(t, stopping.process.Process.Signal(syscall.SIGTERM))
			testenv.Eventually(t, "it says that it waits", func() bool {
				text, _ := os.ReadFile(stopping.output)
				return bytes.Contains(text, []byte("stopping waits for the store"))
			})
			if back {
				wire.Set(storetest.Passing)
			}
			if err := stopping.process.Wait(); err != nil {
				t.Errorf("it ended with %v", err)
			}
			text, err := os.ReadFile(stopping.output)
			testenv.Check(t, err)
			lost := strings.Contains(string(text), `"msg":"sign-outs are lost`) &&
				strings.Contains(string(text), `"count":1,"sids":["`+s.SID()+`"],"others":0`)
			if lost == back || strings.Contains(string(text), "lost") == back {
				t.Errorf("it wrote\n%s", text)
			}
			if strings.Contains(string(text)[strings.Index(string(text), `"msg":"stopping"`):], "mira-of-acme") {
				t.Errorf("what is lost is told with the name of somebody:\n%s", text)
			}
			if !back {
				if got := f.status(other, cookie); got != http.StatusOK {
					t.Errorf("the other process knows what nobody can have told it: %d", got)
				}
				f.operator(other, "end", "--session", s.SID()) // what the line is for
			}
			testenv.Within(t, 2*time.Second, "the other process knows",
				func() bool { return f.status(other, cookie) == http.StatusUnauthorized })
			wire.Set(storetest.Passing)
			f.restarted(stopping)
			if got := f.status(stopping, cookie); got != http.StatusUnauthorized {
				t.Errorf("after the restart: %d", got)
			}
		})
	}
}
