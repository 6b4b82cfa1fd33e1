package importer

import (
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// shutting are options that let fewer people in than others do, and do not map: with one of
// them nobody may pass until somebody decides.
func shutting() []string {
	return []string{"google-group", "github-org", "github-team", "github-repo", "github-user", "bitbucket-team",
		"bitbucket-repository", "gitlab-project"}
}

// access maps who may pass: an address or a domain that is listed, and one of the groups.
func (m *mapping) access() {
	for _, name := range shutting() {
		if s := m.set[name]; s != nil && (s.missing || strings.Join(s.values, "") != "") {
			m.who.closed = true
		}
	}
	m.assurance()
	anybody, domains := m.emailDomains()
	emails := m.emailAddresses()
	m.allowedGroups()
	switch {
	case anybody:
		m.who.rules = []rule{{}}
	case len(emails)+len(domains) == 0:
		m.who.closed = true
		if m.set[optEmailDomain] == nil && m.set[optEmailsFile] == nil {
			m.absent(optEmailDomain, Refused, "is not there, so nobody may pass until routes[].allow says who")
		}
	}
	if len(emails) > 0 && !anybody {
		m.who.rules = append(m.who.rules, rule{emails: emails})
	}
	if len(domains) > 0 && !anybody {
		m.who.rules = append(m.who.rules, rule{domains: domains})
	}
	for i := range m.who.rules {
		m.who.rules[i].groups = m.groups
	}
	if len(m.who.rules) == 1 && len(m.who.rules[0].entries()) == 0 {
		m.who.rules = nil
	}
}

// assurance maps the ways in which people must have proved who they are, any of them.
func (m *mapping) assurance() {
	s, _ := m.usable("acr-values")
	if s == nil || s.value() == "" {
		return
	}
	acr := strings.Fields(s.value())
	if why := m.wrong(func(d *draft) {
		d.routes = trial(route{acr: acr})
	}); why != "" {
		m.refuse(s, "routes[].acr "+why)
		return
	}
	m.acr = acr
	m.mapped(s, "routes[].acr, which is checked too: the provider has to say it in its tokens")
}

// allowed says what is wrong with a rule.
func (m *mapping) allowed(r rule) string {
	return m.wrong(func(d *draft) {
		d.routes = trial(route{allow: access{rules: []rule{r}}})
	})
}

func (m *mapping) emailDomains() (anybody bool, domains []string) {
	m.parts(optEmailDomain, func(_ *setting, v string) (Verdict, string) {
		if v == "*" {
			anybody = true
			return Mapped, "routes[].allow, everybody who can sign in"
		}
		d := strings.ToLower(v)
		if why := m.allowed(rule{domains: []string{d}}); why != "" {
			return Refused, quote(v) + " " + why
		}
		domains = append(domains, d)
		return Mapped, "routes[].allow.email_domains"
	})
	return anybody, domains
}

func (m *mapping) emailAddresses() (emails []string) {
	s, _ := m.usable(optEmailsFile)
	if s == nil || s.value() == "" {
		if m.emailFile != "" && m.set[optEmailsFile] == nil {
			m.report(m.emailFile, 1, "(addresses)", NotMapped, "authenticated-emails-file, which would name this "+
				"file, is not there")
		}
		return nil
	}
	if m.emailFile == "" {
		m.refuse(s, "give that file to import too: rules name the addresses themselves")
		return nil
	}
	emails = m.goodEmails()
	if len(emails) < len(m.emails) {
		m.refuse(s, "some of the addresses there are none that a rule can name")
		return emails
	}
	m.mapped(s, "routes[].allow.emails, as they are now")
	return emails
}

// goodEmails are the addresses that a rule can name. All are tried at once, without those that
// were found wrong.
func (m *mapping) goodEmails() []string {
	emails := slices.Clone(m.emails)
	place := regexp.MustCompile(`emails\[(\d+)\]`)
	for range 20 {
		d := m.draft.clone()
		d.routes = trial(route{allow: access{rules: []rule{{emails: emails}}}})
		faults := d.faults()
		if len(faults) == 0 || len(emails) == 0 {
			return emails
		}
		var bad []string
		for _, f := range faults {
			if at := place.FindStringSubmatch(f.Path); at != nil {
				if i, err := strconv.Atoi(at[1]); err == nil && i < len(emails) {
					bad = append(bad, emails[i])
				}
			}
		}
		emails = slices.DeleteFunc(emails, func(e string) bool { return slices.Contains(bad, e) })
	}
	return nil
}

// allowedGroups collects the groups of which somebody must be in one.
func (m *mapping) allowedGroups() {
	asked := len(m.groups) > 0
	for _, name := range []string{optAllowedGroup, "gitlab-group", "keycloak-group"} {
		s, there := m.usable(name)
		if there && (s == nil || strings.Join(s.values, "") != "") {
			asked = true
		}
		kind := valueOf(m.draft.provider, "type")
		m.parts(name, func(_ *setting, v string) (Verdict, string) {
			switch kind {
			case "google":
				return Refused, noGroupsAPI
			case kindGitHub:
				return Refused, known()["github-org"].why
			}
			if m.isRole(v) {
				return Refused, quote(v) + " is a role: those are in the claim realm_access.roles, of which " +
					"allowed_roles tells, and have no role: before them here"
			}
			if why := m.allowed(rule{groups: []string{v}}); why != "" {
				return Refused, quote(v) + " " + why
			}
			m.groups = append(m.groups, v)
			return Mapped, "routes[].allow.groups"
		})
	}
	if asked && len(m.groups) == 0 {
		m.who.closed = true
	}
}

// isRole reports whether a group is one of Keycloak's roles, which oauth2-proxy calls role:<name>.
func (m *mapping) isRole(group string) bool {
	kind := strings.ToLower(m.set["provider"].value())
	return kind == kindKeycloak && strings.HasPrefix(strings.TrimSpace(group), "role:")
}

// narrowed is the access of a host for which auth-url asks for more: each parameter is one
// more demand. ok is false where rules cannot say it.
func (m *mapping) narrowed(query url.Values) (a access, ok bool) {
	a = access{rules: slices.Clone(m.who.rules), closed: m.who.closed}
	if len(query) > 0 && len(a.rules) == 0 {
		a.rules = []rule{{}}
	}
	for name, values := range query {
		for _, v := range values {
			list := slices.DeleteFunc(strings.Split(v, ","), func(s string) bool { return strings.TrimSpace(s) == "" })
			for i := range a.rules {
				into := map[string]*[]string{"allowed_groups": &a.rules[i].groups, "allowed_emails": &a.rules[i].emails,
					"allowed_email_domains": &a.rules[i].domains}[name]
				if into == nil || len(list) == 0 || slices.ContainsFunc(list, m.isRole) ||
					len(*into) > 0 && !slices.Equal(*into, list) {
					return access{closed: true}, false
				}
				*into = list
				if m.allowed(a.rules[i]) != "" {
					return access{closed: true}, false
				}
			}
		}
	}
	return a, true
}
