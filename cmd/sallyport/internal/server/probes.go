package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/sync/singleflight"
)

// Probe is a health check of an app that a kubelet reaches only through us,
// because the app listens on loopback. Path is where it is asked for on the
// admin listener; Target is the http address that is asked.
type Probe struct {
	Path   string
	Target *url.URL
}

const (
	probeTimeout = 2 * time.Second
	probeBody    = 1 << 10 // bytes of the app's answer that are passed on
)

// prober asks apps. Nothing of a caller's request reaches an app, and of an app's
// answer only the status and the beginning of the body reach the caller. However
// many callers there are, a target is asked once at a time, so that the cluster
// cannot press on an app through us and no probe is refused for being one too many.
type prober struct {
	client *http.Client
	asking singleflight.Group
}

// withProbes answers the probes' paths, and leaves everything else to own.
func withProbes(own *http.ServeMux, probes []Probe) http.Handler {
	// No Proxy: an app's health is not the environment's to tell. No kept
	// connections: a dead one would look like a dead app.
	return newProber(&http.Transport{
		DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 16 << 10,
	}).serve(own, probes)
}

func newProber(transport http.RoundTripper) *prober {
	return &prober{client: &http.Client{
		Timeout:       probeTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     transport,
	}}
}

func (p *prober) serve(own *http.ServeMux, probes []Probe) http.Handler {
	targets := map[string]string{}
	for _, probe := range probes {
		targets[probe.Path] = probe.Target.String()
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		target, ok := targets[r.URL.Path]
		if _, ours := own.Handler(r); !ok || ours != "" {
			own.ServeHTTP(w, r)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			writeText(w, http.StatusMethodNotAllowed, "a probe is asked with GET")
			return
		}
		status, text := p.ask(target)
		writeText(w, status, text)
	})
}

// ask is 200 where the app answers 2xx or 3xx, as for a kubelet, else 503. It is
// as true while Sallyport stops: what an app is does not depend on us.
func (p *prober) ask(target string) (status int, text string) {
	answer, err, _ := p.asking.Do(target, func() (any, error) { return p.get(target) })
	if err != nil {
		return http.StatusServiceUnavailable, "the app did not answer: " + why(err)
	}
	a := answer.(probeAnswer)
	status = http.StatusServiceUnavailable
	if a.status >= 200 && a.status < 400 {
		status = http.StatusOK
	}
	return status, fmt.Sprintf("the app answered %d\n%s", a.status, a.body)
}

type probeAnswer struct {
	status int
	body   []byte
}

func (p *prober) get(target string) (probeAnswer, error) {
	// Not a caller's context: another caller waits for the same answer.
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, target, nil)
	if err != nil {
		return probeAnswer{}, err
	}
	req.Header.Set("User-Agent", "sallyport-probe")
	res, err := p.client.Do(req)
	if err != nil {
		return probeAnswer{}, err
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(res.Body, probeBody)) // the status has told already
	return probeAnswer{res.StatusCode, body}, nil
}

// why leaves out the address: the reader knows it, or need not.
func why(err error) string {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	return err.Error()
}
