package config

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/yamltable"
	"github.com/sallyport-proxy/sallyport/internal/hostname"
)

// Other proxies have patterns where this file has plain values: globs, regular
// expressions, named segments. Taken as they are written they would match
// nothing, and a rule that protects nothing leaves its area to the rule beside
// it. So what looks like a pattern is refused where the value cannot have such
// signs, and warned of where it can.

// Signs of patterns that cannot be meant as themselves in a path.
const (
	pathPatternForm = `[*{}^|<>\\\[\]]|\(\?|\.\+|\$$|/:[A-Za-z_]\w*(/|$)|^[~=^]`
	// pathForm is what the schema can say of it.
	pathForm = `^/([^?#\s*{}^|<>\\\[\]]*[^?#\s*{}^|<>\\\[\]$])?$`
)

// patternAdvice says what a path that looks like a pattern should be; "" if it
// looks like none.
func patternAdvice(path string) (advice, meant string) {
	signs := regexp.MustCompile(pathPatternForm)
	if !signs.MatchString(path) {
		return "", ""
	}
	advice = "paths are literal, so this pattern would match nothing"
	plain := strings.TrimLeft(path, "~=^ ")
	first := signs.FindStringIndex(plain)
	if first == nil {
		return advice, plain
	}
	before := plain[:first[0]]
	switch rest := plain[first[0]:]; {
	case !strings.HasPrefix(plain, "/"):
		return advice + "; write the path before the pattern, which covers all below it", ""
	case rest == "$":
		return advice + "; path_exact covers one path and nothing below it", before
	case strings.HasPrefix(rest, "/:"):
	case !strings.HasSuffix(before, "/"): // "/admin*": part of a segment
		if i := strings.LastIndexByte(before, '/'); i > 0 && !strings.Contains(before, "(") {
			return fmt.Sprintf("%s; a path covers all below it, as %s covers %s/x", advice, before[:i], before[:i]), ""
		}
		return advice + "; a path covers all below it, as /admin covers /admin/x", ""
	}
	covers := strings.TrimRight(before, "/")
	if covers == "" {
		return advice + "; / covers all paths", "/"
	}
	advice = fmt.Sprintf("%s; %s covers all below it, %s/x too", advice, covers, covers)
	if strings.ContainsAny(path, "{}") {
		advice += " (a brace itself is written %7B or %7D)"
	}
	return advice, covers
}

// routePath looks only at the outline; what a canonical path is, authz knows.
func routePath() yamltable.Shape[string] {
	want := "a path that begins with /, without query or blanks"
	outline := regexp.MustCompile(`^/[^?#\s]*$`)
	return yamltable.Scalar(want, yamltable.Schema{"pattern": pathForm}, func(v string) (string, error) {
		if advice, meant := patternAdvice(v); advice != "" {
			return "", yamltable.Slip{Complaint: errors.New("must be one path: " + advice), Meant: meant}
		}
		if !outline.MatchString(v) {
			return "", errors.New("must be " + want)
		}
		return v, nil
	})
}

// routeHost is the host of a route, where two patterns have a meaning.
func routeHost() yamltable.Shape[string] {
	want := `a host name in lower case without a port, such as app.example.com, "*.example.com" or "{org}.example.com"`
	form := regexp.MustCompile(hostPattern)
	return yamltable.Scalar(want, yamltable.Schema{"pattern": hostPattern}, func(v string) (string, error) {
		if form.MatchString(v) {
			return v, nil
		}
		err := errors.New("must be " + want)
		name := strings.ToLower(v)
		if _, host, isURL := strings.Cut(name, "://"); isURL {
			name, _, _ = strings.Cut(host, "/")
		}
		name, _, _ = strings.Cut(name, ":")
		switch {
		case v == "*":
			return "", errors.New(`must be one host, or left out for the host of public_url; ` +
				`"*.example.com" stands for all below a domain`)
		case form.MatchString(name): // with a port, or in capitals
			return "", yamltable.Slip{Complaint: err, Meant: name}
		case strings.HasPrefix(name, ".") && form.MatchString("*"+name):
			return "", yamltable.Slip{Complaint: err, Meant: "*" + name}
		}
		return "", err
	})
}

