package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/internal/hostname"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/relay"
	"github.com/sallyport-proxy/sallyport/upstream"
)

const (
	// answerWithin is how long a third party may take to begin its answer, once it has the
	// request, and idleWithin how long nothing may move.
	answerWithin = 60 * time.Second
	idleWithin   = 60 * time.Second

	privateAnswer = "private, no-store"
)

// passing are the request headers that third parties get from apps, in canonical spelling.
var passing = []string{"Accept", "Accept-Encoding", "Accept-Language", "Content-Type", "Content-Length",
	"Content-Encoding", "Content-Language", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since",
	"If-Range", "Range", "Prefer", "User-Agent", "Cache-Control", "Idempotency-Key"}

// overrides are headers that ask for another method or another protocol than what is
// judged. They are refused, not dropped: who sends one means something else.
var overrides = []string{"X-Http-Method-Override", "X-Http-Method", "X-Method-Override", "Upgrade"}

// forward is a request of an app, on its way to a third party.
type forward struct {
	g       *Gateway
	caller  *caller
	offered *Connector
	target  target
	host    string        // as the app wrote it
	in      *http.Request // the app's
	ev      *observe.Event

	loan    grant.Loan
	lent    grant.Loan // as it began, with the accesses that let the request through
	origin  *url.URL
	secrets secrets
	// refused is why the exchange had to end: the broker's, when the credential was not
	// accepted.
	refused error
	// asked is the body of a request whose hrefs are judged.
	asked []byte
}

// lend passes a request on, with what a person lent.
func (g *Gateway) lend(w http.ResponseWriter, r *http.Request, ev *observe.Event, c *caller) error {
	t, err := parseTarget(r.RequestURI)
	if errors.Is(err, errNoTarget) {
		return newProblem(http.StatusNotFound, notFound, "There is nothing here", sentence(err))
	}
	offered := c.app.Connectors[t.connector]
	if t.connector != "" && offered == nil {
		return g.lendProblem(r, c, t.connector, grant.ErrNoConnector)
	}
	if offered != nil {
		ev.Connector, ev.Path = t.connector, gatewayPrefix+t.connector
	}
	if err != nil {
		return plainBad(err)
	}
	f := &forward{g: g, caller: c, offered: offered, target: t, host: r.Host, ev: ev, in: r}
	if err := f.judge(w, r); err != nil {
		return err
	}
	if err := f.readHrefs(w, r); err != nil {
		return bodyProblem(err)
	}
	if err := f.borrow(r); err != nil {
		return err
	}
	return f.exchange(w, r)
}

// judge judges all but the consent, so that nothing is refreshed, and nobody asked, for what
// can never pass.
func (f *forward) judge(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodConnect || r.Method == http.MethodTrace {
		return newProblem(http.StatusMethodNotAllowed, badMethod, "No such method here", "")
	}
	for _, name := range overrides {
		if r.Header[name] != nil {
			return plainBad(fmt.Errorf("the header %s is not passed on: the request line is what is judged", name))
		}
	}
	if name := f.namedByConnection(r.Header); name != "" {
		return plainBad(fmt.Errorf("the header %s cannot be for this connection alone", name))
	}
	if err := judgeQuery(f.target.query, f.offered.tokens); err != nil {
		return plainBad(err)
	}
	if !f.matches(f.offered.Accesses) {
		return f.denied()
	}
	if f.offered.About.Inject.Header == "" && (f.target.hasQuery || r.ContentLength != 0) {
		return plainBad(errors.New("the address is what was lent: there is nothing to add to it"))
	}
	if err := judgeBody(w, r, f.offered.tokens, f.offered.About.Bodies); err != nil {
		return bodyProblem(err)
	}
	return nil
}

// namedByConnection is a header that Connection would have us take away (RFC 9110 §7.6.1) and
// that has its part in what is judged: a body without its type could be anything.
func (f *forward) namedByConnection(h http.Header) string {
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			name = http.CanonicalHeaderKey(strings.TrimSpace(name))
			if f.passes(name) {
				return name
			}
		}
	}
	return ""
}

