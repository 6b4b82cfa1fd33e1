package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/store"
)

// smallDisk has the folder on which the process in which it is set may mount a disk.
const smallDisk = "SALLYPORT_TEST_SMALL_DISK"

// A disk of 5 MiB fills up while 20 refreshes are under way. Their results get into the
// reserve, and when something else takes that room too they stay in memory, are told, and
// are stored when there is room again. No token is shown a second time.
func TestP14_ResultsOutliveAFullDisk(t *testing.T) {
	if dir := os.Getenv(smallDisk); dir != "" {
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			t.Fatal("make mounts private:", err)
		}
		if err := syscall.Mount("sallyport-test", dir, "tmpfs", 0, "size=5m"); err != nil {
			t.Fatal("mount:", err)
		}
		fullDiskStory(t, newDisk(t, dir))
		return
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.v", "-test.run", "^TestP14_ResultsOutliveAFullDisk$")
	cmd.Env = append(os.Environ(), smallDisk+"="+dir)
	// The disk is mounted for that process alone, and gone with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 { // as root of a user namespace; user_namespaces(7)
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	refused := errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || // clone(2)
		bytes.Contains(out, []byte("mount: operation not permitted")) ||
		bytes.Contains(out, []byte("mount: permission denied")) ||
		bytes.Contains(out, []byte("private: operation not permitted")) ||
		bytes.Contains(out, []byte("private: permission denied"))
	switch {
	case refused:
		t.Log("nobody may mount a disk here, so the database is kept from growing instead, and the reserve is of no use:",
			err)
		fullDiskStory(t, newLimit(t, dir))
	case err != nil || !bytes.Contains(out, []byte("--- PASS: TestP14_ResultsOutliveAFullDisk")):
		t.Errorf("%v\n%s", err, out)
	default:
		t.Logf("on a disk of its own:\n%s", out)
	}
}

// room is what a story needs of a disk.
type room struct {
	path    string // of the database
	fill    func(t *testing.T)
	clear   func(t *testing.T)
	reserve bool // what the reserve frees is room
	write   *sql.DB
}

func newDisk(t *testing.T, dir string) *room {
	filler := filepath.Join(dir, "filler")
	// What is cleared later must leave room for the reserve, too.
	testenv.Check(t, os.WriteFile(filler, make([]byte, reserveSize), 0o600))
	return &room{path: filepath.Join(dir, "sallyport.db"), reserve: true,
		fill: func(t *testing.T) {
			t.Helper()
			f, err := os.OpenFile(filler, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
			testenv.Check(t, err)
			defer f.Close()
			for err == nil {
				_, err = f.Write(make([]byte, 4096))
			}
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
		},
		clear: func(t *testing.T) {
			t.Helper()
			testenv.Check(t, os.Remove(filler))
		}}
}

// newLimit has SQLite answer as on a full disk.
func newLimit(t *testing.T, dir string) *room {
	r := &room{path: filepath.Join(dir, "sallyport.db")}
	r.fill = func(t *testing.T) { noPages(t, r.write) }
	r.clear = func(t *testing.T) {
		_, err := r.write.Exec(`pragma max_page_count = 1000000`)
		testenv.Check(t, err)
	}
	return r
}

// holding is a third party that rotates refresh tokens, and holds its answers for a while.
type holding struct {
	mu     sync.Mutex
	life   time.Duration
	size   int // of its tokens: those of some third parties are large
	held   int
	let    chan struct{} // one for each answer that may go
	shown  map[string]int
	newest map[string]int // tokens by person
}

func (h *holding) About() grant.About {
	rule, err := grant.ParseRule("GET /things")
	if err != nil {
		panic(err)
	}
	return grant.About{ID: "things", Name: "Things", ClientID: "client", Owner: grant.OwnedByUser, Resend: true,
		Refresh: "https://api.test", Inject: grant.Injection{Header: "Authorization", Prefix: "Bearer "},
		Accesses: []grant.Access{{Name: "read", Scopes: []string{"read"}, Rules: []grant.Rule{rule}}}}
}

func (h *holding) Origin(grant.Account) string { return "https://api.test" }
func (h *holding) Issuer() string              { return "" }

func (h *holding) AuthURL(identity.Handshake, grant.Request) (string, error) {
	return "https://api.test/authorize", nil
}

func (h *holding) Redeem(_ context.Context, callback url.Values, _ identity.Handshake, r grant.Request) (grant.Result,
	error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return grant.Result{Tokens: h.issue(callback.Get("person")), Scopes: r.Scopes}, nil
}

func (h *holding) issue(person string) grant.Tokens {
	h.newest[person]++
	text := fmt.Sprintf("%s %d %s", person, h.newest[person], strings.Repeat("x", h.size))
	now := time.Now()
	return grant.Tokens{Access: text, Refresh: text, AccessIssued: now, AccessExpires: now.Add(h.life)}
}

func (h *holding) Refresh(_ context.Context, t grant.Tokens, _ []string) (grant.Result, error) {
	person, rest, _ := strings.Cut(t.Refresh, " ")
	n, _, _ := strings.Cut(rest, " ")
	h.mu.Lock()
	h.shown[person+" "+n]++
	h.held++
	h.mu.Unlock()
	<-h.let
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held--
	if n != strconv.Itoa(h.newest[person]) {
		return grant.Result{}, &grant.Error{Class: grant.Yours, Reason: "invalid_grant", Err: errors.New("shown again")}
	}
	return grant.Result{Tokens: h.issue(person)}, nil
}

func (h *holding) holds() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.held
}

