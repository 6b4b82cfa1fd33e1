package config

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/yamltable"
	"github.com/sallyport-proxy/sallyport/internal/hostname"
)

// Upstream is where a route's requests go, and how.
type Upstream struct {
	URL        *url.URL // scheme http, https or h2c and a host, or scheme unix and an absolute path
	Host       string   // what the app is asked for; "" is what the browser asked for
	CA         Ref      // PEM, who may vouch for the app; zero is whom the system trusts
	ServerName string   // in the app's certificate; "" is the host of URL

	Connect time.Duration // until a connection stands
	Header  time.Duration // from the end of the request to the header of the answer
	Idle    time.Duration // without a byte in either direction

	KeepAlive time.Duration // of a connection that waits for a next request
	Transport string        // how plain GET and HEAD are sent: TransportLean or TransportStandard
}

// The values of Upstream.Transport.
const (
	TransportLean     = "lean"
	TransportStandard = "standard"
)

func upstreamShape() yamltable.Shape[Upstream] {
	address, timeouts := upstreamURL(), timeoutsShape()
	self := func(u *Upstream) *Upstream { return u }
	transport := yamltable.Field("transport", "How a GET or HEAD without a body is sent to an app of http: or "+
		"unix:. lean takes less of the processor's time; standard is the transport of Go's standard library, "+
		"which sends everything else in any case.",
		yamltable.OneOf("lean or standard", TransportLean, TransportStandard),
		func(u *Upstream) *string { return &u.Transport }).Or(TransportLean)
	full := yamltable.Object[Upstream]{Keys: []yamltable.Entry[Upstream]{
		yamltable.Field("url", "The app: "+upstreamForms+".", address,
			func(u *Upstream) **url.URL { return &u.URL }).Required(),
		yamltable.Field("host", "The host that the app is asked for; the one that the browser asked for if left out.",
			hostAndPort(),
			func(u *Upstream) *string { return &u.Host }),
		yamltable.Field("ca", "Who may vouch for an https app, PEM; whom this system trusts if left out.",
			authorities(),
			func(u *Upstream) *Ref { return &u.CA }),
		yamltable.Field("server_name", "The name that an https app has in its certificate; the host of url if left "+
			"out.",
			serverName(),
			func(u *Upstream) *string { return &u.ServerName }),
		yamltable.Field("timeouts", "How long the app may take.", timeouts, self).Or("{}"),
		transport,
	}, Check: checkUpstream}.Shape()
	// The short form is the URL with the defaults of the long one.
	short := yamltable.Shape[Upstream]{Want: address.Want, Schema: address.Schema,
		Read: func(w *yamltable.Walker, at yamltable.Place, into *Upstream) {
			address.Read(w, at, &into.URL)
			timeouts.Read(w, yamltable.Place{Node: yamltable.Default("{}"), Path: at.Path}, into)
			into.Transport = TransportLean
		}}
	return yamltable.Either(address.Want+", or a mapping with a url", short, yamltable.Mapping, full)
}

func timeoutsShape() yamltable.Shape[Upstream] {
	return yamltable.Object[Upstream]{Keys: []yamltable.Entry[Upstream]{
		yamltable.Field("connect", "How long the app may take to accept a connection, and as long again for the TLS "+
			"handshake if it is https.",
			yamltable.Duration(100*time.Millisecond, time.Minute),
			func(u *Upstream) *time.Duration { return &u.Connect }).Or("5s"),
		yamltable.Field("header", "How long the app may take from the end of a request to the header of its answer.",
			yamltable.Duration(100*time.Millisecond, 24*time.Hour),
			func(u *Upstream) *time.Duration { return &u.Header }).Or("30s"),
		yamltable.Field("idle", "How long a body or a WebSocket may stand still.",
			yamltable.Duration(time.Second, 24*time.Hour),
			func(u *Upstream) *time.Duration { return &u.Idle }).Or("5m"),
		yamltable.Field("keep_alive", "How long a connection is kept for a next request; less than the app keeps it, "+
			"or a request "+
			"may meet its end.", yamltable.Duration(100*time.Millisecond, time.Hour),
			func(u *Upstream) *time.Duration { return &u.KeepAlive }).Or("4s"),
	}}.Shape()
}

// loopWarnings tell of routes that lead back to Sallyport itself: a wrong port, most often.
func (c *Config) loopWarnings() Faults {
	var warnings Faults
	for i, r := range c.Routes {
		if !r.Forwards() || !hostname.IsLoopback(r.Upstream.URL.Hostname()) {
			continue
		}
		app := net.JoinHostPort(strings.Replace(r.Upstream.URL.Hostname(), "localhost", "127.0.0.1", 1),
			cmp.Or(r.Upstream.URL.Port(), defaultPort(r.Upstream.URL.Scheme)))
		for key, address := range map[string]string{"listen.http": c.Listen.HTTP.Address,
			"listen.https": c.Listen.HTTPS.Address} {
			if sameAddress(app, strings.Replace(address, "localhost", "127.0.0.1", 1)) {
				warnings = append(warnings, c.doc.FaultAt(yamltable.Index("routes", i)+".upstream",
					"leads back to Sallyport itself, which listens there (%s): each request for this route ends as a "+
						"loop (508); name the address of the app", key))
			}
		}
	}
	return warnings
}

