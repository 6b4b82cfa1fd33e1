package storetest

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// The third party has three kinds of grants. Each refresh brings a new refresh token, and
// the one that was shown is used up.
const (
	// graceful: it may be shown once more while nobody has used its successor.
	graceful = "graceful"
	// strict: where it is shown once more the grant ends (RFC 9700 §4.14.2).
	strict = "strict"
	// onceOnly is strict, and its connector never shows one again.
	onceOnly = "once-only"
)

var connectors = []string{graceful, strict, onceOnly}

// canary is in all that is secret.
const canary = "canary-4711-"

// point is a moment of a refresh.
type point string

const (
	anywhere point = "anywhere"
	toLease  point = "before the lease"
	asked    point = "the token has arrived"
	answers  point = "the answer is about to go"
	toCommit point = "before the commit"
	ended    point = "after the end"
)

// chain is what the third party knows of a grant.
type chain struct {
	kind   string
	life   time.Duration // of that pair
	least  time.Duration // what life is on a machine that is fast enough
	issued int           // the number of the newest pair of tokens
	at     time.Time
	shown  map[int][]string // which processes showed a refresh token
	used   int              // the newest access token that a client was lent
	ended  bool             // a refresh token was shown that had been used up
	later  int              // how often a client was put off
}

// party is the third party of a test and what the test knows of its processes.
type party struct {
	*testing.T
	mu     sync.Mutex
	moved  *sync.Cond // something below has changed
	chains map[string]*chain
	ids    map[string]string // connectors by the IDs of grants
	gone   map[string]bool   // processes that were killed, or do not run now
	inside map[string]map[string]int64
	lost   map[lostAttempt]int // processes that went while they may have had the lease
	frozen bool                // no refresh begins
	armed  *trap
	whys   map[string]int // why clients were put off

	processes map[string]*process // that run
	stood     map[string]bool     // which of them were stopped once
	ends      map[string]int      // of grants, by kind and reason
}

type lostAttempt struct {
	connector  string
	generation int64
}

// trap catches the process that next comes to a point.
type trap struct {
	at        point
	connector string
	after     time.Duration
	caught    func(name string)
}

func newParty(t *testing.T, life time.Duration) *party {
	p := &party{T: t, chains: map[string]*chain{}, ids: map[string]string{}, gone: map[string]bool{},
		inside: map[string]map[string]int64{}, lost: map[lostAttempt]int{}, whys: map[string]int{},
		processes: map[string]*process{}, stood: map[string]bool{}, ends: map[string]int{}}
	t.Cleanup(p.kill)
	p.moved = sync.NewCond(&p.mu)
	for _, kind := range connectors {
		p.chains[kind] = &chain{kind: kind, life: life, least: life, shown: map[int][]string{}}
	}
	return p
}

// serve answers one process.
func (p *party) serve(name string) *httptest.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /redeem", func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		c := p.chains[r.FormValue("connector")]
		c.ended = false
		c.issue(w)
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) { p.token(w, r, name) })
	mux.HandleFunc("POST /step", func(_ http.ResponseWriter, r *http.Request) {
		generation, _ := strconv.ParseInt(r.FormValue("generation"), 10, 64)
		p.step(name, point(r.FormValue("at")), r.FormValue("id"), generation)
	})
	mux.HandleFunc("POST /used", func(_ http.ResponseWriter, r *http.Request) { p.use(r, name) })
	return httptest.NewServer(mux)
}

// issue gives out the next pair. It lives longer where the machine is so slow that what was
// given out before had expired when it could be lent.
func (c *chain) issue(w io.Writer) {
	switch {
	case c.used == c.issued:
		c.life = max(c.life/2, c.least)
	case c.issued-c.used > 2:
		c.life = min(2*c.life, 10*time.Second)
	}
	c.issued++
	c.at = time.Now()
	_ = json.NewEncoder(w).Encode(map[string]any{"Access": fmt.Sprintf(canary+"access-%s-%d", c.kind, c.issued),
		"Refresh": fmt.Sprintf(canary+"refresh-%s-%d", c.kind, c.issued), "At": c.at, "Life": c.life})
}

