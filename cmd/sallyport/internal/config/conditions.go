package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/yamltable"
	"github.com/sallyport-proxy/sallyport/identity"
)

// Conditions are about a request and not about who makes it; all that are given hold.
type Conditions struct {
	Methods []string
	From    []netip.Prefix // an address is a range of one
}

// publicShape reads when everybody may have a route: always, or under conditions.
func publicShape() yamltable.Shape[Route] {
	always := yamltable.Within(yamltable.OnlyTrue(), func(r *Route) *bool { return &r.Public })
	when := yamltable.Object[Conditions]{Some: true, Keys: []yamltable.Entry[Conditions]{
		methodsKey(func(c *Conditions) *[]string { return &c.Methods }),
		fromKey(func(c *Conditions) *[]netip.Prefix { return &c.From }),
	}}.Shape()
	return yamltable.Either("true, or a mapping with methods or from", always, yamltable.Mapping,
		yamltable.Within(when, func(r *Route) *Conditions { r.Public = true; return &r.PublicIf }))
}

func methodsKey[T any](part func(*T) *[]string) yamltable.Entry[T] {
	return yamltable.Field("methods", "The methods of requests for which this holds, in capital letters; GET covers "+
		"HEAD. Headers by which a client names another method are then removed.",
		yamltable.List(method(), 1), part)
}

func fromKey[T any](part func(*T) *[]netip.Prefix) yamltable.Entry[T] {
	return yamltable.Field("from", "Addresses and ranges of clients for which this holds, as trusted_proxies or a "+
		"PROXY header say who the client is. It does not hold where that is not known.",
		yamltable.List(clientRange(), 1), part)
}

// clientRange is one address or a range of them, and not all, which would be no condition.
func clientRange() yamltable.Shape[netip.Prefix] {
	return addressRange(func(p netip.Prefix) string {
		if p.Bits() == 0 {
			return "is every address, which is no condition; leave it out"
		}
		return ""
	})
}

// method is compared byte for byte, as apps do: get is another method than GET.
func method() yamltable.Shape[string] {
	const want = "a method in capital letters, such as GET"
	return yamltable.Scalar(want, yamltable.Schema{"pattern": `^[A-Z][A-Z0-9-]*$`,
		"not": yamltable.Schema{"enum": []string{"CONNECT", "TRACE"}}}, func(v string) (string, error) {
		complaint := errors.New("must be " + want)
		switch upper := strings.ToUpper(v); {
		case isMethod(v) && (v == "CONNECT" || v == "TRACE"):
			return "", errors.New("must be a method that Sallyport accepts")
		case isMethod(v):
			return v, nil
		case isMethod(upper):
			return "", yamltable.Slip{Complaint: complaint, Meant: upper}
		case strings.ContainsAny(v, "*"):
			return "", yamltable.Slip{Complaint: complaint, Why: "; for all methods leave the key out"}
		}
		return "", complaint
	})
}

