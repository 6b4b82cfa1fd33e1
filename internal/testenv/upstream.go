package testenv

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
)

// RawUpstream is an app that records bytes, because net/http would merge, reorder and
// respell the headers before a test could look at them. It records each request before it
// answers, and keeps the connection open.
type RawUpstream struct {
	listener net.Listener
	serving  sync.WaitGroup

	mu       sync.Mutex // guards what follows
	respond  func(request []byte) []byte
	requests [][]byte
	faults   []error
	open     map[net.Conn]bool
	accepted int
}

const okResponse = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"

// NewRawUpstream listens on loopback until the test ends.
func NewRawUpstream(tb TB) *RawUpstream {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("listen: %v", err)
	}
	u := &RawUpstream{listener: l, open: map[net.Conn]bool{},
		respond: func([]byte) []byte { return []byte(okResponse) }}
	u.serving.Go(u.accept)
	tb.Cleanup(u.close)
	return u
}

// Addr returns host:port.
func (u *RawUpstream) Addr() string { return u.listener.Addr().String() }

// URL returns the http URL of Addr.
func (u *RawUpstream) URL() string { return "http://" + u.Addr() }

// Respond sets the function that returns the answer to a request. The bytes are sent as they
// are. The connection stays open unless they have "Connection: close". nil breaks the
// connection without an answer.
func (u *RawUpstream) Respond(f func(request []byte) []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.respond = f
}

// Requests returns the bytes of every whole request: head, body with its
// chunks, trailers.
func (u *RawUpstream) Requests() [][]byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([][]byte(nil), u.requests...)
}

// Last returns the latest request. It fails the test if there was none.
func (u *RawUpstream) Last(tb TB) []byte {
	tb.Helper()
	all := u.Requests()
	if len(all) == 0 {
		tb.Fatalf("no request reached the app")
	}
	return all[len(all)-1]
}

// Faults returns why connections broke in the middle of a request, because of bytes that
// must not be sent to an HTTP/1.1 server.
func (u *RawUpstream) Faults() []error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]error(nil), u.faults...)
}

// Connections returns how many connections were accepted.
func (u *RawUpstream) Connections() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.accepted
}

func (u *RawUpstream) accept() {
	for {
		conn, err := u.listener.Accept()
		if err != nil {
			return // closed
		}
		u.mu.Lock()
		u.open[conn] = true
		u.accepted++
		u.mu.Unlock()
		u.serving.Go(func() { u.serve(conn) })
	}
}

func (u *RawUpstream) close() {
	_ = u.listener.Close() // only ever fails if closed before
	u.mu.Lock()
	for conn := range u.open {
		_ = conn.Close() // likewise
	}
	u.mu.Unlock()
	u.serving.Wait()
}

func (u *RawUpstream) serve(conn net.Conn) {
	defer func() {
		u.mu.Lock()
		delete(u.open, conn)
		u.mu.Unlock()
		_ = conn.Close() // nothing is left to lose
	}()
	in := bufio.NewReader(conn)
	for {
		request, err := readRequest(in)
		if err != nil {
			u.fail(request, err)
			return
		}
		answer := u.take(request)
		if answer == nil {
			return
		}
		_, err = conn.Write(answer)
		if err != nil || bytes.Contains(bytes.ToLower(answer), []byte("\r\nconnection: close\r\n")) {
			return
		}
	}
}

func (u *RawUpstream) take(request []byte) []byte {
	u.mu.Lock()
	u.requests = append(u.requests, request)
	respond := u.respond
	u.mu.Unlock()
	return respond(request)
}