// number of a token.
func number(token string) int {
	n, _ := strconv.Atoi(token[strings.LastIndexByte(token, '-')+1:])
	return n
}

// token is the endpoint. What it must not be asked is an error of the test.
func (p *party) token(w http.ResponseWriter, r *http.Request, name string) {
	c, n := p.chains[r.FormValue("connector")], number(r.FormValue("refresh"))
	p.mu.Lock()
	earlier := c.shown[n]
	c.shown[n] = append(earlier, name)
	switch {
	case n < 1 || n > c.issued:
		p.Errorf("%s: token %q was never given out", c.kind, r.FormValue("refresh"))
	case n < c.used:
		p.Errorf("%s: refresh token %d is shown after access token %d was lent: what was acknowledged is lost",
			c.kind, n, c.used)
	case len(earlier) > 1 || len(earlier) > 0 && c.kind == onceOnly:
		p.Errorf("%s: refresh token %d is shown by %s, after %v", c.kind, n, name, earlier)
	case slices.ContainsFunc(earlier, func(other string) bool { return !p.gone[other] }):
		p.Errorf("%s: refresh token %d is shown by %s, and %v has got an answer", c.kind, n, name, earlier)
	case time.Since(c.at) < c.life*7/10 && len(earlier) == 0 && n == c.issued:
		p.Errorf("%s: refreshed %v after it was given out, for %v", c.kind, time.Since(c.at), c.life)
	}
	p.mu.Unlock()
	p.reach(name, asked, c.kind)
	p.mu.Lock()
	good := n == c.issued || c.kind == graceful && n == c.issued-1 && len(c.shown[c.issued]) == 0
	if c.ended = c.ended || !good; c.ended {
		p.mu.Unlock()
		http.Error(w, "invalid_grant", http.StatusBadRequest)
		return
	}
	var answer strings.Builder
	c.issue(&answer)
	p.mu.Unlock()
	p.reach(name, answers, c.kind)
	_, _ = io.WriteString(w, answer.String())
}

// step follows where processes are, and holds who is about to begin while all are to be at
// rest.
func (p *party) step(name string, at point, id string, generation int64) {
	p.mu.Lock()
	connector := p.ids[id]
	switch at {
	case toLease:
		for p.frozen && !p.gone[name] {
			p.moved.Wait()
		}
		if !p.gone[name] {
			if p.inside[name] == nil {
				p.inside[name] = map[string]int64{}
			}
			p.inside[name][connector] = generation
		}
	case ended:
		delete(p.inside[name], connector)
	}
	p.moved.Broadcast()
	p.mu.Unlock()
	p.reach(name, at, connector)
}

// use is told what a client of a process got.
func (p *party) use(r *http.Request, name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.moved.Broadcast()
	c := p.chains[r.FormValue("connector")]
	if why := r.FormValue("error"); why != "" {
		c.later++
		p.whys[why]++
		if r.FormValue("later") == "" && (r.FormValue("slow") == "" || !p.stood[name]) {
			p.Errorf("%s: a client got: %s", c.kind, why)
		}
		return
	}
	n := number(r.FormValue("access"))
	if n < 1 || n > c.issued {
		p.Errorf("%s: a client got %q", c.kind, r.FormValue("access"))
	}
	c.used = max(c.used, n)
}

// trap has caught be called, after a while, with the process that next comes to a point.
func (p *party) trap(t trap) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed = &t
}

// reach is called by a process that has come to a point.
func (p *party) reach(name string, at point, connector string) {
	p.mu.Lock()
	t := p.armed
	if t == nil || t.at != at || t.connector != connector || p.gone[name] {
		p.mu.Unlock()
		return
	}
	p.armed = nil
	p.mu.Unlock()
	if t.after > 0 { // it goes on meanwhile
		time.AfterFunc(t.after, func() { t.caught(name) })
		return
	}
	t.caught(name)
}

// leave notes that a process is gone, and what it may have left without an end.
func (p *party) leave(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone[name] = true
	for connector, generation := range p.inside[name] {
		p.lost[lostAttempt{connector, generation}]++
	}
	delete(p.inside, name)
	p.moved.Broadcast()
}