// passes reports whether the third party gets a header of the app, in canonical spelling.
func (f *forward) passes(name string) bool {
	return slices.Contains(passing, name) || slices.Contains(f.offered.forward, name)
}

// matches reports whether a rule of one of accesses lets the request through.
func (f *forward) matches(accesses []grant.Access) bool {
	return slices.ContainsFunc(accesses, f.admits)
}

// admits reports whether a rule of an access lets the request through.
func (f *forward) admits(a grant.Access) bool {
	for _, rule := range a.Rules {
		if rule.Match(f.ev.Method, f.target.path) {
			f.ev.Path = gatewayPrefix + f.target.connector + rule.Template
			return true
		}
	}
	return false
}

func (f *forward) denied() *problem {
	p := newProblem(http.StatusForbidden, ruleDenied, "No rule lets this through",
		"No access of this app's configuration allows it.")
	p.Connector, p.Method, p.Path = f.target.connector, f.ev.Method, f.target.path
	for _, a := range f.offered.Accesses {
		for _, rule := range a.Rules {
			if text := rule.String(); !slices.Contains(p.Allowed, text) {
				p.Allowed = append(p.Allowed, text)
			}
		}
	}
	return p
}

// borrow gets the credential, and judges the request by what was agreed to.
func (f *forward) borrow(r *http.Request) error {
	loan, err := f.g.o.Broker.Lend(r.Context(),
		grant.Use{App: f.caller.app.ID, Connector: f.target.connector, Who: f.caller.party})
	if err != nil {
		return f.g.lendProblem(r, f.caller, f.target.connector, f.narrowed(err))
	}
	if err := f.take(loan); err != nil {
		return f.g.lendProblem(r, f.caller, f.target.connector, err)
	}
	f.lent = loan
	f.lent.Accesses = slices.DeleteFunc(slices.Clone(loan.Accesses), func(a grant.Access) bool { return !f.admits(a) })
	if len(f.lent.Accesses) > 0 {
		switch err := f.below(r); {
		case errors.Is(err, errBelow):
			return f.denied().because(err)
		case err != nil:
			return plainBad(err)
		}
		return nil
	}
	for _, a := range loan.Wider {
		if f.admits(a) {
			return f.g.required(r, f.caller, f.target.connector, []string{a.Name})
		}
	}
	return f.denied()
}

// narrowed asks for the narrowest access that lets the request through, where the app has
// none: a person is asked for what an app needs now, and not for all that it may ever need.
func (f *forward) narrowed(err error) error {
	required, ok := errors.AsType[*grant.RequiredError](err)
	if !ok {
		return err
	}
	accesses := withoutWords(required.Missing)
	for _, a := range f.offered.Accesses { // the narrowest first, as in About
		if slices.Contains(accesses, a.Name) && f.admits(a) {
			narrow := *required
			narrow.Missing = slices.DeleteFunc(slices.Clone(required.Missing), func(s string) bool {
				return s != a.Name && slices.Contains(accesses, s)
			})
			return &narrow
		}
	}
	return err
}

var errOrigin = errors.New("the connector's origin is neither https nor on loopback")

// take takes a loan into use.
func (f *forward) take(loan grant.Loan) error {
	origin, err := url.Parse(loan.Origin)
	if err != nil || origin.Host == "" || origin.User != nil || origin.RawQuery != "" ||
		origin.Scheme != "https" && (origin.Scheme != "http" || !hostname.IsLoopback(origin.Hostname())) {
		return errOrigin
	}
	f.loan, f.origin = loan, origin
	for _, text := range loan.Secrets() {
		f.secrets = f.secrets.add(text)
	}
	return nil
}

