package config

import "github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/yamltable"

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

func groupsShape() yamltable.Shape[Groups] {
	word := yamltable.OneOf("", KeepNeeded, KeepAll, KeepRules)
	only := yamltable.List(exact("the name of a group"), 1)
	want := "needed, all, rules or a list of groups"
	return yamltable.Object[Groups]{Instead: among("keep", KeepNeeded, KeepAll, KeepRules),
		Keys: []yamltable.Entry[Groups]{
			yamltable.Field("keep", "The groups that a session keeps, and so all that apps can be told: needed keeps "+
				"those that rules or apps need (today all, because every assertion carries them), "+
				"rules those that rules name; or a list. Where the answer changes, people sign in anew.",
				yamltable.Either(want, yamltable.Within(word, func(g *Groups) *string { return &g.Keep }),
					yamltable.Sequence,
					yamltable.Within(only, func(g *Groups) *[]string { return &g.Only })),
				func(g *Groups) *Groups { return g }).Or(KeepNeeded),
		}}.Shape()
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
