package testenv

import (
	"bytes"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// Browser opens pages as a person does: it keeps cookies, follows redirects and sends the
// Sec-Fetch-* headers of each kind of request. It runs no scripts. The test fails if there
// is no answer; any answer, also an error, is returned.
//
// Its cookie jar (net/http/cookiejar) never sends a Secure cookie over http, does not know
// SameSite, and treats names that begin with __Host- like any other.
type Browser struct {
	MaxHops int         // redirects followed before giving up; 10 by default
	Header  http.Header // sent with every request, in place of a browser's own
	Engine  Engine      // whose headers it sends; Chromium by default
	Worker  string      // an origin whose service worker passes every request on unchanged; "": none
	Frame   bool        // pages are opened in a frame, not in a window

	tb     TB
	client *http.Client
	jar    *cookiejar.Jar
}

// Hop is one answer on the way to a page.
type Hop struct {
	Method    string
	URL       *url.URL
	Request   http.Header // as sent, cookies included
	Status    int
	Header    http.Header
	SetCookie []*http.Cookie
	Body      string
}

// Page is the page that was reached in the end, with all answers on the way. The last hop is
// the page.
type Page struct {
	Hop
	Hops []Hop
}

// NewBrowser returns a browser without cookies. transport may be nil, or trust
// the certificate of a test server.
func NewBrowser(tb TB, transport http.RoundTripper) *Browser {
	tb.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		tb.Fatalf("make a cookie jar: %v", err)
	}
	if transport == nil {
		own := &http.Transport{}
		tb.Cleanup(own.CloseIdleConnections)
		transport = own
	}
	return &Browser{MaxHops: 10, Header: http.Header{}, Engine: Chromium, tb: tb, jar: jar,
		client: &http.Client{Transport: transport, Jar: jar, Timeout: time.Minute,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// Open goes to a URL as if it were typed, and follows redirects.
func (b *Browser) Open(target string) Page {
	b.tb.Helper()
	u, err := url.Parse(target)
	if err != nil {
		b.tb.Fatalf("open %s: %v", target, err)
	}
	return b.walk(visit{method: http.MethodGet, url: u})
}

// Click follows a link of page to href, which may be relative.
func (b *Browser) Click(page Page, href string) Page {
	b.tb.Helper()
	return b.walk(visit{method: http.MethodGet, url: b.resolve(page, href), from: page.URL})
}

// Post submits a form of page to action, which may be relative or empty.
func (b *Browser) Post(page Page, action string, form url.Values) Page {
	b.tb.Helper()
	return b.walk(visit{method: http.MethodPost, url: b.resolve(page, action), from: page.URL, form: form})
}

// Submit presses the button with this name and value, and sends the hidden fields of its
// form.
func (b *Browser) Submit(page Page, name, value string) Page {
	b.tb.Helper()
	for _, f := range forms(page.Body) {
		for _, button := range f.buttons {
			if button["name"] != name || button["value"] != value {
				continue
			}
			fields := f.hidden
			if name != "" {
				fields.Set(name, value)
			}
			if f.method == "post" {
				return b.Post(page, f.action, fields)
			}
			u := b.resolve(page, f.action)
			u.RawQuery = fields.Encode()
			return b.walk(visit{method: http.MethodGet, url: u, from: page.URL})
		}
	}
	b.tb.Fatalf("%s has no button %s=%s:\n%s", page.URL, name, value, page.Body)
	return Page{}
}

// Choose follows the link of page that sends this value of the query parameter with this name.
func (b *Browser) Choose(page Page, name, value string) Page {
	b.tb.Helper()
	for _, link := range regexp.MustCompile(`<a\b[^>]*\bhref="([^"]*)"`).FindAllStringSubmatch(page.Body, -1) {
		href := html.UnescapeString(link[1])
		if u, err := url.Parse(href); err == nil && u.Query().Get(name) == value {
			return b.Click(page, href)
		}
	}
	b.tb.Fatalf("%s has no link with %s=%s:\n%s", page.URL, name, value, page.Body)
	return Page{}
}

// SignIn chooses a person on the demo provider's page and goes where that leads.
func (b *Browser) SignIn(page Page, personKey string) Page {
	b.tb.Helper()
	return b.Submit(page, "person", personKey)
}

// Cookies returns what the browser would send to target.
func (b *Browser) Cookies(target string) []*http.Cookie {
	b.tb.Helper()
	u, err := url.Parse(target)
	if err != nil {
		b.tb.Fatalf("cookies of %s: %v", target, err)
	}
	return b.jar.Cookies(u)
}

// SetCookies puts cookies into the jar as if target had set them.
func (b *Browser) SetCookies(target string, cookies ...*http.Cookie) {
	b.tb.Helper()
	u, err := url.Parse(target)
	if err != nil {
		b.tb.Fatalf("cookies of %s: %v", target, err)
	}
	b.jar.SetCookies(u, cookies)
}

func (b *Browser) resolve(page Page, ref string) *url.URL {
	b.tb.Helper()
	if ref == "" { // a form without action goes to its own page, query and all
		u := *page.URL
		return &u
	}
	u, err := page.URL.Parse(ref)
	if err != nil {
		b.tb.Fatalf("resolve %s: %v", ref, err)
	}
	return u
}

// visit is the state of one navigation.
type visit struct {
	method string
	url    *url.URL
	from   *url.URL // the page that started it; nil if typed
	form   url.Values
	site   string // Sec-Fetch-Site so far

	tainted bool // a redirect led from one foreign origin to another
}

func (b *Browser) walk(v visit) Page {
	b.tb.Helper()
	var hops []Hop
	for {
		hop, err := b.send(&v)
		if err != nil {
			b.tb.Fatalf("%s %s: %v", v.method, v.url, err)
		}
		hops = append(hops, hop)
		next := hop.Header.Get("Location")
		if hop.Status < 300 || hop.Status > 399 || next == "" || len(hops) > b.MaxHops {
			return Page{hop, hops}
		}
		to, err := v.url.Parse(next)
		if err != nil {
			b.tb.Fatalf("follow %q: %v", next, err)
		}
		v.tainted = v.tainted || (v.from != nil && v.url.Host != to.Host && v.url.Host != v.from.Host)
		v.url = to
		if hop.Status != http.StatusTemporaryRedirect && hop.Status != http.StatusPermanentRedirect {
			v.method, v.form = http.MethodGet, nil // Fetch §4.4, HTTP-redirect fetch
		}
	}
}

func (b *Browser) send(v *visit) (Hop, error) {
	req, err := http.NewRequest(v.method, v.url.String(), strings.NewReader(v.form.Encode()))
	if err != nil {
		return Hop{}, err
	}
	b.dress(req, v)
	res, err := b.client.Do(req)
	if err != nil {
		return Hop{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 8<<20))
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return Hop{}, fmt.Errorf("read the answer: %w", err)
	}
	return Hop{Method: v.method, URL: v.url, Request: req.Header, Status: res.StatusCode, Header: res.Header,
		SetCookie: res.Cookies(), Body: string(bytes.ToValidUTF8(body, []byte("?")))}, nil
}

// dress adds the headers that a browser sends with a navigation (W3C Fetch Metadata §2, and
// what Doings has recorded).
func (b *Browser) dress(req *http.Request, v *visit) {
	v.site = siteOf(v)
	mode, dest := "navigate", "document"
	if b.Frame {
		dest = "iframe"
	}
	worker := b.Worker != "" && b.Worker == v.url.Scheme+"://"+v.url.Host
	if worker {
		dest = "empty"
		if b.Engine == Firefox {
			mode = "same-origin"
		}
	}
	h := req.Header
	h.Set("Accept", b.Engine.pageAccept())
	h.Set("User-Agent", "Mozilla/5.0 (testenv)")
	h.Set("Upgrade-Insecure-Requests", "1")
	h.Set("Sec-Fetch-Site", v.site)
	h.Set("Sec-Fetch-Mode", mode)
	h.Set("Sec-Fetch-Dest", dest)
	if b.Engine != WebKit && !b.Frame && !worker { // it is for what somebody has clicked or typed
		h.Set("Sec-Fetch-User", "?1")
	}
	if v.method == http.MethodPost {
		h.Set("Content-Type", "application/x-www-form-urlencoded")
		h.Set("Origin", originOf(v))
	}
	if worker && v.from != nil && v.from.Host == v.url.Host {
		h.Set("Referer", v.from.String())
	}
	for name, values := range b.Header {
		h[name] = values
	}
}

// siteOf returns Sec-Fetch-Site for the whole navigation: once a redirect has left the site,
// it stays cross-site.
func siteOf(v *visit) string {
	switch {
	case v.from == nil:
		return "none"
	case v.site == "cross-site", v.from.Scheme != v.url.Scheme, v.from.Hostname() != v.url.Hostname():
		return "cross-site" // rougher than a browser: subdomains count as other sites
	case v.site == "same-site", v.from.Host != v.url.Host:
		return "same-site"
	}
	return "same-origin"
}

// originOf returns the Origin of a POST: that of the page, or "null" after a redirect through
// a third party (Fetch §4.4).
func originOf(v *visit) string {
	if v.from == nil || v.tainted {
		return "null"
	}
	return v.from.Scheme + "://" + v.from.Host
}

type form struct {
	method, action string
	hidden         url.Values
	buttons        []map[string]string
}

// forms finds the forms of a page. It can read the HTML that we write, not all of HTML.
func forms(page string) []form {
	var out []form
	for _, m := range regexp.MustCompile(`(?s)<form\b([^>]*)>(.*?)</form>`).FindAllStringSubmatch(page, -1) {
		a := attributes(m[1])
		f := form{method: strings.ToLower(a["method"]), action: a["action"], hidden: url.Values{}}
		for _, field := range regexp.MustCompile(`<(input|button)\b([^>]*)>`).FindAllStringSubmatch(m[2], -1) {
			a := attributes(field[2])
			if field[1] == "input" && a["type"] == "hidden" {
				f.hidden.Add(a["name"], a["value"])
			} else if field[1] == "button" || a["type"] == "submit" {
				f.buttons = append(f.buttons, a)
			}
		}
		out = append(out, f)
	}
	return out
}

func attributes(tag string) map[string]string {
	out := map[string]string{}
	for _, m := range regexp.MustCompile(`([a-zA-Z-]+)\s*=\s*"([^"]*)"`).FindAllStringSubmatch(tag, -1) {
		out[strings.ToLower(m[1])] = html.UnescapeString(m[2])
	}
	return out
}