// url is where the request goes. The path is sent as it was judged, byte for byte.
func (f *forward) url() (url.URL, error) {
	escaped, query, hasQuery := f.target.path, f.target.query, f.target.hasQuery
	if f.loan.Target != "" {
		escaped, query, hasQuery = strings.Cut(f.loan.Target, "?")
	}
	escaped = strings.TrimSuffix(f.origin.EscapedPath(), "/") + escaped
	path, err := url.PathUnescape(escaped)
	if err != nil {
		return url.URL{}, errEscape
	}
	u := url.URL{Scheme: f.origin.Scheme, Host: f.origin.Host, Path: path, RawPath: escaped,
		RawQuery: query, ForceQuery: hasQuery && query == ""}
	if u.EscapedPath() != escaped {
		return url.URL{}, errSign
	}
	return u, nil
}

func (f *forward) exchange(w http.ResponseWriter, r *http.Request) (err error) {
	to, err := f.url()
	if err != nil {
		return plainBad(err)
	}
	r.Trailer = nil
	client := relay.NewClient(w, r, f.ev.RequestID, f.g.draining.Load())
	defer client.Close()
	defer func() {
		if v := recover(); v != nil {
			client.Settle()
			f.ev.Status, f.ev.Bytes = client.Status(), client.Bytes()
			err = panicked(v, f.ev, client.Begun())
		}
	}()
	_, err = f.g.relay.Exchange(client, r, relay.Order{Transport: f, URL: to, Host: f.origin.Host, Hooks: f,
		Header: answerWithin, Idle: idleWithin, MaxBody: maxBody, NoVia: true})
	f.ev.Status, f.ev.Bytes = client.Status(), client.Bytes()
	switch {
	case err == nil:
		return nil
	case client.Begun():
		return &brokenOff{err}
	case errors.Is(err, relay.ErrClientGone), f.refused != nil && r.Context().Err() != nil:
		return &brokenOff{relay.ErrClientGone}
	case errors.Is(err, errNotLent):
		// As to the next request: what an app is told does not depend on who notices first.
		return f.g.lendProblem(r, f.caller, f.target.connector, f.narrowed(err))
	case f.refused != nil && !errors.Is(err, relay.ErrOver) && !errors.Is(err, upstream.ErrTimeout):
		return f.g.lendProblem(r, f.caller, f.target.connector, f.refused)
	}
	return relayProblem(err)
}

// brokenOff is why an answer that had begun is not whole.
type brokenOff struct{ cause error }

func (b *brokenOff) Error() string { return b.cause.Error() }
func (b *brokenOff) Unwrap() error { return b.cause }

// RoundTrip implements http.RoundTripper: it adds the credential. Where that is refused, it
// is refreshed once, and a GET or HEAD is sent once more.
func (f *forward) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := f.send(r)
	if err != nil || !f.rejected(res.StatusCode) && !f.saysRefused(res) {
		return res, err
	}
	loan, err := f.g.o.Broker.Rejected(r.Context(), f.loan)
	switch {
	case errors.Is(err, grant.ErrStillRejected):
		return res, nil
	case err != nil:
		return nil, f.giveUp(res, err)
	case loan.Place != f.loan.Place, !f.matches(loan.Accesses):
		return nil, f.giveUp(res, &grant.LaterError{After: time.Second, Err: grant.ErrChanged})
	}
	if err := f.take(loan); err != nil {
		return nil, f.giveUp(res, err)
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead || r.Body != nil && r.Body != http.NoBody {
		return res, nil // the next request has the new one
	}
	_ = res.Body.Close() // nothing of it is wanted
	return f.send(r)
}

// maxSaid is how long an answer may be, in bytes, that says with a success that a credential
// is not taken.
const maxSaid = 4 << 10

// saysRefused looks at an answer of a third party that says so with a success. No more than
// the beginning is read, and put back.
func (f *forward) saysRefused(res *http.Response) bool {
	kind, _, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if !f.loan.MayBeRefused() || res.StatusCode != http.StatusOK || err != nil || kind != "application/json" ||
		!readable(res.Header) || res.ContentLength > maxSaid || res.Body == http.NoBody {
		return false
	}
	begun, err := io.ReadAll(io.LimitReader(res.Body, maxSaid+1))
	rest := io.Reader(res.Body)
	if err != nil {
		rest = broken{err}
	}
	res.Body = putBack{io.MultiReader(bytes.NewReader(begun), rest), res.Body}
	return err == nil && len(begun) <= maxSaid && f.loan.Refused(begun)
}

