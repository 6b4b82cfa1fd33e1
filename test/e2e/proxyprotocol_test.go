package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Addresses of this machine. The balancer's own is 127.0.0.1.
const (
	clientAddress = "127.0.0.5"
	cdnAddress    = "127.0.0.6" // in trusted_proxies
	behindCDN     = "203.0.113.9"
)

// saying lets HAProxy say for whom it opens connections, in a version of the PROXY
// protocol, and Sallyport listen to it, in a way of the guide.
func saying(w way, version string) edits {
	return edits{
		proxy: func(text string) string {
			if w == passingOn { // which says so already
				return strings.ReplaceAll(text, "send-proxy-v2\n", version+"\n")
			}
			return strings.NewReplacer("    option forwardfor\n", "", "rise 2\n", "rise 2 "+version+"\n").Replace(text)
		},
		sallyport: func(text string) string {
			if w == endingTLS {
				text = regexp.MustCompile(`http: ("[0-9.:]+")`).
					ReplaceAllString(text, "http: {address: $1, proxy_protocol: [127.0.0.1]}")
				text = strings.Replace(text, "trusted_proxies: [127.0.0.1]\n", "", 1)
			}
			return strings.Replace(text, "level: warn", "level: info", 1) + "trusted_proxies: [" + cdnAddress + "]\n"
		},
	}
}

// checkingTheListener lets HAProxy also check the port that its clients get.
func checkingTheListener(w way, version string) edits {
	edit := saying(w, version)
	check := strings.NewReplacer("    option httpchk GET /readyz\n", "", "    http-check expect status 200\n", "")
	if w == endingTLS {
		check = strings.NewReplacer("option httpchk GET /readyz", "option httpchk", "http-check expect status 200",
			"http-check send meth GET uri /checked ver HTTP/1.1 hdr Host "+publicHost+
				"\n    http-check expect rstatus ^[234]")
	}
	say := edit.proxy
	edit.proxy = func(text string) string {
		return check.Replace(regexp.MustCompile(`(server [ab] [0-9.:]+) port [0-9]+`).ReplaceAllString(say(text), "$1"))
	}
	return edit
}

// fromAddress is a client that connects to b from an address of this machine.
func fromAddress(t *testing.T, address string) *http.Client {
	t.Helper()
	transport := newTransport(t, http1)
	transport.DialContext = func(ctx context.Context, network, to string) (net.Conn, error) {
		d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
		return d.DialContext(ctx, network, "127.0.0.1"+portOf(to))
	}
	return &http.Client{Transport: transport, Timeout: patience}
}

// clientOf is who a request was of, by the log of the Sallyport that answered it.
func (b *balanced) clientOf(t *testing.T, path string) string {
	t.Helper()
	line := regexp.MustCompile(`path=` + path + ` .*`)
	client := ""
	eventually(t, "a log line about "+path, func() bool {
		for _, r := range b.replicas {
			text, _ := r.process.out.now()
			if found := line.FindString(text); found != "" {
				client = regexp.MustCompile(`client=(\S+)`).FindStringSubmatch(found)[1]
			}
		}
		return client != ""
	})
	return client
}

// HAProxy says for whom it opens a connection, in both versions, over plain http and
// before TLS that it passes on. That address is in the log, and trusted_proxies is
// about it: a CDN there vouches for its clients, and others vouch for nobody.
func TestP04_HAProxySaysWhoTheClientIs(t *testing.T) {
	for w, name := range map[way]string{endingTLS: "HAProxy ends TLS", passingOn: "HAProxy passes TLS on"} {
		for _, version := range []string{"send-proxy", "send-proxy-v2"} {
			t.Run(name+", "+version, func(t *testing.T) {
				t.Parallel()
				app := httptest.NewServer(wayApp{})
				t.Cleanup(app.Close)
				b := newBalanced(t, w, app.URL, saying(w, version))
				cookie := b.signIn(t, "mira")
				for i, tt := range []struct{ from, forwarded, client string }{
					{clientAddress, "", clientAddress},
					{clientAddress, behindCDN, clientAddress},
					{cdnAddress, behindCDN, behindCDN},
					{"127.0.0.1", behindCDN, "127.0.0.1"}, // HAProxy's own address is no better than others
				} {
					path := fmt.Sprintf("/ask%d/seen", i)
					r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.url+path, nil)
					if err != nil {
						t.Fatal(err)
					}
					r.Header.Set("Cookie", cookie)
					if tt.forwarded != "" {
						r.Header.Set("X-Forwarded-For", tt.forwarded)
					}
					resp, err := fromAddress(t, tt.from).Do(r)
					if err != nil {
						t.Fatal(err)
					}
					var told seen
					err = json.NewDecoder(resp.Body).Decode(&told)
					resp.Body.Close()
					if first, _, _ := strings.Cut(told.For, ","); err != nil || first != tt.client {
						t.Errorf("%+v: the app is told %q, %v", tt, told.For, err)
					}
					if client := b.clientOf(t, path); client != tt.client {
						t.Errorf("%+v: the log says %s", tt, client)
					}
				}
				b.nothingRefused(t)
			})
		}
	}
}

