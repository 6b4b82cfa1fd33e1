package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sallyport-proxy/sallyport/session"
)

// relayInterim takes a 1xx to be passed on. 100 is not among them: the client is
// told when the body is first read, which the transport does once the app has
// said 100. Nor is 101, which no app may say within HTTP/2 (RFC 9113 §8.6).
//
// The caller is the transport's reader, over HTTP/2 for everybody whose requests
// share the connection: it must not wait for this client to read.
func (x *exchange) relayInterim(code int, header textproto.MIMEHeader) error {
	switch code {
	case http.StatusContinue:
		return nil
	case http.StatusSwitchingProtocols:
		return errors.New("a switch of protocols in HTTP/2")
	}
	x.watch.moved()
	if !x.in.ProtoAtLeast(1, 1) { // RFC 9110 §15.2
		return nil
	}
	h := http.Header(header)
	dropHopByHop(h)
	x.dropSiteHeaders(h)
	keepOurCookies(h)
	delete(h, "Clear-Site-Data")
	delete(h, "X-Request-Id")
	return x.client.queueInterim(code, h)
}

// answer passes the app's answer on. An app that breaks off in the middle breaks
// off here too: a short answer must never look whole (security.md C113).
func (x *exchange) answer(ctx context.Context, res *http.Response) {
	dropHopByHop(res.Header)
	x.amend(res.Header)
	h := x.client.Header()
	for name, values := range res.Header {
		h[name] = values
	}
	if res.Header["Content-Type"] == nil {
		h["Content-Type"] = nil // else net/http guesses one
	}
	x.announceTrailers(h, res)
	unread := x.body != nil && !x.body.is(uploadEnded)
	if unread {
		x.client.closeAfter() // the rest of the body is in the way of a next request
	}
	x.client.passAnswer()
	x.client.WriteHeader(res.StatusCode)
	if err := x.copyBody(res); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		x.ev.cause = unquoted(err)
		if unread { // net/http reads on before it closes, for as long as the client likes
			_ = x.client.SetReadDeadline(time.Now())
		}
		panic(http.ErrAbortHandler)
	}
	sendTrailers(h, res)
	if x.in.ProtoMajor == 1 { // what is left goes out when the watch is gone
		x.client.readWithin(x.backend.Idle)
	}
}

// siteHeaders are those of an answer by which one app speaks for the whole site,
// Sallyport's own addresses among them. They are dropped unless a route asks to
// keep them: Alt-Svc sends browsers to another server (RFC 7838), past us;
// NEL makes them report the site's addresses, those of a sign-in among them, to a
// server that the app names; key pins are about a connection that ends here (RFC
// 7469). Strict-Transport-Security is none of these: it only narrows.
var siteHeaders = [...]string{"Alt-Svc", "Alternate-Protocol", "Nel", "Public-Key-Pins", "Public-Key-Pins-Report-Only"}

func (x *exchange) dropSiteHeaders(h http.Header) {
	for _, name := range siteHeaders {
		if h[name] != nil && !slices.Contains(x.backend.SiteHeaders, name) {
			delete(h, name)
		}
	}
}

// amend keeps the app from our cookies and adds a renewed one of ours.
func (x *exchange) amend(h http.Header) {
	x.dropSiteHeaders(h)
	if h["Clear-Site-Data"] != nil && spareCookies(h) {
		x.ev.note = "Clear-Site-Data: cookies were spared, ours are among them"
	}
	keepOurCookies(h)
	delete(h, "X-Request-Id") // ours is set already
	// The late answer of a session that has ended would undo a switch.
	if x.renewed != nil && !x.p.sessions.HasEnded(x.admitted.Principal.Session) {
		h["Cache-Control"] = x.renewed["Cache-Control"]
		for _, other := range [...]string{"Expires", "Pragma", "Cdn-Cache-Control", "Surrogate-Control", "X-Accel-Expires"} {
			h.Del(other) // caches that know these heed nothing else (RFC 9213 §2.2)
		}
		h["Set-Cookie"] = append(h["Set-Cookie"], x.renewed["Set-Cookie"]...)
	}
}

