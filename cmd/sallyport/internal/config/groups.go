package config

import yaml "go.yaml.in/yaml/v4"

// Groups says which of a person's groups a session keeps.
type Groups struct {
	Keep string   // KeepNeeded, KeepAll, KeepRules, or "" with
	Only []string // these
}

// What Groups.Keep may say.
const (
	KeepNeeded = "needed" // what somebody is told or a rule asks for: all, for every assertion tells them
	KeepAll    = "all"
	KeepRules  = "rules" // those that rules name
)

func groupsShape() shape[Groups] {
	word := oneOf("", KeepNeeded, KeepAll, KeepRules)
	only := list(exact("the name of a group"), 1)
	want := "needed, all, rules or a list of groups"
	return object[Groups]{instead: among("keep", KeepNeeded, KeepAll, KeepRules), keys: []key[Groups]{
		field("keep", "The groups that a session keeps, and so all that apps can be told: needed keeps those that rules or apps need (today all, because every assertion carries them), "+
			"rules those that rules name; or a list. Where the answer changes, people sign in anew.",
			either(want, within(word, func(g *Groups) *string { return &g.Keep }), yaml.SequenceNode, within(only, func(g *Groups) *[]string { return &g.Only })),
			func(g *Groups) *Groups { return g }).or(KeepNeeded),
	}}.shape()
}

// KeptGroups are the groups that sessions hold, nil for all.
func (c *Config) KeptGroups() []string {
	switch c.Groups.Keep {
	case KeepNeeded, KeepAll:
		return nil
	case "":
		return c.Groups.Only
	}
	kept := []string{}
	for _, r := range c.Rules() {
		kept = append(kept, r.Groups...)
	}
	return kept
}
