package postgres

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-proxy/sallyport/internal/hostname"
)

// Address is the URL of a database, as a configuration has it.
type Address struct {
	// Secret: there is a password in it.
	Secret bool
	// Proven: the server proves by a certificate that it is who it should be.
	Proven bool
	// Exposed: the server is reached over a network and need prove nothing, so that
	// who is on the way can say that nobody has signed out.
	Exposed bool

	url      string
	database string // url without who connects
}

// SameDatabase reports whether b is at most another user or password for the same database.
func (a Address) SameDatabase(b Address) bool { return a.database == b.database }

// URL is the address with all that was not said, for Open. It may hold a password.
func (a Address) URL() string { return a.url }

// attrs is the parameter that says which of several servers to use.
const attrs = "target_session_attrs"

const addressForm = "postgres://user@host/database, or postgres:///database?host=/run/postgresql for a socket"

// ParseAddress reads the URL of a database. It looks at nothing else, neither at the
// environment nor at files, and neither changes which servers are asked or what they must
// prove. Its errors begin with "must" and repeat nothing of v.
//
// Over a network a server is verified (sslmode=verify-full) if nothing else is said.
// libpq's own default, prefer, encrypts for anybody who answers, and does without where
// somebody on the way says no (CWE-757).
func ParseAddress(v string) (a Address, err error) {
	rest, ok := strings.CutPrefix(v, "postgres://")
	if !ok {
		rest, ok = strings.CutPrefix(v, "postgresql://")
	}
	if !ok || strings.ContainsAny(v, "# \t\r\n") {
		return a, errors.New("must be a URL such as " + addressForm)
	}
	before, query, asked := strings.Cut(rest, "?")
	params, err := url.ParseQuery(query)
	if err != nil {
		return a, errors.New("must have parameters of the form name=value behind its ?")
	}
	authority, _, _ := strings.Cut(before, "/")
	user, hosts := "", authority
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		user, hosts = authority[:i], authority[i+1:]
	}
	network, err := overNetwork(hosts, params)
	if err != nil {
		return a, err
	}
	for name, values := range params {
		switch {
		case len(values) > 1:
			return a, errors.New("must not have a parameter twice")
		case values[0] == "":
			return a, errors.New("must not have a parameter without a value")
		case name == "service" || name == "servicefile": // they say where to connect, instead of this URL
			return a, errors.New("must not have the parameter " + name + ": the URL itself says which database it is")
		case name == attrs && !slices.Contains([]string{"any", "primary", "read-write"}, values[0]):
			return a, errors.New("must have primary or read-write as its " + attrs + ", or leave it out: a standby " +
				"cannot be written, and learns late of who signed out")
		}
	}
	_, password, _ := strings.Cut(user, ":")
	a.Secret = password != "" || params.Get("password") != "" || params.Get("sslpassword") != ""
	mode := params.Get("sslmode")
	switch {
	case mode == "" && network:
		mode = "verify-full"
		v += map[bool]string{false: "?", true: "&"}[asked] + "sslmode=" + mode
	case !slices.Contains([]string{"", "disable", "allow", "prefer", "require", "verify-ca", "verify-full"}, mode):
		return a, errors.New("must have disable, require, verify-ca or verify-full as its sslmode")
	case network && (mode == "allow" || mode == "prefer"):
		return a, errors.New("must not have sslmode=" + mode + " over a network: it does without encryption where " +
			"somebody on the way wants that; leave it out for verify-full")
	}
	a.Proven = mode == "verify-full" || mode == "verify-ca"
	a.Exposed = network && !a.Proven && !(mode == "require" && params.Has("sslrootcert"))
	a.url = v
	if mode != "" {
		params.Set("sslmode", mode)
	}
	for _, name := range [...]string{"user", "password", "sslcert", "sslkey", "sslpassword"} {
		params.Del(name)
	}
	a.database = strings.TrimPrefix(before, user) + "?" + params.Encode()
	return a, nil
}

// overNetwork reports whether any of the hosts is another machine. Without a host the
// environment would say which server it is (PGHOST, PGSERVICE), and might say that it need
// prove nothing.
func overNetwork(hosts string, params url.Values) (network bool, err error) {
	list := strings.Split(hosts, ",")
	if given := params.Get("host"); given != "" {
		list = strings.Split(given, ",")
	}
	for _, entry := range list {
		host, port := entry, ""
		if h, p, err := net.SplitHostPort(entry); err == nil {
			host, port = h, p
		} else if strings.Count(entry, ":") > 1 && !strings.HasPrefix(entry, "[") {
			return false, errors.New("must have an IPv6 address in brackets")
		}
		if port != "" || strings.HasSuffix(entry, ":") {
			if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
				return false, errors.New("must have a number from 1 to 65535 as its port")
			}
		}
		host = strings.Trim(host, "[]")
		if decoded, err := url.PathUnescape(host); err == nil { // %2Frun%2Fpostgresql is a socket too
			host = decoded
		}
		if host == "" {
			return false, errors.New("must name the server, such as " + addressForm)
		}
		network = network || host[0] != '/' && host[0] != '@' && !hostname.IsLoopback(host)
	}
	return network, nil
}

// trust has roots vouch for the servers of config, instead of whom the system trusts.
func trust(config *pgx.ConnConfig, roots *x509.CertPool) {
	if roots == nil {
		return
	}
	every := []*tls.Config{config.TLSConfig}
	for _, other := range config.Fallbacks {
		every = append(every, other.TLSConfig)
	}
	for _, c := range every {
		if c != nil {
			c.RootCAs = roots
		}
	}
}
