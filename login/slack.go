package login

import (
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/hostname"
)

// docs/providers/slack.md has the sources.
const (
	slackIssuer = "https://slack.com"

	slackTeam           = "https://slack.com/team_id"
	slackTeamName       = "https://slack.com/team_name"
	slackTeamDomain     = "https://slack.com/team_domain"
	slackEnterprise     = "https://slack.com/enterprise_id"
	slackEnterpriseName = "https://slack.com/enterprise_name"
)

// slack is the dialect of Sign in with Slack: OpenID Connect, with claims of its own for the
// workspace. Slack answers a failed token request with status 200 and ok: false; oauth sees
// to that.
func slack(o Options) dialect {
	p := strict(o)
	// An app at Slack can choose PKCE, and then its tokens have other lifetimes and it has no
	// secret (docs/providers/slack.md). Without PKCE, the nonce binds the code to the browser
	// (RFC 9700 §2.1.1).
	p.noPKCE = true
	if o.Issuer == slackIssuer {
		p.redirectOrigins = []string{"https://*.slack.com"} // the host of a workspace where the person is signed in
	}
	p.subject = slackSubject
	p.wanted = append(p.vendorNeeds(o), "email", emailVerified, "name", slackTeamName)
	p.orgs = slackWorkspace
	p.reads = []Claim{
		{slackTeam, "ID token", "the person's id, and the organization's", true},
		{"sub", "ID token", "the person's id", true},
		{slackTeamName, "ID token, else userinfo", "the organization's name", true},
		{slackTeamDomain, "ID token, else userinfo", "the organization's domain", true},
		{slackEnterprise, "ID token, else userinfo", "a second organization, in Enterprise Grid", true},
		{slackEnterpriseName, "ID token, else userinfo", "its name", true},
	}
	return p
}

// slackSubject makes the id of a person from workspace and user id: a user id names a person
// only within a workspace.
func slackSubject(c claims) (string, bool) {
	team, _ := c.text(slackTeam)
	user, _ := c.text("sub")
	return team + "/" + user, isWord(team) && isWord(user)
}

// slackWorkspace returns the workspace as the organization. If it is part of an Enterprise
// Grid, that is a second organization.
func slackWorkspace(r reader) (active identity.Org, all []identity.Org, unknown bool) {
	org := func(id, name string) identity.Org {
		return identity.Org{ID: r.p.id + ":" + id, Name: r.text(name), Source: "claim"}
	}
	team, _ := r.who.text(slackTeam) // the verified one that is in the subject, and never that of userinfo
	active = org(team, slackTeamName)
	if domain := identity.LowerASCII(r.text(slackTeamDomain)) + ".slack.com"; hostname.IsDomain(domain) {
		active.Domain = domain
	}
	enterprise, ok := r.from(slackEnterprise)
	if !ok {
		return active, nil, r.unknownOrg(slackEnterprise, r.elsewhere(slackEnterprise))
	}
	id, _ := enterprise.text(slackEnterprise)
	if !isWord(id) {
		return active, nil, r.unknownOrg(slackEnterprise, id != "" || string(enterprise[slackEnterprise]) != `""`)
	}
	return active, []identity.Org{active, org(id, slackEnterpriseName)}, false
}
