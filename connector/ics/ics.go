// Package ics is the connector of calendars that have a secret address, for `type: ics`: the
// least that a calendar can be lent with.
//
// The address is the credential, and a person names its host. So the package owns which
// addresses are accepted, and what a first look at one means; that nothing but public hosts
// is reached is package egress's to see to, and that no answer shows the address the
// gateway's. It keeps nothing. Apps ask for one fixed path, Path, and never learn the other.
package ics

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/connector"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/internal/egress"
	"github.com/sallyport-proxy/sallyport/internal/hostname"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// Type is the type of such a connector in the configuration.
const Type = "ics"

const (
	// Read is the only access, and Path what apps ask for.
	Read = "read"
	Path = "/calendar.ics"
	// MaxFeed is the longest calendar that is passed on, in bytes.
	MaxFeed = 16 << 20
	// Agent is the User-Agent with which calendars are asked for, also for apps, which do not know
	// whose calendar it is. Microsoft leads all but what looks like a browser to an error page,
	// and others answer 400 or 403 to the names of libraries (docs/connectors/ics.md).
	Agent = "Mozilla/5.0 (X11; Linux x86_64) Chrome/139.0.0.0 sallyport"
)

// The reasons of a grant.Error that only addresses have.
const (
	AddressMalformed = "address_malformed" // it cannot be one: nothing was asked
	AddressRefused   = "address_refused"   // there is nothing behind it, or not for everybody
	Elsewhere        = "address_elsewhere" // the calendar is at another address
	NoCalendar       = "no_calendar"       // something else than a calendar is there
)

const (
	maxAddress = 2048
	// minTarget is how long path and query are at least: who could guess them needs no grant.
	minTarget = 16
	// checkTimeout is how long a calendar may take to answer when somebody connects it: Microsoft's
	// take more than ten seconds before they begin (docs/connectors/ics.md).
	checkTimeout = 20 * time.Second
	// mostMoves is how often a calendar may say that it has moved, on the way to one.
	mostMoves = 3
)

// Options are what a Connector needs, most of it from the configuration.
type Options struct {
	ID         string
	Name       string // for people; "": ID
	Owner      grant.OwnerKind
	AllowHosts []string // that may be in a private network, as connector.ParseHosts reads them

	OAuth *oauth.Client
	Now   func() time.Time // nil: time.Now
}

// Connector is a grant.Keyed and a grant.Located. It holds no address.
type Connector struct {
	about            grant.About
	hosts            connector.Hosts
	trusted, guarded *oauth.Client
	now              func() time.Time
}

var (
	_ grant.Keyed   = (*Connector)(nil)
	_ grant.Located = (*Connector)(nil)
)

// New returns a Connector. It does no I/O. What is wrong with the configuration is a
// *connector.Fault.
func New(o Options) (*Connector, error) {
	if o.ID == "" || o.OAuth == nil {
		return nil, errors.New("ics: an id and a client for requests are required")
	}
	hosts, err := connector.ParseHosts(o.AllowHosts)
	if err != nil {
		return nil, connector.FaultAt("allow_hosts", err)
	}
	rules, err := connector.Rules([]string{"GET " + Path})
	if err != nil {
		return nil, fmt.Errorf("ics: %w", err)
	}
	client := o.OAuth.WithMaxBody(MaxFeed).WithTimeout(checkTimeout)
	c := &Connector{hosts: hosts, trusted: client, guarded: client.Guarded(), now: o.Now}
	if c.now == nil {
		c.now = time.Now
	}
	c.about = grant.About{ID: o.ID, Type: Type, Name: cmp.Or(o.Name, o.ID), ClientID: Type,
		Owner: cmp.Or(o.Owner, grant.OwnedByUser), Offline: true,
		Inject:   grant.Injection{With: map[string]string{"User-Agent": Agent}},
		Accesses: []grant.Access{{Name: Read, Means: "read all events of the calendar", Rules: rules}},
		KeyHint:  "the secret address of a calendar in iCal format, which begins with https:// or webcal://"}
	return c, nil
}

