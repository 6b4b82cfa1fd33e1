package admission

import (
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/authz"
)

// CORS says which pages of other sites may read what is answered on a route, and what
// they may ask for (Fetch §3.2). Where a route has it, the app has no say in that.
type CORS struct {
	Origins []string // exactly as browsers write them
	Methods []string // beside GET, HEAD and POST, which browsers never ask about
	Headers []string
	MaxAge  time.Duration // how long browsers may remember the answer to a preflight
	// Credentials lets browsers send cookies along, where SameSite does not keep them back.
	Credentials bool
}

// isPreflight reports whether a browser asks whether a page may send something. It shows
// no cookie and no token, so no rule could admit it; and whatever it says, it is not for
// the app, to which it would be a request that nobody was asked about.
func (c *CORS) isPreflight(f authz.Facts, h http.Header) bool {
	return c != nil && f.Method == http.MethodOptions && h["Origin"] != nil &&
		h["Access-Control-Request-Method"] != nil
}

// allows reports whether a request says, and says once, that it is from a page of a
// listed origin.
func (c *CORS) allows(h http.Header) bool {
	from := h["Origin"]
	return len(from) == 1 && slices.Contains(c.Origins, from[0])
}

// SetAnswer writes into the header of an answer to the request that had asked what pages
// of other sites may do with it, in the place of what is there. It does nothing for a
// route without CORS (nil).
func (c *CORS) SetAnswer(answer, asked http.Header) {
	if c == nil {
		return
	}
	c.Clean(answer)
	varyByOrigin(answer)
	if !c.allows(asked) {
		return
	}
	answer["Access-Control-Allow-Origin"] = []string{asked["Origin"][0]}
	if c.Credentials {
		answer["Access-Control-Allow-Credentials"] = []string{"true"}
	}
}

// SetPreflight writes the header of the answer to a preflight, whose status is 204. To
// a page of an origin that is not listed it says nothing, which browsers take for no.
func (c *CORS) SetPreflight(answer, asked http.Header) {
	c.SetAnswer(answer, asked)
	if c == nil || !c.allows(asked) {
		return
	}
	if len(c.Methods) > 0 {
		answer["Access-Control-Allow-Methods"] = []string{strings.Join(c.Methods, ", ")}
	}
	if len(c.Headers) > 0 {
		answer["Access-Control-Allow-Headers"] = []string{strings.Join(c.Headers, ", ")}
	}
	answer["Access-Control-Max-Age"] = []string{strconv.Itoa(int(c.MaxAge / time.Second))}
}

// Clean removes what an app says on the subject. It does nothing for a route without
// CORS (nil).
func (c *CORS) Clean(answer http.Header) {
	if c == nil {
		return
	}
	for name := range answer {
		if len(name) >= len(corsHeaders) && strings.EqualFold(name[:len(corsHeaders)], corsHeaders) {
			delete(answer, name)
		}
	}
}

const corsHeaders = "Access-Control-"

// varyByOrigin keeps a cache from giving the answer for one page to another (Fetch §3.2.8).
func varyByOrigin(h http.Header) {
	for _, line := range h["Vary"] {
		for name := range strings.SplitSeq(line, ",") {
			if name = textproto.TrimString(name); name == "*" || strings.EqualFold(name, "Origin") {
				return
			}
		}
	}
	h["Vary"] = append(slices.Clip(h["Vary"]), "Origin")
}
