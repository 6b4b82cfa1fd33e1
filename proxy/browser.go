package proxy

import (
	"net/http"
	"strings"
)

// asker is what kind of program waits for the answer. It decides between a
// redirect, a page and JSON, and nothing about access.
type asker int

const (
	program    asker = iota // fetch, XHR, curl, an image tag: a redirect to a sign-in would break it
	navigation              // a page is being opened: it can be sent to a sign-in
	form                    // a form is being sent: a redirect would lose it
)

// whoAsks goes by what browsers say of themselves (Fetch Metadata) and falls
// back to habits of older ones. A login is only ever started for a navigation:
// a page that loads thirty pieces without a session must not begin thirty logins.
func whoAsks(r *http.Request) asker {
	safe := r.Method == http.MethodGet || r.Method == http.MethodHead
	if isPrefetch(r) || r.Header.Get("Upgrade") != "" {
		return program
	}
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" {
		if mode != "navigate" || !opensPage(r.Header.Get("Sec-Fetch-Dest")) {
			return program
		}
	} else if r.Header.Get("X-Requested-With") != "" || !acceptsHTML(r) {
		return program
	}
	switch {
	case safe:
		return navigation
	case r.Method == http.MethodPost:
		return form
	}
	return program
}

// isPrefetch: nobody looks yet, and perhaps nobody ever will. Older browsers say
// Purpose.
func isPrefetch(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Sec-Purpose"), "prefetch") || r.Header.Get("Purpose") == "prefetch"
}

// opensPage accepts frames: a framed page whose session ended gets a new one
// when its provider remembers the person.
func opensPage(dest string) bool {
	switch dest {
	case "", "document", "iframe", "frame":
		return true
	}
	return false
}

// acceptsHTML needs the type by name: "*/*" is what programs send.
func acceptsHTML(r *http.Request) bool {
	for _, line := range r.Header["Accept"] {
		for part := range strings.SplitSeq(line, ",") {
			kind, _, _ := strings.Cut(part, ";")
			kind = strings.ToLower(strings.TrimSpace(kind))
			if kind == "text/html" || kind == "application/xhtml+xml" {
				return true
			}
		}
	}
	return false
}

// clickedHere reports whether a navigation comes from a link of origin's pages.
// An address that was typed, or clicked in a mail, says "none".
func clickedHere(r *http.Request, origin string) bool {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" {
		return site == "same-origin"
	}
	return strings.HasPrefix(r.Header.Get("Referer"), origin+"/")
}

// fromOurPages reports whether an unsafe request comes from a page of origin, or
// from no browser at all. http.CrossOriginProtection would let an http: Origin
// of our own host pass where Sec-Fetch-Site is missing; comparing the whole
// origin does not (security.md 78, C90).
func fromOurPages(r *http.Request, origin string) bool {
	if from := r.Header["Origin"]; len(from) > 0 && (len(from) > 1 || from[0] != origin) {
		return false
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return true
	}
	return false
}
