package lane

import (
	"bufio"
	"fmt"
	"maps"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"
)

// answer is the http.ResponseWriter of the requests of a connection, one after the other. It
// writes what net/http's would, but for a Transfer-Encoding, which a handler cannot choose.
// As there, one goroutine uses it at a time, and none once the handler has returned; only
// deadlines may be set by others meanwhile.
//
// The header is written into out when the handler has chosen the status (WriteHeader), so
// that it need not be copied, and a few lines of ours when it is known how the body is
// delimited (commit).
type answer struct {
	c      *conn
	header http.Header
	out    bufio.Writer
	names  []string // of the last header that was written, sorted

	isHead    bool
	chosen    bool  // the status was
	committed bool  // nothing of the header is left to write
	status    int   // of the answer
	length    int64 // that the handler has declared; -1: none
	declared  bool  // something was, which need not be a length
	written   int64 // bytes of the body
	refused   int64 // those of them that are beyond the length
	last      bool  // the connection is closed after it
	chunked   bool
	typed     bool     // there is a Content-Type, or need not be
	dated     bool     // there is a Date
	trailed   bool     // there will be trailers
	trailers  []string // that were declared

	held []byte // of the body, as long as it may be all of it
}

// holds is how much of a body may wait for its end, for its length and its type to be found, as in
// net/http.
const holds = 2048

// begin makes it ready for the next request.
func (a *answer) begin(c *conn, isHead bool) {
	if a.c == nil {
		a.c, a.header = c, http.Header{}
		a.out = *bufio.NewWriterSize(writesOn{c}, bufferSize)
	}
	clear(a.header)
	a.isHead, a.chosen, a.committed = isHead, false, false
	a.status, a.length, a.written, a.refused = 0, -1, 0, 0
	a.last, a.chunked, a.typed, a.dated, a.trailed, a.trailers = false, false, false, false, false, nil
	a.held = a.held[:0]
}

// writesOn is the connection; what cannot be written ends the request.
type writesOn struct{ c *conn }

