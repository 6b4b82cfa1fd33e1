package extauthz

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/observe"
)

// What is spoken here of gRPC are calls with one message each way: five bytes, the message,
// and the status in the trailer. It is not left to grpc-go, which answers a message that it
// cannot take (too long, a path that is no UTF-8) with a status of its own. Envoy counts
// that as a failure, which failure_mode_allow lets pass, and what is in the message is the
// client's to choose. Everything that is asked here gets a verdict.

const (
	// maxMessage is the longest message that is read: the header of a request, for which
	// limits.header is the limit, and what the proxy adds.
	maxMessage = 512 << 10
	// messagePrefix tells whether a message is compressed, and how long it is.
	messagePrefix = 5
	// maxDecoding is how many messages are decoded at once. A message can be a hundred times
	// larger in memory than on the wire, until the question has been made of it.
	maxDecoding = 8
)

// callCode is how a call ended (https://grpc.io/docs/guides/status-codes/).
type callCode int

const (
	codeOK               callCode = 0
	codeInvalidArgument  callCode = 3
	codeNotFound         callCode = 5
	codePermissionDenied callCode = 7
	codeUnimplemented    callCode = 12
	codeInternal         callCode = 13
	codeUnauthenticated  callCode = 16
)

// ServeGRPC answers one call of another proxy. It needs HTTP/2.
func (d *Door) ServeGRPC(w http.ResponseWriter, r *http.Request) {
	if d.draining.Load() {
		w.Header().Set("Connection", "close") // HTTP/2 says GOAWAY for it
	}
	from, ok := d.peer(r.RemoteAddr)
	if !ok {
		d.strangers.note(from)
		refuseCall(w, codePermissionDenied, "not a peer")
		return
	}
	if r.ProtoMajor != 2 || r.Method != http.MethodPost || !isGRPC(r.Header.Get("Content-Type")) {
		w.WriteHeader(http.StatusUnsupportedMediaType)
		return
	}
	ctx, cancel, err := callContext(r)
	if err != nil {
		refuseCall(w, codeInternal, err.Error())
		return
	}
	defer cancel()
	switch r.URL.Path {
	case methodCheck:
		d.check(ctx, w, r, from)
	case methodHealth:
		d.health(w, r)
	default:
		refuseCall(w, codeUnimplemented, "no such method")
	}
}

// check answers one question, and writes one event about it.
func (d *Door) check(ctx context.Context, w http.ResponseWriter, r *http.Request, from netip.Addr) {
	ev := &event{Event: observe.Event{Start: d.now(), Door: grpcDialect.name, RequestID: observe.NewRequestID(),
		Client: from.String(), Route: observe.RouteNone}, header: make(http.Header, 24)}
	answer := d.answer(ctx, ev, grpcDialect, func() (question, error) {
		message, err := readMessage(r.Body)
		if err != nil {
			return question{}, err
		}
		if err := d.decoding.take(ctx); err != nil {
			return question{}, err
		}
		defer d.decoding.leave()
		return d.readCheck(message)
	})
	writeMessage(w, func(to []byte) []byte { return d.appendCheckResponse(to, answer) })
	d.observe(ctx, ev, answer)
}

// health says whether there is somebody to ask (grpc.health.v1). Watch is not offered: it
// would keep a stream for each who watches, and Envoy asks with Check.
func (d *Door) health(w http.ResponseWriter, r *http.Request) {
	service := ""
	message, err := readMessage(r.Body)
	if err == nil {
		service, err = parseHealthRequest(message)
	}
	status := uint64(healthServing)
	switch {
	case err != nil:
		refuseCall(w, codeInvalidArgument, "the message cannot be read")
		return
	case service != "" && service != checkService:
		refuseCall(w, codeNotFound, "no such service")
		return
	case d.draining.Load() || d.waits() != "":
		status = healthNotServing
	}
	writeMessage(w, func(to []byte) []byte { return appendVarint(to, healthStatus, status) })
}

// isGRPC reports whether a body is of protobuf messages.
func isGRPC(contentType string) bool {
	kind, _, _ := strings.Cut(contentType, ";")
	return kind == "application/grpc" || kind == "application/grpc+proto"
}

// callContext is that of the request, with the time that the caller gives it.
func callContext(r *http.Request) (context.Context, context.CancelFunc, error) {
	given := r.Header.Get("Grpc-Timeout")
	if given == "" {
		return r.Context(), func() {}, nil
	}
	timeout, err := parseTimeout(given)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	return ctx, cancel, nil
}

// parseTimeout reads at most eight digits and a unit.
func parseTimeout(v string) (time.Duration, error) {
	units := map[byte]time.Duration{'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond,
		'u': time.Microsecond, 'n': time.Nanosecond}
	if len(v) < 2 || len(v) > 9 {
		return 0, errors.New("malformed grpc-timeout")
	}
	unit := units[v[len(v)-1]]
	n, err := strconv.ParseUint(v[:len(v)-1], 10, 32)
	if err != nil || unit == 0 {
		return 0, errors.New("malformed grpc-timeout")
	}
	return min(time.Duration(n), time.Hour*24/unit) * unit, nil
}

var errMessageTooLong = fmt.Errorf("the message is longer than %d bytes", maxMessage)

// readMessage reads the one message of a call. Memory is taken as bytes come, and not for
// what the prefix announces.
func readMessage(body io.Reader) ([]byte, error) {
	var prefix [messagePrefix]byte
	if _, err := io.ReadFull(body, prefix[:]); err != nil {
		return nil, fmt.Errorf("read the message: %w", err)
	}
	length := binary.BigEndian.Uint32(prefix[1:])
	switch {
	case prefix[0] != 0:
		return nil, errors.New("the message is compressed")
	case length > maxMessage:
		return nil, errMessageTooLong
	}
	message, err := io.ReadAll(io.LimitReader(body, int64(length)))
	if err == nil && len(message) < int(length) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("read the message: %w", err)
	}
	return message, nil
}

// writeMessage answers a call with what message appends.
func writeMessage(w http.ResponseWriter, message func(to []byte) []byte) {
	frame := message(make([]byte, messagePrefix, 2<<10))
	binary.BigEndian.PutUint32(frame[1:], uint32(len(frame)-messagePrefix))
	h := w.Header()
	h["Content-Type"] = []string{"application/grpc"}
	h["Trailer"] = []string{"Grpc-Status"}
	_, _ = w.Write(frame) // the proxy is gone if this fails
	h["Grpc-Status"] = []string{"0"}
}

// refuseCall answers a call with a status alone. message is plain ASCII.
func refuseCall(w http.ResponseWriter, code callCode, message string) {
	h := w.Header()
	h["Content-Type"] = []string{"application/grpc"}
	h["Grpc-Status"] = []string{strconv.Itoa(int(code))}
	h["Grpc-Message"] = []string{message}
	w.WriteHeader(http.StatusOK)
}

// places are how many may do something at once.
type places chan struct{}

func (p places) take(ctx context.Context) error {
	select {
	case p <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p places) leave() { <-p }
