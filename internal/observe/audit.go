package observe

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"sync"
	"time"
)

// AuditSchema is the version of Record. Members are added to it, never renamed or
// taken away, without a new version.
const AuditSchema = 1

// Events that are no Action. The reference lists both kinds.
const (
	eventRefused  = "refused"  // a request was refused
	eventOperator = "operator" // somebody who runs Sallyport changed something
)

// Record is a line of the audit stream: JSON, without line breaks. Empty members
// are left out.
type Record struct {
	Schema int       `json:"schema"` // 1
	Time   time.Time `json:"time"`   // when the request came, UTC

	Event string `json:"event"` // what happened, from the list in the reference

	RequestID string `json:"request_id,omitempty"` // as in the log
	Client    string `json:"client,omitempty"`     // the address that it came from, or who the operator is
	User      string `json:"user,omitempty"`       // "<provider>:<subject>"
	Org       string `json:"org,omitempty"`        // the active organization's id
	Provider  string `json:"provider,omitempty"`   // whose sign-in it was
	Method    string `json:"method,omitempty"`     // of the request
	Host      string `json:"host,omitempty"`       // that was asked for
	Path      string `json:"path,omitempty"`       // never the query
	Route     string `json:"route,omitempty"`      // its name; `_own` for our own endpoints
	Mode      string `json:"mode,omitempty"`       // by which dialect another proxy asked; empty if nobody did
	Status    int    `json:"status,omitempty"`     // of the answer
	App       string `json:"app,omitempty"`        // that may use, or asked for, what somebody lent
	Connector string `json:"connector,omitempty"`  // whose grant it is
	Reason    string `json:"reason,omitempty"`     // why it was refused, from the list in the reference
	Detail    string `json:"detail,omitempty"`     // in words: why, what an operator did, what ended or was learned
}

// Audit is the audit stream: who signed in and out, who was refused what, and what
// operators did. It drops nothing by itself: a line that cannot be written is
// counted and reported, and the next one is tried again.
//
// A request waits for its line for patience at most, so that a stalled reader does
// not stop everything; the line stays in the queue. Only where queue lines wait
// already is one given up.
type Audit struct {
	lines chan auditLine
	done  chan struct{}
	lost  func(Record, error)
	now   func() time.Time

	mu     sync.RWMutex // guards closed: nothing is sent once it is true
	closed bool
}

type auditLine struct {
	record  Record
	written chan struct{}
}

const (
	patience = time.Second
	queue    = 4096
)

var (
	errQueueFull = errors.New("audit: too many lines wait to be written")
	errClosed    = errors.New("audit: the stream is closed")
)

// NewAudit begins a stream to w, of which each Write is one whole line. lost is
// told of each line that could not be written, and must not be nil. Close ends it.
func NewAudit(w io.Writer, lost func(Record, error)) *Audit {
	a := &Audit{lines: make(chan auditLine, queue), done: make(chan struct{}), lost: lost, now: time.Now}
	go a.run(w)
	return a
}

func (a *Audit) run(w io.Writer) {
	defer close(a.done)
	for line := range a.lines {
		if err := write(w, &line.record); err != nil {
			a.lost(line.record, err)
		}
		close(line.written)
	}
}

func write(w io.Writer, r *Record) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = w.Write(append(line, '\n'))
	return err
}

// Observe implements Observer.
func (a *Audit) Observe(_ context.Context, e *Event) {
	event := string(e.Action)
	if event == "" && (e.Decision == "deny" || e.Refused) {
		event = eventRefused
	}
	if event == "" {
		return
	}
	r := Record{
		Event: event, Time: e.Start.UTC(), RequestID: e.RequestID, Client: e.Client, User: e.User, Org: e.Org,
		Provider: e.Provider, Method: cut(e.Method, 32), Host: cut(e.Host, 255), Path: cut(e.Path, 1024),
		Route: e.Route, Status: e.Status, App: e.App, Connector: e.Connector, Reason: e.Reason,
	}
	if e.Door != DoorProxy {
		r.Mode = e.Door
	}
	r.Detail = cmp.Or(e.Ended, e.Learned, e.Note)
	switch {
	case e.Err == nil:
	case r.Detail == "":
		r.Detail = e.Err.Error()
	default:
		r.Detail += ": " + e.Err.Error()
	}
	r.Detail = cut(r.Detail, 1024)
	a.add(r)
}

var _ LateObserver = (*Audit)(nil)

// ObserveLate implements LateObserver.
func (a *Audit) ObserveLate(ctx context.Context, e *Event) { a.Observe(ctx, e) }

// Operator records, if a is not nil, what somebody did who runs Sallyport. detail says what, who is
// how they were known: an address, or the name of a user of this machine.
func (a *Audit) Operator(who, detail string) {
	if a == nil {
		return
	}
	a.add(Record{Event: eventOperator, Time: a.now().UTC(), Client: who, Detail: detail})
}

// GrantStep is a step in the life of a grant. What does not matter, or is not known, is "".
type GrantStep struct {
	Event             string // from grant's list
	User, Org         string // who did it, or else whose grant it is; and the organization whose it is
	App, Connector    string
	RequestID, Client string // of the request in which it happened; Client may be an operator's name
	Detail            string // a reason, from a closed list
}

// Grant records a step in the life of a grant.
func (a *Audit) Grant(s GrantStep) {
	a.add(Record{Event: s.Event, Time: a.now().UTC(), RequestID: s.RequestID, Client: s.Client, User: s.User,
		Org: s.Org, App: s.App, Connector: s.Connector, Detail: cut(s.Detail, 1024)})
}

// Ended says whose sessions an operator ended; what does not matter is left out.
type Ended struct{ User, Org, Provider string }

// SessionsEnded records that who, the user of this machine, ended sessions. detail
// says which, in words.
func (a *Audit) SessionsEnded(who string, whose Ended, detail string) {
	a.add(Record{Event: string(SessionsEnded), Time: a.now().UTC(), Client: who, User: whose.User, Org: whose.Org,
		Provider: whose.Provider, Detail: cut(detail, 1024)})
}

func (a *Audit) add(r Record) {
	r.Schema = AuditSchema
	line := auditLine{r, make(chan struct{})}
	if err := a.enqueue(line); err != nil {
		a.lost(r, err)
		return
	}
	waited := time.NewTimer(patience)
	defer waited.Stop()
	select {
	case <-line.written:
	case <-waited.C:
	}
}

func (a *Audit) enqueue(line auditLine) error {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.closed {
		return errClosed
	}
	select {
	case a.lines <- line:
		return nil
	default:
		return errQueueFull
	}
}

// Close writes what waits, for within at most, and reports whether all was written.
func (a *Audit) Close(within time.Duration) bool {
	a.mu.Lock()
	already := a.closed
	a.closed = true
	a.mu.Unlock()
	if !already {
		close(a.lines)
	}
	select {
	case <-a.done:
		return true
	case <-time.After(within):
		return false
	}
}
