package assemble

import (
	"net/http"
	"sync"
	"time"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/proxy"
	"github.com/sallyport-proxy/sallyport/upstream"
)

// apps are the connections to apps. Routes to one app share them, and so do
// Runtimes: a changed configuration does not open them anew.
type apps struct {
	mu     sync.Mutex // guards shared
	shared map[address]*app
}

// address is all that connections to an app depend on.
type address struct {
	url, ca, serverName string
	connect, keepAlive  time.Duration
	standard            bool
}

type app struct {
	*upstream.Upstream
	users int // Runtimes
}

func newApps() *apps { return &apps{shared: map[address]*app{}} }

// upstreams says where the requests of each route go: to its app, or to instead if
// that is not nil. Calling release gives up the connections.
func (a *apps) upstreams(
	cfg *config.Config, instead http.RoundTripper,
) (_ []proxy.Upstream, release func(), err error) {
	used := map[address]*app{}
	release = sync.OnceFunc(func() { a.release(used) })
	var upstreams []proxy.Upstream
	for _, r := range cfg.Routes {
		u := r.Upstream
		if !r.Forwards() && instead == nil {
			upstreams = append(upstreams, proxy.Upstream{})
			continue
		}
		if !r.Forwards() { // explain asks what the app would see, whoever passes the request on
			u.Header, u.Idle = time.Minute, time.Minute
		}
		to := proxy.Upstream{Scheme: "http", Addr: "app", Transport: instead, Host: u.Host, Header: u.Header,
			Idle: u.Idle, MaxBody: r.MaxBody, NoVia: r.NoVia}
		for _, name := range r.SiteHeaders {
			to.SiteHeaders = append(to.SiteHeaders, http.CanonicalHeaderKey(name))
		}
		if instead == nil {
			up, err := a.use(u, used)
			if err != nil {
				release()
				return nil, nil, err
			}
			to.Scheme, to.Addr, to.Transport = up.Scheme(), up.Host(), up
		}
		upstreams = append(upstreams, to)
	}
	return upstreams, release, nil
}

// use counts a Runtime as a user of an app, once.
func (a *apps) use(u config.Upstream, used map[address]*app) (*app, error) {
	key := address{u.URL.String(), u.CA.Value(), u.ServerName, u.Connect, u.KeepAlive,
		u.Transport == config.TransportStandard}
	if up := used[key]; up != nil {
		return up, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	up := a.shared[key]
	if up == nil {
		made, err := upstream.New(upstream.Options{URL: u.URL, Roots: u.CA.Authorities(), ServerName: u.ServerName,
			ConnectTimeout: u.Connect, KeepAlive: u.KeepAlive, Standard: key.standard})
		if err != nil {
			return nil, err
		}
		up = &app{Upstream: made}
		a.shared[key] = up
	}
	up.users++
	used[key] = up
	return up, nil
}

// release gives up what one Runtime used. Connections that nobody uses any more
// are closed.
func (a *apps) release(used map[address]*app) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for key, up := range used {
		if up.users--; up.users == 0 {
			delete(a.shared, key)
			up.Close()
		}
	}
}
