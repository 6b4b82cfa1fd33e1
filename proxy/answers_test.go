package proxy

import (
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// A resumable upload says how far it is with 104, a long COPY that it is at work
// with 102, for as long as it takes.
func TestALongRequestMayHaveManyInterimAnswers(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, o setup, way string) {
		t.Parallel()
		const many = 200
		o.App = serveApp(t, way, func(w http.ResponseWriter, r *http.Request) {
			for range many {
				w.WriteHeader(104)
				time.Sleep(2 * time.Millisecond)
			}
			_, _ = io.WriteString(w, "ok")
		})
		s := newTestSite(t, o)
		got := 0
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(int, textproto.MIMEHeader) error { got++; return nil }})
		r, err := http.NewRequestWithContext(ctx, "PUT", s.url+"/x", nil)
		testenv.Check(t, err)
		r.Header.Set("Cookie", s.mint(t, alice()))
		if a := s.send(t, r); a.status != 200 || a.body != "ok" || got != many {
			t.Errorf("answered %d after %d of %d interim answers", a.status, got, many)
		}
	})
}

// One app must not send browsers to another server, past us, or have the site's
// addresses reported: neither in its answer nor before it, nor with a 101.
func TestAnAppCannotLeadBrowsersPastSallyport(t *testing.T) {
	t.Parallel()
	const site = "Alt-Svc: h3=\":8443\"\r\nAlternate-Protocol: 443:quic\r\nNEL: {}\r\nPublic-Key-Pins: x\r\n" +
		"Public-Key-Pins-Report-Only: x\r\nStrict-Transport-Security: max-age=1\r\nLink: </a>\r\n"
	for name, tt := range map[string]struct {
		keep, want []string
	}{
		"by default": {nil, []string{"Link", "Strict-Transport-Security"}},
		"where a route wants": {[]string{"Alt-Svc", "Nel"}, []string{"Alt-Svc", "Link", "Nel",
			"Strict-Transport-Security"}},
	} {
		t.Run(name, func(t *testing.T) {
			o := setup{Bent: func(b *Upstream) { b.SiteHeaders = tt.keep }, App: playApp(t, func(p *appPeer) {
				for h := p.head(); h != ""; h = p.head() {
					if strings.Contains(h, "Sec-WebSocket-Key") {
						p.say(switched + site + "\r\n")
						return
					}
					p.say("HTTP/1.1 103 Early\r\n" + site + "\r\nHTTP/1.1 200 OK\r\n" + site +
						"Trailer: Alt-Svc\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nAlt-Svc: h3\r\n\r\n")
				}
			})}
			s := wsSite(t, o)
			seen := func(where string, h http.Header) {
				var got []string
				for _, name := range []string{"Alt-Svc", "Alternate-Protocol", "Link", "Nel", "Public-Key-Pins",
					"Public-Key-Pins-Report-Only", "Strict-Transport-Security"} {
					if h[name] != nil {
						got = append(got, name)
					}
				}
				if !slices.Equal(got, tt.want) {
					t.Errorf("%s has %v, want %v", where, got, tt.want)
				}
			}
			cookie := "Cookie: " + s.mint(t, alice())
			w := s.wire(t)
			w.dial()
			_, err := io.WriteString(w.conn, rawRequest("GET", "/x", s.host, cookie))
			testenv.Check(t, err)
			for _, where := range []string{"the interim answer", "the answer"} {
				res, err := http.ReadResponse(w.in, nil)
				testenv.Check(t, err)
				seen(where, res.Header)
				_, err = io.Copy(io.Discard, res.Body)
				testenv.Check(t, err)
				if res.Trailer["Alt-Svc"] != nil {
					t.Errorf("trailers %v", res.Trailer)
				}
			}
			_, res := s.open(t, "/x", cookie)
			seen("the 101", res.Header)
		})
	}
}

// How long people talk is not how long an app takes.
func TestWebSocketsAreNotCountedAsRequestDurations(t *testing.T) {
	t.Parallel()
	s := wsSite(t, setup{App: serveApp(t, "http", wsApp("", echo))})
	w, res := s.open(t, "/x", "Cookie: "+s.mint(t, alice()))
	w.close()
	s.log.event(t, res.Header.Get("X-Request-Id"))
	if n := testutil.CollectAndCount(s.metrics, "sallyport_http_request_duration_seconds"); n != 0 {
		t.Errorf("%d series of request durations", n)
	}
	if n := testutil.CollectAndCount(s.metrics, "sallyport_tunnel_duration_seconds"); n != 1 {
		t.Errorf("%d series of tunnel durations", n)
	}
}
