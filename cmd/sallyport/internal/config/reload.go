package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/yamltable"
)

// Reload says when a running Sallyport reads the configuration again, besides SIGHUP.
type Reload struct {
	Watch    bool          // where the file, or one that it refers to, has changed
	Debounce time.Duration // how long they must have been left alone
}

func reloadShape() yamltable.Shape[Reload] {
	return yamltable.Object[Reload]{Keys: []yamltable.Entry[Reload]{
		yamltable.Field("watch", "Whether a change of this file, or of a file that it refers to, is taken up by "+
			"itself. SIGHUP works in any case.",
			yamltable.TrueOrFalse(), func(r *Reload) *bool { return &r.Watch }).Or("true"),
		yamltable.Field("debounce", "How long the files must have been left alone before they are read; after five "+
			"times as long they are read in any case.",
			yamltable.Duration(100*time.Millisecond, time.Minute),
			func(r *Reload) *time.Duration { return &r.Debounce }).Or("1s"),
	}}.Shape()
}

// Files are the files and directories that the configuration refers to.
func (c *Config) Files() []string { return c.doc.Files() }

// Changed are the keys at the top of either file whose values differ from those of
// before, or what they refer to.
func (c *Config) Changed(before *Config) []string { return c.doc.Changed(before.doc) }

// NeedsRestart are the differences from before that cannot be taken up by a process
// that runs with before.
func (c *Config) NeedsRestart(before *Config) Faults {
	var faults Faults
	fixed := func(key string, was, is any) {
		if was != is {
			faults = append(faults, c.doc.FaultAt(key, "was %v when this process began, and another value needs a "+
				"restart", was))
		}
	}
	fixed("public_url", before.PublicURL.String(), c.PublicURL.String())
	fixed("prefix", before.Prefix, c.Prefix)
	if wasTLS, isTLS := before.Listen.HTTPS.Address != "", c.Listen.HTTPS.Address != ""; wasTLS != isTLS {
		fixed("listen", scheme(wasTLS), scheme(isTLS))
	} else {
		fixed("listen.http", text(before.Listen.HTTP.Address), text(c.Listen.HTTP.Address))
		fixed("listen.http.proxy_protocol", rangesText(before.Listen.HTTP.ProxyProtocol),
			rangesText(c.Listen.HTTP.ProxyProtocol))
		fixed("listen.https.address", text(before.Listen.HTTPS.Address), text(c.Listen.HTTPS.Address))
		fixed("listen.https.proxy_protocol", rangesText(before.Listen.HTTPS.ProxyProtocol),
			rangesText(c.Listen.HTTPS.ProxyProtocol))
	}
	fixed("listen.h2c", before.Listen.H2C, c.Listen.H2C)
	fixed("listen.lane", before.Listen.Lane, c.Listen.Lane)
	fixed("listen.keep_alive", before.Listen.KeepAlive, c.Listen.KeepAlive)
	fixed("listen.admin", text(before.Listen.Admin.Address), text(c.Listen.Admin.Address))
	was, is := before.Listen.ExternalAuth, c.Listen.ExternalAuth
	fixed("listen.external_auth", text(was.Address), text(is.Address))
	fixed("listen.external_auth.grpc", text(was.GRPC), text(is.GRPC))
	if is.Address == was.Address && is.GRPC == was.GRPC {
		fixed("listen.external_auth", scheme(was.TLS()), scheme(is.TLS()))
	}
	lent, lends := before.Listen.Grants, c.Listen.Grants
	fixed("listen.grants", text(lent.Address), text(lends.Address))
	if lent.Address == lends.Address {
		fixed("listen.grants", scheme(lent.TLS()), scheme(lends.TLS()))
	}
	fixed("grants.apps", socketsText(before.Grants.Apps), socketsText(c.Grants.Apps))
	fixed("session.cookie_name", text(before.Session.CookieName), text(c.Session.CookieName))
	fixed("session.cookie_domain", text(before.Session.CookieDomain), text(c.Session.CookieDomain))
	fixed("log.format", before.Log.Format, c.Log.Format)
	fixed("limits.header", Size(before.Limits.Header), Size(c.Limits.Header))
	fixed("limits.ended", before.Limits.Ended, c.Limits.Ended)
	if c.Store.differs(before.Store) { // its address may hold a password
		faults = append(faults, c.doc.FaultAt("store", "was another one when this process began, and that needs a "+
			"restart"))
	}
	return c.doc.Finish(faults)
}

func scheme(tls bool) string {
	if tls {
		return "https"
	}
	return "plain http"
}

func text(v string) string {
	if v == "" {
		return "left out"
	}
	return v
}

func rangesText(ranges []netip.Prefix) string {
	var all []string
	for _, p := range ranges {
		all = append(all, p.String())
	}
	return "[" + strings.Join(all, ", ") + "]"
}

// socketsText are the sockets of apps, which are opened when the process begins.
func socketsText(apps []App) string {
	var all []string
	for _, a := range apps {
		if a.Socket.Path != "" {
			all = append(all, fmt.Sprint(a.ID, " at ", a.Socket.Path, " for users ", a.Socket.UIDs))
		}
	}
	slices.Sort(all)
	return "[" + strings.Join(all, ", ") + "] (sockets)"
}