// atRest runs f while no process that is there refreshes.
func (p *party) atRest(f func()) {
	p.mu.Lock()
	p.frozen = true
	for {
		inside := 0
		for name, refreshes := range p.inside {
			if !p.gone[name] {
				inside += len(refreshes)
			}
		}
		if inside == 0 {
			break
		}
		p.moved.Wait()
	}
	p.mu.Unlock()
	f()
	p.mu.Lock()
	p.frozen = false
	p.moved.Broadcast()
	p.mu.Unlock()
}

// look reads of a chain.
func (p *party) look(connector string) chain {
	p.mu.Lock()
	defer p.mu.Unlock()
	return *p.chains[connector]
}

// process is a worker in a process of its own.
type process struct {
	name  string
	cmd   *exec.Cmd
	input io.Closer
	party *httptest.Server
	out   *strings.Builder
}

// start begins a worker.
func (p *party) start(s Shared, o orders) {
	p.Helper()
	w := &process{name: o.Name, party: p.serve(o.Name), out: &strings.Builder{}}
	o.Address, o.Party = s.Address, w.party.URL
	text, err := json.Marshal(o)
	testenv.Check(p, err)
	w.cmd = exec.Command(os.Args[0], "-test.run", "^TestWorker$", "-test.timeout", "2h")
	w.cmd.Env = append(os.Environ(), workerEnv+"="+string(text))
	w.cmd.Stdout, w.cmd.Stderr = w.out, w.out
	w.input, err = w.cmd.StdinPipe()
	testenv.Check(p, err)
	p.mu.Lock()
	defer p.mu.Unlock()
	testenv.Check(p, w.cmd.Start())
	// Tests of other packages that run beside these have a clock.
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, w.cmd.Process.Pid, 5)
	p.processes[o.Name] = w
}

// strike kills a process where it is.
func (p *party) strike(name string) {
	p.leave(name)
	p.signal(name, syscall.SIGKILL)
}

// bury waits until nothing of a process that was killed is left: what it sent before has
// arrived, and the database has done with it.
func (p *party) bury(s Shared, name string) {
	p.Helper()
	w := p.take(name)
	_ = w.cmd.Wait()
	_ = w.input.Close()
	w.party.Close()
	status, ok := w.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() || status.Signal() != syscall.SIGKILL {
		p.Errorf("%s ended by itself: %v\n%s", w.name, w.cmd.ProcessState, w.out)
	}
	s.Gone(p.T, w.name)
}

// end has all processes end in order.
func (p *party) end() {
	for _, name := range p.names() {
		w := p.take(name)
		_ = w.input.Close()
		if err := w.cmd.Wait(); err != nil {
			p.Errorf("%s: %v\n%s", w.name, err, w.out)
		}
		w.party.Close()
	}
}

// kill ends the processes of a test that failed: they would go on, and tell what the test does
// not hear any more.
func (p *party) kill() {
	if p.Failed() {
		p.tell("when it failed")
	}
	for _, name := range p.names() {
		p.leave(name) // which lets go who is held
		w := p.take(name)
		_ = w.cmd.Process.Kill()
		_ = w.cmd.Wait()
		w.party.Close()
	}
}

// take is a process that does not count as one that runs any more.
func (p *party) take(name string) *process {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.processes[name]
	delete(p.processes, name)
	return w
}

// names are those of the processes that there are.
func (p *party) names() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.processes))
}

// connect makes the grants, and a broker of this process.
func (p *party) connect(s *Shared) *grant.Broker {
	opened, err := s.Open(s.Address, "test")
	testenv.Check(p, err)
	srv := p.serve("test")
	s.rows = opened.Grants()
	b := newBroker(p.T, s.rows, newCaller(srv.URL))
	p.Cleanup(func() {
		b.Close()
		_ = opened.Close()
		srv.Close()
	})
	for _, connector := range connectors {
		p.connectOne(b, connector)
	}
	return b
}

func (p *party) connectOne(b *grant.Broker, connector string) {
	p.Helper()
	kept, err := b.Connect(p.Context(), who, grant.Ask{Connector: connector, App: "app"}, nil, handshake, false)
	testenv.Check(p, err)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ids[kept.ID] = connector
}
