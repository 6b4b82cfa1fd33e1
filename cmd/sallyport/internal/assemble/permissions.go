package assemble

import (
	"slices"
	"strings"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/proxy/pages"
)

// ConnectorPermissions are the summaries of the connectors of a configuration: what people
// are asked for where they connect an account for one app after the other. No secret makes a
// difference to it.
func ConnectorPermissions(cfg *config.Config) (all []pages.Permission) {
	made, faults := unresolvedConnectors(cfg)
	if len(faults) > 0 {
		return nil // which NewPolicy refuses
	}
	for i, k := range cfg.Grants.Connectors {
		about := made[i].About()
		p := pages.Permission{Action: pages.Connects, Connector: k.ID, Type: k.Type, Offline: about.Offline,
			Scopes: scopeTerms(cfg, k, made[i]), Note: lendNote(cfg, k)}
		if _, ok := made[i].(grant.OAuth); ok {
			p.Redirect = ConnectURI(cfg, k.ID)
		}
		all = append(all, p)
	}
	return all
}

// Asked is what an app may ask people for, of one connector.
type Asked struct {
	App       config.App
	Connector config.Connector
	Accesses  []grant.Access
}

// AskedOf are what apps may ask people for, in the order of the file. Its error is
// config.Faults.
func AskedOf(cfg *config.Config) (all []Asked, err error) {
	made, err := Connectors(cfg)
	if err != nil {
		return nil, err
	}
	for _, a := range cfg.Grants.Apps {
		for i, k := range cfg.Grants.Connectors {
			if list := appAccesses(a, k, made[i]); len(list) > 0 {
				all = append(all, Asked{a, k, list})
			}
		}
	}
	return all, nil
}

// appAccesses are the accesses of a connector that an app may ask for, the narrowest first.
func appAccesses(a config.App, k config.Connector, c grant.Connector) []grant.Access {
	for _, use := range a.Connectors {
		if use.ID == k.ID {
			_, accesses := mayAsk(use, offered(k, c), c.About())
			return accesses
		}
	}
	return nil
}

// mayAsk is what an app may ask for of a connector that offers something: the names as the
// file has them, and the accesses, the narrowest first.
func mayAsk(use config.AppConnector, offered []string, about grant.About) (names []string, list []grant.Access) {
	if names = use.Access; names == nil {
		names = offered
	}
	for _, access := range about.Accesses {
		if slices.Contains(names, access.Name) {
			list = append(list, access)
		}
	}
	return names, list
}

// scopeTerms are the scopes that all apps together may ask for, with what they are for. A
// pasted key or address has none: it can do what it can.
func scopeTerms(cfg *config.Config, k config.Connector, c grant.Connector) []pages.Term {
	var accesses []grant.Access
	for _, access := range c.About().Accesses {
		if slices.ContainsFunc(cfg.Grants.Apps, func(a config.App) bool {
			return slices.ContainsFunc(appAccesses(a, k, c), func(o grant.Access) bool { return o.Name == access.Name })
		}) {
			accesses = append(accesses, access)
		}
	}
	terms := []pages.Term{}
	if _, ok := c.(grant.OAuth); !ok {
		about, name := c.About(), "API key"
		switch {
		case about.Inject.Header == "":
			name = "secret address"
		case about.UserHint != "":
			name = "app password"
		}
		return append(terms, pages.Term{Name: name, Means: "People paste " + about.KeyHint + ". " + mayOf(accesses)})
	}
	var names []string
	for _, access := range accesses {
		for _, scope := range access.Scopes {
			if !slices.Contains(names, scope) {
				names = append(names, scope)
			}
		}
	}
	for _, name := range names {
		terms = append(terms, pages.Term{Name: name, Means: scopeMeans(name, slices.DeleteFunc(slices.Clone(accesses),
			func(a grant.Access) bool { return !slices.Contains(a.Scopes, name) }))})
	}
	return terms
}

// scopeMeans says what a scope is for. Those of OpenID Connect have the same meaning with
// everybody (OpenID Connect Core 1.0 §3.1.2.1, §5.4, §11).
func scopeMeans(scope string, of []grant.Access) string {
	switch scope {
	case "openid":
		return "Says whose account it is."
	case "profile":
		return "Opens the name of the account, by which people know it."
	case "offline_access":
		return "Keeps it working after the first hour, until somebody ends it."
	case "email":
		return "Opens the e-mail address of the account, by which people know it."
	}
	return mayOf(of)
}

// mayOf says in words what accesses let apps do. They speak to the person whose it is.
func mayOf(accesses []grant.Access) string {
	if len(accesses) == 0 {
		return "No app may use it."
	}
	var means []string
	for _, a := range accesses {
		means = append(means, a.Means)
	}
	return "Apps may " + strings.Join(means, "; ") + "."
}

// lendNote says whose a grant is, who may use it while its person is away, and what no rule
// holds for.
func lendNote(cfg *config.Config, k config.Connector) string {
	var note, away, raw []string
	used := false
	for _, a := range cfg.Grants.Apps {
		if !slices.ContainsFunc(a.Connectors, func(u config.AppConnector) bool { return u.ID == k.ID }) {
			continue
		}
		used = true
		if a.Offline {
			away = append(away, a.ID)
		}
		if a.RawTokens {
			raw = append(raw, a.ID)
		}
	}
	if k.Owner == config.OwnedByOrg {
		note = append(note, "One for all of an organization.")
	}
	switch {
	case !used:
		note = append(note, "No app is configured for it, so nobody can connect it.")
	case away == nil:
		note = append(note, "No app may use it while the person is away.")
	default:
		note = append(note, "While the person is away, only for who agreed to that: "+strings.Join(away, ", ")+".")
	}
	if raw != nil {
		note = append(note, "Reads the tokens themselves, without rules: "+strings.Join(raw, ", ")+".")
	}
	return strings.Join(note, " ")
}
