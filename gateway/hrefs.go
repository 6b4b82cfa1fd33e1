package gateway

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// WebDAV's hrefs are addresses of the API (RFC 4918 §14.7): in answers ours take their place,
// and in the body of a request theirs, or a client would leave us with what proves the app, or
// ask for what does not exist there. So About.Hrefs is for third parties whose answers are
// multistatus.
const davSpace = "DAV:"

var (
	errHrefs = errors.New("the body of such a request has to be XML, in UTF-8 and not encoded")
	errBelow = errors.New("the request is for something else than what was connected")
)

// readHrefs reads the body of a request whose hrefs have to be judged and rewritten: whatever
// its type says, a server reads XML in it.
func (f *forward) readHrefs(w http.ResponseWriter, r *http.Request) error {
	if !f.offered.About.Hrefs || r.ContentLength == 0 {
		return nil
	}
	for _, coding := range r.Header["Content-Encoding"] {
		if !strings.EqualFold(strings.TrimSpace(coding), "identity") {
			return errHrefs
		}
	}
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	f.asked = body
	return nil
}

// below judges a request by the paths that its loan is for, and puts theirs in the place of
// ours in its body.
func (f *forward) below(r *http.Request) error {
	if f.loan.Below == "" {
		return nil
	}
	if f.target.path == "/" {
		// Where clients begin: they ask whose account it is, and nothing below it.
		if r.Method == http.MethodOptions || r.Method == "PROPFIND" && slices.Equal(r.Header["Depth"], []string{"0"}) {
			return f.rewriteAsked(r)
		}
		return errBelow
	}
	if !f.isBelow(f.target.path) {
		return errBelow
	}
	return f.rewriteAsked(r)
}

