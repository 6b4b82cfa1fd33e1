package config

import (
	"errors"
	"net"
	"net/netip"
	"strings"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/yamltable"
	"github.com/sallyport-proxy/sallyport/internal/hostname"
)

// ExternalAuth are the listeners at which other proxies ask whether a request may pass.
type ExternalAuth struct {
	Address   string         // of the dialects of HTTP; "" if there are none
	GRPC      string         // of Envoy's dialect of gRPC; the same
	Peers     []netip.Prefix // who may ask
	Cert, Key Ref            // of both; zero: without TLS
	Compat    string         // whose paths Address has, too: CompatOAuth2Proxy, or "" for nobody's
}

// CompatOAuth2Proxy is for proxies that were set up to ask oauth2-proxy.
const CompatOAuth2Proxy = "oauth2-proxy"

// On reports whether other proxies may ask at all.
func (e ExternalAuth) On() bool { return e.Address != "" || e.GRPC != "" }

// TLS reports whether the listeners have a certificate.
func (e ExternalAuth) TLS() bool { return !e.Cert.IsZero() }

func externalAuthShape() yamltable.Shape[ExternalAuth] {
	place := func(e *ExternalAuth) *string { return &e.Address }
	full := yamltable.Object[ExternalAuth]{Keys: []yamltable.Entry[ExternalAuth]{
		yamltable.Field("address", "The address for questions over HTTP, as in http. This or grpc is there, or both.",
			address(), place),
		yamltable.Field("grpc", "The address for questions over gRPC: Envoy's envoy.service.auth.v3.Authorization.",
			address(), func(e *ExternalAuth) *string { return &e.GRPC }),
		yamltable.Field("peers", "Addresses and ranges of the proxies that may ask. Everybody else is refused.",
			yamltable.List(peerRange(), 1), func(e *ExternalAuth) *[]netip.Prefix { return &e.Peers }).Required(),
		yamltable.Field("cert", "The certificate and its chain, PEM, for https. Plain http if left out, with key. "+
			"Both addresses have it.",
			yamltable.FileRef(yamltable.FormFile, yamltable.FormEnv), func(e *ExternalAuth) *Ref { return &e.Cert }),
		yamltable.Field("key", "The private key of the certificate, PEM.",
			yamltable.SecretRef(yamltable.FormFile, yamltable.FormEnv), func(e *ExternalAuth) *Ref { return &e.Key }),
		yamltable.Field("compat", "oauth2-proxy: also answer at its paths below /oauth2/, for proxies that were set "+
			"up to ask it.",
			yamltable.OneOf("", CompatOAuth2Proxy), func(e *ExternalAuth) *string { return &e.Compat }),
	}, Check: checkExternalAuth}.Shape()
	full.Schema["anyOf"] = []any{yamltable.Schema{"required": []string{"address"}},
		yamltable.Schema{"required": []string{"grpc"}}}
	full.Schema["dependentRequired"] = yamltable.Schema{"compat": []string{"address"}}
	short := loopbackOrNone()
	return yamltable.Either(short.Want+", or a mapping with address or grpc, and peers", short, yamltable.Mapping, full)
}

func checkExternalAuth(w *yamltable.Walker, at yamltable.Place, e *ExternalAuth) {
	switch {
	case !e.On():
		w.FaultAt(at.Path, "must have address, for questions over HTTP, or grpc, or both")
	case e.Cert.IsZero() && !e.Key.IsZero():
		w.FaultAt(at.Path+".cert", "is required beside key")
	case !e.Cert.IsZero() && e.Key.IsZero():
		w.FaultAt(at.Path+".key", "is required beside cert")
	case e.Compat != "" && e.Address == "":
		w.FaultAt(at.Path+".address", "is required beside compat, whose paths are HTTP")
	}
}

// peerRange is one address or a range of them, and not all: who may ask learns who
// people are by their cookies.
func peerRange() yamltable.Shape[netip.Prefix] {
	return addressRange(func(p netip.Prefix) string {
		if p.Bits() == 0 {
			return "must not be all addresses: name the proxies that ask"
		}
		return ""
	})
}

