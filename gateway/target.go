package gateway

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/sallyport-proxy/sallyport/authz"
)

// maxTarget is the longest request target that is read, in bytes.
const maxTarget = 16 << 10

// target is what an app asks of a third party. Path and query are as they came.
type target struct {
	connector string
	path      string // with its escapes; it begins with a slash
	query     string
	hasQuery  bool // there is a "?"
}

const gatewayPrefix = "/gateway/"

var errNoTarget = errors.New("the address is /gateway/{connector}/{path}")

// parseTarget reads a request target below /gateway/, from the request line itself: what
// is judged must be what is sent, so nothing is decoded and encoded again.
func parseTarget(raw string) (target, error) {
	rest, ok := strings.CutPrefix(raw, gatewayPrefix)
	if !ok {
		return target{}, errNoTarget
	}
	if len(raw) > maxTarget {
		return target{}, errors.New("the address is too long")
	}
	rest, query, hasQuery := strings.Cut(rest, "?")
	connector, path, ok := strings.Cut(rest, "/")
	if connector == "" || !ok || strings.Trim(connector, connectorLetters) != "" {
		return target{}, errNoTarget
	}
	t := target{connector: connector, path: "/" + path, query: query, hasQuery: hasQuery}
	if err := judgePath(t.path); err != nil {
		return t, err
	}
	return t, nil
}

const (
	connectorLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
	// pathSigns are what a path may have beside letters, digits and escapes (RFC 3986 §3.3).
	pathSigns = "-._~!$&'()*+,;=:@"
	// querySigns are those of a query (RFC 3986 §3.4), with what programs send besides.
	querySigns = pathSigns + "/?[]{}|^`"
)

var (
	errSign   = errors.New("the address has a sign that has to be escaped")
	errEscape = errors.New("the address has an escape that is none")
)

// judgePath refuses what two programs could read in two ways. Escapes stay: an id in a path
// may have %23, %40 and %2F.
func judgePath(path string) error {
	if err := judgeSigns(path, pathSigns+"/"); err != nil {
		return err
	}
	// A slash at the end is a part of the address, which some third parties ask for.
	path = strings.TrimSuffix(path, "/")
	if path == "" {
		return nil
	}
	for segment := range strings.SplitSeq(path[1:], "/") {
		if err := judgeSegment(segment); err != nil {
			return err
		}
	}
	return nil
}

func judgeSigns(text, signs string) error {
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '%':
			if i+2 >= len(text) || !isHex(text[i+1]) || !isHex(text[i+2]) {
				return errEscape
			}
			i += 2
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte(signs, c) < 0:
			return errSign
		}
	}
	return nil
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// mostDecodings is how often a segment is decoded to look for dots: some servers do it
// twice. A segment that still changes then is refused.
const mostDecodings = 4

// judgeSegment looks at a segment as the most careless server would: decoded, perhaps more
// than once, split where a slash or a backslash appears, without path parameters.
func judgeSegment(segment string) error {
	if segment == "" {
		return errors.New("the path has an empty segment")
	}
	for n := 0; ; n++ {
		if err := judgeDecoded(segment); err != nil {
			return err
		}
		next := unescapeLoosely(segment)
		if next == segment {
			return nil
		}
		if n == mostDecodings {
			return errors.New("the path is escaped too often")
		}
		segment = next
	}
}

// unescapeLoosely decodes the escapes of a text and leaves a "%" that begins none, as some
// servers do: another "%" in a segment must not hide its dots.
func unescapeLoosely(text string) string {
	if strings.IndexByte(text, '%') < 0 {
		return text
	}
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] == '%' && i+2 < len(text) && isHex(text[i+1]) && isHex(text[i+2]) {
			b, _ := strconv.ParseUint(text[i+1:i+3], 16, 8) // it has been looked at
			out = append(out, byte(b))
			i += 2
			continue
		}
		out = append(out, text[i])
	}
	return string(out)
}

func judgeDecoded(segment string) error {
	for i := 0; i < len(segment); i++ {
		switch c := segment[i]; {
		case c < ' ' || c == 0x7f:
			return errors.New("the path has a control character")
		case c == '\\':
			return errors.New("the path has a backslash")
		}
	}
	if authz.Overlong([]byte(segment)) {
		return errors.New("the path has an ASCII character in an overlong form of UTF-8")
	}
	for piece := range strings.SplitSeq(segment, "/") {
		name, _, _ := strings.Cut(piece, ";")
		name = strings.TrimSpace(name) // some file systems drop a blank
		if name == "." || name == ".." {
			return errors.New("the path has a dot segment")
		}
	}
	return nil
}

// methodOverrides are names of parameters by which a server takes another method than that
// of the request line.
var methodOverrides = []string{"_method", "x-http-method-override", "x_http_method_override", "x-http-method",
	"$httpmethod", "httpmethod"}

// errParameter says which parameter may not be sent, and why.
type errParameter struct{ name, why string }

func (e *errParameter) Error() string { return fmt.Sprintf("the parameter %s %s", e.name, e.why) }

// judgeQuery refuses a query by which a third party would take a credential, or another
// method. tokens are the names of the former, folded to lower case.
func judgeQuery(query string, tokens []string) error {
	if err := judgeSigns(query, querySigns); err != nil {
		return err
	}
	return judgeForm(query, tokens)
}

// judgeForm judges a query, or a body of the same form.
func judgeForm(form string, tokens []string) error {
	for pair := range strings.FieldsFuncSeq(form, func(r rune) bool { return r == '&' || r == ';' }) {
		raw, _, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(raw)
		if err != nil {
			return errEscape
		}
		if err := judgeName(name, tokens); err != nil {
			return err
		}
	}
	return nil
}

// phpSigns are what PHP makes an underscore of in a name: a bracket where none closes it.
var phpSigns = strings.NewReplacer(".", "_", " ", "_", "[", "_")

// judgeName judges the name of a parameter, as readers of such names fold it: without
// case, without what PHP ignores or makes an underscore of, and before an index.
func judgeName(name string, tokens []string) error {
	if authz.Overlong([]byte(name)) {
		return errEscape
	}
	name, _, _ = strings.Cut(name, "\x00")
	name = strings.ToLower(strings.TrimSpace(name))
	before, _, _ := strings.Cut(name, "[")
	for _, folded := range [...]string{name, before, phpSigns.Replace(name), phpSigns.Replace(before)} {
		// Go's JSON takes "acce\u017f\u017f_token" for access_token, which lower case does not show.
		same := func(known string) bool { return strings.EqualFold(known, folded) }
		switch {
		case slices.ContainsFunc(tokens, same):
			return &errParameter{folded, "is for a credential, and Sallyport sends that"}
		case slices.ContainsFunc(methodOverrides, same):
			return &errParameter{folded, "would be another method than the one that is judged"}
		}
	}
	return nil
}