// What a client claims of itself, HAProxy of the guide does not pass on as its own word.
func TestP04_ClaimsOfClientsDoNotCountBehindHAProxy(t *testing.T) {
	t.Parallel()
	app := httptest.NewServer(wayApp{})
	t.Cleanup(app.Close)
	b := newBalanced(t, endingTLS, app.URL, edits{sallyport: func(text string) string {
		return strings.Replace(text, "level: warn", "level: info", 1)
	}})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.url+"/claims/seen", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Cookie", b.signIn(t, "mira"))
	for _, claim := range []string{"X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: http",
		"X-Forwarded-Host: other.example.test", "Forwarded: for=203.0.113.9;host=other.example.test;proto=http"} {
		name, value, _ := strings.Cut(claim, ": ")
		r.Header.Set(name, value)
	}
	resp, err := fromAddress(t, clientAddress).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var told seen
	if err := json.NewDecoder(resp.Body).Decode(&told); err != nil {
		t.Fatal(err)
	}
	host := strings.TrimPrefix(b.url, "https://")
	if want := (seen{"/claims/seen", host, clientAddress, "https", host}); told.Host != want.Host ||
		!strings.HasPrefix(told.For, want.For) || told.Proto != want.Proto || told.ForwardedHost != want.ForwardedHost {
		t.Errorf("the app is told %+v, want %+v", told, want)
	}
	if client := b.clientOf(t, "/claims/seen"); client != clientAddress {
		t.Errorf("the log says %s", client)
	}
}

// nothingRefused looks at the metrics of all replicas.
func (b *balanced) nothingRefused(t *testing.T) {
	t.Helper()
	for _, r := range b.replicas {
		if text := r.metrics(t); strings.Contains(text, "sallyport_proxy_headers_refused_total") {
			t.Errorf("%s has refused connections:\n%s", r.name, text)
		}
	}
}

func (r *replica) metrics(t *testing.T) string {
	t.Helper()
	resp, err := newClient(t, http1).Get("http://" + r.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The health checks of HAProxy are for itself (LOCAL, or UNKNOWN in version 1): they
// are answered, and are nobody's.
func TestP04_HealthChecksThroughTheListenerAreAnswered(t *testing.T) {
	for w, want := range map[way]string{endingTLS: "L7OK", passingOn: "L4OK"} {
		for _, version := range []string{"send-proxy", "send-proxy-v2"} {
			t.Run(want+", "+version, func(t *testing.T) {
				t.Parallel()
				b := newBalanced(t, w, "http://127.0.0.1:1", checkingTheListener(w, version))
				for _, r := range b.replicas {
					if is, err := b.ask("sallyport", r.name); is["check_status"] != want {
						t.Errorf("HAProxy says of %s: %v, %v", r.name, is, err)
					}
				}
				if w == endingTLS {
					if client := b.clientOf(t, "/checked"); client != "127.0.0.1" {
						t.Errorf("a health check is of %s", client)
					}
				}
				b.nothingRefused(t)
			})
		}
	}
}

// Who goes around HAProxy gets no answer: from its address without a header, or from
// another address with one. The metrics count it, and the log says what to look at.
func TestP04_WhoGoesAroundHAProxyIsRefused(t *testing.T) {
	for w, name := range map[way]string{endingTLS: "http", passingOn: "https"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBalanced(t, w, "http://127.0.0.1:1", saying(w, "send-proxy-v2"))
			r := b.replicas[0]
			client := fromAddress(t, "127.0.0.1")
			if resp, err := client.Get(name + "://" + publicHost + portOf(r.public) + "/"); err == nil {
				resp.Body.Close()
				t.Errorf("without a header it is answered %s", resp.Status)
			}
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(clientAddress)}}
			conn, err := d.DialContext(t.Context(), "tcp", r.public)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			fmt.Fprintf(conn, "PROXY TCP4 %s 127.0.0.1 1234 80\r\nGET /forged HTTP/1.1\r\nHost: %s\r\n\r\n", behindCDN,
				publicHost)
			if answer, err := io.ReadAll(conn); err != nil || strings.Contains(string(answer), "HTTP/1.1 ") &&
				!strings.HasPrefix(string(answer), "HTTP/1.1 400 ") {
				t.Errorf("a forged header is answered %q, %v", answer, err)
			}
			text := r.metrics(t)
			for _, reason := range []string{"missing", "stranger"} {
				if want := fmt.Sprintf(`sallyport_proxy_headers_refused_total{listener="listen.%s",reason=%q} `, name,
					reason); !strings.Contains(text, want) {
					t.Errorf("the metrics lack %s", want)
				}
			}
			r.process.mustSay(t, regexp.MustCompile("which did not keep to it"))
			r.process.mustSay(t, regexp.MustCompile("its peer is not in proxy_protocol"))
			said, _ := r.process.out.now()
			if strings.Contains(said, "path=/forged") {
				t.Error("a forged header and its request were served")
			}
		})
	}
}
