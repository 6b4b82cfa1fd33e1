package login

import (
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
