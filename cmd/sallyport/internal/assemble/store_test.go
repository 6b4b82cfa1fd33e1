package assemble

import (
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
	"github.com/sallyport-proxy/sallyport/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// eachStore runs test with an empty store of each kind.
func eachStore(t *testing.T, test func(t *testing.T, address string)) {
	t.Run("sqlite", func(t *testing.T) { test(t, "sqlite:"+filepath.Join(t.TempDir(), "sallyport.db")) })
	t.Run("postgres", func(t *testing.T) { test(t, storetest.NeedServer(t).Database(t)) })
}

// countingApp counts the requests that reach it.
type countingApp struct {
	*httptest.Server
	asked atomic.Int64
}

func newCountingApp(t *testing.T) *countingApp {
	t.Helper()
	a := &countingApp{}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		a.asked.Add(1)
		_, _ = io.WriteString(w, "the app")
	}))
	t.Cleanup(a.Close)
	return a
}

// replica is one process of several that share a store.
type replica struct {
	*Process
	rt      *Runtime
	server  *httptest.Server
	metrics *prometheus.Registry
}

func newReplica(t *testing.T, store string, app *countingApp) *replica {
	t.Helper()
	cfg, faults := config.Parse("config.yaml", fmt.Appendf(nil, `version: 1
public_url: %s
session: {keys: ["literal:sallyport-key-1 2026-01-02T09:00:00Z AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"]}
store: %q
providers: [{id: sso, type: oidc, issuer: "http://localhost:1", client_id: c, client_secret: "literal:s"}]
routes:
  - {name: app, path: /, upstream: %q, allow: authenticated}
  - {name: strict, path: /strict, upstream: %q, allow: authenticated, revocation: strict}
  - {name: open, path: /open, upstream: %q, public: true}
`, publicURL, store, app.URL, app.URL, app.URL))
	testenv.Check(t, faults.Err())
	sec, err := Resolve(cfg, os.LookupEnv)
	testenv.Check(t, err)
	r := &replica{metrics: prometheus.NewRegistry()}
	r.Process = NewProcess(r.metrics, slog.New(slog.DiscardHandler))
	testenv.Check(t, r.Open(t.Context(), cfg, "test"))
	t.Cleanup(func() { testenv.Check(t, r.Close()) })
	r.rt, err = r.Build(cfg, sec)
	testenv.Check(t, err)
	r.Swap(r.rt)
	r.server = httptest.NewServer(r)
	t.Cleanup(r.server.Close)
	return r
}

// send returns an answer, with its body read.
func (r *replica) send(t *testing.T, method, path, cookie, accept string, form url.Values) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, r.server.URL+path, strings.NewReader(form.Encode()))
	testenv.Check(t, err)
	req.Host = host + ":4180"
	req.Header.Set("Cookie", cookie)
	req.Header.Set("Accept", accept)
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	res, err := r.server.Client().Transport.RoundTrip(req)
	testenv.Check(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	testenv.Check(t, err)
	return res, string(body)
}

func (r *replica) status(t *testing.T, path, cookie string) int {
	t.Helper()
	res, _ := r.send(t, "GET", path, cookie, "*/*", nil)
	return res.StatusCode
}

func (r *replica) signOut(t *testing.T, cookie string) (location string) {
	t.Helper()
	res, body := r.send(t, "POST", "/.sallyport/logout", cookie, "text/html", url.Values{})
	if res.StatusCode != http.StatusSeeOther {
		t.Fatalf("sign-out: %s %s", res.Status, body)
	}
	return res.Header.Get("Location")
}

// P10: a sign-out on one server holds on all others within two seconds, and after a
// restart. None of the requests after that reaches the app.
func TestP10_ASignOutHoldsOnEveryServerAndAfterARestart(t *testing.T) {
	eachStore(t, func(t *testing.T, address string) {
		app := newCountingApp(t)
		one, two, three := newReplica(t, address, app), newReplica(t, address, app), newReplica(t, address, app)
		ann, bob := signIn(t, one.rt, "ann"), signIn(t, two.rt, "bob")
		for _, r := range []*replica{one, two, three} {
			if r.status(t, "/", ann) != http.StatusOK || r.status(t, "/", bob) != http.StatusOK {
				t.Fatal("a session of one server is not good on another")
			}
		}
		if to := one.signOut(t, ann); strings.Contains(to, "elsewhere") {
			t.Errorf("sent to %s", to)
		}
		if one.status(t, "/", ann) != http.StatusUnauthorized {
			t.Error("the server that heard of it still lets them in")
		}
		for _, r := range []*replica{two, three} {
			testenv.Within(t, 2*time.Second, "another server knows", func() bool {
				return r.status(t, "/", ann) == http.StatusUnauthorized
			})
		}
		reached := app.asked.Load()
		restarted := newReplica(t, address, app)
		for _, r := range []*replica{restarted, one, two, three} {
			if got := r.status(t, "/", ann); got != http.StatusUnauthorized {
				t.Errorf("signed in again: %d", got)
			}
		}
		if got := app.asked.Load(); got != reached {
			t.Errorf("%d requests reached the app", got-reached)
		}
		if restarted.status(t, "/strict", bob) != http.StatusOK {
			t.Error("somebody else was signed out")
		}
		if restarted.ended.Len(1) != 1 {
			t.Error("the restarted server has not read the list")
		}
	})
}