// loopbackOrNone is the short form: who may ask is then this machine.
func loopbackOrNone() yamltable.Shape[ExternalAuth] {
	a := yamltable.Scalar("an address on loopback such as 127.0.0.1:4182",
		yamltable.Schema{"pattern": `^.*:[0-9]{1,5}$`}, parseLoopback)
	return yamltable.Shape[ExternalAuth]{Want: a.Want + `, or ""`,
		Schema: yamltable.Schema{"anyOf": []any{yamltable.Schema{"const": ""}, a.Schema}},
		Read: func(w *yamltable.Walker, at yamltable.Place, into *ExternalAuth) {
			if yamltable.IsText(at.Node) && at.Node.Value == "" {
				return
			}
			a.Read(w, at, into)
		}}
}

func parseLoopback(v string) (ExternalAuth, error) {
	host, port, err := net.SplitHostPort(v)
	switch {
	case err != nil || !validPort(port):
		return ExternalAuth{}, errors.New("must be an address on loopback such as 127.0.0.1:4182")
	case !hostname.IsLoopback(host):
		return ExternalAuth{}, errors.New("must be on loopback, or a mapping that says who may ask: " +
			"{address: …, peers: […]}")
	}
	return ExternalAuth{Address: v, Peers: loopback()}, nil
}

func loopback() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
}

// checkCompat: what is sent to the listener for the sake of its paths there cannot be
// Sallyport's own endpoints, which are elsewhere.
func (c *Config) checkCompat() Faults {
	if c.Listen.ExternalAuth.Compat == "" || c.Prefix != "/oauth2" && !strings.HasPrefix(c.Prefix, "/oauth2/") {
		return nil
	}
	return Faults{c.doc.FaultAt("prefix", "must not be below /oauth2, which proxies that were set up for oauth2-proxy "+
		"send to `listen.external_auth` as a whole (its compat): people sign in at `listen.http`")}
}

// externalAuthWarnings tell of cookies that cross a network readable.
func (c *Config) externalAuthWarnings() Faults {
	e := c.Listen.ExternalAuth
	var warnings Faults
	for _, l := range []struct{ key, address string }{{"address", e.Address}, {"grpc", e.GRPC}} {
		host, _, _ := net.SplitHostPort(l.address)
		if l.address == "" || e.TLS() || hostname.IsLoopback(host) {
			continue
		}
		warnings = append(warnings, c.doc.FaultAt("listen.external_auth."+l.key, "has no TLS: the cookies of people "+
			"who are signed in cross the network between the proxy and Sallyport readable; give it cert and key"))
	}
	return warnings
}

// checkForwarding: a route without an app is for proxies that ask, and forwards nothing.
func (c *Config) checkForwarding() Faults {
	var faults Faults
	for i, r := range c.Routes {
		where := yamltable.Index("routes", i)
		if r.Forwards() || c.doc.Has(where+".upstream") {
			continue
		}
		if !c.Listen.ExternalAuth.On() {
			faults = append(faults, c.doc.FaultAt(where+".upstream", "is required: the app. Only where "+
				"another proxy asks about the route and passes its requests on "+
				"(`listen.external_auth`, which is off) there is none"))
			continue
		}
		for _, key := range []string{"max_body", "via", "site_headers", "headers.keep"} {
			if c.doc.Has(where + "." + key) {
				faults = append(faults, c.doc.FaultAt(where+"."+key, "is about what Sallyport passes on, and without "+
					"`upstream` it passes nothing on"))
			}
		}
	}
	return faults
}

// SameApp reports whether Sallyport passes the requests of both routes on to one app.
func (r Route) SameApp(other Route) bool {
	return r.Forwards() && other.Forwards() && r.Upstream.URL.String() == other.Upstream.URL.String() &&
		r.Upstream.Host == other.Upstream.Host
}

// Forwards reports whether Sallyport passes the route's requests on itself.
func (r Route) Forwards() bool { return r.Upstream.URL != nil }
