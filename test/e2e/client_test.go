package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// protocol is what a client speaks, and nothing else.
type protocol string

const (
	http1 protocol = "HTTP/1.1"
	http2 protocol = "HTTP/2.0" // over TLS, or by prior knowledge without it
)

// newTransport leads all names to loopback and trusts the test's certificate.
func newTransport(t testing.TB, p protocol) *http.Transport {
	t.Helper()
	var protocols http.Protocols
	protocols.SetHTTP1(p == http1)
	protocols.SetHTTP2(p == http2)
	protocols.SetUnencryptedHTTP2(p == http2)
	transport := &http.Transport{
		Protocols: &protocols, TLSClientConfig: &tls.Config{RootCAs: need(t, world.cert).pool},
		DisableCompression: true, MaxIdleConnsPerHost: 100,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return (&net.Dialer{Timeout: patience}).DialContext(ctx, network, "127.0.0.1"+portOf(address))
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// newClient follows no redirect.
func newClient(t testing.TB, p protocol) *http.Client {
	t.Helper()
	return &http.Client{Transport: newTransport(t, p),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// signIn makes somebody sign in without a browser. It returns the Cookie header
// of the session.
func (c *corp) signIn(t testing.TB, person string) string {
	t.Helper()
	cookie, _ := c.signInKeeping(t, person)
	return cookie
}

// signInKeeping is signIn, and returns the client that has the provider's cookies.
func (c *corp) signInKeeping(t testing.TB, person string) (string, *http.Client) {
	t.Helper()
	client, cookies := c.signInFrom(t, c.url+"/.sallyport/login", person)
	for _, cookie := range cookies {
		if cookie.Name == c.cookie {
			return cookie.Name + "=" + cookie.Value, client
		}
	}
	t.Fatalf("%s did not get signed in at %s", person, c.url)
	return "", nil
}

// signInFrom signs somebody in who opens start, which leads to the provider, and returns the
// cookies that the site has set then.
func (c *corp) signInFrom(t testing.TB, start, person string) (*http.Client, []*http.Cookie) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: newTransport(t, http1), Jar: jar, Timeout: patience}
	ask := func(method, url, body string) *http.Response {
		r, err := http.NewRequest(method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", "text/html")
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		return resp
	}
	form := ask(http.MethodGet, start, "").Request.URL
	if !strings.HasPrefix(form.String(), c.provider.Issuer) {
		t.Fatalf("%s leads to %s, not to the provider", start, form)
	}
	ask(http.MethodPost, form.String(), "login="+person)
	site, err := url.Parse(c.url)
	if err != nil {
		t.Fatal(err)
	}
	return client, jar.Cookies(site)
}

// signOut is what the button does.
func (c *corp) signOut(t testing.TB, cookie string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, c.url+"/.sallyport/logout", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Cookie", cookie)
	r.Header.Set("Origin", c.url)
	resp, err := newClient(t, http1).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode >= 400 {
		t.Fatalf("signing out: %s", resp.Status)
	}
}

// residentMiB is the memory of a process that is in use, as the system sees it.
func (p *process) residentMiB(t testing.TB) float64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Skipf("the memory of a process cannot be read here: %v", err)
	}
	m := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(text)
	if m == nil {
		t.Fatalf("no VmRSS in %s", text)
	}
	kib, _ := strconv.Atoi(string(m[1]))
	return float64(kib) / 1024
}

// descriptors is how many files and connections a process has open.
func (p *process) descriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		t.Skipf("the descriptors of a process cannot be read here: %v", err)
	}
	return len(entries)
}

// peak is the most memory that p had until stop is called.
func (p *process) peak(t testing.TB) (stop func() float64) {
	t.Helper()
	end, most := make(chan struct{}), make(chan float64, 1)
	go func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		top := p.residentMiB(t)
		for {
			select {
			case <-tick.C:
				top = max(top, p.residentMiB(t))
			case <-end:
				most <- top
				return
			}
		}
	}()
	return func() float64 { close(end); return <-most }
}

// eventually waits for something that no message announces. It is this module's own:
// nothing of Sallyport is imported here.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// long reports whether the long forms are asked for, as `make campaigns` does.
func long() bool { return os.Getenv("SALLYPORT_CAMPAIGN") != "" }
