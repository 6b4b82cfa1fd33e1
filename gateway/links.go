package gateway

import (
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/sallyport-proxy/sallyport/internal/hostname"
)

// linkRewriter puts our address in the place of the third party's where an answer of JSON
// says where more of it is: an app that went there would go around us, with what proves the
// app (https://learn.microsoft.com/graph/paging). It changes strings that are members of the
// outermost object, have one of the names, and begin with the origin of the API; and of those
// only ones that we would pass on, so that none leads to another address of ours. All else
// stays as it is, byte for byte, and so does what is no JSON, from where that shows. It reads
// byte by byte, and keeps nothing but the address that it is reading.
type linkRewriter struct {
	names     []string
	from      string // the origin: "https://graph.microsoft.com"
	to        string // ours: "https://gate.test:4184/gateway/outlook"
	connector string

	state  linkState
	text   jsonText
	depth  int    // of objects and lists within the member
	name   []byte // of the member, no longer than the longest of names, and one
	held   []byte // of an address, as it came; not passed on
	read   []byte // the same, without escapes
	behind int    // where in held the origin ends; 0: it is not known yet
}

type linkState int

const (
	beforeObject linkState = iota
	beforeFirst            // in the object: a name, or its end
	beforeName
	inName
	beforeColon
	beforeValue
	inLink // a string that may be an address
	inText // another one
	inScalar
	inNested // an object or a list
	inNestedText
	behindValue
	passThrough // nothing is changed any more
)

// rewrite appends what becomes of in to out.
func (l *linkRewriter) rewrite(out, in []byte) []byte {
	out = slices.Grow(out, len(in)+len(l.to))
	for i, b := range in {
		if l.state == passThrough {
			return append(out, in[i:]...)
		}
		if l.state == inLink {
			out = l.readLink(out, b)
			continue
		}
		out = append(out, b)
		l.follow(b)
	}
	return out
}

// end appends what is held: the answer is over, or broke off.
func (l *linkRewriter) end(out []byte) []byte {
	out = append(out, l.held...)
	l.held, l.state = nil, passThrough
	return out
}

// follow takes a byte that is passed on.
func (l *linkRewriter) follow(b byte) {
	switch l.state {
	case inName:
		switch c := l.text.next(b); {
		case c == textEnd:
			l.state = beforeColon
		case c == textBad:
			l.state = passThrough
		case c >= 0 && len(l.name) < cap(l.name):
			l.name = append(l.name, asciiOf(c))
		}
	case inText, inNestedText:
		switch c := l.text.next(b); {
		case c == textEnd && l.state == inText:
			l.state = behindValue
		case c == textEnd:
			l.state = inNested
		case c == textBad:
			l.state = passThrough
		}
	case inNested:
		switch b {
		case '"':
			l.state = inNestedText
		case '{', '[':
			l.depth++
		case '}', ']':
			if l.depth--; l.depth == 0 {
				l.state = behindValue
			}
		}
	case inScalar:
		if strings.IndexByte(" \t\r\n,}", b) >= 0 {
			l.state = behindValue
			l.between(b)
		} else if strings.IndexByte(`"{[]:`, b) >= 0 {
			l.state = passThrough
		}
	default:
		l.between(b)
	}
}

// between takes a byte that is in none of the values.
func (l *linkRewriter) between(b byte) {
	switch {
	case b == ' ', b == '\t', b == '\r', b == '\n':
	case l.state == beforeObject && b == '{':
		l.state = beforeFirst
	case (l.state == beforeFirst || l.state == beforeName) && b == '"':
		l.state, l.name = inName, l.emptyName()
	case l.state == beforeColon && b == ':':
		l.state = beforeValue
	case l.state == beforeValue && b == '"':
		l.state = inText
		if slices.Contains(l.names, string(l.name)) {
			l.state, l.held, l.read, l.behind = inLink, l.held[:0], l.read[:0], 0
		}
	case l.state == beforeValue && (b == '{' || b == '['):
		l.state, l.depth = inNested, 1
	case l.state == beforeValue && strings.IndexByte(",:}]", b) < 0:
		l.state = inScalar
	case l.state == behindValue && b == ',':
		l.state = beforeName
	default: // the end of the object, or no JSON
		l.state = passThrough
	}
}

