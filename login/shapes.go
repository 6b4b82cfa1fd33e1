package login

import (
	"maps"
	"slices"

	"encoding/json"
	"strconv"
	"sync"

	"github.com/sallyport-proxy/sallyport/oauth"
)

// form says of what type a claim is, and how large, for people who look for a
// fault. What is in a claim belongs to the person and is never said.
func (c claims) form(name string) string {
	raw, ok := c[name]
	switch {
	case !ok && c.elsewhere(name):
		return "kept elsewhere"
	case !ok:
		return "absent"
	}
	return formOf(raw)
}

func formOf(raw json.RawMessage) string {
	var list []json.RawMessage
	var text string
	switch {
	case len(raw) == 0:
		return "unreadable"
	case string(raw) == beyondPath:
		return "behind something that is no object"
	case string(raw) == "null":
		return "null"
	case string(raw) == "true", string(raw) == "false":
		return "boolean"
	case raw[0] == '"':
		if json.Unmarshal(raw, &text) != nil {
			return "unreadable text"
		}
		return "text of " + counted(len(text), "byte")
	case raw[0] == '[':
		if json.Unmarshal(raw, &list) != nil {
			return "unreadable list"
		}
		return listForm(list)
	case raw[0] == '{':
		members, err := oauth.Object(raw)
		if err != nil {
			return "unreadable object"
		}
		return "object with " + counted(len(members), "member")
	case wholeNumber(raw):
		return "whole number"
	}
	return "number"
}

// listForm names the type of what is in a list where it is one.
func listForm(list []json.RawMessage) string {
	kinds := map[string]bool{}
	for _, raw := range list {
		kinds[valueKind(raw)] = true
	}
	if len(kinds) == 1 {
		return "list of " + counted(len(list), valueKind(list[0]))
	}
	return "list of " + counted(len(list), "value")
}

func valueKind(raw json.RawMessage) string {
	switch {
	case len(raw) > 0 && raw[0] == '"':
		return "text"
	case len(raw) > 0 && raw[0] == '{':
		return "object"
	case len(raw) > 0 && raw[0] == '[':
		return "list"
	}
	return "value"
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// notices are the log lines that one provider gets once, however many people
// sign in: they are about the provider's ways, not about a person.
type notices struct {
	mu   sync.Mutex
	seen map[string]bool
}

func (n *notices) once(about string, say func()) {
	n.mu.Lock()
	again := n.seen[about]
	n.seen[about] = true
	n.mu.Unlock()
	if !again {
		say()
	}
}

// ClaimForm is a claim that a provider sent, and in what form: a name and a
// type, never a value.
type ClaimForm struct{ Name, From, Form string }

const maxForms = 100

// forms lists what a provider sent about a person.
func (r reader) forms() []ClaimForm {
	var out []ClaimForm
	for i, c := range r.sources {
		for _, name := range slices.Sorted(maps.Keys(c)) {
			if len(out) == maxForms {
				return out
			}
			shown := name
			if !printable(shown, maxText) {
				shown = "(a name that cannot be shown)"
			}
			out = append(out, ClaimForm{shown, r.p.sourceName(i), c.form(name)})
		}
	}
	return out
}

// sourceName says where the claims of the source with number i come from.
func (p *Provider) sourceName(i int) string {
	switch {
	case i > 0 && p.dialect.lookup != nil:
		return "directory"
	case i > 0, p.identityFrom == FromUserinfo, p.dialect.userinfoAlone:
		return "userinfo"
	}
	return "ID token"
}

// LastClaims are the names and types of what the provider sent at the last
// sign-in that succeeded; nil if there was none yet.
func (p *Provider) LastClaims() []ClaimForm {
	if last := p.last.Load(); last != nil {
		return *last
	}
	return nil
}

// remember keeps the forms of a sign-in's claims for LastClaims, and logs them.
func (r reader) remember() {
	forms := r.forms()
	r.p.last.Store(&forms)
	r.p.log.DebugContext(r.ctx, "claims received", "claims", forms)
}