// copyBody sends on what arrives as it arrives.
func (x *exchange) copyBody(res *http.Response) error {
	if res.Body == http.NoBody {
		return nil
	}
	x.client.holdHeader()
	defer x.client.headerDone()
	buf := x.p.buffers.Get()
	defer x.p.buffers.Put(buf)
	left := res.ContentLength // negative: unknown
	for {
		n, err := res.Body.Read(buf)
		if n > 0 {
			left -= int64(n)
			x.watch.moved()
			if err := x.client.writePiece(buf[:n], left != 0); err != nil {
				return fmt.Errorf("write to the client: %w", err)
			}
			x.watch.moved()
		}
		switch {
		case err == io.EOF:
			if len(res.Trailer) > 0 {
				x.client.flush() // else a short answer gets a length, and has no place for trailers
			}
			return nil
		case err != nil:
			return fmt.Errorf("read from the app: %w", err)
		}
	}
}

// announceTrailers names those that the app has announced.
func (x *exchange) announceTrailers(h http.Header, res *http.Response) {
	for name := range res.Trailer {
		if badTrailer(name) {
			delete(res.Trailer, name)
			continue
		}
		h["Trailer"] = append(h["Trailer"], name)
	}
	if h["Trailer"] != nil && x.in.ProtoMajor == 1 && x.in.ProtoMinor > 0 && x.in.Method != http.MethodHead {
		// HTTP/2 has trailers after a body of known length, HTTP/1.1 only after
		// chunks (RFC 9112 §7.1.2).
		delete(h, "Content-Length")
	}
}

// sendTrailers adds what came after the body, announced or not (gRPC's status
// never is).
func sendTrailers(h http.Header, res *http.Response) {
	announced := h["Trailer"]
	for name, values := range res.Trailer {
		if badTrailer(name) {
			continue
		}
		if !slices.Contains(announced, name) {
			name = http.TrailerPrefix + name
		}
		h[name] = values
	}
}

// badTrailer: fields that frame a message, route it or carry credentials must
// not come after it (RFC 9110 §6.5.1), and a reader that merges trailers into
// the header would believe them.
func badTrailer(name string) bool {
	switch name {
	case "Content-Length", "Content-Type", "Content-Encoding", "Content-Range", "Host", "Authorization", "Cookie", "Set-Cookie",
		"Clear-Site-Data", "Cache-Control", "Destination", "Expect", "Location", "Max-Forwards", "Range", "Via", "X-Request-Id":
		return true
	}
	return slices.Contains(hopByHop[:], name) || slices.Contains(siteHeaders[:], name)
}

// keepOurCookies drops Set-Cookie lines for names of ours: an app must neither
// sign anybody in nor out (security.md 121).
func keepOurCookies(h http.Header) {
	lines := h["Set-Cookie"]
	if len(lines) == 0 {
		return
	}
	kept := lines[:0:0]
	for _, line := range lines {
		pair, _, _ := strings.Cut(line, ";")
		if !session.ReservedCookie(strings.TrimLeft(pair, " \t=")) {
			kept = append(kept, line)
		}
	}
	if len(kept) == len(lines) {
		return
	}
	if len(kept) == 0 {
		delete(h, "Set-Cookie")
		return
	}
	h["Set-Cookie"] = kept
}

// spareCookies takes from Clear-Site-Data what would clear our cookies together
// with the app's, and reports whether it did; the app can still let its own
// expire by name.
func spareCookies(h http.Header) (spared bool) {
	var kept []string
	for directive := range strings.SplitSeq(strings.Join(h["Clear-Site-Data"], ","), ",") {
		switch directive = strings.Trim(directive, " \t"); strings.ToLower(directive) {
		case "":
		case `"cookies"`:
			spared = true
		case `"*"`:
			kept, spared = append(kept, `"cache"`, `"storage"`, `"executionContexts"`), true
		default:
			kept = append(kept, directive)
		}
	}
	if len(kept) == 0 {
		delete(h, "Clear-Site-Data")
		return spared
	}
	h["Clear-Site-Data"] = []string{strings.Join(kept, ", ")}
	return spared
}

// bufferPool lends the buffers that bodies are copied through.
type bufferPool struct{ pool sync.Pool }

const bufferSize = 32 << 10

func newBufferPool() *bufferPool {
	return &bufferPool{sync.Pool{New: func() any { return new([bufferSize]byte) }}}
}

func (b *bufferPool) Get() []byte {
	buf, _ := b.pool.Get().(*[bufferSize]byte)
	return buf[:]
}

func (b *bufferPool) Put(buf []byte) {
	if len(buf) == bufferSize {
		b.pool.Put((*[bufferSize]byte)(buf))
	}
}
