package grant

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
)

// About is what is known of a connector before anybody connected anything. It does not
// change.
type About struct {
	ID   string // in the configuration
	Type string
	Name string // what people call the third party: "Google Calendar"
	// ClientID is our client at the third party; of pasted keys, the third party itself. What
	// people lent to one is not shown to another that has its ID in a later configuration.
	ClientID string
	Owner    OwnerKind
	Accesses []Access // the narrowest first
	// Offline: it can be used while the person is away at all.
	Offline bool
	// Authorize is where browsers are sent, scheme and host only, for the page's
	// Content-Security-Policy; "" for pasted keys.
	Authorize string
	// Onward are further origins to which browsers may be sent on from there at once.
	Onward []string
	// Refresh is where refresh tokens are shown, and Revoke where tokens are ended, scheme and
	// host only; "" for pasted keys, and where nothing is ended. Credentials are sent nowhere
	// but there and to Origin.
	Refresh, Revoke string
	// Shipped names the third party where Origin, Refresh and Revoke are addresses that this
	// program comes with, and never changes; "": the configuration says one of them.
	Shipped string
	Inject  Injection
	// Forward are further request headers that apps may send, beside those of the gateway.
	Forward []string
	// Bodies are the media types of bodies that the API needs; others are refused. nil: any,
	// because the API reads no parameters but in forms and JSON.
	Bodies []string
	// TokenQuery are names in a query, folded to lower case, by which the third party would
	// take a credential, beside access_token and token.
	TokenQuery []string
	// PageLinks are names of members by which an answer, an object of JSON, says where more of
	// it is: addresses below Origin, which apps get as addresses of the gateway.
	PageLinks []string
	// Resend: a refresh whose answer was lost may be sent once more with the same token.
	Resend bool
	// Hrefs: answers are WebDAV's, and the gateway puts its own paths in the place of theirs.
	Hrefs bool
	// UserHint says in words which user name a key needs before it; "": none. The key is then
	// the name, a colon and what was pasted.
	UserHint string
	// KeyHint says in words what has to be pasted, and KeyURL where it is found; "" unless
	// the connector is Keyed.
	KeyHint, KeyURL string
}

// Access is one of the ways in which an app may be lent a grant.
type Access struct {
	Name   string
	Scopes []string // that it needs, as the third party spells them
	Means  string   // in words for people, to follow "may": "see when you are busy"
	Rules  []Rule   // what the gateway lets through
}

// Injection says how a credential gets into a request.
type Injection struct {
	Header string // "Authorization"; "": the credential is the address (Place.Target)
	Prefix string // "Bearer ", "Token token="; the credential follows
	// Basic: the credential is a user name, a colon and a password, and follows in base64
	// (RFC 7617 §2).
	Basic bool
	// With are further headers that every request has, in canonical spelling: these values,
	// whatever the app sends. They are no secrets.
	With map[string]string
}

// Value is the value of the header that carries a credential.
func (i Injection) Value(credential string) string {
	if i.Basic {
		credential = base64.StdEncoding.EncodeToString([]byte(credential))
	}
	return i.Prefix + credential
}

// Request is what a person is about to connect. Scopes are those of all Access, each once.
type Request struct {
	RedirectURI string
	Access      []string
	Scopes      []string
	Offline     bool
	LoginHint   string // the account that is connected now; "" at the first time
}

// Result is what came of a connection, or of a refresh.
type Result struct {
	// Tokens have their times by this machine's clock, and none of an earlier credential.
	Tokens  Tokens
	Account Account
	// Scopes are those that were granted. Where the third party does not tell, they are
	// those that were asked for (RFC 6749 §5.1).
	Scopes []string
}

// Connector is one third party, as one configuration has it. It is safe for concurrent
// use, holds no state of grants, and is OAuth, or Keyed, or both.
type Connector interface {
	About() About
	// Origin is where the API of an account is: scheme, host, and perhaps a path prefix
	// without a slash at its end.
	Origin(Account) string
}

// Place is where the requests of a loan go. It prints as "<place>": a Target is a secret.
type Place struct {
	Origin string // scheme, host, and perhaps a path prefix without a slash at its end
	// Target is the path and the query to which all requests go, whatever they asked for, where
	// the credential is an address; "": they go below Origin.
	Target string
	// Below are the paths that the grant is for, below Origin, one a line; "": all. Beside them
	// there is "/", where a client asks whose account it is, and nothing else.
	Below string
	// Guarded: the operator did not choose the host. Only public addresses are connected to
	// (package egress).
	Guarded bool
	// MaxAnswer is the longest answer that is passed on, in bytes; 0: any.
	MaxAnswer int64
}

// Format implements fmt.Formatter: no verb prints an address that is a secret.
func (Place) Format(s fmt.State, _ rune) { io.WriteString(s, "<place>") }

// Located is a connector whose credential says where the API is, because a person named the
// host or the third party did; optional. What is kept beside the sealed tokens is not asked:
// who can write to the database could have the credential sent elsewhere.
type Located interface {
	// Locate does no I/O. The error is for a credential that this connector, as it is
	// configured now, would not have accepted.
	Locate(Tokens) (Place, error)
}