// lines is a log that is read while others write it.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func fullDiskStory(t *testing.T, disk *room) {
	const people, first = 20, 10
	opened, err := openWith(t.Context(), disk.path, store.Options{}, func(db *sql.DB) {
		if disk.write == nil {
			disk.write = db
		}
	})
	testenv.Check(t, err)
	t.Cleanup(func() { _ = opened.Close() })
	rows := opened.Grants()
	h := &holding{life: time.Millisecond, size: 2000, let: make(chan struct{}), shown: map[string]int{},
		newest: map[string]int{}}
	var key grant.SealingKey
	key.ID = "key"
	ring, err := grant.NewKeyring([]grant.SealingKey{key})
	testenv.Check(t, err)
	log, registry := &lines{}, prometheus.NewRegistry()
	b, err := grant.New(grant.Options{Store: rows, Keys: ring, Redirect: func(string) string { return "https://s.test" },
		Offers: []grant.Offer{{Connector: h, Owner: grant.OwnedByUser, Offered: []string{"read"}}},
		Apps:   []grant.App{{ID: "app", Connectors: map[string][]string{"things": {"read"}}}},
		Log:    slog.New(slog.NewTextHandler(log, nil)), Metrics: grant.NewMetrics(registry)})
	testenv.Check(t, err)
	defer b.Close()
	is := func(i int) identity.Identity { return identity.Identity{Provider: "corp", Subject: fmt.Sprint("p", i)} }
	connect := func(i int) error {
		_, err := b.Connect(t.Context(), is(i), grant.Ask{Connector: "things", App: "app"},
			url.Values{"person": {fmt.Sprint("p", i)}}, identity.Handshake{}, false)
		return err
	}
	lend := func(ctx context.Context, i int) (grant.Loan, error) {
		who := is(i)
		return b.Lend(ctx, grant.Use{App: "app", Connector: "things", Who: grant.Party{Session: &who}})
	}
	generation := func(i int) int64 {
		k, err := rows.Get(t.Context(), grant.Key{Connector: "things", Owner: grant.Owner{Kind: grant.OwnedByUser,
			ID: is(i).ID()}})
		testenv.Check(t, err)
		return k.Generation
	}
	stored := func() (n int) {
		for i := range people {
			if generation(i) == 2 {
				n++
			}
		}
		return n
	}
	unsaved := func() float64 {
		families, err := registry.Gather()
		testenv.Check(t, err)
		for _, f := range families {
			if f.GetName() == "sallyport_grant_results_unsaved" && len(f.GetMetric()) == 1 {
				return f.GetMetric()[0].GetGauge().GetValue()
			}
		}
		return 0
	}
	reserved := func() int64 {
		info, err := os.Stat(disk.path + ".reserve")
		testenv.Check(t, err)
		return info.Size()
	}
	full := func() { // the log of the database has no room of its own either
		t.Helper()
		testenv.Eventually(t, "the log is emptied", func() bool {
			var busy, in, done int
			err := disk.write.QueryRow(`pragma wal_checkpoint(truncate)`).Scan(&busy, &in, &done)
			return err == nil && busy == 0
		})
		disk.fill(t)
	}

	for i := range people + 1 {
		testenv.Check(t, connect(i))
	}
	var all sync.WaitGroup
	for i := range people {
		all.Go(func() {
			for h.holds() < people && t.Context().Err() == nil { // a slow disk may take longer than one attempt
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				_, _ = lend(ctx, i) // its refresh goes on
				cancel()
			}
		})
	}
	testenv.Eventually(t, "all refreshes are under way", func() bool { return h.holds() == people })
	h.mu.Lock()
	h.life, h.size = time.Hour, 8000
	h.mu.Unlock()

	acknowledged := people + 1
	if !disk.reserve {
		full()
	}
	for ; connect(acknowledged) == nil; acknowledged++ { // connecting gets none of the reserve
		if acknowledged > 5000 {
			t.Fatal("the disk is never full")
		}
	}
	if reserved() != reserveSize {
		t.Errorf("the reserve has %d bytes although no refresh has ended", reserved())
	}
	t.Logf("%d grants when the disk is full", acknowledged)
	saved := 0
	if disk.reserve {
		disk.fill(t)
		saved = first
		for range first {
			h.let <- struct{}{}
		}
		testenv.Eventually(t, "results get into the reserve", func() bool { return stored() == first })
		if reserved() != 0 || unsaved() != 0 {
			t.Errorf("the reserve has %d bytes, and %v results are told to be in memory only", reserved(), unsaved())
		}
		full() // what the results left of it
		n := h.holds()
		if _, err := lend(t.Context(), people); !errors.Is(err, grant.ErrNoRoom) {
			t.Errorf("a refresh without room for its result: %v", err)
		}
		if h.holds() > n {
			t.Error("a refresh was begun without room for its result")
		}
	}
	full()
	for range people - saved {
		h.let <- struct{}{}
	}
	testenv.Eventually(t, "results that find no room are told", func() bool {
		return unsaved() == float64(people-saved) && strings.Contains(log.String(), "do not stop this process")
	})
	if stored() != saved {
		t.Errorf("%d results are stored", stored())
	}
	for i := range people { // nobody gets what is not stored
		if generation(i) == 2 {
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if l, err := lend(ctx, i); err == nil {
			t.Errorf("lent %.8s", l.Credential())
		}
		cancel()
	}
	disk.clear(t)
	testenv.Eventually(t, "all results are stored when there is room", func() bool {
		return stored() == people && unsaved() == 0
	})
	all.Wait()
	for i := range people {
		l, err := lend(t.Context(), i)
		if err != nil || !strings.HasPrefix(l.Credential(), fmt.Sprintf("p%d 2 ", i)) {
			t.Errorf("p%d: lent %.8s, %v", i, l.Credential(), err)
		}
	}
	for token, n := range h.shown {
		if n != 1 {
			t.Errorf("%s was shown %d times", token, n)
		}
	}
	close(h.let)
	testenv.Eventually(t, "refreshes begin again", func() bool {
		_, err := lend(t.Context(), people)
		return err == nil
	})
	if disk.reserve && reserved() != reserveSize {
		t.Errorf("the reserve has %d bytes", reserved())
	}
	kept, err := rows.List(t.Context(), grant.Filter{})
	if err != nil || len(kept) != acknowledged {
		t.Errorf("%d grants of %d that were connected, %v", len(kept), acknowledged, err)
	}
}
