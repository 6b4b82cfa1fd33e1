package selftest

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Result is what became of a case.
type Result string

// The results. Missing is what should be there and is not, or cannot be told.
const (
	OK      Result = "ok"
	Leak    Result = "LEAK"
	Missing Result = "MISS"
)

// verdict is a result, what was seen, and the line that helps.
type verdict struct {
	result Result
	saw    string
	fix    lines
}

// expectation judges what became of a request.
type expectation func(*run, *outcome) verdict

// saw says what came back.
func (o *outcome) saw() string {
	switch {
	case len(o.arrived) > 0:
		return "reached the app"
	case o.err != nil:
		return "no answer"
	}
	return "answered " + strconv.Itoa(o.answer.status)
}

// refused reports whether the answer says that somebody has refused the request, rather
// than that something else is in the way.
func (o *outcome) refused() bool {
	s := o.answer.status
	return o.err == nil && s >= 300 && s < 500 && s != http.StatusRequestTimeout && s != http.StatusTooManyRequests
}

// notArrived is the verdict on a request that did not reach the echo. A 2xx is none of the
// echo: somebody else was asked, and what that shows cannot be told.
func (o *outcome) notArrived(fix lines, brokenOff bool) verdict {
	switch {
	case o.refused(), brokenOff && (o.err != nil || o.answer.status >= 400):
		return verdict{result: OK, saw: o.saw()}
	case o.err == nil && o.answer.status < 300:
		return verdict{Missing, o.saw() + ", and not by the echo: cannot be judged", fix}
	}
	return verdict{Missing, o.saw() + ": cannot be judged", fix}
}

// expectArrival: the request must reach the echo.
func expectArrival(fix lines) expectation {
	return func(_ *run, o *outcome) verdict {
		if len(o.arrived) == 0 {
			return verdict{Missing, o.saw(), fix}
		}
		return verdict{result: OK, saw: o.saw()}
	}
}

// expectPublic is for what everybody may have. Who refuses it lacks the routes, or does not
// ask about the request that was sent.
func expectPublic(r *run, o *outcome) verdict {
	if o.answer.status >= http.StatusUnauthorized {
		return expectArrival(either(fixRoutes, fixAsked("X-Original-URL")))(r, o)
	}
	return expectArrival(fixRoutes)(r, o)
}

// expectNothing: the request must not reach the echo. Whoever breaks off has refused it.
func expectNothing(fix lines) expectation {
	return func(_ *run, o *outcome) verdict {
		if len(o.arrived) > 0 {
			return verdict{Leak, "reached the app as " + shownTarget(o.arrived[0].line), fix}
		}
		return o.notArrived(fix, true)
	}
}

// expectNothingUnlessPlain is expectNothing, but for a front that makes another path of the
// one that was sent before it asks, as Traefik resolves "/;/..": what arrives at a path that
// everybody may have, and can be read in one way only, is no way around the check.
func expectNothingUnlessPlain(fix lines) expectation {
	return func(r *run, o *outcome) verdict {
		for _, a := range o.arrived {
			if !plainPublic(a.line) {
				return expectNothing(fix)(r, o)
			}
		}
		if len(o.arrived) > 0 {
			return verdict{result: OK, saw: o.saw()}
		}
		return o.notArrived(fix, true)
	}
}

// plainPublic reports whether a request line is for one name below the public path, in which
// no program sees anything else.
func plainPublic(line string) bool {
	_, rest, _ := strings.Cut(line, " ")
	target, _, _ := strings.Cut(rest, " ")
	name, ok := strings.CutPrefix(target, Area+"/public/")
	return ok && name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}

func shownTarget(line string) string {
	if len(line) > 120 {
		line = line[:120] + "…"
	}
	return strconv.Quote(line)
}

// expectUnsplit: of two paths in one request the echo sees the public one at most.
func expectUnsplit(_ *run, o *outcome) verdict {
	for _, a := range o.arrived {
		if !strings.Contains(a.line, Area+"/public/") {
			return verdict{Leak, "reached the app as " + shownTarget(a.line), fixPath}
		}
	}
	return verdict{result: OK, saw: o.saw()}
}

