package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/sallyport-proxy/sallyport/assertion"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/internal/attempt"
)

// eventBase is before the kind of an event. Programs compare it; nothing has to be there.
const eventBase = "https://sallyport-proxy.github.io/events/"

// eventKinds are the events of RFC 8417 by what apps are told.
var eventKinds = map[grant.NoticeKind]string{
	grant.NoticeNeedsReconnect: eventBase + "needs-reconnect",
	grant.NoticeRecovered:      eventBase + "recovered",
	grant.NoticeDisconnected:   eventBase + "disconnected",
}

// Notifier tells apps, at addresses of theirs, what became of grants, as RFC 8935 has it, and
// hands them the events of third parties. It is safe for concurrent use.
type Notifier struct {
	signer *assertion.Signer
	to     map[string]*url.URL // by app
	client *http.Client
}

// NewNotifier makes a Notifier for apps with an address. It does no I/O.
func NewNotifier(signer *assertion.Signer, to map[string]*url.URL) *Notifier {
	// Apps are near, so that no proxy is asked. Each request is one attempt: whether there is to
	// be another is said by who keeps the notice, or by the third party that sends its event again.
	transport := &http.Transport{DialContext: (&net.Dialer{Timeout: dialWithin}).DialContext,
		TLSHandshakeTimeout: dialWithin, ForceAttemptHTTP2: true, MaxResponseHeaderBytes: maxResponseHeader,
		DisableCompression: true}
	return &Notifier{signer, to, &http.Client{Transport: attempt.New(transport, attempt.Options{}),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// Close closes the connections that nobody uses. A notice that is on its way goes on.
func (n *Notifier) Close() { n.client.CloseIdleConnections() }

// noticeAbout is what an event says.
type noticeAbout struct {
	Connector string       `json:"connector"`
	Owner     string       `json:"owner"` // as X-Sallyport-Person names it
	Status    grant.Status `json:"status"`
}

// mostAnswer is how much of an app's answer is read, so that its connection can be used again.
const mostAnswer = 64 << 10

// ConnectorHeader names the connector whose third party an event is from. What Sallyport tells
// an app itself has none, and the media type of a security event token.
const ConnectorHeader = "X-Sallyport-Connector"

// Notify tells an app, and waits for its answer: any 2xx is "taken". 400 is "never" (RFC 8935
// §2.3), and then the error wraps grant.ErrNoticeRefused. Nothing of an answer is quoted.
func (n *Notifier) Notify(ctx context.Context, about grant.Notice) error {
	owner := about.Owner.ID
	if about.Owner.Kind == grant.OwnedByOrg {
		owner = "org:" + owner
	}
	token, err := n.signer.SignEvent(assertion.Event{
		ID:       fmt.Sprintf("%d-%s", about.At.UnixMilli(), strconv.FormatInt(about.ID, 36)),
		Audience: about.App, At: about.At, Kind: eventKinds[about.Kind],
		About: noticeAbout{about.Connector, owner, about.Status}})
	if err != nil {
		return err
	}
	h := http.Header{}
	h.Set("Content-Type", "application/"+assertion.EventType)
	h.Set("Accept", "application/json")
	status, err := n.post(ctx, about.App, h, []byte(token))
	switch {
	case err != nil:
		return err
	case status == http.StatusBadRequest:
		return fmt.Errorf("%w: it answered 400", grant.ErrNoticeRefused)
	}
	return taken(status)
}

// Relay hands an app an event of a third party, its body byte for byte, once. Any 2xx is
// "taken". Nothing of an answer is quoted.
func (n *Notifier) Relay(ctx context.Context, app string, e grant.Relayed) error {
	h := e.Header.Clone()
	if h == nil {
		h = http.Header{}
	}
	h.Set(ConnectorHeader, e.Connector)
	status, err := n.post(ctx, app, h, e.Body)
	if err != nil {
		return err
	}
	return taken(status)
}

func taken(status int) error {
	if status/100 == 2 {
		return nil
	}
	return fmt.Errorf("the app answered %d", status)
}

// post sends one request, and returns the status of the answer.
func (n *Notifier) post(ctx context.Context, app string, h http.Header, body []byte) (int, error) {
	to := n.to[app]
	if to == nil {
		return 0, errors.New("the app has no address")
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), bytes.NewReader(body))
	if err != nil {
		return 0, fmt.Errorf("make the request: %w", unquoted(err))
	}
	r.Header = h
	r.Header.Set("User-Agent", "Sallyport")
	res, err := n.client.Do(r)
	if err != nil {
		return 0, fmt.Errorf("the app does not answer: %w", unquoted(err))
	}
	defer res.Body.Close()
	_, _ = io.CopyN(io.Discard, res.Body, mostAnswer)
	return res.StatusCode, nil
}

// unquoted leaves out of an error the address, whose query may hold a secret, and what
// net/http quotes of an answer.
func unquoted(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	text, _, quotes := strings.Cut(err.Error(), `"`)
	if !quotes {
		return err
	}
	return errors.New(text + "…")
}
