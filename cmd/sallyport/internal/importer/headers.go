package importer

import (
	"slices"
	"strings"
)

// headersFor maps what the app is told: the request's headers where Sallyport passes requests
// on, the answer's where another proxy asks.
func (m *mapping) headersFor() {
	if m.alpha {
		m.alphaToldHeaders()
		return
	}
	prefix := "X-Forwarded-"
	passes := m.flag("pass-basic-auth", true)
	passes = m.flag("pass-user-headers", true) || passes
	if m.external {
		prefix, passes = "X-Auth-Request-", m.flag("set-xauthrequest", false)
	}
	for _, name := range []string{"pass-basic-auth", "pass-user-headers", "set-xauthrequest", "prefer-email-to-user"} {
		s := m.set[name]
		switch {
		case s == nil || s.judged:
		case (name == "set-xauthrequest") != m.external && name != "prefer-email-to-user" && m.external:
			m.not(s, "is for apps behind oauth2-proxy, and here another proxy asks")
		case name == "set-xauthrequest" && !m.external && s.value() == "true":
			m.not(s, "is for a proxy that asks, and here requests are passed on")
		default:
			m.mapped(s, "routes[].headers")
		}
	}
	if !passes {
		return
	}
	if m.flag("prefer-email-to-user", false) && !m.external {
		m.tellUser(prefix+"User", "email")
	} else {
		m.tellUser(prefix+"User", "user")
		m.tellUser(prefix+"Email", "email")
	}
	m.tellUser(prefix+"Preferred-Username", "preferred_username")
	m.tellUser(prefix+"Groups", "groups")
}

// tellUser adds a header with a claim of oauth2-proxy's session; false if there is none here.
func (m *mapping) tellUser(name, claim string) bool {
	switch claim {
	case "user":
		if valueOf(m.draft.provider, "type") == "microsoft" {
			return m.leftOut(name, "type microsoft knows people by tenant and object id, and not by the sub that apps "+
				"were told; `subject` in routes[].headers.set tells them that id")
		}
		if valueOf(m.draft.provider, "type") == kindGitHub { // oauth2-proxy tells the login there
			m.headers = append(m.headers, appHeader{name: name, claim: "username", utf8: true})
			return true
		}
		m.headers = append(m.headers, appHeader{name: name, claim: "subject"}) // without the provider's id before it
	case "email":
		m.headers = append(m.headers, appHeader{name: name, claim: "email"})
	case "preferred_username":
		m.headers = append(m.headers, appHeader{name: name, claim: "username", utf8: true})
	case "groups":
		if valueOf(m.draft.provider, "type") == kindGitHub {
			return m.leftOut(name, "apps were told organizations, and teams as ORGANIZATION:TEAM; `groups` in "+
				"routes[].headers.set tells them teams, as ORGANIZATION/TEAM")
		}
		m.headers = append(m.headers, appHeader{name: name, claim: "groups", utf8: true})
	default:
		return false
	}
	return true
}

// leftOut says why no app is told what it would take for something else.
func (m *mapping) leftOut(name, why string) bool {
	at := m.home
	if s := m.set["provider"]; s != nil {
		at.File, at.Line = s.file, s.line
	}
	m.report(at.File, at.Line, name, Refused, "is left out: "+why)
	return false
}

// alphaToldHeaders maps the headers that an alpha configuration lists.
func (m *mapping) alphaToldHeaders() {
	for _, h := range m.sources.headers {
		before := len(m.headers)
		switch {
		case h.response != m.external:
			m.not(h.from, map[bool]string{true: "is set on answers, and here requests are passed on",
				false: "is for apps behind oauth2-proxy, and here another proxy asks"}[h.response])
		case h.keeps:
			m.refuse(h.from, "what a client writes into an identity header never reaches an app")
		case h.claim == "access_token" || h.claim == "id_token" || h.claim == "refresh_token":
			m.refuse(h.from, noTokens)
		case h.basic:
			m.refuse(h.from, known()["basic-auth-password"].why)
		case h.constant:
			m.refuse(h.from, "is the same for everybody, and Sallyport's headers tell of people: set it in the proxy "+
				"before the app")
		case h.values == 0 && !h.response:
			m.refuse(h.from, "takes away what a client sends under this name: no route says that, but identity "+
				"headers of known names never pass")
		case h.values != 1 || h.prefix != "":
			m.refuse(h.from, "is put together of several parts: a header carries one claim here")
		case strings.EqualFold(h.name, "Authorization"):
			m.refuse(h.from, "Authorization carries no identity here")
		case !m.tellUser(h.name, h.claim):
			m.refuse(h.from, "is a claim that headers do not carry here")
		default:
			one := m.headers[before]
			m.headers = m.headers[:before]
			if why := m.headerWrong(one); why != "" {
				m.refuse(h.from, why)
				continue
			}
			m.headers = append(m.headers, one)
			m.mapped(h.from, "routes[].headers.set")
		}
	}
}

func (m *mapping) headerWrong(one appHeader) string {
	return m.wrong(func(d *draft) {
		d.routes = trial(route{headers: append(slices.Clone(m.headers), one)})
	})
}
