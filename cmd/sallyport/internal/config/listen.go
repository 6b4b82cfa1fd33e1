package config

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/yamltable"
)

// Listen says where to accept connections. HTTP.Address or HTTPS.Address is "".
type Listen struct {
	HTTP         HTTP
	H2C          bool // HTTP takes HTTP/2 by prior knowledge too
	Lane         bool // plain requests without TLS are answered by a server of our own
	HTTPS        HTTPS
	Admin        Admin
	ExternalAuth ExternalAuth
	Grants       GrantsListener
	// KeepAlive is how long a connection may wait for its next request.
	KeepAlive time.Duration
}

// Certificate is what a listener with TLS has; Listener is its key in the file.
type Certificate struct {
	Listener  string
	Cert, Key Ref
}

// Certificates are those of all listeners that have one.
func (l *Listen) Certificates() (all []Certificate) {
	for _, c := range [...]Certificate{
		{"listen.https", l.HTTPS.Cert, l.HTTPS.Key},
		{"listen.external_auth", l.ExternalAuth.Cert, l.ExternalAuth.Key},
		{"listen.grants", l.Grants.Cert, l.Grants.Key},
	} {
		if !c.Cert.IsZero() {
			all = append(all, c)
		}
	}
	return all
}

// HTTP is a listener without TLS.
type HTTP struct {
	Address string
	// ProxyProtocol are peers whose connections must begin with a PROXY header.
	ProxyProtocol []netip.Prefix
}

// HTTPS is a listener with a certificate (PEM, with its chain) and its key.
type HTTPS struct {
	Address       string
	Cert, Key     Ref
	ProxyProtocol []netip.Prefix // as in HTTP
}

// Admin is the listener for metrics and health checks.
type Admin struct {
	Address string  // "" if switched off
	Probes  []Probe // in the order of the file
}

// Probe is a path of the admin listener that asks the app.
type Probe struct {
	Path   string
	Target *url.URL // http, without user and fragment
}

func listenShape() yamltable.Shape[Listen] {
	https := yamltable.Object[HTTPS]{Keys: []yamltable.Entry[HTTPS]{
		yamltable.Field("address", "The address, as in http.", address(),
			func(h *HTTPS) *string { return &h.Address }).Required(),
		yamltable.Field("cert", "The certificate and its chain, PEM.",
			yamltable.FileRef(yamltable.FormFile, yamltable.FormEnv),
			func(h *HTTPS) *Ref { return &h.Cert }).Required(),
		yamltable.Field("key", "The private key of the certificate, "+
			"PEM.", yamltable.SecretRef(yamltable.FormFile, yamltable.FormEnv),
			func(h *HTTPS) *Ref { return &h.Key }).Required(),
		yamltable.Field("proxy_protocol", "As in http.", proxyProtocol(),
			func(h *HTTPS) *[]netip.Prefix { return &h.ProxyProtocol }).Or("[]"),
	}}.Shape()
	return yamltable.Object[Listen]{Instead: listenFor, Keys: []yamltable.Entry[Listen]{
		yamltable.Field("http", "The address for plain http, host:port or :port, or a mapping.", httpShape(),
			func(l *Listen) *HTTP { return &l.HTTP }).Or(`":4180"`),
		yamltable.Field("h2c", "Plain http also accepts HTTP/2 from clients that start with it (prior knowledge), as "+
			"gRPC does. https needs no such key.",
			yamltable.OnlyTrue(), func(l *Listen) *bool { return &l.H2C }),
		yamltable.Field("lane", "GET and HEAD without a body that come over HTTP/1.1 without TLS, to http and to "+
			"external_auth, are answered by a server of Sallyport's own, which takes less of the processor's time. "+
			"Every other connection is the standard library's, as all are with false.",
			yamltable.TrueOrFalse(), func(l *Listen) *bool { return &l.Lane }).Or("false"),
		yamltable.Field("https", "The address and certificate for https, instead of http.", https,
			func(l *Listen) *HTTPS { return &l.HTTPS }),
		yamltable.Field("keep_alive", "How long a connection may wait for its next request. Longer than a load "+
			"balancer in front keeps one: some keep 600s.",
			yamltable.Duration(5*time.Second, 2*time.Hour),
			func(l *Listen) *time.Duration { return &l.KeepAlive }).Or("620s"),
		yamltable.Field("admin", "The address of metrics and health checks, or a mapping; an empty text switches "+
			"them off.",
			adminShape(),
			func(l *Listen) *Admin { return &l.Admin }).Or(`"127.0.0.1:4181"`),
		yamltable.Field("external_auth", "The address at which another proxy asks over HTTP whether a request may "+
			"pass and who it is: one on loopback, for proxies on this machine, or a mapping. Off if left out or empty.",
			externalAuthShape(), func(l *Listen) *ExternalAuth { return &l.ExternalAuth }).Or(`""`),
		yamltable.Field("grants", "The address at which apps ask for what people lend them (`grants`): one on "+
			"loopback, for apps on this machine, or a mapping. Off if left out or empty.",
			grantsListenerShape(), func(l *Listen) *GrantsListener { return &l.Grants }).Or(`""`),
	}, Rivals: [][]string{{"http", "https"}}, Check: checkListen}.Shape()
}

