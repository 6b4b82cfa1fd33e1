package command

import (
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
	"github.com/sallyport-proxy/sallyport/store"
	"github.com/sallyport-proxy/sallyport/store/postgres"
	"github.com/sallyport-proxy/sallyport/store/sqlite"
)

// toldApp is an app that is told what became of grants, and says when it is told.
type toldApp struct {
	*httptest.Server
	mu       sync.Mutex
	attempts int
	life     int                 // of the process: how many have been started
	taken    map[string][]int    // the lives in which it was answered with 202, by jti
	about    map[string]string   // what an event says, by jti
	named    map[string][]string // by what an event says, the jti that it came with
	strange  []string
	next     func(attempt int) (answer bool) // is asked before each answer
}

func newToldApp(t *testing.T) *toldApp {
	a := &toldApp{taken: map[string][]int{}, about: map[string]string{}, named: map[string][]string{}}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		id, about := eventOf(body)
		a.mu.Lock()
		if id == "" || err != nil {
			a.strange = append(a.strange, string(body))
		} else if was, known := a.about[id]; !known {
			a.about[id] = about
			a.named[about] = append(a.named[about], id)
		} else if was != about {
			a.strange = append(a.strange, id+" says "+about+", and said "+was)
		}
		a.attempts++
		next, attempt, life := a.next, a.attempts, a.life
		a.mu.Unlock()
		if next != nil && !next(attempt) {
			<-r.Context().Done() // who asked is gone
			return
		}
		a.mu.Lock()
		a.taken[id] = append(a.taken[id], life)
		a.mu.Unlock()
		w.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(a.Close)
	return a
}

// eventOf is the jti of an event, and what it says apart from that.
func eventOf(token []byte) (id, about string) {
	parts := strings.Split(string(token), ".")
	if len(parts) != 3 {
		return "", ""
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct {
		Jti, Aud string
		Toe      int64
		Events   map[string]struct{ Connector, Owner, Status string }
	}
	if err != nil || json.Unmarshal(payload, &claims) != nil || len(claims.Events) != 1 {
		return "", ""
	}
	return claims.Jti, fmt.Sprint(claims.Aud, claims.Events)
}

// set has next be asked before each answer of the process that is about to be started.
func (a *toldApp) set(next func(attempt int) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.life, a.attempts, a.next = a.life+1, 0, next
}

// whole counts the events that the app has taken.
func (a *toldApp) whole() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.taken)
}

// tellingStory is the program with an app that is told of grants, and the test beside it with
// the same store.
type tellingStory struct {
	*binary
	t     *testing.T
	app   *toldApp
	store *store.Store
	rows  *sql.DB
	begun int // grants that were ended
}

func startTelling(t *testing.T, address string) *tellingStory {
	t.Helper()
	s := &tellingStory{binary: &binary{}, t: t, app: newToldApp(t)}
	dir, grants := t.TempDir(), ""
	for _, at := range []*string{&s.public, &s.admin, &grants} {
		var err error
		*at, err = testenv.UnusedAddress()
		testenv.Check(t, err)
	}
	key, seal := session.NewKey(time.Now().Add(-time.Hour)), session.NewKey(time.Now().Add(-time.Hour))
	s.config = filepath.Join(dir, "config.yaml")
	write(t, s.config, fmt.Sprintf(`version: 1
public_url: http://%[1]s
listen: {http: %[1]q, admin: %[2]q, grants: %[3]q}
log: {level: info, format: json}
session: {keys: ["literal:%[4]s"]}
store: %[5]q
providers: [{id: sso, type: oidc, issuer: "http://localhost:1", client_id: c, client_secret: "literal:s"}]
routes: [{name: app, path: /, upstream: %[6]q, allow: authenticated}]
grants:
  encryption_keys: ["literal:%[7]s"]
  connectors: [{id: oncall, type: pagerduty_key, region: us}]
  apps: [{id: planner, token: "literal:%[8]s", routes: [app], connectors: [oncall], events_url: "%[6]s/told"}]
`, s.public, s.admin, grants, key.Text(), address, s.app.URL, seal.Text(), lentToken))
	var err error
	driver, path := "pgx", address
	if file, ok := strings.CutPrefix(address, "sqlite:"); ok {
		driver, path = "sqlite", "file:"+file+"?_pragma=busy_timeout(20000)"
		s.store, err = sqlite.Open(t.Context(), file, store.Options{Absolute: time.Hour})
	} else {
		s.store, err = postgres.Open(t.Context(), address, postgres.Options{Options: store.Options{Absolute: time.Hour}})
	}
	testenv.Check(t, err)
	t.Cleanup(func() { _ = s.store.Close() })
	s.rows, err = sql.Open(driver, path)
	testenv.Check(t, err)
	t.Cleanup(func() { _ = s.rows.Close() })
	return s
}