// Of several switches of the organization from one session, on several servers, one
// counts: nobody has two sessions with two organizations.
func TestP10_OfSwitchesOnSeveralServersOneCounts(t *testing.T) {
	eachStore(t, func(t *testing.T, address string) {
		app := newCountingApp(t)
		replicas := []*replica{newReplica(t, address, app), newReplica(t, address, app), newReplica(t, address, app)}
		for round := range 5 {
			w := httptest.NewRecorder()
			who := identity.Identity{Provider: "sso", Subject: fmt.Sprint("ann-", round), Org: identity.Org{ID: "a"},
				Orgs: []identity.Org{{ID: "a"}, {ID: "b"}, {ID: "c"}}}
			sessions := replicas[0].rt.Sessions()
			testenv.Check(t, sessions.Write(w, host, sessions.Start(who)))
			cookie, _, _ := strings.Cut(w.Header().Get("Set-Cookie"), ";")
			var won atomic.Int64
			var all sync.WaitGroup
			for i, r := range replicas {
				all.Go(func() {
					res, _ := r.send(t, "POST", "/.sallyport/organization", cookie, "text/html",
						url.Values{"org": {[]string{"b", "c", "b"}[i]}})
					if slices.ContainsFunc(res.Cookies(), func(c *http.Cookie) bool { return c.Value != "" }) {
						won.Add(1)
					}
				})
			}
			all.Wait()
			if won.Load() != 1 {
				t.Errorf("%d switches counted", won.Load())
			}
		}
	})
}

// While the database is away people work on, strict routes are closed, and who signs
// out is out here at once and elsewhere once it is back.
func TestP10_WhileTheStoreIsAway(t *testing.T) {
	server := storetest.NeedServer(t)
	app := newCountingApp(t)
	address := server.Database(t)
	one, two := newReplica(t, address, app), newReplica(t, address, app)
	ann, bob := signIn(t, one.rt, "ann"), signIn(t, one.rt, "bob")
	if one.status(t, "/strict", bob) != http.StatusOK {
		t.Fatal("closed before anything has happened")
	}
	server.Kill(t)
	back := sync.OnceFunc(func() { server.Start(t) })
	defer back()
	testenv.Within(t, 10*time.Second, "the strict route is closed", func() bool {
		return one.status(t, "/strict", bob) == http.StatusServiceUnavailable
	})
	res, body := one.send(t, "GET", "/strict", bob, "*/*", nil)
	if res.Header.Get("Retry-After") != "5" || res.Header.Get("Set-Cookie") != "" ||
		res.Header.Get("WWW-Authenticate") != "" ||
		!strings.Contains(body, `"error":"sessions_unverifiable"`) {
		t.Errorf("a program is told %v %s", res.Header, body)
	}
	res, body = one.send(t, "GET", "/strict", bob, "text/html", nil)
	if res.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "<h1>Your sign-in cannot be "+
		"checked right now</h1>") {
		t.Errorf("a person is told %s %s", res.Status, body)
	}
	for _, path := range []string{"/", "/open", "/.sallyport/session"} {
		if got := one.status(t, path, bob); got != http.StatusOK {
			t.Errorf("%s: %d", path, got)
		}
	}
	if fresh := signIn(t, one.rt, "new"); one.status(t, "/", fresh) != http.StatusOK {
		t.Error("nobody can sign in")
	}
	to := one.signOut(t, ann)
	if !strings.Contains(to, "elsewhere=later") {
		t.Errorf("sent to %s", to)
	}
	page, _ := strings.CutPrefix(to, publicURL)
	if _, body := one.send(t, "GET", page, "", "text/html", nil); !strings.Contains(body, "they learn of it as soon "+
		"as they can") {
		t.Errorf("the page says nothing of other servers: %s", body)
	}
	if one.status(t, "/", ann) != http.StatusUnauthorized {
		t.Error("who signed out is still let in here")
	}
	if two.status(t, "/", ann) != http.StatusOK {
		t.Error("the other server knows what nobody can have told it")
	}
	back()
	testenv.Within(t, 20*time.Second, "the other server learns of it", func() bool {
		return two.status(t, "/", ann) == http.StatusUnauthorized
	})
	testenv.Within(t, 10*time.Second, "the strict route is open again", func() bool {
		return one.status(t, "/strict", bob) == http.StatusOK
	})
}

