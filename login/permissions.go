package login

import "slices"

// Permissions say what one provider is asked for at a sign-in, and what is done with the
// answer. They are made from the options that the Provider runs with.
type Permissions struct {
	Provider, Type string
	Scopes         []Scope  // the scopes that are requested, in that order
	Claims         []Claim  // the claims that are read; no others are
	Discarded      []string // what is dropped after the sign-in, in words
	Quirks         []Quirk
}

// Scope is a scope that is requested, with a sentence that says what it gives access to.
type Scope struct{ Name, Opens string }

// Claim is a claim that is read about a person.
type Claim struct {
	Name, From string // its name, and its source: "ID token", "userinfo", "Graph", …
	For        string // what it becomes, or what it is checked for
	Kept       bool   // it is kept in the session
}

// Permissions returns a summary for operators.
func (p *Provider) Permissions() Permissions {
	sum := Permissions{Provider: p.id, Type: p.kind, Claims: p.reads(), Quirks: p.Quirks(), Discarded: []string{
		"the access token", "the refresh token, if the provider sends one", "the ID token",
		"every claim that is not listed",
	}}
	for _, name := range p.scopes {
		sum.Scopes = append(sum.Scopes, Scope{name, p.dialect.opens(name)})
	}
	return sum
}

// opens says what a scope gives access to, if that is known.
func (p dialect) opens(scope string) string {
	switch {
	case scope == "openid":
		return "Says who signed in."
	case scope == "profile":
		return "Opens the name and user name; the provider may add more, which is not read."
	case scope == "email":
		return "Opens the e-mail address, and whether it is verified."
	case p.plainOAuth && scope == "read:org":
		return "Opens the organizations and teams that the person is a member of, and what else members read of " +
			"them; only what is listed is asked for."
	case p.plainOAuth && scope == "user:email":
		return "Opens the person's e-mail addresses; the primary one is read."
	case slices.Contains(p.alsoScopes, scope): // only Microsoft has such a scope
		return "Opens the organization's id, name and domains, and the person's own entry in its directory; both are " +
			"asked for once."
	}
	return "Is this provider's own; nothing but the listed claims is read."
}

// reads lists the claims that identity and the checks read.
func (p *Provider) reads() []Claim {
	from := map[string]string{FromAuto: "ID token, else userinfo", FromIDToken: "ID token",
		FromUserinfo: "userinfo"}[p.identityFrom]
	who := "ID token"
	if p.dialect.userinfoAlone {
		who = "userinfo"
	}
	if p.dialect.wanted == nil || (p.disco.static != nil && p.endpoints.UserinfoURL == "") {
		from = who // there is no userinfo, or it is never asked
	}
	if p.dialect.account != nil {
		return slices.Clone(p.dialect.reads)
	}
	var list []Claim
	add := func(in, use string, kept bool, names ...string) {
		for _, name := range names {
			source := in
			if in == "ID token, else userinfo" && !slices.Contains(p.dialect.wanted, name) {
				source = "ID token, or userinfo where that is asked for another claim"
			}
			list = append(list, Claim{name, source, use, kept})
		}
	}
	if p.dialect.subject == nil {
		add(who, "the person's id", true, p.dialect.subNames...)
	}
	list = append(list, p.dialect.reads...)
	if !p.dialect.nameless {
		add(from, "the e-mail address", true, p.claims.Email)
		add(from, "whether the address counts", false, p.dialect.vouching...)
		add(from, "the name", true, p.claims.Name)
		add(from, "the user name", true, p.claims.Username)
	}
	add(from, "the groups", true, p.claims.Groups)
	if p.dialect.orgs == nil {
		add(from, "the organization's id", true, p.claims.OrgID)
		add(from, "the organization's name", true, p.claims.OrgName)
		add(from, "the organization's domain", true, p.claims.OrgDomain)
		if p.claims.Orgs != "" {
			add(from, "all organizations", true, p.claims.Orgs)
		}
	}
	add(who, "when the person signed in there", true, "auth_time")
	add(who, "how the person signed in there", true, "acr")
	add(who, "the id of the session there", true, "sid")
	return list
}
