package authz

import (
	"net/netip"
	"slices"
	"strings"
)

// Conditions are about a request and not about who makes it: all that are given must
// hold. They only narrow: what they stand beside says who is admitted.
type Conditions struct {
	// Methods are compared byte for byte, as apps do; GET covers HEAD, which is the same
	// request without the body of the answer (RFC 9110 §9.3.2).
	Methods []string
	// From are ranges of addresses. An address that is not known is in none of them.
	From []netip.Prefix
}

func (c Conditions) none() bool { return len(c.Methods) == 0 && len(c.From) == 0 }

// unmet is the reason for which the conditions do not hold of f, "" if they hold.
func (c Conditions) unmet(f Facts) Reason {
	switch {
	case len(c.Methods) > 0 && !c.takesMethod(f.Method):
		return ReasonMethod
	case len(c.From) > 0 && !c.takesAddress(f.Client):
		return ReasonAddress
	}
	return ""
}

func (c Conditions) takesMethod(method string) bool {
	return slices.Contains(c.Methods, method) || method == "HEAD" && slices.Contains(c.Methods, "GET")
}

func (c Conditions) takesAddress(client netip.Addr) bool {
	client = client.Unmap().WithZone("") // prefixes have no zone, and IPv4 is written as IPv4
	return client.IsValid() && slices.ContainsFunc(c.From, func(p netip.Prefix) bool { return p.Contains(client) })
}

// String is the end of a sentence about people: ", for GET requests from 10.0.0.0/8".
func (c Conditions) String() string {
	if c.none() {
		return ""
	}
	said := ", for requests"
	if len(c.Methods) > 0 {
		methods := slices.Clone(c.Methods)
		if i := slices.Index(methods, "GET"); i >= 0 && !slices.Contains(methods, "HEAD") {
			methods = slices.Insert(methods, i+1, "HEAD")
		}
		said = ", for " + orList(methods) + " requests"
	}
	if len(c.From) > 0 {
		var ranges []string
		for _, p := range c.From {
			ranges = append(ranges, strings.TrimSuffix(p.String(), single(p)))
		}
		said += " from " + orList(ranges)
	}
	return said
}

// single is the end of a range that is one address.
func single(p netip.Prefix) string {
	if !p.IsSingleIP() {
		return ""
	}
	if p.Addr().Is4() {
		return "/32"
	}
	return "/128"
}

// OpenTo reports whether everybody may have what f asks for, without signing in. The app
// is then told of nobody.
func (a Access) OpenTo(f Facts) bool { return a.Public && a.PublicIf.unmet(f) == "" }

// AsksWho reports whether there are requests for which it matters who makes them.
func (a Access) AsksWho() bool {
	return !a.Public || !a.PublicIf.none() && (a.Authenticated || len(a.Rules) > 0)
}

// AsksMethod reports whether a verdict depends on the method. Where it does, an app must
// not be told another one than was judged.
func (a Access) AsksMethod() bool {
	return len(a.PublicIf.Methods) > 0 || slices.ContainsFunc(a.Rules, func(r Rule) bool { return len(r.Methods) > 0 })
}

// AsksAddress reports whether a verdict depends on the client's address.
func (a Access) AsksAddress() bool {
	return len(a.PublicIf.From) > 0 || slices.ContainsFunc(a.Rules, func(r Rule) bool { return len(r.From) > 0 })
}

// closedTo reports that nobody is let in with f, whoever they are, and the condition by
// which that is so. To sign in would not help.
func (a Access) closedTo(f Facts) (Reason, bool) {
	var unmet Reason
	switch {
	case !a.AsksWho():
		return a.PublicIf.unmet(f), true
	case a.Authenticated:
		return "", false
	}
	for _, r := range a.Rules {
		if why := r.conditions().unmet(f); why == "" {
			return "", false
		} else if unmet == "" || why == ReasonAddress { // that rule is for the method
			unmet = why
		}
	}
	return unmet, unmet != ""
}

// denyUnmet is the verdict where a condition does not hold. It does not say which
// addresses would do: that is for the log.
func denyUnmet(f Facts, r *Route, unmet Reason) Verdict {
	if unmet == ReasonMethod {
		requests := f.Method + " requests"
		if f.Method == "" {
			requests = "requests of which the method is not known"
		}
		return deny(ReasonMethod, "route "+r.Name+" is not open to "+requests+"; it is for "+r.Access.String(),
			"This address is not open to this kind of request.")
	}
	from := "an address that is not known"
	if f.Client.IsValid() {
		from = f.Client.String()
	}
	return deny(ReasonAddress, "route "+r.Name+" is not open to requests from "+from+"; it is for "+r.Access.String(),
		"This address is not open from the network that you are in.")
}
