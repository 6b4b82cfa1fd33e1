package relay

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// http2EndTimeout is how long a client of HTTP/2 may take to end a request
// that it said has no content.
const http2EndTimeout = 10 * time.Second

// CheckHTTP2 refuses requests that are malformed (RFC 9113 §8.1.1) and that
// net/http lets pass: it takes a length that it cannot read for 0, so that an app
// would be asked to store nothing, and it looks at no Host field beside :authority.
// The scheme is the site's, to know which port need not be named.
func CheckHTTP2(w http.ResponseWriter, r *http.Request, scheme string) error {
	if r.RequestURI[0] != '/' { // RFC 9113 §8.3.1; net/http takes the host from elsewhere
		return errors.New(":path does not begin with a slash")
	}
	if hosts := r.Header["Host"]; len(hosts) > 1 || len(hosts) == 1 && !sameAuthority(hosts[0], r.Host, scheme) {
		//lint:ignore ST1005 Host is the name of the field
		return errors.New("Host and :authority differ, or there are several") // RFC 9113 §8.3.1
	}
	lengths := r.Header["Content-Length"]
	if lengths == nil {
		return nil
	}
	length, err := strconv.ParseUint(lengths[0], 10, 63)
	if len(lengths) > 1 || err != nil {
		return errors.New("Content-Length is not one number")
	}
	// A stream that ended with its header has a ContentLength of 0 in any case.
	if r.ContentLength != int64(length) {
		return errors.New("Content-Length announces a body, and none comes")
	}
	if length == 0 {
		return checkEmpty(w, r)
	}
	return nil
}

// checkEmpty waits for the end of a request that announces no content. That
// usually came with its header. What comes instead makes the request malformed,
// and an app would have acted on an empty one by then.
func checkEmpty(w http.ResponseWriter, r *http.Request) error {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(http2EndTimeout)) // of this stream alone
	n, err := r.Body.Read(make([]byte, 1))
	if n > 0 || !errors.Is(err, io.EOF) {
		return errors.New("Content-Length announces no body, and one comes")
	}
	_ = control.SetReadDeadline(time.Time{})
	return nil
}

// sameAuthority compares as RFC 3986 §6.2 normalizes: without case, and without
// the scheme's own port.
func sameAuthority(a, b, scheme string) bool {
	own := ":80"
	if scheme == "https" {
		own = ":443"
	}
	return strings.EqualFold(strings.TrimSuffix(a, own), strings.TrimSuffix(b, own))
}