func (l *linkRewriter) emptyName() []byte {
	if l.name == nil {
		longest := 0
		for _, name := range l.names {
			longest = max(longest, len(name))
		}
		l.name = make([]byte, 0, longest+1)
	}
	return l.name[:0]
}

// readLink takes a byte of a string that may be an address.
func (l *linkRewriter) readLink(out []byte, b byte) []byte {
	l.held = append(l.held, b)
	c := l.text.next(b)
	next := inText
	switch {
	case c == textPart:
		return out
	case c == textEnd:
		next = behindValue
		if l.behind > 0 && l.passes(string(l.read[len(l.from):])) {
			out = append(append(out, l.to...), l.held[l.behind:]...)
			l.held = l.held[:0]
		}
	case c == textBad:
		next = passThrough
	default:
		l.read = append(l.read, asciiOf(c))
		if l.behind == 0 && string(l.read) == l.from {
			l.behind = len(l.held)
		}
		if l.behind > 0 && len(l.read) < len(l.from)+maxTarget || strings.HasPrefix(l.from, string(l.read)) {
			return out
		}
	}
	l.state = next
	out = append(out, l.held...)
	l.held = l.held[:0]
	return out
}

// passes reports whether an address that an app follows to us would be one below the
// connector's: a program that resolves dot segments must not be led elsewhere.
func (l *linkRewriter) passes(rest string) bool {
	if !strings.HasPrefix(rest, "/") {
		return false
	}
	_, err := parseTarget(gatewayPrefix + l.connector + rest)
	return err == nil
}

// jsonText reads the characters of a string in JSON (RFC 8259 §7), behind its first quote.
type jsonText struct {
	escape int // 0: none; 1: behind its backslash; 2 to 5: before a digit of \u
	code   rune
}

// What next returns instead of a character.
const (
	textEnd  rune = -1 - iota // the last quote
	textPart                  // in the middle of an escape
	textBad                   // no string of JSON
)

func (j *jsonText) next(b byte) rune {
	switch {
	case j.escape == 0 && b == '"':
		return textEnd
	case j.escape == 0 && b < ' ':
		return textBad
	case j.escape == 0 && b != '\\':
		return rune(b)
	case j.escape == 0:
		j.escape = 1
		return textPart
	case j.escape == 1 && b == 'u':
		j.escape, j.code = 2, 0
		return textPart
	case j.escape == 1:
		j.escape = 0
		if i := strings.IndexByte(`"\/bfnrt`, b); i >= 0 {
			return rune("\"\\/\b\f\n\r\t"[i])
		}
		return textBad
	}
	digit := strings.IndexByte("0123456789abcdefABCDEF", b)
	if digit < 0 {
		return textBad
	}
	if digit > 15 {
		digit -= 6
	}
	j.code = j.code<<4 | rune(digit)
	if j.escape++; j.escape <= 5 {
		return textPart
	}
	j.escape = 0
	return j.code
}

// asciiOf is a character, if it is one of ASCII, else one that is in no name and no address.
func asciiOf(c rune) byte {
	if c > 0x7e {
		return 0x7f
	}
	return byte(c)
}

// links is what rewrites the body of an answer; nil: it stays as it is.
func (f *forward) links(res *http.Response) *linkRewriter {
	names := f.offered.About.PageLinks
	kind, _, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	isJSON := err == nil && kind == "application/json" && len(res.Header["Content-Type"]) == 1 && readable(res.Header)
	whole := res.StatusCode/100 == 2 && res.StatusCode != http.StatusPartialContent
	if len(names) == 0 || !isJSON || !whole {
		return nil
	}
	at := reachedAt(f.in)
	if at == "" {
		return nil
	}
	return &linkRewriter{names: names, from: strings.TrimSuffix(f.loan.Origin, "/"), connector: f.target.connector,
		to: at + gatewayPrefix + f.target.connector}
}

// placeLinks puts our address in the place of the third party's in the header Link (RFC 8288), in
// which some say where the next page is (https://docs.github.com/rest/using-the-rest-api): of
// those that we would pass on. Programs follow them by themselves, as addresses in a body.
func (f *forward) placeLinks(h http.Header) {
	if len(h["Link"]) == 0 {
		return
	}
	at := reachedAt(f.in)
	base, err := f.url()
	if at == "" || err != nil {
		return
	}
	place := func(target string) string { return f.placeLink(at, &base, target) }
	lines := make([]string, 0, len(h["Link"]))
	for _, line := range h["Link"] {
		lines = append(lines, rewriteTargets(line, place))
	}
	h["Link"] = lines
}