// Write implements io.Writer.
func (w writesOn) Write(p []byte) (int, error) {
	n, err := w.c.net.Write(p)
	if now := w.c.now; err != nil && now != nil {
		now.fail()
	}
	return n, err
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter. A status below 200 is an interim answer.
func (a *answer) WriteHeader(status int) {
	switch {
	case a.chosen:
		a.c.lane.logf("http: superfluous WriteHeader(%d)", status)
		return
	case status < 100 || status > 999:
		panic(fmt.Sprintf("invalid WriteHeader code %v", status))
	case status < 200 && status != http.StatusSwitchingProtocols:
		a.writeStatus(status)
		a.writeFields(func(name string) bool { return name != "Content-Length" && name != "Transfer-Encoding" })
		_, _ = a.out.WriteString("\r\n")
		_ = a.out.Flush() // an error shows again
		return
	}
	a.chosen, a.status = true, status
	lengths, declared := a.header["Content-Length"]
	if a.declared = declared; first(lengths) != "" {
		if n, err := strconv.ParseInt(lengths[0], 10, 64); err == nil && n >= 0 {
			a.length = n
		} else {
			a.c.lane.logf("http: invalid Content-Length of %q", lengths[0])
		}
	}
	_, a.typed = a.header["Content-Type"]
	a.typed = a.typed || first(a.header["Content-Encoding"]) != ""
	_, a.dated = a.header["Date"]
	a.last = first(a.header["Connection"]) == "close" || a.c.lane.closing.Load()
	for _, list := range a.header["Trailer"] {
		a.trailed = true
		for name := range strings.SplitSeq(list, ",") {
			a.declare(textproto.CanonicalMIMEHeaderKey(textproto.TrimString(name)))
		}
	}
	a.writeStatus(status)
	a.writeFields(a.passes)
}

// declare notes the name of a trailer (RFC 9110 §6.5.1).
func (a *answer) declare(name string) {
	switch name {
	case "", "Transfer-Encoding", "Content-Length", "Trailer":
		return
	}
	a.trailers = append(a.trailers, name)
}

// passes reports whether a field of the handler is written with the header.
func (a *answer) passes(name string) bool {
	switch name {
	case "Transfer-Encoding":
		return false
	case "Content-Length":
		return a.length >= 0 && a.hasBody()
	case "Content-Type":
		return a.status != http.StatusNotModified
	case "Connection":
		return !a.last
	}
	if strings.HasPrefix(name, http.TrailerPrefix) {
		a.trailed = true
		return false
	}
	return true
}

// hasBody reports whether an answer of this status may have a body (RFC 9110 §6.4.1).
func (a *answer) hasBody() bool {
	return a.status >= 200 && a.status != http.StatusNoContent && a.status != http.StatusNotModified
}

func (a *answer) writeStatus(status int) {
	b := append(a.out.AvailableBuffer(), "HTTP/1.1 "...)
	b = append(strconv.AppendInt(b, int64(status), 10), ' ')
	if text := http.StatusText(status); text != "" {
		b = append(b, text...)
	} else {
		b = strconv.AppendInt(append(b, "status code "...), int64(status), 10)
	}
	_, _ = a.out.Write(append(b, "\r\n"...))
}

// writeFields writes the lines of the header that pass, sorted by name. An answer often has
// the fields of the last one, which are sorted already.
func (a *answer) writeFields(passes func(name string) bool) {
	if !a.sameNames() {
		a.names = a.names[:0]
		for name := range a.header {
			a.names = append(a.names, name)
		}
		slices.Sort(a.names)
	}
	for _, name := range a.names {
		if passes(name) {
			a.writeField(name, a.header[name])
		}
	}
}

func (a *answer) sameNames() bool {
	if len(a.names) != len(a.header) {
		return false
	}
	for _, name := range a.names {
		if _, is := a.header[name]; !is {
			return false
		}
	}
	return true
}

// writeField writes nothing for a name that is none, and spaces for the ends of lines.
func (a *answer) writeField(name string, values []string) {
	if !isToken(name) {
		return
	}
	for _, value := range values {
		// Not ContainsAny: that takes 30 times as long, and values may be long, such as an assertion.
		if strings.IndexByte(value, '\n') >= 0 || strings.IndexByte(value, '\r') >= 0 {
			value = strings.NewReplacer("\r", " ", "\n", " ").Replace(value)
		}
		_, _ = a.out.WriteString(name)
		_, _ = a.out.WriteString(": ")
		_, _ = a.out.WriteString(textproto.TrimString(value))
		_, _ = a.out.WriteString("\r\n")
	}
}

// commit writes the rest of the header, before the beginning of the body, or the whole.
func (a *answer) commit(body []byte, whole bool) {
	if a.committed {
		return
	}
	a.committed = true
	if !a.dated {
		_, _ = a.out.WriteString(a.c.lane.dateLine())
	}
	hasBody := a.hasBody()
	if whole && hasBody && a.length < 0 && !a.trailed && !a.declared &&
		(!a.isHead || len(body) > 0) {
		a.length = int64(len(body))
		b := strconv.AppendInt(append(a.out.AvailableBuffer(), "Content-Length: "...), a.length, 10)
		_, _ = a.out.Write(append(b, "\r\n"...))
	}
	if hasBody && !a.typed && len(body) > 0 {
		_, _ = a.out.WriteString("Content-Type: " + http.DetectContentType(body) + "\r\n")
	}
	if a.last {
		_, _ = a.out.WriteString("Connection: close\r\n")
	}
	if a.chunked = hasBody && !a.isHead && a.length < 0; a.chunked {
		_, _ = a.out.WriteString("Transfer-Encoding: chunked\r\n")
	}
	_, _ = a.out.WriteString("\r\n")
}

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) {
	if !a.chosen {
		a.WriteHeader(http.StatusOK)
	}
	switch {
	case len(p) == 0:
		return 0, nil
	case !a.hasBody():
		return 0, http.ErrBodyNotAllowed
	}
	a.written += int64(len(p))
	switch {
	case a.length >= 0 && a.written > a.length:
		a.refused += int64(len(p))
		return 0, http.ErrContentLength
	case a.committed:
	case a.length >= 0 && a.typed:
		a.commit(p, false)
	case len(a.held)+len(p) <= holds:
		a.held = append(a.held, p...)
		return len(p), nil
	case len(a.held) > 0:
		n := holds - len(a.held)
		a.held = append(a.held, p[:n]...)
		a.release()
		return len(p), a.piece(p[n:])
	default:
		a.commit(p, false)
	}
	return len(p), a.piece(p)
}