// expectElsewhere is expectNothing for another host: who answers there is not judged.
func expectElsewhere(fix lines) expectation {
	return func(r *run, o *outcome) verdict {
		if v := expectNothing(fix)(r, o); v.result == Leak {
			return v
		}
		return verdict{result: OK, saw: o.saw()}
	}
}

// expectUnmarked: the request may reach the echo, without what the case wrote.
func expectUnmarked(fix lines, malformed bool) expectation {
	return func(r *run, o *outcome) verdict {
		if len(o.arrived) == 0 {
			return o.notArrived(fix, malformed)
		}
		for _, a := range o.arrived {
			for _, line := range a.header {
				if name, _, _ := strings.Cut(line, ":"); r.marked(line) && !unfolded(line) {
					return verdict{Leak, "the app got " + strconv.Quote(name), fix}
				}
			}
		}
		return verdict{result: OK, saw: "the app did not get it"}
	}
}

// unfolded reports whether a line is that of a case whose second line the front has made a
// part of the first, as RFC 9112 §5.2 wants it.
func unfolded(line string) bool {
	return strings.HasPrefix(strings.ToLower(line), "x-selftest:") && !strings.Contains(line, "\r")
}

// expectNoHeader: the request may reach the echo, without a header of this name.
func expectNoHeader(name string, fix lines) expectation {
	return func(_ *run, o *outcome) verdict {
		if len(o.arrived) == 0 {
			return o.notArrived(fix, false)
		}
		for _, a := range o.arrived {
			if len(a.get(name)) > 0 {
				return verdict{Leak, "the app got " + name, fix}
			}
		}
		return verdict{result: OK, saw: "the app did not get it"}
	}
}

// expectNoOtherProtocol: an app is asked to go on in none but that of WebSockets. What follows
// its consent passes the front unseen.
func expectNoOtherProtocol(_ *run, o *outcome) verdict {
	if len(o.arrived) == 0 {
		return o.notArrived(fixProtocol, false)
	}
	for _, a := range o.arrived {
		for _, protocol := range a.get("Upgrade") {
			if !strings.EqualFold(protocol, "websocket") &&
				strings.Contains(strings.ToLower(strings.Join(a.get("Connection"), ",")), "upgrade") {
				return verdict{Leak, "the app was asked to go on in " + protocol, fixProtocol}
			}
		}
	}
	return verdict{result: OK, saw: "the app was not asked"}
}

// expectRefused: nobody may be let in. What a 2xx shows cannot be told without the echo.
func expectRefused(fix lines) expectation {
	return func(_ *run, o *outcome) verdict { return o.notArrived(fix, true) }
}

// expectStatus: the request is answered with one of these.
func expectStatus(fix lines, statuses ...int) expectation {
	return func(_ *run, o *outcome) verdict {
		switch {
		case len(o.arrived) > 0:
			return verdict{Leak, o.saw() + ", and nobody is signed in", fixCheck}
		case o.err == nil && slices.Contains(statuses, o.answer.status):
			return verdict{result: OK, saw: o.saw()}
		case o.err == nil && o.answer.status < 300:
			return verdict{Missing, o.saw() + ": is this address for people who are signed in?", fixCheck}
		}
		return verdict{Missing, o.saw(), fix}
	}
}

// expectSignIn: a page is sent to Sallyport's own.
func expectSignIn(r *run, o *outcome) verdict {
	switch to, err := url.Parse(o.answer.header.Get("Location")); {
	case len(o.arrived) > 0:
		return verdict{Leak, o.saw() + ", and nobody is signed in", fixCheck}
	case o.err == nil && o.answer.status < 300:
		return verdict{Missing, o.saw() + ": is this address for people who are signed in?", fixCheck}
	case o.err != nil || o.answer.status/100 != 3:
		return verdict{Missing, o.saw(), fixSignIn}
	case err != nil || !strings.HasPrefix(to.Path, r.Prefix+"/"):
		return verdict{Missing, o.saw() + ", and leads elsewhere", fixSignIn}
	}
	return verdict{result: OK, saw: o.saw()}
}