// While nobody can write, sign-ins wait to be listed, up to a bound; what is beyond is
// counted for operators.
func TestSignInsThatTheListLacksAreCounted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sallyport.db")
	r := newReplica(t, "sqlite:"+file, newCountingApp(t))
	other, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(5000)")
	testenv.Check(t, err)
	defer other.Close()
	hold, err := other.Conn(t.Context())
	testenv.Check(t, err)
	_, err = hold.ExecContext(t.Context(), `begin immediate`) // another program holds the lock
	testenv.Check(t, err)
	for i := range 1005 {
		s := r.rt.Sessions().Start(identity.Identity{Provider: "sso", Subject: fmt.Sprint(i)})
		r.store.NoteSignIn(s.Entry("192.0.2.1", "Firefox on Linux"))
	}
	counted := func() (n float64) {
		families, err := r.metrics.Gather()
		testenv.Check(t, err)
		for _, family := range families {
			if family.GetName() == "sallyport_store_unlisted_sign_ins_total" {
				return family.GetMetric()[0].GetCounter().GetValue()
			}
		}
		return -1
	}
	if n := counted(); n != 5 {
		t.Errorf("%v were counted", n)
	}
	_, err = hold.ExecContext(t.Context(), `rollback`)
	testenv.Check(t, err)
	testenv.Eventually(t, "the others are listed", func() bool {
		list, err := r.store.Sessions(t.Context(), session.Which{Most: 2000})
		return err == nil && len(list) == 1000
	})
	if n := counted(); n != 5 {
		t.Errorf("%v were counted in the end", n)
	}
}

// A database that is not there at the start is waited for. Until it has been read
// nobody is let in by a session, because they may have signed out.
func TestP10_AStoreThatIsNotThereYetIsWaitedFor(t *testing.T) {
	server := storetest.NeedServer(t)
	app := newCountingApp(t)
	address := server.Database(t)
	before := newReplica(t, address, app)
	ann, bob := signIn(t, before.rt, "ann"), signIn(t, before.rt, "bob")
	before.signOut(t, ann)
	server.Kill(t)
	back := sync.OnceFunc(func() { server.Start(t) })
	defer back()
	r := newReplica(t, address, app)
	if r.Waits() == "" {
		t.Error("ready")
	}
	for who, cookie := range map[string]string{"ann": ann, "bob": bob} {
		if got := r.status(t, "/", cookie); got != http.StatusServiceUnavailable {
			t.Errorf("%s: %d", who, got)
		}
	}
	if got := r.status(t, "/.sallyport/session", bob); got != http.StatusServiceUnavailable {
		t.Errorf("session: %d", got)
	}
	if r.status(t, "/open", "") != http.StatusOK || r.status(t, "/", "") != http.StatusUnauthorized {
		t.Error("what needs no session does not go on")
	}
	back()
	testenv.Within(t, 20*time.Second, "it is ready", func() bool { return r.Waits() == "" })
	if r.status(t, "/", bob) != http.StatusOK || r.status(t, "/", ann) != http.StatusUnauthorized {
		t.Error("the list was not read")
	}
}

// How long it takes until another server refuses, a hundred times: run with -v.
func TestRevocationLatency(t *testing.T) {
	rounds := 5
	if os.Getenv("SALLYPORT_CAMPAIGN") != "" {
		rounds = 100
	}
	eachStore(t, func(t *testing.T, address string) {
		app := newCountingApp(t)
		one, two := newReplica(t, address, app), newReplica(t, address, app)
		var took []time.Duration
		for i := range rounds {
			who := signIn(t, one.rt, fmt.Sprint("person-", i))
			if two.status(t, "/", who) != http.StatusOK {
				t.Fatal("not signed in")
			}
			began := time.Now()
			one.signOut(t, who)
			for two.status(t, "/", who) == http.StatusOK {
				time.Sleep(time.Millisecond)
			}
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		t.Logf("of %d: median %s, worst %s", rounds, took[len(took)/2], took[len(took)-1])
	})
}
