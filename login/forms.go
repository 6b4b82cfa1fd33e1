package login

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"sync"

	"github.com/sallyport-proxy/sallyport/oauth"
)

// form describes the type and size of a claim, for operators who look for a mistake. It
// never shows the value, which is the person's private data.
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

// listForm describes a list: how many values it has, and their type if all have the same.
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

// notices remembers which log lines about a provider have been written. They are about what
// the provider does and not about a person, so each is written once and not at each
// sign-in.
type notices struct {
	mu   sync.Mutex
	seen map[string]bool
}

func (n *notices) once(about string, log func()) {
	n.mu.Lock()
	again := n.seen[about]
	n.seen[about] = true
	n.mu.Unlock()
	if !again {
		log()
	}
}

// ClaimForm describes a claim that a provider sent: its name, its source and its type, but
// never its value. Its JSON form is in the log.
type ClaimForm struct {
	Name string `json:"name"`
	From string `json:"from"`
	Form string `json:"form"`
}

// String is what a log shows that is text.
func (c ClaimForm) String() string { return c.Name + ": " + c.Form + " (" + c.From + ")" }

const maxForms = 100

// forms describes all claims that a provider sent about a person.
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

// sourceName returns the name of source i.
func (p *Provider) sourceName(i int) string {
	switch {
	case p.dialect.account != nil:
		return "GitHub's API"
	case i > 0 && p.dialect.lookup != nil:
		return "directory"
	case i > 0, p.identityFrom == FromUserinfo, p.dialect.userinfoAlone:
		return "userinfo"
	}
	return "ID token"
}

// LastClaims describes the claims that the provider sent at the last successful sign-in; nil
// if there was none yet.
func (p *Provider) LastClaims() []ClaimForm {
	if last := p.last.Load(); last != nil {
		return *last
	}
	return nil
}

// remember stores the descriptions of a sign-in's claims for LastClaims, and logs them.
func (r reader) remember() {
	forms := r.forms()
	r.p.last.Store(&forms)
	r.p.log.DebugContext(r.ctx, "claims received", "claims", forms)
}