// putBack is a body of which the beginning has been read.
type putBack struct {
	io.Reader
	io.Closer
}

// broken is the end of a body that broke off.
type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

// rejected reports whether an answer says that the credential is no good. Of an address that
// is one, others say that too.
func (f *forward) rejected(status int) bool {
	switch status {
	case http.StatusUnauthorized:
		return true
	case http.StatusForbidden, http.StatusNotFound, http.StatusGone, http.StatusMovedPermanently,
		http.StatusPermanentRedirect:
		return f.loan.Target != ""
	}
	return false
}

func (f *forward) giveUp(res *http.Response, err error) error {
	f.refused = err
	_ = res.Body.Close() // likewise
	return err
}

var (
	errSwitch = errors.New("the third party switches protocols")
	errCoding = errors.New("the third party's answer is compressed in a way that nobody asked for")
)

// send sends once, and makes the answer one that can be shown to an app.
func (f *forward) send(r *http.Request) (*http.Response, error) {
	if name, value := f.loan.Header(); name != "" {
		r.Header[http.CanonicalHeaderKey(name)] = []string{value}
	}
	for name, value := range f.loan.Inject.With {
		r.Header[http.CanonicalHeaderKey(name)] = []string{value}
	}
	transport := f.g.transport
	if f.loan.Guarded {
		transport = f.g.guarded
	}
	got, err := transport.RoundTrip(r)
	if err != nil {
		return nil, fmt.Errorf("send to the third party: %w", err)
	}
	if got.StatusCode == http.StatusSwitchingProtocols {
		_ = got.Body.Close() // it has no use
		return nil, errSwitch
	}
	if got.Body != http.NoBody && !asked(r.Header, got.Header) {
		_ = got.Body.Close() // the credential could not be seen in it
		return nil, errCoding
	}
	if most := f.loan.MaxAnswer; most > 0 {
		if got.ContentLength > most && r.Method != http.MethodHead {
			_ = got.Body.Close() // nothing of it is wanted
			return nil, errAnswerLong
		}
		got.Body = &shortBody{got.Body, most}
	}
	if f.loan.Target != "" && !readable(got.Header) {
		_ = got.Body.Close() // likewise
		return nil, errCoding
	}
	res := *got
	res.Trailer = nil // what comes after a body is not judged, so it is not passed on
	if err := f.placeHrefs(r.Context(), &res); err != nil {
		_ = got.Body.Close() // likewise
		return nil, err
	}
	links := f.links(&res)
	switch {
	case links != nil:
		unlike(&res)
	case res.StatusCode == http.StatusNotModified && len(f.offered.About.PageLinks) > 0:
		weaken(res.Header) // as it was in the answer that is meant
	}
	if res.Body != http.NoBody && readable(res.Header) {
		res.Body = &judgedBody{from: res.Body, secrets: f.secrets, links: links}
	}
	return &res, nil
}

var errAnswerLong = errors.New("the third party's answer is too long")

// shortBody is a body that breaks off where it is longer than left.
type shortBody struct {
	io.ReadCloser
	left int64
}

func (s *shortBody) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p[:min(int64(len(p)), s.left+1)])
	if s.left -= int64(n); s.left < 0 {
		return 0, errAnswerLong
	}
	return n, err
}

