package config

import (
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/yamltable"
	"github.com/sallyport-proxy/sallyport/internal/hostname"
)

// handOffURL is the least limits.url with which a sign-in can be handed to another
// host: what is sealed in that address may have 5,000 bytes.
const handOffURL = 6 << 10

// settleHosts gives routes their default host once public_url is known, and judges
// those of other hosts: they get sessions of their own from that of public_url.
func (c *Config) settleHosts() Faults {
	public := c.PublicHost()
	faults := c.cookieDomainFaults()
	for i := range c.Routes {
		r := &c.Routes[i]
		if r.Host == "" {
			r.Host = public
		}
		if r.Host == public || !c.doc.Has(yamltable.Index("routes", i)+".allow") {
			continue
		}
		where := yamltable.Index("routes", i) + ".host"
		if domain := c.Session.CookieDomain; domain != "" {
			switch {
			case !hostname.Within(nameOf(r.Host), domain):
				faults = append(faults, c.doc.FaultAt(where, "must be %s or below it, where session.cookie_domain has "+
					"the session cookie: without cookie_domain each host gets one of its own (a public route may have "+
					"any host)", domain))
			case strings.HasPrefix(r.Host, orgHost):
				faults = append(faults, c.doc.FaultAt(where, "cannot be for the organization in its name: with "+
					"session.cookie_domain all hosts have one session, which is for one organization"))
			}
		}
		if c.PublicURL.Scheme == "http" && !hostname.IsLoopback(nameOf(r.Host)) {
			faults = append(faults, c.doc.FaultAt(where, "must be a loopback host such as localhost: public_url is "+
				"plain http, and over that everybody on the way could take the session cookie (a public route may "+
				"have any host)"))
		}
		if url := c.Limits.URL; url > 0 && url < handOffURL {
			faults = append(faults, c.doc.FaultAt("limits.url", "is too small to hand a sign-in to %s: at least %s",
				r.Host, Size(handOffURL)))
			break
		}
	}
	return append(faults, c.checkConsentHost()...)
}

// cookieDomainFaults judges session.cookie_domain by public_url.
func (c *Config) cookieDomainFaults() Faults {
	domain, public := c.Session.CookieDomain, c.PublicHost()
	fault := func(format string, args ...any) Faults {
		return Faults{c.doc.FaultAt("session.cookie_domain", format, args...)}
	}
	if domain == "" {
		return nil
	}
	suffix, _ := publicsuffix.PublicSuffix(domain)
	switch {
	case c.PublicURL.Scheme != "https":
		return fault("needs https: over plain http everybody on the way could take the cookie or set one")
	case !hostname.Within(public, domain):
		return fault("must be the host of public_url, %s, or a parent of it", public)
	case suffix == domain:
		return fault("must be a domain of your own: anybody can have a name below %s, and browsers keep no cookie for "+
			"it (https://publicsuffix.org)", domain)
	}
	return nil
}

// nameOf is a host without the label that stands for several.
func nameOf(host string) string {
	host, _ = strings.CutPrefix(host, "*.")
	host, _ = strings.CutPrefix(host, orgHost)
	return host
}

// OtherHosts are those, beside that of public_url, for which people sign in; nil while
// public_url is only a reference.
func (c *Config) OtherHosts() []string {
	if c.PublicURL == nil {
		return nil
	}
	var hosts []string
	for _, r := range c.Routes {
		if r.AsksWho() && r.Host != c.PublicHost() && r.Host != "" && !slices.Contains(hosts, r.Host) {
			hosts = append(hosts, r.Host)
		}
	}
	return hosts
}
