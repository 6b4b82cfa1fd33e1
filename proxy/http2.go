package proxy

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/authz"
)

// http2EndPatience is how long a client of HTTP/2 may take to end a request
// that it said has no content.
const http2EndPatience = 10 * time.Second

// checkHTTP2 refuses requests that are malformed (RFC 9113 §8.1.1) and that
// net/http lets pass: it takes a length that it cannot read for 0, so that an app
// would be asked to store nothing, and it looks at no Host field beside :authority.
func (p *Proxy) checkHTTP2(w http.ResponseWriter, r *http.Request) error {
	if r.RequestURI[0] != '/' { // RFC 9113 §8.3.1; net/http takes the host from elsewhere
		return malformed(":path does not begin with a slash")
	}
	if hosts := r.Header["Host"]; len(hosts) > 1 || len(hosts) == 1 && !p.sameAuthority(hosts[0], r.Host) {
		return malformed("Host and :authority differ, or there are several") // RFC 9113 §8.3.1
	}
	lengths := r.Header["Content-Length"]
	if lengths == nil {
		return nil
	}
	length, err := strconv.ParseUint(lengths[0], 10, 63)
	if len(lengths) > 1 || err != nil {
		return malformed("Content-Length is not one number")
	}
	// A stream that ended with its header has a ContentLength of 0, whatever was announced.
	if r.ContentLength != int64(length) {
		return malformed("Content-Length announces a body, and none comes")
	}
	if length == 0 {
		return endsEmpty(w, r)
	}
	return nil
}

// endsEmpty waits for the end of a request that announces no content. That
// usually came with its header. What comes instead makes the request malformed,
// and an app would have acted on an empty one by then.
func endsEmpty(w http.ResponseWriter, r *http.Request) error {
	patience := http.NewResponseController(w)
	_ = patience.SetReadDeadline(time.Now().Add(http2EndPatience)) // of this stream alone
	n, err := r.Body.Read(make([]byte, 1))
	if n > 0 || !errors.Is(err, io.EOF) {
		return malformed("Content-Length announces no body, and one comes")
	}
	_ = patience.SetReadDeadline(time.Time{})
	return nil
}

// sameAuthority compares as RFC 3986 §6.2 normalizes: without case, and without
// the scheme's own port.
func (p *Proxy) sameAuthority(a, b string) bool {
	own := ":80"
	if p.scheme == "https" {
		own = ":443"
	}
	return strings.EqualFold(strings.TrimSuffix(a, own), strings.TrimSuffix(b, own))
}

func malformed(why string) error {
	return &failure{Status: http.StatusBadRequest, Cause: fmt.Errorf("%w: %s", authz.ErrTarget, why),
		Title: "This request cannot be used", Sentence: "Its header contradicts itself, so it was not passed on.",
		Advice: "Try again, or with another program."}
}