// ends has grants of n people end, of which the app is to be told.
func (s *tellingStory) ends(n int) {
	s.t.Helper()
	grants := s.store.Grants()
	for range n {
		s.begun++
		k := grant.Key{Connector: "oncall", Owner: grant.Owner{Kind: grant.OwnedByUser, ID: fmt.Sprint("sso:", s.begun)}}
		r, err := grants.Connect(s.t.Context(), grant.Record{Key: k, ClientID: "https://api.pagerduty.com",
			Account: grant.Account{ID: fmt.Sprint("P", s.begun)}, Status: grant.Active},
			grant.Consent{App: "planner", Access: []string{"read"}}, 0,
			func(r grant.Record) (grant.Record, error) { return r, nil })
		testenv.Check(s.t, err)
		_, err = grants.Disconnect(s.t.Context(), r.ID)
		testenv.Check(s.t, err)
	}
}

// killer ends the process that runs now, once, and tells when it is gone.
func (s *tellingStory) killer() (kill func(), gone chan struct{}) {
	gone = make(chan struct{})
	process := s.process
	return sync.OnceFunc(func() {
		_ = process.Process.Kill()
		go func() { _ = process.Wait(); close(gone) }()
	}), gone
}

// The process is killed again and again while it tells an app of grants that ended: before the
// app answers, as it answers, between two events and as it starts. After each restart it goes on,
// and in the end the app has been told of each, none is lost, and what came again came with the
// same jti. The minute for which events that were taken up are the dead process's own is not
// waited for: the test makes it older in the database.
func TestP12_AnAppIsToldOfEachGrantThoughTheProcessIsKilledUnderLoad(t *testing.T) {
	eachSharedStore(t, func(t *testing.T, address string) {
		kills, each := 8, 60 // more than are taken up at a time
		if os.Getenv("SALLYPORT_CAMPAIGN") != "" {
			kills = 200
		}
		seed := uint64(time.Now().UnixNano())
		t.Logf("seed %d", seed)
		random := rand.New(rand.NewPCG(seed, 0))
		s := startTelling(t, address)
		hits := map[string]int{}
		for i := range kills {
			before := s.app.whole()
			s.ends(each)
			at := 1 + random.IntN(each-1)
			soon := time.Duration(random.Int64N(int64(8 * time.Millisecond)))
			start := time.Duration(random.Int64N(int64(1500 * time.Millisecond)))
			kind := [...]string{"before an answer", "after an answer", "between events", "at a start"}[i%4]
			armed := make(chan struct{})
			var kill func()
			var gone chan struct{}
			s.app.set(func(attempt int) bool {
				<-armed
				switch {
				case attempt != at || kind == "at a start":
				case kind == "before an answer":
					kill()
					return false
				case kind == "after an answer": // the answer is on its way when it dies, or noted
					time.AfterFunc(soon/4, kill)
				default:
					time.AfterFunc(soon, kill)
				}
				return true
			})
			s.run(t, t.TempDir(), s.config)
			kill, gone = s.killer()
			close(armed)
			if kind == "at a start" {
				time.AfterFunc(start, kill)
			}
			select {
			case <-gone:
			case <-time.After(time.Minute):
				t.Fatalf("kill %d, %s: the app was told of %d", i+1, kind, s.app.whole()-before)
			}
			if told := s.app.whole() - before; told > 0 && told < each {
				hits[kind]++
			}
			_, err := s.rows.Exec(`update sallyport_grant_notices set due_ms = due_ms - 60000`)
			testenv.Check(t, err)
		}
		s.app.set(nil)
		s.run(t, t.TempDir(), s.config)
		testenv.Within(t, time.Minute, "the app is told of the rest", func() bool { return s.app.whole() >= s.begun })
		s.stop(t)

		s.app.mu.Lock()
		defer s.app.mu.Unlock()
		again := 0
		for about, ids := range s.app.named {
			if len(ids) != 1 {
				t.Errorf("%s came with %q", about, ids)
			}
		}
		for id, lives := range s.app.taken {
			if again += len(lives) - 1; len(slices.Compact(slices.Clone(lives))) != len(lives) {
				t.Errorf("%s was taken in the lives %v", id, lives)
			}
		}
		if len(s.app.named) != s.begun || len(s.app.taken) != s.begun || len(s.app.strange) > 0 {
			t.Errorf("the app was told of %d, has taken %d of %d; strange: %q", len(s.app.named), len(s.app.taken), s.begun,
				s.app.strange)
		}
		// Only what was on its way when a process died comes again: that may be the same event more
		// than once, and each death costs one at most.
		if again > kills || hits["before an answer"] == 0 || hits["after an answer"]+hits["between events"] == 0 {
			t.Errorf("%d came again after %d kills, which hit %v", again, kills, hits)
		}
		var left int
		testenv.Check(t, s.rows.QueryRow(`select count(*) from sallyport_grant_notices`).Scan(&left))
		if left != 0 {
			t.Errorf("%d are left", left)
		}
		t.Logf("%d kills, which hit %v; of %d events %d came again", kills, hits, s.begun, again)
	})
}