const upstreamForms = "http://host:port, https://host:port, h2c://host:port or unix:/path.sock"

// upstreamURL reads an address without user, path and query: what the browser
// asked for is what the app is asked for.
func upstreamURL() yamltable.Shape[*url.URL] {
	const form = `^([Hh][Tt][Tt][Pp][Ss]?|[Hh]2[Cc])://[^/?#@\s]+/?$|^unix:/\S+$`
	return yamltable.Scalar(upstreamForms, yamltable.Schema{"pattern": form}, parseUpstream)
}

func parseUpstream(v string) (*url.URL, error) {
	if socket, ok := strings.CutPrefix(v, "unix:"); ok {
		return parseSocket(socket)
	}
	scheme, rest, _ := strings.Cut(v, "://")
	if slip, ok := pathOfUpstream(scheme, rest); ok {
		return nil, slip
	}
	switch scheme = strings.ToLower(scheme); {
	case strings.Contains(v, "@"), scheme == "http", scheme == "https":
		return parseOrigin(v, scheme+"://127.0.0.1:8080")
	case scheme != "h2c":
		return nil, errors.New("must be " + upstreamForms)
	}
	u, err := parseOrigin("http://"+rest, "h2c://127.0.0.1:8080") // http in all but the protocol
	if err != nil {
		return nil, err
	}
	u.Scheme = scheme
	return u, nil
}

// pathOfUpstream tells those who write a path into the address of the app that
// requests keep theirs: what the rules have judged is what the app is asked for.
func pathOfUpstream(scheme, rest string) (yamltable.Slip, bool) {
	u, err := parseURL("http://"+rest, "http://127.0.0.1:8080")
	plain := err == nil && u.Path != "" && u.Path != "/" && u.RawQuery == "" && !u.ForceQuery && u.Fragment == "" &&
		!strings.HasSuffix(rest, "#")
	if !plain || !slices.Contains([]string{"http", "https", "h2c"}, strings.ToLower(scheme)) {
		return yamltable.Slip{}, false
	}
	return yamltable.Slip{Complaint: errors.New("must be a URL without path, query and fragment"),
		Meant: scheme + "://" +
			u.Host,
		Why: fmt.Sprintf("; the app is asked for the path that the browser asked for, unchanged, because that is the "+
			"path that the rules have judged: let the app itself serve below %s, and make that the path of the "+
			"route", yamltable.Quote(u.Path))}, true
}

// maxSocket is what Linux takes: sockaddr_un has 108 bytes, one of them the end.
const maxSocket = 107

func parseSocket(name string) (*url.URL, error) {
	switch {
	case strings.Contains(name, "@"): // no socket of ours, and perhaps somebody's password
		return nil, yamltable.Unquoted{Complaint: errors.New("must be unix: and the path of a socket, without @")}
	case !strings.HasPrefix(name, "/") || name != path.Clean(name) || name == "/" || strings.ContainsAny(name, " \t"):
		return nil, errors.New("must be unix: and an absolute path, in its shortest form and without blanks, such as " +
			"unix:/run/app.sock")
	case len(name) > maxSocket:
		return nil, errors.New("must have a path of at most 107 bytes, as sockets have")
	}
	return &url.URL{Scheme: "unix", Path: name}, nil
}

func checkUpstream(w *yamltable.Walker, at yamltable.Place, u *Upstream) {
	if u.URL == nil { // told, unless there are too many faults already
		return
	}
	for _, name := range []string{"ca", "server_name"} {
		if where := at.Path + "." + name; u.URL.Scheme != "https" && w.Has(where) {
			w.FaultAt(where, "has a meaning for https only, but url is %s", u.URL.Scheme)
		}
	}
}

// hostAndPort is a host as a Host header has it.
func hostAndPort() yamltable.Shape[string] {
	const form = `^(` + labels + `|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?$`
	re, want := regexp.MustCompile(form), "a host in lower case such as app.example.com or app.example.com:8080"
	return yamltable.Scalar(want, yamltable.Schema{"pattern": form}, func(v string) (string, error) {
		u, err := url.Parse("http://" + v)
		if !re.MatchString(v) || err != nil || (u.Port() != "" && !validPort(u.Port())) {
			return "", errors.New("must be " + want)
		}
		if strings.HasPrefix(v, "[") {
			if addr, err := netip.ParseAddr(u.Hostname()); err != nil || addr.String() != u.Hostname() {
				return "", errors.New("must have its IPv6 address in the shortest form")
			}
		}
		return v, nil
	})
}

// serverName is a name, not an address: RFC 6066 §3 has only names.
func serverName() yamltable.Shape[string] {
	want := "a DNS name in lower case such as app.example.com"
	name := yamltable.Pattern(want, `^`+labels+`$`)
	return yamltable.Shape[string]{Want: want, Schema: name.Schema,
		Read: func(w *yamltable.Walker, at yamltable.Place, into *string) {
			if _, err := netip.ParseAddr(at.Node.Value); err == nil {
				w.Fault(at, "must be %s, not the address %s", want, yamltable.Quote(at.Node.Value))
				return
			}
			name.Read(w, at, into)
		}}
}