func httpShape() yamltable.Shape[HTTP] {
	place := func(h *HTTP) *string { return &h.Address }
	full := yamltable.Object[HTTP]{Keys: []yamltable.Entry[HTTP]{
		yamltable.Field("address", "The address, host:port or :port.", address(), place).Required(),
		yamltable.Field("proxy_protocol", "Addresses and ranges of the load balancers whose connections begin with a "+
			"PROXY header, version 1 or 2. Those that do not are closed; a header from elsewhere is refused.",
			proxyProtocol(),
			func(h *HTTP) *[]netip.Prefix { return &h.ProxyProtocol }).Or("[]"),
	}}.Shape()
	short := address()
	return yamltable.Either(short.Want+", or a mapping", yamltable.Within(short, place), yamltable.Mapping, full)
}

func proxyProtocol() yamltable.Shape[[]netip.Prefix] {
	return yamltable.List(addressRange(nil), 0)
}

// proxyProtocolWarnings tell of listeners on which everybody says which address they
// have. There are such balancers: they keep the client's address in IP, and only a
// firewall knows that they are it.
func (c *Config) proxyProtocolWarnings() Faults {
	var warnings Faults
	for key, ranges := range map[string][]netip.Prefix{"listen.http.proxy_protocol": c.Listen.HTTP.ProxyProtocol,
		"listen.https.proxy_protocol": c.Listen.HTTPS.ProxyProtocol} {
		for i, p := range ranges {
			if p.Bits() == 0 {
				warnings = append(warnings, c.doc.FaultAt(yamltable.Index(key, i), "is all addresses: whoever "+
					"reaches this listener can say which address they have; only the load balancer may reach it"))
			}
		}
	}
	return warnings
}

// listenFor is the mapping for an address, or for a port alone.
func listenFor(v string) string {
	if validPort(v) {
		v = ":" + v
	}
	host, port, err := net.SplitHostPort(v)
	if _, ipErr := netip.ParseAddr(host); err != nil || !validPort(port) ||
		(host != "" && host != "localhost" && ipErr != nil) {
		return ""
	}
	return `{http: "` + v + `"}`
}

func adminShape() yamltable.Shape[Admin] {
	place := func(a *Admin) *string { return &a.Address }
	full := yamltable.Object[Admin]{Keys: []yamltable.Entry[Admin]{
		yamltable.Field("address", "The address, as in http.", address(), place).Required(),
		yamltable.Field("app_probes", "Paths that ask the app, for a kubelet that cannot sign in: a path and the "+
			"http URL that answers for it.",
			probes(), func(a *Admin) *[]Probe { return &a.Probes }),
	}}.Shape()
	short := addressOrNone()
	return yamltable.Either(short.Want+", or a mapping", yamltable.Within(short, place), yamltable.Mapping, full)
}

func checkListen(w *yamltable.Walker, at yamltable.Place, l *Listen) {
	if l.H2C && l.HTTPS.Address != "" {
		w.FaultAt(at.Path+".h2c", "is for plain http; https speaks HTTP/2 without it, so leave it out")
	}
	asked := l.ExternalAuth.Address != "" && !l.ExternalAuth.TLS()
	if l.Lane && l.HTTPS.Address != "" && !asked && w.Has(at.Path+".lane") {
		w.FaultAt(at.Path+".lane", "is for connections without TLS, and no listener has any, so leave it out")
	}
	checkAddresses(w, at, l)
}

// checkAddresses finds listeners that would take the address from one another: only the
// first to start would have it.
func checkAddresses(w *yamltable.Walker, at yamltable.Place, l *Listen) {
	all := []struct{ key, address string }{{"http", l.HTTP.Address}, {"https.address", l.HTTPS.Address},
		{"admin", l.Admin.Address}, {"external_auth", l.ExternalAuth.Address},
		{"external_auth.grpc", l.ExternalAuth.GRPC}, {"grants", l.Grants.Address}}
	for i, second := range all {
		for _, first := range all[:i] {
			if !sameAddress(first.address, second.address) {
				continue
			}
			key := second.key
			if !w.Has(at.Path + "." + key) { // a default: what the file says is what can be changed
				key = first.key
			}
			w.FaultAt(at.Path+"."+key, "is the address of two listeners, %s.%s (%s) and %s.%s (%s); each needs one of "+
				"its own", at.Path, first.key, first.address, at.Path, second.key, second.address)
		}
	}
}