// About implements grant.Connector. The caller may keep and change what it gets.
func (c *Connector) About() grant.About {
	about := c.about
	about.Accesses = slices.Clone(about.Accesses)
	return about
}

// Origin implements grant.Connector. Where a calendar is says its address alone (Locate).
func (c *Connector) Origin(grant.Account) string { return "https://ics.invalid" } // RFC 6761 §6.4

// Locate implements grant.Located.
func (c *Connector) Locate(t grant.Tokens) (grant.Place, error) {
	u, err := c.parse(t.Access)
	if err != nil {
		return grant.Place{}, err
	}
	return grant.Place{Origin: u.Scheme + "://" + u.Host, Target: u.RequestURI(), Guarded: !c.hosts.Allow(u),
		MaxAnswer: MaxFeed}, nil
}

// parse reads an address that is written as it will be sent. What is wrong is said without it.
func (c *Connector) parse(address string) (*url.URL, error) {
	if len(address) > maxAddress {
		return nil, fmt.Errorf("an address has at most %d characters", maxAddress)
	}
	if strings.ContainsFunc(address, func(r rune) bool { return r <= ' ' || r > '~' }) ||
		strings.ContainsAny(address, `\#`) {
		return nil, errors.New("an address has neither blanks nor signs beyond ASCII, no backslash and no #")
	}
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Opaque != "" || u.Hostname() == "":
		return nil, errors.New("an address begins with https:// and the name of a host")
	case u.User != nil:
		return nil, errors.New("an address with a user name or a password is not accepted")
	case u.Scheme != "https" && !(u.Scheme == "http" && hostname.IsLoopback(u.Hostname()) && c.hosts.Allow(u)):
		return nil, errors.New("an address begins with https://")
	case len(u.RequestURI()) < minTarget:
		return nil, errors.New("an address that can be guessed is no secret: copy the whole of it")
	case !strings.HasSuffix(address, "://"+u.Host+u.RequestURI()):
		return nil, errors.New("the address has signs that have to be escaped")
	}
	return u, nil
}

// Accept implements grant.Keyed. White space around an address comes from copying it, and is
// removed; webcal is what calendars call https. A calendar that has moved for good is kept at its
// new address, as somebody could have pasted it.
func (c *Connector) Accept(ctx context.Context, key string, _ grant.Request) (grant.Result, error) {
	address := secure(strings.TrimSpace(key))
	u, err := c.parse(address)
	if err != nil {
		return grant.Result{}, &grant.Error{Class: grant.Yours, Reason: AddressMalformed, Err: err,
			Sentence: "That is not the secret address of a calendar: " + err.Error() + "."}
	}
	for moves := 0; ; moves++ {
		res, body, err := c.get(ctx, u, address)
		to, movedTo := c.moved(u, res, err)
		if movedTo == "" || moves == mostMoves {
			if err := checkAnswer(res, body, err); err != nil {
				return grant.Result{}, err
			}
			return grant.Result{Tokens: grant.Tokens{Access: address, AccessIssued: c.now()},
				Account: grant.Account{Name: u.Hostname()}}, nil
		}
		u, address = to, movedTo
	}
}

// get asks for a calendar once.
func (c *Connector) get(ctx context.Context, u *url.URL, address string) (*http.Response, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, nil, errors.New("the request cannot be made")
	}
	req.Header.Set("Accept", "text/calendar")
	req.Header.Set("User-Agent", Agent)
	client := c.guarded
	if c.hosts.Allow(u) {
		client = c.trusted
	}
	return client.Beginning(req, "feed", looksAt)
}

// moved is where an answer says that the calendar is for good (RFC 9110 §15.4.2, §15.4.9), if that
// is an address that could be pasted. A host that everybody may reach leads to none that only
// the operator allows.
func (c *Connector) moved(from *url.URL, res *http.Response, err error) (to *url.URL, address string) {
	if err != nil || !permanent(res.StatusCode) {
		return nil, ""
	}
	next, err := from.Parse(res.Header.Get("Location"))
	if err != nil || res.Header.Get("Location") == "" {
		return nil, ""
	}
	address = secure(next.String())
	to, err = c.parse(address)
	if err != nil || c.hosts.Allow(to) && !c.hosts.Allow(from) {
		return nil, ""
	}
	return to, address
}

