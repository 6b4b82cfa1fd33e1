package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	browserlog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/storage"
	"github.com/chromedp/chromedp"
)

// browser is one Chromium for all tests. Each person has a context of their
// own in it, as in a private window: other cookies, another cache.
type browser struct{ ctx context.Context }

func (s *shared) startBrowser() (*browser, error) {
	path, err := findChromium()
	if err != nil {
		return nil, err
	}
	cert, err := s.cert()
	if err != nil {
		return nil, err
	}
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.Headless, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("disable-renderer-backgrounding", true),
		chromedp.Flag("disable-features", "Translate,OptimizationHints,MediaRouter"),
		// These names lead here, and no other name leads anywhere.
		chromedp.Flag("host-resolver-rules", "MAP "+publicHost+" 127.0.0.1, MAP "+sibling+" 127.0.0.1, MAP "+
			otherSite+" 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"),
		chromedp.Flag("ignore-certificate-errors-spki-list", cert.spki),
	}
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium's sandbox refuses to run as root
	}
	allocator, endAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, end := chromedp.NewContext(allocator)
	s.atEnd(endAllocator)
	s.atEnd(end)
	if err := chromedp.Do(ctx); err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	return &browser{ctx}, nil
}

func findChromium() (string, error) {
	for _, name := range []string{os.Getenv("CHROMIUM"), "chromium", "chromium-browser", "google-chrome",
		"google-chrome-stable"} {
		if name == "" {
			continue
		}
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("a browser is %w: install chromium, or name one in CHROMIUM", errMissing)
}

// tab is one page that somebody looks at.
type tab struct {
	t      testing.TB
	ctx    context.Context
	errors *complaints // of all tabs of this person
}

// newPerson opens a browser that has seen nothing yet.
func newPerson(t *testing.T) *tab {
	t.Helper()
	b := need(t, world.browser)
	p := &tab{t: t, errors: &complaints{}}
	p.attach(b.ctx, chromedp.WithNewBrowserContext())
	t.Cleanup(func() {
		for _, c := range p.errors.all() {
			t.Errorf("the browser complained: %s", c)
		}
	})
	return p
}

// another opens one more window of the same person.
func (b *tab) another() *tab {
	b.t.Helper()
	other := &tab{t: b.t, errors: b.errors}
	other.attach(b.ctx)
	return other
}

// behind opens one more tab in the same window: it loads, but nobody sees it.
func (b *tab) behind() *tab {
	b.t.Helper()
	other := &tab{t: b.t, errors: b.errors}
	other.attach(b.ctx, chromedp.WithNewWindow(false))
	return other
}

func (b *tab) attach(parent context.Context, options ...chromedp.ContextOption) {
	b.t.Helper()
	ctx, cancel := chromedp.NewContext(parent, append(options, chromedp.WithListener(b.errors.listen))...)
	b.t.Cleanup(cancel)
	b.ctx = ctx
	if err := chromedp.Do(ctx); err != nil {
		b.t.Fatalf("open a tab: %v", err)
	}
}

// complaints are what the browser logs about pages that break their own rules.
type complaints struct {
	mu   sync.Mutex // guards list
	list []string
}

func (c *complaints) listen(ev any) {
	e, ok := ev.(*browserlog.EventEntryAdded)
	if !ok {
		return
	}
	// The wording changes between versions, so both the words and the source count.
	text := e.Entry.Text
	if strings.Contains(text, "Content Security Policy") || strings.HasPrefix(text, "Refused to") ||
		e.Entry.Source == browserlog.EntrySourceSecurity {
		c.mu.Lock()
		c.list = append(c.list, text)
		c.mu.Unlock()
	}
}

func (c *complaints) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.list)
}

// expectComplaint waits for a complaint with these words, and forgets all so far.
func (b *tab) expectComplaint(words string) {
	b.t.Helper()
	b.until("a complaint about "+words, func() bool {
		return slices.ContainsFunc(b.errors.all(), func(s string) bool { return strings.Contains(s, words) })
	})
	b.errors.mu.Lock()
	b.errors.list = nil
	b.errors.mu.Unlock()
}

// view is what can be seen of a page.
type view struct {
	URL, Path, Hash, Title, H1, Text string
	Status                           int
	Protocol                         string // "h2" or "http/1.1"
	Ready                            bool
}

const look = `(() => {
	const nav = performance.getEntriesByType('navigation')[0] || {}, h1 = document.querySelector('h1');
	return {URL: location.href, Path: location.pathname + location.search, Hash: location.hash, Title: document.title,
		H1: h1 ? h1.innerText : '', Text: document.body ? document.body.innerText : '',
		Status: nav.responseStatus || 0, Protocol: nav.nextHopProtocol || '', Ready: document.readyState === 'complete'};
})()`

func (b *tab) look() (view, error) {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	raw, err := chromedp.Run(ctx, chromedp.Evaluate[[]byte](look))
	if err != nil {
		return view{}, err
	}
	var v view
	return v, json.Unmarshal(raw, &v)
}

// until waits for a condition; the whole suite has no other way to wait.
func (b *tab) until(what string, holds func() bool) {
	b.t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		if time.Now().After(deadline) {
			v, err := b.look()
			b.screenshot("failed")
			b.t.Fatalf("waited in vain for %s; the page is %s (%d) %q, %v:\n%s", what, v.URL, v.Status, v.H1, err,
				v.Text)
		}
		<-tick.C
	}
}