// sameAddress tells that only one of two listeners can have its address. Port 0 is a free one.
func sameAddress(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	return errA == nil && errB == nil && portA == portB && portA != "0" &&
		(hostA == hostB || covers(hostA, hostB) || covers(hostB, hostA))
}

// covers tells whether who listens on all addresses as wide has that of host.
func covers(wide, host string) bool {
	return wide == "" || wide == "::" || wide == "0.0.0.0" && !strings.Contains(host, ":")
}

// probes reads a mapping of paths. Each has one spelling, so that two of them
// are never the same to the admin listener.
func probes() yamltable.Shape[[]Probe] {
	target := probeTarget()
	form := regexp.MustCompile(prefixPattern)
	s := yamltable.Schema{"type": "object", "additionalProperties": target.Schema,
		"propertyNames": yamltable.Schema{"pattern": prefixPattern, "not": yamltable.Schema{"enum": adminPaths()}}}
	return yamltable.Shape[[]Probe]{Want: "a mapping", Schema: s,
		Read: func(w *yamltable.Walker, at yamltable.Place, into *[]Probe) {
			if !w.Expect(at, yamltable.Mapping, "a mapping of paths", false) {
				return
			}
			*into = make([]Probe, len(at.Node.Content)/2)
			for i := range *into {
				key, node := at.Node.Content[2*i], at.Node.Content[2*i+1]
				here := yamltable.Join(at.Path, key.Value)
				switch {
				case !yamltable.IsText(key): // refused before
				case slices.Contains(adminPaths(), key.Value):
					w.Fault(yamltable.Place{Node: key, Path: here}, "is a path that Sallyport answers itself; choose "+
						"another")
				case !form.MatchString(key.Value):
					w.Fault(yamltable.Place{Node: key, Path: here}, "must be a path such as /app/healthz, of "+
						"letters, digits and -._~, without a slash at its end")
				}
				(*into)[i].Path = key.Value
				yamltable.Take(w, target, yamltable.Place{Node: node, Path: here}, &(*into)[i].Target)
			}
		}}
}

// adminPaths are the admin listener's own.
func adminPaths() []string { return []string{"/healthz", "/log-level", "/metrics", "/readyz"} }

func probeTarget() yamltable.Shape[*url.URL] {
	const form = `^[Hh][Tt][Tt][Pp]://[^/?#@\s]+([/?][^#@\s]*)?$`
	re, want := regexp.MustCompile(form), "an http URL such as http://127.0.0.1:8080/healthz"
	return yamltable.Scalar(want, yamltable.Schema{"pattern": form}, func(v string) (*url.URL, error) {
		u, err := parseURL(v, "http://127.0.0.1:8080/healthz")
		switch {
		case err != nil:
			return nil, err
		case !re.MatchString(v):
			return nil, errors.New("must be " + want)
		}
		return u, nil
	})
}

// proxyRange is one address or a range of them, and not all.
func proxyRange() yamltable.Shape[netip.Prefix] {
	return addressRange(func(p netip.Prefix) string {
		if p.Bits() == 0 {
			return "must not be all addresses: everybody could then say who they are"
		}
		return ""
	})
}

// addressRange is one address or a range of them; what refuse (it may be nil) says of
// one is its fault.
func addressRange(refuse func(netip.Prefix) string) yamltable.Shape[netip.Prefix] {
	want := "an address such as 192.0.2.7 or a range such as 10.0.0.0/8"
	s := yamltable.Schema{"type": "string", "pattern": `^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$`}
	return yamltable.Shape[netip.Prefix]{Want: want, Schema: s, Read: func(w *yamltable.Walker, at yamltable.Place,
		into *netip.Prefix) {
		v, ok := w.Text(at, want, false)
		if !ok {
			return
		}
		p, err := parseRange(v)
		refusal := ""
		if err == nil && refuse != nil {
			refusal = refuse(p)
		}
		switch {
		case err != nil:
			w.Fault(at, "must be %s, not %s", want, yamltable.Quote(v))
		case p.Addr().Is4In6():
			w.Suggest(at, unmapped(p), "must be written as IPv4, as it is compared, not %s", yamltable.Quote(v))
		case refusal != "":
			w.Fault(at, "%s", refusal)
		case p != p.Masked():
			w.Suggest(at, p.Masked().String(), "must begin with the first address of the range, not %s",
				yamltable.Quote(v))
		default:
			*into = p
		}
	}}
}

func parseRange(v string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(v); err == nil && addr.Zone() == "" {
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	return netip.ParsePrefix(v) // knows no zones
}

// unmapped is the IPv4 range of ::ffff:10.0.0.0/104; "" if there is none.
func unmapped(p netip.Prefix) string {
	switch bits := p.Bits() - 96; {
	case bits == 32:
		return p.Addr().Unmap().String()
	case bits > 0:
		return netip.PrefixFrom(p.Addr().Unmap(), bits).Masked().String()
	}
	return ""
}
