// Package observe is what is told about a request, and to whom.
//
// It owns the Event, of which a front door makes one for each request, and two of
// its observers: the request log and the audit stream. Metrics are kept by the
// front doors themselves, and `explain` observes the one request that it makes.
// An Event has no room for a cookie, code, token or query (P18). The package does
// not open files: what the audit stream is written to is given.
package observe

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"time"
)

// What stands in the place of a route's name for requests without a route. No
// route can be called so.
const (
	RouteOwn  = "_own"
	RouteNone = "_none"
)

// DoorProxy is the front door for browsers. Others have names of their own.
const DoorProxy = "proxy"

// Action is what a request did to a session, from a closed list.
type Action string

// Other requests have the Action "".
const (
	SignIn       Action = "sign_in"        // somebody signed in
	SignInFailed Action = "sign_in_failed" // a sign-in came back from a provider and failed
	SignOut      Action = "sign_out"       // somebody signed out
	Reauth       Action = "reauth"         // a provider was asked again who somebody is
	HandOff      Action = "hand_off"       // another host was given a session, or was refused one
	StepUp       Action = "step_up"        // somebody proved again who they are, as a route asks
	StepUpFailed Action = "step_up_failed" // somebody came back from a provider and had not proved it
	SwitchOrg    Action = "switch_org"     // somebody made another organization the active one

	DirectoryRead   Action = "directory_read"   // an administrator had the directory of their organization read
	DirectoryFailed Action = "directory_failed" // somebody came back from a provider for that, and it was not read

	SessionsEnded Action = "sessions_ended" // sessions of other browsers were ended, see detail
)

// Event is all that is told about one request.
type Event struct {
	Start     time.Time
	Took      time.Duration
	RequestID string
	Door      string // the front door: DoorProxy, or a dialect of external authorization
	Client    string // the address that the request came from

	Method, Host, Path string
	Status             int
	Bytes              int64 // of the answer's body

	Route     string // its name, RouteOwn or RouteNone
	User, Org string // ids; "": nobody, none
	Decision  string // forward, login, deny or preflight; "": nothing was decided
	Reason    string // from authz's list
	Rule      int    // which of the route's rules matched, from 1; 0: none

	// Of a request of an app for what people lent: its id and the connector's; "": none.
	App, Connector string

	Action   Action
	Provider string // whose sign-in it was, or which provider ended sessions
	Ended    string // which sessions a person or a provider ended, in words; nothing of it opens one
	Learned  string // what a directory said of an organization

	// Refused: an endpoint of our own, which decides by no route's rules, has refused it: it came
	// from another site, is forged or used up, or asks for what is not theirs.
	Refused bool

	// Session is why a session cookie does not count; nil where there is none.
	Session error
	Note    string // what an operator should know of an answer that is fine
	Err     error  // why it is not what was asked for
	Failed  bool   // by a fault of ours, of an app or of a provider
}

// Observer is told about each request once, when its answer has ended. It must
// not keep the Event.
type Observer interface {
	Observe(context.Context, *Event)
}

// LateObserver is an Observer that is told, too, of what came of a request after its answer, by
// an Event that says that alone.
type LateObserver interface {
	Observer
	ObserveLate(context.Context, *Event)
}

// NewRequestID is 80 random bits that people can read to each other.
func NewRequestID() string {
	var b [10]byte
	var text [16]byte
	rand.Read(b[:])
	readable.Encode(text[:], b[:])
	return string(text[:])
}

var readable = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567")