// expectKeys: Sallyport itself answers below its prefix.
func expectKeys(_ *run, o *outcome) verdict {
	if o.answer.status == http.StatusOK && bytes.Contains(o.answer.body, []byte(`"keys"`)) {
		return verdict{result: OK, saw: o.saw()}
	}
	return verdict{Missing, o.saw() + ", and not by Sallyport", fixOwn}
}

// expectLogin: Sallyport begins a sign-in, and for the host that was asked, whatever a
// header of the client says.
func expectLogin(fix lines) expectation {
	return func(r *run, o *outcome) verdict {
		location := o.answer.header.Get("Location")
		switch seen := fmt.Sprint(o.answer.status, " ", origin(location)); {
		case fix == nil && (o.err != nil || o.answer.status/100 == 4):
			return verdict{Missing, o.saw(), fixOwn}
		case fix == nil:
			r.login = seen
			return verdict{result: OK, saw: o.saw()}
		case r.login == "" || o.err != nil:
			return verdict{Missing, o.saw() + ": cannot be judged", fixOwn}
		case r.marked(location) || r.marked(string(o.answer.body)):
			return verdict{Leak, "Sallyport took it for the host of this site", fix}
		case seen != r.login:
			return verdict{Leak, o.saw() + ": Sallyport heeds it", fix}
		}
		return verdict{result: OK, saw: o.saw()}
	}
}