// emailAddress is one e-mail address that somebody can have: what login takes for
// one, before or after verification.
func emailAddress() yamltable.Shape[string] {
	const form = `^[^@\s"(),:;<>\[\]\\*{}^|]+@[^@\s]+$`
	want := "an address such as ann@example.com"
	outline := regexp.MustCompile(form)
	return yamltable.Scalar(want, yamltable.Schema{"pattern": form}, func(v string) (string, error) {
		local, domain, ok := strings.Cut(v, "@")
		domain = strings.ToLower(domain)
		switch ascii := isASCII(v); {
		case ascii && outline.MatchString(v) && hostname.IsDomain(domain):
			return v, nil
		case ok && hostname.IsDomain(domain) && strings.Trim(local, "*.+^") == "", !ok && hostname.IsDomain(v) &&
			strings.Contains(v, "."):
			if !ok {
				domain = v
			}
			return "", fmt.Errorf("must be %s, without patterns; for everybody there write email_domains: [%s]", want,
				domain)
		case !ascii:
			return "", errors.New("must be " + want + ", in ASCII: no other address counts as verified")
		}
		return "", errors.New("must be " + want + ", without patterns")
	})
}

// domain is the domain of e-mail addresses.
func domain() yamltable.Shape[string] {
	want := "a domain in lower case such as example.com, without @"
	return yamltable.Scalar(want, yamltable.Schema{"pattern": hostname.DomainPattern}, func(v string) (string, error) {
		if hostname.IsDomain(v) {
			return v, nil
		}
		err := errors.New("must be " + want)
		bare := strings.ToLower(strings.TrimLeft(v, "@"))
		switch below := strings.TrimLeft(bare, "*."); {
		case hostname.IsDomain(bare):
			return "", yamltable.Slip{Complaint: err, Meant: bare}
		case hostname.IsDomain(below):
			return "", yamltable.Slip{Complaint: errors.New("must be a domain as it stands behind the @: subdomains " +
				"do not come with it, " +
				"each is named for itself"), Meant: below}
		}
		return "", err
	})
}

// exact is a text that is compared as it is, such as the name of a group. A
// provider may put any sign into one, so only what is nothing but a pattern is
// refused; Warnings tells of the rest.
func exact(want string) yamltable.Shape[string] {
	s := yamltable.Text(want)
	s.Read = func(w *yamltable.Walker, at yamltable.Place, into *string) {
		v, ok := w.Text(at, want, false)
		switch {
		case !ok:
		case wildcard(v):
			w.Fault(at, "must be %s: it is compared as it is, so %s would match nothing", want, yamltable.Quote(v))
		default:
			*into = v
			if looksLikePattern(v) {
				w.Mark(at)
			}
		}
	}
	return s
}

// wildcard tells what stands for everything elsewhere, also behind the id of a
// provider ("sso:*").
func wildcard(v string) bool {
	if i := strings.IndexByte(v, ':'); i >= 0 {
		v = v[i+1:]
	}
	v = strings.TrimSuffix(strings.TrimPrefix(v, "^"), "$")
	return v == "*" || v == "**" || v == ".*" || v == ".+"
}

func looksLikePattern(v string) bool {
	return strings.ContainsAny(v, "*{}|^") || strings.HasSuffix(v, "$") || strings.Contains(v, ".+") ||
		strings.Contains(v, "(?") ||
		(len(v) > 2 && strings.HasPrefix(v, "/") && strings.HasSuffix(v, "/"))
}

// patternWarnings tell of texts that look like patterns and are none.
func (c *Config) patternWarnings() Faults {
	var warnings Faults
	for _, p := range c.doc.Marked() {
		warnings = append(warnings, c.doc.FaultIn(p,
			"is compared as it is: no sign in %s stands for another", yamltable.Quote(p.Node.Value)))
	}
	return warnings
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 })
}