// placeLink is what stands for a link in an answer to base, for an app that reached us at at.
// One without a host would be read as an address of ours, so it becomes absolute.
func (f *forward) placeLink(at string, base *url.URL, target string) string {
	to, err := url.Parse(target)
	if err != nil || to.Opaque != "" {
		return target
	}
	absolute := target
	if !to.IsAbs() {
		absolute = base.ResolveReference(to).String()
	}
	ours := gatewayPrefix + f.target.connector
	rest, theirs := strings.CutPrefix(absolute, strings.TrimSuffix(f.loan.Origin, "/"))
	if path, _, _ := strings.Cut(rest, "#"); theirs && strings.HasPrefix(rest, "/") {
		if _, err := parseTarget(ours + path); err == nil {
			return at + ours + rest
		}
	}
	return absolute
}

// rewriteTargets returns a line of Link with other targets between its angle brackets. What is in
// quotes is text.
func rewriteTargets(line string, rewrite func(string) string) string {
	var out strings.Builder
	for quoted := false; line != ""; {
		end := strings.IndexAny(line, `<"\`)
		if end < 0 {
			break
		}
		out.WriteString(line[:end])
		sign := line[end]
		line = line[end+1:]
		out.WriteByte(sign)
		switch {
		case sign == '"':
			quoted = !quoted
		case sign == '\\' && quoted && line != "":
			out.WriteByte(line[0])
			line = line[1:]
		case sign == '<' && !quoted:
			target, rest, ok := strings.Cut(line, ">")
			if !ok {
				return out.String() + line
			}
			out.WriteString(rewrite(target) + ">")
			line = rest
		}
	}
	return out.String() + line
}

// ofBytes are headers that say something of the very bytes of a body.
var ofBytes = []string{"Content-Length", "Accept-Ranges", "Content-Md5", "Digest", "Content-Digest", "Repr-Digest"}

// unlike takes out of an answer what would say that its bytes are those of the third party.
// Its ETag becomes a weak one: the bytes are others, what they mean is the same (RFC 9110
// §8.8.1).
func unlike(res *http.Response) {
	res.ContentLength = -1
	for _, name := range ofBytes {
		delete(res.Header, name)
	}
	weaken(res.Header)
}

func weaken(h http.Header) {
	if tag := h.Get("Etag"); strings.HasPrefix(tag, `"`) {
		h["Etag"] = []string{"W/" + tag}
	}
}

// reachedAt is the address at which an app reached us, for addresses that lead it back, without
// a slash at its end; "": it is not known. An app sends what proves it and a person there, so
// the Host header alone does not count: who can have a program send one of theirs would get
// that. A name counts where it was asked for in the handshake (RFC 6066 §3), because the
// certificate was for it; without TLS we are on loopback, and "localhost" counts. Else it is
// the address of the connection itself. Over a unix socket no name leads anywhere.
func reachedAt(r *http.Request) string {
	name, port := splitHost(r.Host)
	if _, onSocket := r.Context().Value(socketKey{}).(string); onSocket {
		if name == "localhost" {
			return "http://" + joinHost(name, port)
		}
		return "http://localhost"
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return ""
	}
	at, err := netip.ParseAddrPort(local.String())
	if err != nil {
		return ""
	}
	_, localPort := splitHost(local.String())
	own := joinHost(at.Addr().Unmap().WithZone("").String(), localPort)
	if r.TLS == nil {
		if name == "localhost" && port == localPort {
			own = joinHost(name, port)
		}
		return "http://" + own
	}
	switch sent := strings.ToLower(r.TLS.ServerName); {
	case !hostname.IsDomain(sent):
	case sent == name:
		own = joinHost(name, port)
	default:
		own = joinHost(sent, localPort)
	}
	return "https://" + own
}

// splitHost splits a Host header. A port that is none is left out, and so is a name that is
// no domain.
func splitHost(host string) (name, port string) {
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		name, port = host, ""
	}
	if name = strings.ToLower(name); !hostname.IsDomain(name) {
		name = ""
	}
	if strings.Trim(port, "0123456789") != "" {
		port = ""
	}
	return name, port
}

func joinHost(name, port string) string {
	if port == "" {
		return name
	}
	return net.JoinHostPort(name, port)
}