func permanent(status int) bool {
	return status == http.StatusMovedPermanently || status == http.StatusPermanentRedirect
}

// secure returns an address with https for webcal and webcals, which calendars use for links.
func secure(address string) string {
	scheme, rest, ok := strings.Cut(address, "://")
	switch strings.ToLower(scheme) {
	case "webcal", "webcals", "https":
		if ok {
			return "https://" + rest
		}
	}
	return address
}

// checkAnswer says what an answer means for the address. It is refused for good only where the
// answer says so.
func checkAnswer(res *http.Response, begins []byte, err error) error {
	failed := func(class grant.Class, reason, cause, sentence string) *grant.Error {
		return &grant.Error{Class: class, Reason: reason, Err: errors.New(cause), Sentence: sentence}
	}
	if err != nil {
		return unanswered(err)
	}
	switch s := res.StatusCode; {
	// Its type says little: nginx calls a file .ics application/octet-stream, and many programs
	// that make calendars say text/plain or text/html.
	case s == http.StatusOK && isCalendar(begins):
		return nil
	case s >= 200 && s < 300:
		return failed(grant.Yours, NoCalendar, "the answer is not a calendar",
			"There is no calendar behind this address: what it answers does not begin with BEGIN:VCALENDAR.")
	case s == http.StatusUnauthorized, s == http.StatusForbidden, s == http.StatusNotFound, s == http.StatusGone:
		return failed(grant.Yours, AddressRefused, fmt.Sprintf("the answer has status %d", s),
			"There is no calendar behind this address, or not for everybody who has it.")
	case s >= 300 && s < 400:
		return failed(grant.Yours, Elsewhere, fmt.Sprintf("the answer has status %d", s),
			"The calendar is at another address than this one: open it in a browser, and copy the one that it leads "+
				"to.")
	case s >= 500, s == http.StatusTooManyRequests, s == http.StatusRequestTimeout:
		return failed(grant.Later, connector.Busy, fmt.Sprintf("the answer has status %d", s), "")
	}
	return failed(grant.Ours, connector.RequestRefused, fmt.Sprintf("the answer has status %d", res.StatusCode), "")
}

// looksAt is how many bytes of an answer say whether it is a calendar. A person names the host, so
// that the others, of which there may be millions, are not kept.
const looksAt = 64

// isCalendar: a BOM is none of a calendar's, and some have it.
func isCalendar(begins []byte) bool {
	text, _ := strings.CutPrefix(string(begins), "\ufeff")
	return strings.HasPrefix(strings.ToUpper(strings.TrimLeft(text, " \r\n\t")), "BEGIN:VCALENDAR")
}

// unanswered says what it means that there was no answer, or not a whole one.
func unanswered(err error) error {
	e, ok := errors.AsType[*oauth.Error](err)
	switch {
	case errors.Is(err, egress.ErrNotPublic):
		return &grant.Error{Class: grant.Yours, Reason: connector.NotPublic, Err: egress.ErrNotPublic,
			Sentence: "This address leads into a private network, which is not allowed here."}
	case !ok:
		return &grant.Error{Class: grant.Later, Reason: connector.NoAnswer, Err: errors.New("the request failed")}
	case e.Status == http.StatusOK:
		return &grant.Error{Class: grant.Later, Reason: connector.NoAnswer, Err: e,
			Sentence: fmt.Sprintf("The calendar is longer than %d MiB, or it did not arrive as a whole.", MaxFeed>>20)}
	case e.Status == 0 && e.Sent == oauth.Never:
		return &grant.Error{Class: grant.Later, Reason: connector.Unreachable, Err: e}
	}
	return &grant.Error{Class: grant.Later, Reason: connector.NoAnswer, RetryAfter: e.RetryAfter, Err: e}
}
