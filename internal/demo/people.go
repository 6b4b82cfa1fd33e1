package demo

import "slices"

// Person is somebody who can sign in at the demo provider.
type Person struct {
	Key            string // the OIDC sub
	Name, Username string
	Email          string
	EmailVerified  bool
	Groups         []string

	OrgID, OrgName, OrgDomain string

	// Orgs are all organizations of a person who has several. OrgID is then empty, because
	// the provider does not know for which of them the person works at the moment.
	Orgs []Org

	Note string // a sentence on the page where a person is chosen
}

// Org is an organization as it stands in the claim orgs.
type Org struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Domain string `json:"domain"`
}

// People returns the people of the demo: some of two organizations with groups of the same
// name, one without an organization, and one whose address is not verified. Each of them
// shows something that rules can distinguish.
func People() []Person {
	const (
		acme, acmeName, acmeDomain    = "acme", "Acme Rockets", "acme.example"
		birch, birchName, birchDomain = "birch", "Birch Bank", "birch.example"
	)
	return []Person{
		{
			Key: "mira", Name: "Mira Okafor", Username: "mira", Email: "mira@acme.example", EmailVerified: true,
			Groups: []string{"engineering", "on-call"}, OrgID: acme, OrgName: acmeName, OrgDomain: acmeDomain,
			Note: "An engineer at Acme Rockets who is on call tonight.",
		},
		{
			Key: "jonas", Name: "Jonas Lindqvist", Username: "jonas", Email: "jonas@acme.example", EmailVerified: true,
			Groups: []string{"admins", "engineering"}, OrgID: acme, OrgName: acmeName, OrgDomain: acmeDomain,
			Note: "Runs the platform at Acme Rockets, so he may open the admin page.",
		},
		{
			Key: "tomoko", Name: "Tomoko Hayashi", Username: "tomoko",
			Email: "tomoko@birch.example", EmailVerified: true,
			Groups: []string{"admins", "on-call"}, OrgID: birch, OrgName: birchName, OrgDomain: birchDomain,
			Note: "Has groups of the same names, but at another organization.",
		},
		{
			Key: "zoe", Name: "Zoë Martín", Username: "zoe", Email: "zoe@mail.example", EmailVerified: true,
			Note: "A freelancer who belongs to no organization.",
		},
		{
			Key: "sam", Name: "Sam Carver", Username: "sam", Email: "sam@acme.example", EmailVerified: false,
			Note: "Typed an Acme address that nobody ever verified.",
		},
	}
}

// PartnerPeople returns the people of the demo's second provider, a firm of accountants: one
// works for two organizations, and one for one of them.
func PartnerPeople() []Person {
	larch := Org{"larch", "Larch Hospital", "larch.example"}
	maple := Org{"maple", "Maple School", "maple.example"}
	return []Person{
		{
			Key: "ines", Name: "Ines Duarte", Username: "ines", Email: "ines@ledger.example", EmailVerified: true,
			Orgs: []Org{larch, maple},
			Note: "Keeps the books of two organizations: she chooses one, and can switch.",
		},
		{
			Key: "priya", Name: "Priya Raman", Username: "priya", Email: "priya@ledger.example", EmailVerified: true,
			OrgID: maple.ID, OrgName: maple.Name, OrgDomain: maple.Domain,
			Note: "Keeps the books of one of them.",
		},
	}
}

// WorkspacePeople returns the people of a Google Workspace: its administrator, and somebody who
// works there.
func WorkspacePeople() []Person {
	const name, domain = "Cedar Works", "cedar.example"
	return []Person{
		{
			Key: "nora", Name: "Nora Bakker", Username: "nora", Email: "nora@cedar.example", EmailVerified: true,
			Groups: []string{"admins"}, OrgID: "cedar", OrgName: name, OrgDomain: domain,
			Note: "Administers the Workspace of Cedar Works, and can have its name read.",
		},
		{
			Key: "ravi", Name: "Ravi Menon", Username: "ravi", Email: "ravi@cedar.example", EmailVerified: true,
			OrgID: "cedar", OrgName: name, OrgDomain: domain,
			Note: "Works there, and finds the name once it was read.",
		},
	}
}

// find returns the person whose key or address is hint.
func find(people []Person, hint string) (Person, bool) {
	i := slices.IndexFunc(people, func(p Person) bool { return hint != "" && (p.Key == hint || p.Email == hint) })
	if i < 0 {
		return Person{}, false
	}
	return people[i], true
}

// claims returns the claims about p that a client with these scopes gets.
func (p Person) claims(scope []string) map[string]any {
	c := map[string]any{"sub": p.Key}
	if slices.Contains(scope, "email") {
		c["email"], c["email_verified"] = p.Email, p.EmailVerified
	}
	if slices.Contains(scope, "profile") {
		c["name"], c["preferred_username"] = p.Name, p.Username
	}
	if slices.Contains(scope, "groups") {
		c["groups"] = append([]string{}, p.Groups...) // "none" is [], never null
	}
	if slices.Contains(scope, "org") && p.OrgID != "" {
		c["org_id"], c["org_name"], c["org_domain"] = p.OrgID, p.OrgName, p.OrgDomain
	}
	if slices.Contains(scope, "org") && len(p.Orgs) > 0 {
		c["orgs"] = p.Orgs
	}
	return c
}
