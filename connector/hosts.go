package connector

import (
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/sallyport-proxy/sallyport/internal/hostname"
)

// Hosts are those that an operator allows by name where people or third parties choose the
// host: they may be in a private network. Others are reached as package egress has it.
type Hosts []string

// ParseHosts reads names as the configuration has them: "dav.example.com", an address, or
// either with a port. Without one it is 443.
func ParseHosts(texts []string) (Hosts, error) {
	var hosts Hosts
	for _, text := range texts {
		host, port, err := net.SplitHostPort(text)
		if err != nil {
			host, port = strings.Trim(text, "[]"), "443"
		}
		number, bad := strconv.ParseUint(port, 10, 16)
		if bad != nil || number == 0 || !hostname.IsDomain(host) && net.ParseIP(host) == nil {
			return nil, errors.New("must be exact names of hosts in lower case, as in dav.example.com or " +
				"dav.example.com:8443")
		}
		hosts = append(hosts, net.JoinHostPort(host, port))
	}
	return hosts, nil
}

// Allow reports whether the host of an address, which is absolute, is one of them.
func (h Hosts) Allow(u *url.URL) bool {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	for _, host := range h {
		if host == net.JoinHostPort(strings.ToLower(u.Hostname()), port) {
			return true
		}
	}
	return false
}

// NotPublic is the reason where a host is none that may be reached.
const NotPublic = "host_not_public"
