package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
)

// Webhooks takes the signed events of third parties. See grant.Broker.
type Webhooks interface {
	Receives(connector string) bool
	Receive(ctx context.Context, connector string, h http.Header, body []byte) (grant.Received, error)
}

const (
	// maxWebhook is how much of a message is taken. PagerDuty sends 256 KB at most.
	maxWebhook = 2 << 20
	// webhookBodyTime is how long a message may take to arrive.
	webhookBodyTime = 10 * time.Second
	// webhooksAtOnce is how many messages to one connector are read and handed on at one
	// time. Where half of them are there, one machine has a quarter at most.
	webhooksAtOnce = 32
)

// webhookEndpoint is where third parties send what they have signed. No browser takes part:
// no cookie is read, and none is set. Whoever sends something else learns that it is wrong,
// and not why; the reason is in the log.
type webhookEndpoint struct {
	process  *Process
	webhooks Webhooks
	peers    peers
}

// serve answers 200 once what the message tells is noted, or all apps that it is for have
// taken it; 401 to what no secret has signed or is too old, and 400 to what is no event; and
// 503 to what has to come again.
func (e *webhookEndpoint) serve(w http.ResponseWriter, r *http.Request, ev *event) error {
	w.Header().Set("Cache-Control", "no-store")
	id := r.PathValue("connector")
	if !e.webhooks.Receives(id) {
		return &failure{Status: http.StatusNotFound, Cause: errors.New("no connector of this name takes signed events")}
	}
	if status, err := refusedUnread(r); err != nil {
		return refuseWebhook(w, r, ev, status, 0, err)
	}
	var holders []holder
	if machine, ok := e.peers.machine(ev.Client); ok {
		holders = append(holders, holder{machine, 1})
	}
	release, err := e.process.slotsOf("webhooks/"+id).take(webhooksAtOnce, holders...)
	if err != nil {
		return refuseWebhook(w, r, ev, http.StatusServiceUnavailable, time.Second,
			fmt.Errorf("%d messages are being read and handed on already", webhooksAtOnce))
	}
	defer release()
	body, status, err := readWebhook(w, r)
	if err != nil {
		return refuseWebhook(w, r, ev, status, 0, err)
	}
	received, err := e.webhooks.Receive(asCaller(r, ev).Context(), id, r.Header, body)
	later, isLater := errors.AsType[*grant.LaterError](err)
	switch {
	case isLater:
		return refuseWebhook(w, r, ev, http.StatusServiceUnavailable, later.After, err)
	case errors.Is(err, grant.ErrEventGarbled):
		return refuseWebhook(w, r, ev, http.StatusBadRequest, 0, err)
	case err != nil:
		ev.Refused = true
		return refuseWebhook(w, r, ev, http.StatusUnauthorized, 0, err)
	}
	ev.Note = received.Note
	if received.Answer != nil {
		w.Header().Set("Content-Type", received.AnswerType)
		w.Header().Set("X-Content-Type-Options", "nosniff")
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(received.Answer)))
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(received.Answer) // the sender is gone if this fails
	return nil
}

// refusedUnread is why a message is refused of which the header says enough.
func refusedUnread(r *http.Request) (status int, err error) {
	switch {
	case r.ContentLength > maxWebhook:
		return http.StatusRequestEntityTooLarge, errLargeWebhook
	case r.Header.Get("Content-Encoding") != "":
		// What is signed is the body as it came, and none of them comes so.
		return http.StatusUnsupportedMediaType, errors.New("a message with a content encoding")
	}
	return 0, nil
}

var errLargeWebhook = fmt.Errorf("a message of more than %d MiB", maxWebhook>>20)

// readWebhook reads a message as it came, and which status to answer if it does not come.
func readWebhook(w http.ResponseWriter, r *http.Request) (body []byte, status int, err error) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(webhookBodyTime)) // tests' writers have none
	body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxWebhook))
	switch _, large := errors.AsType[*http.MaxBytesError](err); {
	case large:
		return nil, http.StatusRequestEntityTooLarge, errLargeWebhook
	case err != nil:
		return nil, http.StatusRequestTimeout, errors.New("a message broke off, or was too slow")
	}
	_ = control.SetReadDeadline(time.Time{})
	return body, 0, nil
}

// refusedWebhook says what is wrong. Of a signature it says no more than that: the reason is in
// the log, under the request's id.
var refusedWebhook = map[int]string{
	http.StatusBadRequest:            "The message is signed, and is no event that is known here.",
	http.StatusUnauthorized:          "The message is not signed as it should be, or too old. The log says why.",
	http.StatusRequestTimeout:        "The message did not arrive in time.",
	http.StatusRequestEntityTooLarge: "The message is too large.",
	http.StatusUnsupportedMediaType:  "The message has a Content-Encoding, and should have none.",
	http.StatusServiceUnavailable:    "The message was not taken. Send it again.",
}

// refuseWebhook says what is wrong, and whether it may come again.
func refuseWebhook(w http.ResponseWriter, r *http.Request, ev *event, status int, after time.Duration,
	cause error) error {
	ev.Err = cause
	code := "invalid_request"
	if status == http.StatusServiceUnavailable {
		code = "temporarily_unavailable"
		w.Header().Set("Retry-After", strconv.Itoa(max(1, int(after/time.Second))))
	}
	writeJSON(w, r, status, map[string]string{"error": code, "message": refusedWebhook[status],
		"request_id": ev.RequestID})
	return nil
}
