package main

import (
	"net/http"
	"time"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/proxy"
	"github.com/sallyport-proxy/sallyport/upstream"
)

// newBackends makes the way to each route's app, or to the pretend one.
func newBackends(cfg *config.Config, with parts) (map[string]proxy.Backend, error) {
	type way struct {
		url, ca, serverName string
		connect, keepAlive  time.Duration
	}
	shared := map[way]*upstream.Upstream{} // routes to one app share its connections
	backends := map[string]proxy.Backend{}
	for _, r := range cfg.Routes {
		u := r.Upstream
		backend := proxy.Backend{Scheme: "http", Addr: "app", Transport: with.app, Host: u.Host, Header: u.Header, Idle: u.Idle, MaxBody: r.MaxBody, NoVia: r.NoVia}
		for _, name := range r.SiteHeaders {
			backend.SiteHeaders = append(backend.SiteHeaders, http.CanonicalHeaderKey(name))
		}
		if with.app != nil {
			backends[r.Name] = backend
			continue
		}
		key := way{u.URL.String(), u.CA.Value(), u.ServerName, u.Connect, u.KeepAlive}
		up := shared[key]
		if up == nil {
			var err error
			if up, err = upstream.New(upstream.Options{URL: u.URL, Roots: u.CA.Authorities(), ServerName: u.ServerName,
				ConnectTimeout: u.Connect, KeepAlive: u.KeepAlive}); err != nil {
				return nil, err
			}
			shared[key] = up
		}
		backend.Scheme, backend.Addr, backend.Transport = up.Scheme(), up.Host(), up
		backends[r.Name] = backend
	}
	return backends, nil
}