func origin(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// expectNoQuestion: nobody outside may ask what fronts ask. Only /verify answers a page
// with 401 and a Location.
func expectNoQuestion(_ *run, o *outcome) verdict {
	h := o.answer.header
	if h.Get("X-Sallyport-Names") != "" || o.answer.status == http.StatusUnauthorized &&
		h.Get("Location") != "" && h.Get("X-Sallyport-Asker") != "" {
		return verdict{Leak, "Sallyport's answer to the front", fixQuestion}
	}
	return verdict{result: OK, saw: o.saw()}
}

// expectUnreadable: a page of another site cannot read the answer with the cookies of who
// is signed in. A "*" does not let it: browsers want the page's own name for that.
func expectUnreadable(r *run, o *outcome) verdict {
	allowed, cookies := o.answer.header.Get("Access-Control-Allow-Origin"),
		o.answer.header.Get("Access-Control-Allow-Credentials")
	switch {
	case cookies == "true" && (allowed == "null" || r.marked(allowed)):
		return verdict{Leak, "every page may read it, with cookies", fixCORS}
	case o.err != nil:
		return verdict{Missing, o.saw(), fixCheck}
	}
	return verdict{result: OK, saw: o.saw()}
}

// expectUnsent: the same, and nothing is sent on for it.
func expectUnsent(r *run, o *outcome) verdict {
	if len(o.arrived) > 0 {
		return verdict{Leak, o.saw() + ", and nobody is signed in", fixCheck}
	}
	return expectUnreadable(r, o)
}

// expectHost: the app is told the host that was judged.
func expectHost(r *run, o *outcome) verdict {
	if len(o.arrived) == 0 {
		return o.notArrived(fixRoutes, false)
	}
	if got := o.arrived[0].get("Host"); len(got) != 1 || !strings.EqualFold(got[0], r.URL.Host) {
		return verdict{Missing, fmt.Sprintf("the app was told %q", got), fixHost}
	}
	return verdict{result: OK, saw: "the app was told " + r.URL.Host}
}

// expectUpgrade: a handshake reaches the app as one.
func expectUpgrade(_ *run, o *outcome) verdict {
	if len(o.arrived) == 0 {
		return verdict{Missing, o.saw(), fixWebSocket}
	}
	a := o.arrived[0]
	if !strings.HasSuffix(a.line, " HTTP/1.1") ||
		!strings.EqualFold(strings.Join(a.get("Upgrade"), ","), "websocket") ||
		!strings.Contains(strings.ToLower(strings.Join(a.get("Connection"), ",")), "upgrade") {
		return verdict{Missing, "the app was not asked for a WebSocket", fixWebSocket}
	}
	return verdict{result: OK, saw: o.saw()}
}

// expectCookies: the app gets its own cookies and none of Sallyport's.
func expectCookies(r *run, o *outcome) verdict {
	if len(o.arrived) == 0 {
		return o.notArrived(fixCookie, false)
	}
	for _, a := range o.arrived {
		cookies := strings.Join(a.get("Cookie"), "; ")
		switch {
		case r.marked(strings.Join(a.header, "\n")):
			return verdict{Leak, "the app got a cookie of Sallyport's name", fixCookie}
		case !strings.Contains(cookies, "app=kept"):
			return verdict{Missing, "the app's own cookie did not arrive", fixCookie}
		}
	}
	return verdict{result: OK, saw: "the app got its own cookies only"}
}

// expectIdentity: the app is told who it is.
func expectIdentity(r *run, o *outcome) verdict {
	if len(o.arrived) == 0 {
		return verdict{Missing, o.saw() + ": is the session over?", fixRoutes}
	}
	a := &o.arrived[0]
	if v := r.ownCookies(o); v.result != OK {
		return v
	}
	told := 0
	for _, name := range r.Names {
		if values := a.get(name); len(values) == 1 && values[0] != "" {
			told++
		}
	}
	if told == 0 && len(r.Names) > 0 {
		return verdict{Missing, "the app was told nothing of the person", fixIdentity(r.Names[0])}
	}
	if slices.Contains(r.Names, assertionHeader) && len(a.get(assertionHeader)) != 1 {
		return verdict{Missing, "the app got no " + assertionHeader, fixIdentity(assertionHeader)}
	}
	return verdict{result: OK, saw: fmt.Sprintf("the app was told %d headers of the person", told)}
}

const assertionHeader = "X-Sallyport-Assertion"

// ownCookies: no value of the cookie that the run was given is in what the app got.
func (r *run) ownCookies(o *outcome) verdict {
	for _, a := range o.arrived {
		for _, secret := range secrets(r.Cookie) {
			if strings.Contains(strings.Join(a.header, "\n"), secret) {
				return verdict{Leak, "the app got the session cookie", fixCookie}
			}
		}
	}
	return verdict{result: OK}
}

// expectSame: the app is told the same as without what the case wrote.
func expectSame(seen *arrival, fix lines) expectation {
	return func(r *run, o *outcome) verdict {
		if v := expectUnmarked(fix, false)(r, o); v.result != OK || len(o.arrived) == 0 {
			return v
		}
		if v := r.ownCookies(o); v.result != OK {
			return v
		}
		for _, a := range o.arrived {
			if name := r.differs(seen, &a); name != "" {
				return verdict{Leak, "the app was told something else, or nothing, as " + name, fix}
			}
		}
		return verdict{result: OK, saw: "the app was told who it is"}
	}
}

// differs is the first header in which two arrivals say something else of the person; an
// assertion is signed anew for each.
func (r *run) differs(a, b *arrival) string {
	for _, name := range r.Names {
		before, after := a.get(name), b.get(name)
		if name == assertionHeader {
			if len(before) != len(after) {
				return name
			}
		} else if !slices.Equal(before, after) {
			return name
		}
	}
	return ""
}

// expectNoOther: with a session cookie and a forged one of its name, the app is told of the
// person, or nothing arrives.
func expectNoOther(seen *arrival) expectation {
	return func(r *run, o *outcome) verdict {
		if len(o.arrived) == 0 {
			return o.notArrived(fixCookie, false)
		}
		return expectSame(seen, fixCookie)(r, o)
	}
}