// release writes what was held.
func (a *answer) release() {
	if len(a.held) > 0 {
		a.commit(a.held, false)
		_ = a.piece(a.held) // an error shows again
		a.held = a.held[:0]
	}
}

// piece writes some of the body.
func (a *answer) piece(p []byte) error {
	if a.isHead {
		return nil
	}
	if !a.chunked {
		_, err := a.out.Write(p)
		return err
	}
	b := strconv.AppendInt(a.out.AvailableBuffer(), int64(len(p)), 16)
	_, _ = a.out.Write(append(b, "\r\n"...))
	_, _ = a.out.Write(p)
	_, err := a.out.WriteString("\r\n")
	return err
}

// FlushError is for http.ResponseController.
func (a *answer) FlushError() error {
	if !a.chosen {
		a.WriteHeader(http.StatusOK)
	}
	a.release()
	a.commit(nil, false)
	return a.out.Flush()
}

// SetReadDeadline is for http.ResponseController. There is no body to be read.
func (a *answer) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline is for http.ResponseController.
func (a *answer) SetWriteDeadline(t time.Time) error {
	a.c.renewed.Store(true)
	return a.c.net.SetWriteDeadline(t)
}

// EnableFullDuplex is for http.ResponseController. There is no body to be read.
func (a *answer) EnableFullDuplex() error { return nil }

// finish ends an answer whose handler has returned, and reports whether another may follow.
func (a *answer) finish() (again bool) {
	if !a.chosen {
		a.WriteHeader(http.StatusOK)
	}
	if !a.committed {
		a.commit(a.held, true)
		if len(a.held) > 0 {
			_ = a.piece(a.held)
		}
	}
	if a.chunked {
		_, _ = a.out.WriteString("0\r\n")
		a.writeTrailers()
		_, _ = a.out.WriteString("\r\n")
	}
	short := !a.isHead && a.hasBody() && a.length >= 0 && a.written != a.length
	return a.out.Flush() == nil && !a.last && !short
}

// breakOff writes what net/http would have written of an answer that did not end well, so that its
// client knows that it had begun: one that got nothing may send its request again (RFC 9110
// §9.2.2).
func (a *answer) breakOff() {
	if a.committed && a.written-a.refused > holds {
		_ = a.out.Flush()
	}
}

func (a *answer) writeTrailers() {
	trailers := http.Header{}
	for name, values := range a.header {
		if name, is := strings.CutPrefix(name, http.TrailerPrefix); is {
			trailers[name] = values
		}
	}
	for _, name := range a.trailers {
		for _, v := range a.header[name] {
			trailers.Add(name, v)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(trailers)) {
		a.writeField(name, trailers[name])
	}
}

// dated is the line that answers of one second have.
type dated struct {
	second int64
	line   string
}

func (l *Lane) dateLine() string {
	now := time.Now()
	if d := l.date.Load(); d != nil && d.second == now.Unix() {
		return d.line
	}
	d := &dated{now.Unix(), "Date: " + now.UTC().Format(http.TimeFormat) + "\r\n"}
	l.date.Store(d)
	return d.line
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}