// isMethod asks for the methods that there are names of (RFC 9110 §16.1 and its registry):
// capital letters, digits and hyphens.
func isMethod(v string) bool {
	return v != "" && strings.Trim(v, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") == "" && v[0] >= 'A'
}

// AsksWho reports whether there are requests for which it matters who makes them.
func (r *Route) AsksWho() bool { return !r.Public || r.Allow.Authenticated || len(r.Allow.Any) > 0 }

// checkRule refuses a rule that says when and not for whom. It would be for nobody, and
// was perhaps meant for everybody.
func checkRule(w *yamltable.Walker, at yamltable.Place, r *Rule) {
	conditions := len(r.Methods)+len(r.From) > 0
	people := len(r.Orgs) + len(r.Groups) + len(r.Emails) + len(r.EmailDomains) + len(r.Subjects)
	if conditions && !r.Authenticated && people == 0 {
		w.Fault(at, "does not say for whom: methods and from narrow a rule, and admit nobody by themselves; add orgs, "+
			"groups, emails, email_domains or subjects, or `authenticated: true` for everybody who is signed in")
	}
}

// checkRoute judges what stands beside `public` and needs an `allow`, and what cannot stand
// together.
func checkRoute(w *yamltable.Walker, at yamltable.Place, r *Route) {
	basic := at.Path + ".headers.basic"
	switch {
	case !w.Has(basic):
	case w.Has(at.Path + ".bearer"):
		w.FaultAt(basic, "cannot be together with bearer: both are about the Authorization header")
	case !r.AsksWho():
		w.FaultAt(basic, "needs an `allow`: on a public route the app is told of nobody")
	}
	if r.AsksWho() {
		return
	}
	for _, key := range signedInKeys() {
		if path := at.Path + "." + key; w.Has(path) {
			w.FaultAt(path, "needs an `allow`: where the conditions of public do not hold, nobody is let in")
		}
	}
}

// signedInKeys are keys of a route that say something of people who are asked who they are.
func signedInKeys() []string { return []string{"bearer", "revocation"} }

// overrideWarnings tell of headers that a route keeps in vain.
func (c *Config) overrideWarnings() Faults {
	var warnings Faults
	for i, r := range c.Routes {
		if !r.asksMethod() {
			continue
		}
		for j, name := range r.Headers.Keep {
			if identity.IsMethodOverride(name) {
				warnings = append(warnings, c.doc.FaultAt(
					yamltable.Index(yamltable.Index("routes", i)+".headers.keep", j), "is removed all the same: the "+
						"route has `methods`, and the app must not be told another method than was judged"))
			}
		}
	}
	return warnings
}

func (r *Route) asksMethod() bool {
	return len(r.PublicIf.Methods) > 0 ||
		slices.ContainsFunc(r.Allow.Any, func(rule Rule) bool { return len(rule.Methods) > 0 })
}

// CORS says which pages of other sites may read what is answered on a route. Nil Origins:
// the app says it.
type CORS struct {
	Origins, Methods, Headers []string
	MaxAge                    time.Duration
	Credentials               bool
}

func corsShape() yamltable.Shape[CORS] {
	return yamltable.Object[CORS]{Keys: []yamltable.Entry[CORS]{
		yamltable.Field("origins", "The sites whose pages may: scheme, host and port, each exactly as browsers "+
			"write it.",
			yamltable.List(origin(), 1), func(c *CORS) *[]string { return &c.Origins }).Required(),
		yamltable.Field("methods", "The methods that such pages may use, beside GET, HEAD and POST, about which "+
			"browsers do not ask. Rules are asked in any case.",
			yamltable.List(method(), 1), func(c *CORS) *[]string { return &c.Methods }),
		yamltable.Field("headers", "The headers that such pages may send, beside the few about which browsers do not "+
			"ask: Content-Type for JSON, Authorization for access tokens.",
			yamltable.List(corsHeader(), 1), func(c *CORS) *[]string { return &c.Headers }),
		yamltable.Field("max_age", "How long browsers may remember what they were told.",
			yamltable.Duration(0, 24*time.Hour), func(c *CORS) *time.Duration { return &c.MaxAge }).Or("10m"),
		yamltable.Field("credentials", "Whether such pages may have cookies sent along. Browsers send the session's "+
			"from pages of the same site only: from a sister host, not from another domain.",
			yamltable.TrueOrFalse(), func(c *CORS) *bool { return &c.Credentials }).Or("false"),
	}}.Shape()
}

func corsHeader() yamltable.Shape[string] {
	const want = "the name of a header, such as Content-Type"
	return yamltable.Scalar(want, yamltable.Schema{"pattern": headerPattern, "not": yamltable.Schema{"const": "*"}},
		func(v string) (string, error) {
			switch {
			case v == "*":
				return "", yamltable.Slip{Complaint: fmt.Errorf("must be %s", want),
					Why: "; name each header, so that none is sent that nobody thought of"}
			case identity.IsToken(v):
				return v, nil
			}
			return "", fmt.Errorf("must be %s", want)
		})
}