func (u *RawUpstream) fail(got []byte, err error) {
	if len(got) == 0 {
		return // closed between two requests, as it should be
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.faults = append(u.faults, fmt.Errorf("after %q: %w", got, err))
}

const (
	maxRawLine = 1 << 20
	maxRawBody = 64 << 20
)

// readRequest reads one request and returns its bytes, also if the connection breaks. It
// finds only the end of the request (RFC 9112 §6).
func readRequest(in *bufio.Reader) ([]byte, error) {
	w := &wire{in: in}
	for line := []byte("x"); len(line) > 0; { // the empty line ends the head
		var err error
		if line, err = w.line(); err != nil {
			return w.raw, err
		}
	}
	length, chunked := HeaderLines(w.raw, "Content-Length"), HeaderLines(w.raw, "Transfer-Encoding")
	switch {
	case len(length)+len(chunked) > 1:
		return w.raw, errors.New("the end of the request is ambiguous")
	case len(chunked) == 1 && chunked[0] == "chunked":
		return w.raw, w.chunks()
	case len(chunked) == 1:
		return w.raw, fmt.Errorf("unknown transfer encoding %q", chunked[0])
	case len(length) == 1:
		n, err := strconv.ParseUint(length[0], 10, 31)
		if err != nil {
			return w.raw, fmt.Errorf("read the length: %w", err)
		}
		return w.raw, w.take(int(n))
	}
	return w.raw, nil
}

// wire keeps every byte it reads.
type wire struct {
	in  *bufio.Reader
	raw []byte
}

// line reads up to CRLF or LF and returns what stands before.
func (w *wire) line() ([]byte, error) {
	start := len(w.raw)
	for {
		part, err := w.in.ReadSlice('\n')
		w.raw = append(w.raw, part...)
		if len(w.raw)-start > maxRawLine {
			return nil, errors.New("a line is too long")
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return bytes.TrimRight(w.raw[start:], "\r\n"), nil
	}
}

func (w *wire) take(n int) error {
	if n > maxRawBody {
		return errors.New("the body is too long")
	}
	start := len(w.raw)
	w.raw = append(w.raw, make([]byte, n)...)
	got, err := io.ReadFull(w.in, w.raw[start:])
	w.raw = w.raw[:start+got]
	return err
}

// chunks reads a chunked body and its trailers.
func (w *wire) chunks() error {
	for {
		line, err := w.line()
		if err != nil {
			return err
		}
		size, _, _ := strings.Cut(string(line), ";")
		n, err := strconv.ParseUint(size, 16, 31)
		if err != nil {
			return fmt.Errorf("read a chunk's size: %w", err)
		}
		if n == 0 {
			break
		}
		if err := w.take(int(n) + len("\r\n")); err != nil {
			return err
		}
	}
	for line := []byte("x"); len(line) > 0; { // trailers, then the empty line
		var err error
		if line, err = w.line(); err != nil {
			return err
		}
	}
	return nil
}

// head returns the request line and the header lines.
func head(request []byte) []string {
	h, _, _ := bytes.Cut(request, []byte("\r\n\r\n"))
	return strings.Split(string(h), "\r\n")
}

// RequestLine returns the first line of a raw request.
func RequestLine(request []byte) string { return head(request)[0] }

// Target returns the request-target of a raw request, byte for byte.
func Target(request []byte) string {
	_, rest, _ := strings.Cut(RequestLine(request), " ")
	target, _, _ := strings.Cut(rest, " ")
	return target
}

// HeaderNames returns the names as spelled, in order, with repetitions.
func HeaderNames(request []byte) []string {
	var out []string
	for _, line := range head(request)[1:] {
		name, _, _ := strings.Cut(line, ":")
		out = append(out, name)
	}
	return out
}

// HeaderLines returns the values of every line whose name is spelled exactly
// so, in order, with blanks around them removed.
func HeaderLines(request []byte, name string) []string {
	var out []string
	for _, line := range head(request)[1:] {
		if n, v, ok := strings.Cut(line, ":"); ok && n == name {
			out = append(out, textproto.TrimString(v))
		}
	}
	return out
}

// Body returns what follows the head, with the framing of chunks.
func Body(request []byte) []byte {
	_, body, _ := bytes.Cut(request, []byte("\r\n\r\n"))
	return body
}
