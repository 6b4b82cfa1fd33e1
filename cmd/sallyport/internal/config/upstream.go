package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	yaml "go.yaml.in/yaml/v4"
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
}

func upstreamShape() shape[Upstream] {
	address, timeouts := upstreamURL(), timeoutsShape()
	self := func(u *Upstream) *Upstream { return u }
	full := object[Upstream]{keys: []key[Upstream]{
		field("url", "The app: "+upstreamForms+".", address, func(u *Upstream) **url.URL { return &u.URL }).required(),
		field("host", "The host that the app is asked for; the one that the browser asked for if left out.", hostAndPort(),
			func(u *Upstream) *string { return &u.Host }),
		field("ca", "Who may vouch for an https app, PEM; whom this system trusts if left out.", authorities(),
			func(u *Upstream) *Ref { return &u.CA }),
		field("server_name", "The name that an https app has in its certificate; the host of url if left out.", serverName(),
			func(u *Upstream) *string { return &u.ServerName }),
		field("timeouts", "How long the app may take.", timeouts, self).or("{}"),
	}, check: checkUpstream}.shape()
	// The short form is the URL with the defaults of the long one.
	short := shape[Upstream]{want: address.want, schema: address.schema, read: func(w *walker, at place, into *Upstream) {
		address.read(w, at, &into.URL)
		timeouts.read(w, place{parseDefault("{}"), at.path}, into)
	}}
	return either(address.want+", or a mapping with a url", short, yaml.MappingNode, full)
}

func timeoutsShape() shape[Upstream] {
	return object[Upstream]{keys: []key[Upstream]{
		field("connect", "How long the app may take to accept a connection, with TLS if it is https.",
			duration(100*time.Millisecond, time.Minute),
			func(u *Upstream) *time.Duration { return &u.Connect }).or("5s"),
		field("header", "How long the app may take from the end of a request to the header of its answer.",
			duration(100*time.Millisecond, 24*time.Hour),
			func(u *Upstream) *time.Duration { return &u.Header }).or("30s"),
		field("idle", "How long a body or a WebSocket may stand still.", duration(time.Second, 24*time.Hour),
			func(u *Upstream) *time.Duration { return &u.Idle }).or("5m"),
		field("keep_alive", "How long a connection is kept for a next request; less than the app keeps it, or a request "+
			"may meet its end.", duration(100*time.Millisecond, time.Hour),
			func(u *Upstream) *time.Duration { return &u.KeepAlive }).or("4s"),
	}}.shape()
}

const upstreamForms = "http://host:port, https://host:port, h2c://host:port or unix:/path.sock"

// upstreamURL reads an address without user, path and query: what the browser
// asked for is what the app is asked for.
func upstreamURL() shape[*url.URL] {
	const form = `^([Hh][Tt][Tt][Pp][Ss]?|[Hh]2[Cc])://[^/?#@\s]+/?$|^unix:/\S+$`
	return scalar(upstreamForms, schema{"pattern": form}, parseUpstream)
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
func pathOfUpstream(scheme, rest string) (slip, bool) {
	u, err := parseURL("http://"+rest, "http://127.0.0.1:8080")
	plain := err == nil && u.Path != "" && u.Path != "/" && u.RawQuery == "" && !u.ForceQuery && u.Fragment == "" &&
		!strings.HasSuffix(rest, "#")
	if !plain || !slices.Contains([]string{"http", "https", "h2c"}, strings.ToLower(scheme)) {
		return slip{}, false
	}
	return slip{errors.New("must be a URL without path, query and fragment"), scheme + "://" + u.Host,
		fmt.Sprintf("; the app is asked for the path that the browser asked for, unchanged, because that is the path "+
			"that the rules have judged: let the app itself serve below %s, and make that the path of the "+
			"route", quote(u.Path))}, true
}

// maxSocket is what Linux takes: sockaddr_un has 108 bytes, one of them the end.
const maxSocket = 107

func parseSocket(name string) (*url.URL, error) {
	switch {
	case strings.Contains(name, "@"): // no socket of ours, and perhaps somebody's password
		return nil, unquoted{errors.New("must be unix: and the path of a socket, without @")}
	case !strings.HasPrefix(name, "/") || name != path.Clean(name) || name == "/" || strings.ContainsAny(name, " \t"):
		return nil, errors.New("must be unix: and an absolute path, in its shortest form and without blanks, such as " +
			"unix:/run/app.sock")
	case len(name) > maxSocket:
		return nil, errors.New("must have a path of at most 107 bytes, as sockets have")
	}
	return &url.URL{Scheme: "unix", Path: name}, nil
}

func checkUpstream(w *walker, at place, u *Upstream) {
	if u.URL == nil { // told, unless there are too many faults already
		return
	}
	for _, name := range []string{"ca", "server_name"} {
		if where := at.path + "." + name; u.URL.Scheme != "https" && w.src.has(where) {
			w.faultAt(where, "has a meaning for https only, but url is %s", u.URL.Scheme)
		}
	}
}

// hostAndPort is a host as a Host header has it.
func hostAndPort() shape[string] {
	const form = `^(` + labels + `|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?$`
	re, want := regexp.MustCompile(form), "a host in lower case such as app.example.com or app.example.com:8080"
	return scalar(want, schema{"pattern": form}, func(v string) (string, error) {
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
func serverName() shape[string] {
	want := "a DNS name in lower case such as app.example.com"
	name := pattern(want, `^`+labels+`$`)
	return shape[string]{want: want, schema: name.schema, read: func(w *walker, at place, into *string) {
		if _, err := netip.ParseAddr(at.node.Value); err == nil {
			w.fault(at, "must be %s, not the address %s", want, quote(at.node.Value))
			return
		}
		name.read(w, at, into)
	}}
}
