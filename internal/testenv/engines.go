package testenv

import (
	"net/http"
	"strings"
)

// Engine is a kind of browser. Each sends other headers with its requests.
type Engine string

// The engines whose requests were recorded, in November 2026: Firefox 153 ESR,
// WebKitGTK 2.50 and Chromium 156.
const (
	Firefox  Engine = "Firefox"
	WebKit   Engine = "WebKit"
	Chromium Engine = "Chromium"
)

// Engines returns all of them.
func Engines() []Engine { return []Engine{Firefox, WebKit, Chromium} }

// Doing is what a browser does when it sends a request.
type Doing struct {
	What   string
	Method string
	// Worker: a service worker passes the request on unchanged, with
	// e.respondWith(fetch(e.request)).
	Worker bool

	firefox, webkit, chromium string // "" where the engine sends nothing
}

// Doings lists what the engines were seen to send. Each cell has Sec-Fetch-Site, -Mode,
// -Dest and -User ("-" if one is not sent), and words for other headers: html is an Accept
// header that names text/html, any is "*/*", uir is Upgrade-Insecure-Requests.
func Doings() []Doing {
	const (
		typed    = "none navigate document ?1 html uir"
		quiet    = "none navigate document - html uir"
		click    = "same-origin navigate document ?1 html uir"
		script   = "same-origin navigate document - html uir"
		iframe   = "same-origin navigate iframe - html uir"
		fetched  = "same-origin cors empty - any"
		sent     = "same-origin no-cors empty - any origin"
		code     = "same-origin no-cors script - any"
		worker   = "same-origin same-origin serviceworker - any service-worker"
		passedFF = "same-origin same-origin empty - html uir"
		passed   = "same-origin navigate empty - html uir"
		passedWK = "same-origin navigate empty - html"
		foreign  = "cross-site navigate document ?1 html uir"
	)
	return []Doing{
		{"an address is typed", "GET", false, typed, quiet, typed},
		{"a page is reloaded", "GET", false, quiet, quiet, typed},
		{"a link is clicked", "GET", false, click, script, click},
		{"a script sets location", "GET", false, script, script, script},
		{"a form is sent by a click", "POST", false, click + " origin", script + " origin", click + " origin"},
		{"a form is sent by a script", "POST", false, script + " origin", script + " origin", script + " origin"},
		{"a frame is loaded", "GET", false, iframe, iframe, iframe},
		{"an object is loaded", "GET", false, "same-origin navigate object - any", iframe,
			"same-origin navigate object - html uir"},
		{"a script fetches", "GET", false, fetched, fetched, fetched},
		{"a beacon is sent", "POST", false, sent, sent, sent},
		{"a page is prefetched by a link", "GET", false, "same-origin no-cors empty - html prefetch", "",
			"same-origin no-cors empty - html prefetch"},
		{"a page is prefetched by a rule", "GET", false, "", "", "none navigate document - html uir prefetch"},
		{"a page is prerendered by a rule", "GET", false, "", "", "none navigate document - html uir prerender"},
		{"a script is preloaded", "GET", false, code, code, code},
		{"a file is downloaded by a link", "GET", false, script, "- - - - html", "same-origin navigate empty -"},
		{"a service worker is fetched", "GET", false, worker, worker, worker},
		{"a page is opened", "GET", true, passedFF, passedWK, passed},
		{"a form is sent", "POST", true, passedFF + " origin", passedWK + " origin", passed + " origin"},
		{"a frame is loaded", "GET", true, passedFF, passedWK, passed},
		{"a script fetches", "GET", true, fetched, fetched, fetched},
		{"an image is loaded", "GET", true, "same-origin no-cors empty - any", "same-origin no-cors empty - any",
			"same-origin no-cors empty - any"},
		{"a link of another site is clicked", "GET", false, foreign, "cross-site navigate document - html uir",
			foreign},
		{"a form of another site is sent", "POST", false, foreign + " elsewhere",
			"cross-site navigate document - html uir elsewhere", foreign + " elsewhere"},
		{"a link of another site is clicked", "GET", true, "", "", "cross-site navigate empty - html uir"},
		{"a frame of another site is loaded", "GET", false, "cross-site navigate iframe - html uir",
			"cross-site navigate iframe - html uir", ""},
	}
}

// Header returns what e sends when it does d to a page of origin; false if it sends no
// request.
func (d Doing) Header(e Engine, origin string) (http.Header, bool) {
	cell := map[Engine]string{Firefox: d.firefox, WebKit: d.webkit, Chromium: d.chromium}[e]
	if cell == "" {
		return nil, false
	}
	h := http.Header{}
	said := strings.Fields(cell)
	for i, name := range []string{"Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest", "Sec-Fetch-User"} {
		if said[i] != "-" {
			h.Set(name, said[i])
		}
	}
	for _, more := range said[4:] {
		switch more {
		case "html":
			h.Set("Accept", e.pageAccept())
		case "any":
			h.Set("Accept", "*/*")
		case "uir":
			h.Set("Upgrade-Insecure-Requests", "1")
		case "origin":
			h.Set("Origin", origin)
		case "elsewhere":
			h.Set("Origin", "https://elsewhere.example")
		case "prefetch":
			h.Set("Sec-Purpose", "prefetch")
		case "prerender":
			h.Set("Sec-Purpose", "prefetch;prerender")
		case "service-worker":
			h.Set("Service-Worker", "script")
		}
	}
	return h, true
}

func (e Engine) pageAccept() string {
	if e == Chromium {
		return "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8"
	}
	return "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
}