// OAuth is a connector whose grants come from an authorization server. Errors of Redeem
// and Refresh are of type *Error.
type OAuth interface {
	Connector
	// AuthURL does no I/O.
	AuthURL(identity.Handshake, Request) (string, error)
	// Redeem makes one request to the token endpoint, and then may ask who the account is.
	// iss of a callback with a code has been compared where Issuer is not "".
	Redeem(ctx context.Context, callback url.Values, h identity.Handshake, r Request) (Result, error)
	// Refresh makes one request, once. A Tokens without a Refresh means that the one that
	// was shown is still good, and Reusable; Scopes of the result nil, that nobody said they
	// changed. An Account is there only if the answer said whose the grant is.
	Refresh(ctx context.Context, t Tokens, scopes []string) (Result, error)
	// Issuer is what the callback's iss must be (RFC 9207); "": it is not compared.
	Issuer() string
}

// Keyed is a connector whose credential is pasted by a person. Accept checks the character
// set, asks the third party once whether the key works, and stores nothing. Errors are of
// type *Error. What it returned as Access is shown to it again where the third party refused
// that: another Access then says that it has moved, and the person connects again.
type Keyed interface {
	Connector
	Accept(ctx context.Context, key string, r Request) (Result, error)
}

// Revoker is a connector that can end a grant at the third party. siblings is how many
// other grants of the same account and client are kept, which it may end too.
type Revoker interface {
	Revoke(ctx context.Context, t Tokens, siblings int) (Revocation, error)
}

// Sharer is a Revoker that ends grants of other clients too, which then count as siblings.
type Sharer interface {
	// Shares reports whether grants of one account, made with two clients, end together.
	Shares(clientID, other string) bool
}

// Refuser is a connector whose API says with a success that it does not take the credential;
// optional.
type Refuser interface {
	// Refused judges a whole answer of status 200 that is JSON and not long. renewable: the
	// credential can be refreshed; one that cannot has ended with such an answer.
	Refused(answer []byte, renewable bool) bool
}

// Revocation is what became of a grant at the third party when it was ended here.
type Revocation string

const (
	Revoked      Revocation = "revoked"       // it is over there too
	NotSupported Revocation = "not_supported" // only forgotten here; it has to be finished there
	RevokeFailed Revocation = "failed"        // it could not be asked; only forgotten here
	SharedThere  Revocation = "shared"        // not asked: other grants of the account would have ended
	NotAsked     Revocation = "not_asked"     // not asked: the operator did not want that, or the connector is gone
)

// Finish is where a person ends at the third party what Sallyport could not; optional.
type Finish interface{ FinishURL(Account) string }

// Sender is a connector whose third party wants to be told, in a header From, who makes a
// change (RFC 9110 §10.1.2); optional. What an app says there is never sent.
type Sender interface {
	// From is the address of the person whose account it is. "": it is nobody's, or their
	// address is not known; then it is the verified one of who asks, and without that none.
	From(Account) string
}

// Approver is a connector at whose third party an administrator may have to agree before
// people can connect; optional.
type Approver interface {
	// ApproveURL is where an administrator agrees to what a Request asks for: an address that
	// people may pass on. The account may be zero. "": there is none.
	ApproveURL(Account, Request) string
}

// Class says who can do something about a failed call to a third party.
type Class string

const (
	Yours      Class = "yours"       // the person: connect again
	Gone       Class = "gone"        // the same, and the third party says that it was ended there
	AdminTheir Class = "needs_admin" // an administrator of the third party
	Ours       Class = "ours"        // the operator: our client, secret or request is refused
	Later      Class = "later"       // nobody: the third party is busy or away. The token was not used up
	Lost       Class = "lost"        // it may have been used up: there was no answer, or not a whole one
	Unsent     Class = "unsent"      // no byte of it was sent; it may be sent again
	Narrow     Class = "too_narrow"  // what was granted is not enough; Missing says what is not there
)

// Error is how a call of a connector fails. Its text can be logged: it holds no token, no
// code and nothing that the third party wrote.
type Error struct {
	Class      Class
	Reason     string   // a code from the connector's closed list, for Record.Reason
	Missing    []string // scopes, with Narrow
	Sentence   string   // for the person, in our words, where the class alone says too little; "": it does not
	RetryAfter time.Duration
	// ApproveURL is where an administrator agrees, with AdminTheir; "": it is not known. The
	// Broker sets it, for connectors that are an Approver.
	ApproveURL string
	Err        error
}

func (e *Error) Error() string { return fmt.Sprintf("%s (%s): %v", e.Class, e.Reason, e.Err) }
func (e *Error) Unwrap() error { return e.Err }

// ClassOf is the class of err. An error without one counts as Lost: what is not understood
// must neither end a person's grant nor be tried without end.
func ClassOf(err error) Class {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Class
	}
	return Lost
}