// sees waits for a page that is loaded and as wanted.
func (b *tab) sees(what string, wanted func(view) bool) view {
	b.t.Helper()
	var v view
	b.until(what, func() bool {
		var err error
		v, err = b.look() // fails while one page gives way to the next
		return err == nil && v.Ready && wanted(v)
	})
	return v
}

// heading waits for the page with this first heading.
func (b *tab) heading(h1 string) view {
	b.t.Helper()
	return b.sees("the heading "+h1, func(v view) bool { return v.H1 == h1 })
}

// at waits for the page at this address, origin and all.
func (b *tab) at(url string) view {
	b.t.Helper()
	return b.sees("the address "+url, func(v view) bool { return v.URL == url })
}

// says checks that v shows all of these words.
func (b *tab) says(v view, words ...string) {
	b.t.Helper()
	for _, w := range words {
		if !strings.Contains(flat(v.Text), flat(w)) {
			b.t.Errorf("%s does not say %q:\n%s", v.URL, w, v.Text)
		}
	}
}

func (b *tab) saysNot(v view, words ...string) {
	b.t.Helper()
	for _, w := range words {
		if strings.Contains(flat(v.Text), flat(w)) {
			b.t.Errorf("%s says %q:\n%s", v.URL, w, v.Text)
		}
	}
}

// flat is text on one line, without regard to how it was laid out.
func flat(s string) string { return strings.Join(strings.Fields(s), " ") }

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.screenshot("failed")
		v, _ := b.look()
		b.t.Fatalf("the browser: %v\nat %s %q:\n%s", err, v.URL, v.H1, v.Text)
	}
}

func (b *tab) open(url string) { b.t.Helper(); b.do(chromedp.Navigate(url)) }

// press clicks what has these words on it, as a finger would.
func (b *tab) press(words string) {
	b.t.Helper()
	b.do(chromedp.Click(chromedp.Search(controlWith(words))))
}

// controlWith finds the link or button with these words and no others or, where there is
// none, one that has them among others (XPath).
func controlWith(words string) string {
	const control = `//*[self::a or self::button]`
	exact := fmt.Sprintf(`%s[normalize-space(.) = %q]`, control, words)
	return fmt.Sprintf(`%s | %s[contains(normalize-space(.), %q)][not(%s)]`, exact, control, words, exact)
}

func (b *tab) click(css string) { b.t.Helper(); b.do(chromedp.Click(chromedp.CSS(css))) }

// clickUnseen is click where there is no screen to touch.
func (b *tab) clickUnseen(css string) {
	b.t.Helper()
	eval[bool](b, fmt.Sprintf(`(document.querySelector(%q).click(), true)`, css))
}

// eval runs script as the developer's console would: no policy of the page
// stops it, only what it puts into the page is subject to that.
func eval[T any](b *tab, script string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v", script, err)
	}
	return v
}

// ask calls a command of the developer's protocol.
func ask[P, R any](b *tab, command cdp.Command[P, R], params P) R {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	r, err := chromedp.Call(ctx, command, params)
	if err != nil {
		b.t.Fatalf("%s: %v", command.Method, err)
	}
	return r
}

// cookies are all that this person's browser keeps and would send to url.
func (b *tab) cookies(url string) map[string]*network.Cookie {
	b.t.Helper()
	out := map[string]*network.Cookie{}
	for _, c := range ask(b, network.GetCookies, network.GetCookiesParams{URLs: []string{url + "/"}}).Cookies {
		out[c.Name] = c
	}
	return out
}

// allCookies are those of every site.
func (b *tab) allCookies() []*network.Cookie {
	b.t.Helper()
	id := chromedp.FromContext(b.ctx).BrowserContextID
	r, err := chromedp.CallBrowser(b.ctx, storage.GetCookies, storage.GetCookiesParams{BrowserContextID: id})
	if err != nil {
		b.t.Fatal(err)
	}
	return r.Cookies
}

func (b *tab) back() { b.t.Helper(); eval[*runtime.RemoteObject](b, `history.back()`) }

func (b *tab) dark(on bool) {
	b.t.Helper()
	value := "light"
	if on {
		value = "dark"
	}
	ask(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: value},
			{Name: "prefers-reduced-motion", Value: "reduce"}}}) // or the colours would be caught between the two
}

// screenshot keeps a picture if E2E_SCREENSHOTS names a directory.
func (b *tab) screenshot(name string) {
	dir := os.Getenv("E2E_SCREENSHOTS")
	if dir == "" {
		return
	}
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	picture, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err == nil {
		file := strings.ReplaceAll(b.t.Name(), "/", "-") + "-" + name + ".png"
		err = os.WriteFile(filepath.Join(dir, file), picture, 0o644)
	}
	if err != nil {
		b.t.Logf("screenshot %s: %v", name, err)
	}
}

// frames are the documents inside the page, the page itself first.
func (b *tab) frames() []*cdp.Frame {
	b.t.Helper()
	var out []*cdp.Frame
	var walk func(*page.FrameTree)
	walk = func(f *page.FrameTree) {
		out = append(out, f.Frame)
		for _, c := range f.ChildFrames {
			walk(c)
		}
	}
	walk(ask(b, page.GetFrameTree, cdp.Empty{}).FrameTree)
	return out
}