func (f *forward) rewriteAsked(r *http.Request) error {
	if f.asked == nil {
		return nil
	}
	body, err := rewriteHrefs(f.asked, func(href string) (string, error) {
		ours := gatewayPrefix + f.target.connector
		u, err := url.Parse(href)
		if err != nil {
			return "", errHrefs
		}
		path, ok := strings.CutPrefix(u.EscapedPath(), ours+"/")
		if path = "/" + path; !ok || judgePath(path) != nil || !f.isBelow(path) {
			return "", errBelow
		}
		return strings.TrimSuffix(f.origin.EscapedPath(), "/") + path, nil
	})
	if err != nil {
		return err
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	r.TransferEncoding, r.Trailer = nil, nil
	return nil
}

// isBelow reports whether a path is one of the loan's, or below one. Segments are compared
// without their escapes, which clients write as they like, and borders as they are.
func (f *forward) isBelow(path string) bool {
	have := strings.Split(strings.TrimSuffix(path, "/"), "/")
	for one := range strings.SplitSeq(f.loan.Below, "\n") {
		want := strings.Split(strings.TrimSuffix(one, "/"), "/")
		if len(have) >= len(want) && slices.EqualFunc(have[:len(want)], want, sameSegment) {
			return true
		}
	}
	return false
}

func sameSegment(a, b string) bool {
	plainA, errA := url.PathUnescape(a)
	plainB, errB := url.PathUnescape(b)
	return errA == nil && errB == nil && plainA == plainB
}

const (
	// shortAnswer is how long an answer is, in bytes, that is read as a whole at any time, and
	// mostLong how many of an app that are longer are in memory at a time.
	shortAnswer = 256 << 10
	mostLong    = 4
)

// whole reads all of an answer. One that is long waits until there is room for it among those of
// the app, and has that until done is called: an app that asks for many keeps itself waiting.
func (f *forward) whole(ctx context.Context, from io.Reader) (body []byte, done func(), err error) {
	body, err = io.ReadAll(io.LimitReader(from, shortAnswer))
	if err != nil || len(body) < shortAnswer {
		return body, func() {}, err
	}
	room := f.g.long[f.caller.app.ID]
	select {
	case room <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("wait for other long answers: %w", context.Cause(ctx))
	}
	done = sync.OnceFunc(func() { <-room })
	rest, err := io.ReadAll(from)
	if err != nil {
		done()
		return nil, nil, err
	}
	return append(body, rest...), done, nil
}

// inMemory is a body that was read as a whole.
type inMemory struct {
	io.Reader
	done func()
}

func (b inMemory) Close() error {
	b.done()
	return nil
}

// placeHrefs puts our paths in the place of theirs in an answer. One that is no XML stays as
// it is.
func (f *forward) placeHrefs(ctx context.Context, res *http.Response) error {
	kind, _, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	isXML := err == nil && (kind == "application/xml" || kind == "text/xml")
	if !f.offered.About.Hrefs || res.StatusCode != http.StatusMultiStatus || !isXML || !readable(res.Header) {
		return nil
	}
	base, err := f.url()
	if err != nil {
		return err
	}
	body, done, err := f.whole(ctx, res.Body)
	_ = res.Body.Close() // it has been read
	if err != nil {
		return err
	}
	handedOn := false
	defer func() {
		if !handedOn { // by a bug of ours
			done()
		}
	}()
	placed, err := rewriteHrefs(body, func(href string) (string, error) {
		address, _ := f.ours(&base, href)
		return address, nil
	})
	if err != nil {
		placed = body
	}
	unlike(res)
	res.Body, handedOn = inMemory{bytes.NewReader(placed), done}, true
	return nil
}

// nameSchemes are those of addresses that are no place, such as those of people among their
// calendar-user-address-set (RFC 6638 §2.4.1): they lead nobody anywhere.
var nameSchemes = []string{"mailto", "urn", "tel"}

// ours is a path of ours for an address in the answer to base, if it is one of the API. Any
// other is made absolute, so that it leads nobody to what else is here.
func (f *forward) ours(base *url.URL, href string) (address string, ours bool) {
	to, err := url.Parse(href)
	if err == nil && to.Opaque != "" && slices.Contains(nameSchemes, to.Scheme) {
		return href, false
	}
	if err != nil || to.Opaque != "" {
		return "", false
	}
	absolute := base.ResolveReference(to)
	path, inside := strings.CutPrefix(absolute.EscapedPath(), strings.TrimSuffix(f.origin.EscapedPath(), "/"))
	if path == "" {
		path = "/"
	}
	if absolute.Scheme != f.origin.Scheme || !sameHost(absolute, f.origin) || absolute.User != nil || !inside ||
		judgePath(path) != nil {
		return absolute.String(), false
	}
	return gatewayPrefix + f.target.connector + path, true
}

// sameHost compares hosts and ports; the port of the scheme may be left out.
func sameHost(a, b *url.URL) bool {
	port := func(u *url.URL) string {
		if p := u.Port(); p != "" {
			return p
		}
		return map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return strings.EqualFold(net.JoinHostPort(a.Hostname(), port(a)), net.JoinHostPort(b.Hostname(), port(b)))
}

// rewriteHrefs returns a document with other texts in its hrefs; all else stays as it is, byte
// for byte.
func rewriteHrefs(document []byte, rewrite func(string) (string, error)) ([]byte, error) {
	var out []byte
	var text strings.Builder
	d := xml.NewDecoder(bytes.NewReader(document))
	copied, begin, depth := 0, -1, 0
	for {
		before := int(d.InputOffset())
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, errHrefs
		}
		switch t := token.(type) {
		case xml.Directive:
			return nil, errHrefs // entities could be read in two ways
		case xml.StartElement:
			if depth++; depth > maxDepth {
				return nil, errHrefs
			}
			if begin >= 0 {
				return nil, errHrefs // there is nothing in an href but text
			}
			if t.Name.Space == davSpace && t.Name.Local == "href" {
				begin = int(d.InputOffset())
				text.Reset()
			}
		case xml.CharData:
			if begin >= 0 {
				text.Write(t)
			}
		case xml.EndElement:
			depth--
			if begin < 0 {
				continue
			}
			href := strings.TrimSpace(text.String())
			// One without an end tag ends where it begins.
			if before > begin || href != "" {
				other, err := rewrite(href)
				if err != nil {
					return nil, err
				}
				if other != href {
					out = append(out, document[copied:begin]...)
					var escaped bytes.Buffer
					if err := xml.EscapeText(&escaped, []byte(other)); err != nil {
						return nil, errHrefs
					}
					out = append(out, escaped.Bytes()...)
					copied = before
				}
			}
			begin = -1
		}
	}
	if depth != 0 {
		return nil, errHrefs
	}
	return append(out, document[copied:]...), nil
}
