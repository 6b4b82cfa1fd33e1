package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"html"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// secrets are the spellings of a credential that an answer could have: as it is, and as
// JSON, addresses and HTML write it. What replaces them has the same length.
type secrets [][]byte

// add returns s with the spellings of a credential. s itself stays: an answer that is on its
// way is still searched for what it has.
func (s secrets) add(credential string) secrets {
	if credential == "" {
		return s
	}
	s = slices.Clone(s)
	slashes := strings.ReplaceAll(credential, "/", `\/`)
	quoted, err := json.Marshal(credential)
	if err != nil {
		quoted = nil
	}
	for _, spelling := range []string{credential, slashes, strings.Trim(string(quoted), `"`),
		url.QueryEscape(credential), url.PathEscape(credential), html.EscapeString(credential)} {
		known := func(b []byte) bool { return string(b) == spelling }
		if spelling != "" && !slices.ContainsFunc(s, known) {
			s = append(s, []byte(spelling))
		}
	}
	// The longest first: a shorter one may be the beginning of a longer one.
	slices.SortStableFunc(s, func(a, b []byte) int { return len(b) - len(a) })
	return s
}

// in reports whether a text has one of them.
func (s secrets) in(text string) bool {
	return slices.ContainsFunc(s, func(b []byte) bool { return strings.Contains(text, string(b)) })
}

// hide replaces each of them in b, in place.
func (s secrets) hide(b []byte) {
	for _, secret := range s {
		for at := 0; ; {
			i := bytes.Index(b[at:], secret)
			if i < 0 {
				break
			}
			at += i
			for n := range secret {
				b[at+n] = '*'
			}
			at += len(secret)
		}
	}
}

// begun is how many bytes at the end of b may be the beginning of one of them.
func (s secrets) begun(b []byte) int {
	longest := 0
	for _, secret := range s {
		for n := min(len(secret)-1, len(b)); n > longest; n-- {
			if b[len(b)-n] == secret[0] && bytes.HasPrefix(secret, b[len(b)-n:]) {
				longest = n
			}
		}
	}
	return longest
}

// readable reports whether a credential can be seen in the body of an answer. Of which type it
// is says nothing: ranges of a text are multipart/byteranges, and what echoes may lie.
func readable(h http.Header) bool {
	return !slices.ContainsFunc(h["Content-Encoding"], func(coding string) bool {
		return coding != "" && !strings.EqualFold(strings.TrimSpace(coding), "identity")
	})
}

// asked reports whether a request names the codings of its answer (RFC 9110 §12.5.3), or the
// answer has none.
func asked(request, answer http.Header) bool {
	var named []string
	for option := range strings.SplitSeq(strings.Join(request["Accept-Encoding"], ","), ",") {
		coding, weight, _ := strings.Cut(strings.ToLower(option), ";")
		if q, ok := strings.CutPrefix(strings.TrimSpace(weight), "q="); !ok || strings.Trim(q, "0.") != "" {
			named = append(named, strings.TrimSpace(coding))
		}
	}
	for coding := range strings.SplitSeq(strings.Join(answer["Content-Encoding"], ","), ",") {
		coding = strings.ToLower(strings.TrimSpace(coding))
		if coding != "" && coding != "identity" && !slices.Contains(named, coding) && !slices.Contains(named, "*") {
			return false
		}
	}
	return true
}

// judgedBody is a body without the secrets, and with our addresses in the place of those of
// links, if it has any. It passes on what it reads at once, but for the bytes at the end that
// may be the beginning of a secret.
type judgedBody struct {
	from    io.ReadCloser
	secrets secrets
	links   *linkRewriter // nil: none
	held    []byte        // read, and not judged
	ready   []byte        // judged, and not passed on
	err     error         // of from, when ready is empty
}

func (b *judgedBody) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(b.ready) == 0 {
		if b.err != nil {
			return 0, b.err
		}
		b.fill(len(p))
	}
	n := copy(p, b.ready)
	b.ready = b.ready[n:]
	return n, nil
}

// fill reads once more, and judges.
func (b *judgedBody) fill(size int) {
	b.held = slices.Grow(b.held, size)
	n, err := b.from.Read(b.held[len(b.held) : len(b.held)+size])
	b.held, b.err = b.held[:len(b.held)+n], err
	b.secrets.hide(b.held)
	judged := len(b.held)
	if !errors.Is(err, io.EOF) {
		judged -= b.secrets.begun(b.held) // what broke off ends before what may have been a secret
	}
	b.ready, b.held = b.held[:judged], b.held[judged:]
	if b.links != nil {
		b.ready = b.links.rewrite(nil, b.ready)
		if err != nil {
			b.ready = b.links.end(b.ready)
		}
	}
}

func (b *judgedBody) Close() error { return b.from.Close() }
