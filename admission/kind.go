package admission

import (
	"net/http"
	"strings"
)

// Kind is what kind of program waits for the answer. It decides between a
// redirect, a page and JSON, and nothing about access.
type Kind int

const (
	Program    Kind = iota // fetch, XHR, curl, an image tag: a redirect to a sign-in would break it
	Navigation             // a page is being opened: unless it is in a frame, it can be sent to a sign-in
	Form                   // a form is being sent: a redirect would lose it
)

// KindOf goes by what browsers say of themselves (Fetch Metadata) and falls
// back to habits of older ones. A login is only ever started for a navigation:
// a page that loads thirty pieces without a session must not begin thirty logins.
func KindOf(r *http.Request) Kind {
	safe := r.Method == http.MethodGet || r.Method == http.MethodHead
	if isPrefetch(r) || r.Header.Get("Upgrade") != "" || !opensPage(r) {
		return Program
	}
	switch {
	case safe:
		return Navigation
	case r.Method == http.MethodPost:
		return Form
	}
	return Program
}

// opensPage reports whether the answer will be shown as a page, in a window or
// in a frame.
//
// Where a service worker passes a page's request on, fetch(e.request), browsers
// say "empty" instead of "document" or "iframe" (Fetch §4.6), and Firefox says
// "same-origin" instead of "navigate". The Accept header stays the page's, so it
// tells such a request from what scripts fetch. It also tells a page from a file:
// for <a download> Chromium says "navigate" and "empty" too, and accepts anything.
func opensPage(r *http.Request) bool {
	mode, dest := r.Header.Get("Sec-Fetch-Mode"), r.Header.Get("Sec-Fetch-Dest")
	switch {
	case mode == "navigate" && dest == "document":
		return true
	case mode == "", // a browser from before 2023, or http without TLS
		mode == "navigate" && (dest == "" || dest == "empty" || isFrame(dest)),
		mode == "same-origin" && dest == "empty":
		return acceptsHTML(r) && !sentByScript(r)
	}
	return false
}

// IsDownload reports whether what is answered would be kept as a file, as far as
// browsers tell: Chromium does for <a download>. Firefox says of it what it says
// of a page, and WebKit what an old browser does.
func IsDownload(r *http.Request) bool {
	return r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "empty" && !acceptsHTML(r)
}

// InFrame reports whether a page is opened inside another one. No sign-in begins
// there: most providers refuse to be framed, and Firefox keeps the flow cookie
// from a frame whose sign-in went to another site. Through a service worker a
// frame looks like a window, so there this is false.
func InFrame(r *http.Request) bool { return isFrame(r.Header.Get("Sec-Fetch-Dest")) }

func isFrame(dest string) bool {
	switch dest {
	case "iframe", "frame", "object", "embed", "fencedframe":
		return true
	}
	return false
}

// isPrefetch reports whether a page is loaded before anybody has asked to see
// it. Sec-Purpose is today's header; the others are those of older browsers.
func isPrefetch(r *http.Request) bool {
	if r.Header.Get("Sec-Purpose") != "" {
		return true
	}
	for _, name := range [...]string{"Purpose", "X-Purpose", "X-Moz"} {
		switch strings.ToLower(r.Header.Get(name)) {
		case "prefetch", "prerender", "preview":
			return true
		}
	}
	return false
}

// sentByScript goes by the header that JavaScript libraries add. Old Android
// WebViews send it too, with the name of their app: com.example.app.
func sentByScript(r *http.Request) bool {
	v := r.Header.Get("X-Requested-With")
	return v != "" && !isPackageName(v)
}

// isPackageName: two segments or more of letters, digits and underscores, each
// of which begins with a letter (Android's rule for an application id).
func isPackageName(s string) bool {
	segments := strings.Split(s, ".")
	for _, segment := range segments {
		if segment == "" || !isASCIILetter(segment[0]) {
			return false
		}
		for i := range len(segment) {
			if c := segment[i]; !isASCIILetter(c) && (c < '0' || c > '9') && c != '_' {
				return false
			}
		}
	}
	return len(segments) > 1
}

func isASCIILetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

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

// FromOtherSite reports whether a page of another site has caused r, as far as browsers tell.
// Their cookies with SameSite, ours among them, come along then only where a page is opened.
func FromOtherSite(r *http.Request) bool { return r.Header.Get("Sec-Fetch-Site") == "cross-site" }

// FromPagesOf reports whether an unsafe request comes from a page of origin, or
// from no browser at all. http.CrossOriginProtection would let an http: Origin
// of our own host pass where Sec-Fetch-Site is missing; comparing the whole
// origin does not.
func FromPagesOf(r *http.Request, origin string) bool {
	if from := r.Header["Origin"]; len(from) > 0 && (len(from) > 1 || from[0] != origin) {
		return false
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return !ThroughWorker(r) || strings.HasPrefix(r.Header.Get("Referer"), origin+"/")
	}
	return false
}

// ThroughWorker reports whether a page or form was passed on by a service worker
// of the site, fetch(e.request). Of such a request Firefox and WebKit say
// "Sec-Fetch-Site: same-origin" wherever it came from, and may send the site's own
// Origin with a form of another site. The Referer stays that of the page, except
// that WebKit puts the worker's address there for a page that sends none.
// SameSite holds: no form of another site brings the session cookie.
func ThroughWorker(r *http.Request) bool {
	mode := r.Header.Get("Sec-Fetch-Mode")
	return r.Header.Get("Sec-Fetch-Dest") == "empty" && (mode == "navigate" || mode == "same-origin")
}