// RewriteRequest implements relay.Hooks.
func (f *forward) RewriteRequest(h http.Header) {
	for name := range h {
		if !f.passes(name) {
			delete(h, name)
		}
	}
	if f.loan.From != "" && f.ev.Method != http.MethodGet && f.ev.Method != http.MethodHead {
		h["From"] = []string{f.loan.From} // never what an app says: who makes a change is proved
	}
	looked := len(f.offered.About.PageLinks) > 0 || f.loan.MayBeRefused() || f.loan.Target != "" ||
		f.offered.About.Hrefs // at the body
	if len(h["Accept-Encoding"]) == 0 || looked {
		h["Accept-Encoding"] = []string{"identity"} // without it any would do (RFC 9110 §12.5.3)
	}
}

// RewriteTrailers implements relay.Hooks.
func (f *forward) RewriteTrailers(h http.Header) { clear(h) }

// RewriteInterim implements relay.Hooks.
func (f *forward) RewriteInterim(h http.Header) { clear(h) }

// droppedAnswers are the headers of third parties that are not for apps: they are about
// browsers and shared caches.
var droppedAnswers = []string{"Set-Cookie", "Set-Cookie2", "Clear-Site-Data", "Expires", "Pragma", "Age", "Trailer"}

// calmAnswers are the headers that pass where the address is the credential: others, such as
// Location and Link, are there to write addresses.
var calmAnswers = []string{"Content-Type", "Content-Length", "Content-Language", "Date", "Etag", "Last-Modified",
	"Retry-After", "Accept-Ranges", "Content-Range"}

// RewriteAnswer implements relay.Hooks.
func (f *forward) RewriteAnswer(h http.Header) {
	for name, values := range h {
		if slices.Contains(droppedAnswers, name) || strings.HasPrefix(name, "X-Sallyport-") ||
			slices.ContainsFunc(values, f.secrets.in) ||
			f.loan.Target != "" && !slices.Contains(calmAnswers, name) {
			delete(h, name)
		}
	}
	f.placeElsewhere(h, "Location")
	f.placeElsewhere(h, "Content-Location")
	f.placeLinks(h)
	h["Cache-Control"] = []string{privateAnswer}
	h["Vary"] = append(h["Vary"], "Authorization, "+assertionHeader+", "+leaseHeader+", "+personHeader)
}

// placeElsewhere makes an address in an answer absolute, as what it means to the third party. A
// program that follows it by itself sends what proves the app and the person along, so one that
// would lead back here, or to where anybody could read that, is left out.
func (f *forward) placeElsewhere(h http.Header, name string) {
	if h[name] == nil {
		return
	}
	base, err := f.url()
	if f.offered.About.Hrefs && err == nil && len(h[name]) == 1 {
		if ours, ok := f.ours(&base, h.Get(name)); ok {
			h[name] = []string{ours}
			return
		}
	}
	to, parseErr := url.Parse(h.Get(name))
	if err != nil || parseErr != nil || len(h[name]) > 1 || to.Opaque != "" || to.IsAbs() && to.Host == "" {
		delete(h, name)
		return
	}
	absolute := base.ResolveReference(to)
	theirs := absolute.Scheme == f.origin.Scheme && absolute.Host == f.origin.Host
	if !theirs && (absolute.Scheme != "https" || strings.EqualFold(absolute.Host, f.host) ||
		hostname.IsLoopback(absolute.Hostname())) {
		delete(h, name)
		return
	}
	if !to.IsAbs() {
		h[name] = []string{absolute.String()}
	}
}

// lentWithin bounds how long an answer that goes on waits for the store to say whether it may.
const lentWithin = time.Second

var errNotLent = errors.New("the person lends it to the app no more")

// Over implements relay.Hooks: an answer ends with the session.
func (f *forward) Over() error { return f.g.over(f.caller) }

// StillAllowed implements relay.Asker: an answer ends with what the person agreed to, too.
func (f *forward) StillAllowed() error {
	ctx, cancel := context.WithTimeout(context.Background(), lentWithin)
	defer cancel()
	if err := f.g.o.Broker.Lends(ctx, f.lent); err != nil {
		return fmt.Errorf("%w: %w", errNotLent, err)
	}
	return nil
}

var _ relay.Asker = (*forward)(nil)

var _ http.RoundTripper = (*forward)(nil)
