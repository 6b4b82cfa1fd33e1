package authz

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/sallyport-proxy/sallyport/identity"
)

// Outcome is what a front door does with a request. Login with ReasonStepUp is for
// somebody who is signed in.
type Outcome int

// The zero Outcome denies: a verdict nobody filled in lets nothing through.
const (
	Deny Outcome = iota
	Login
	Forward
	// Preflight is no verdict of a rule: a browser asks what pages of other sites may
	// send. A front door answers that itself, or denies it.
	Preflight
)

func (o Outcome) String() string {
	switch o {
	case Forward:
		return "forward"
	case Login:
		return "login"
	case Preflight:
		return "preflight"
	}
	return "deny"
}

// Reason is why, from a closed list: it is a metric label and a log field.
type Reason string

const (
	ReasonPublic        Reason = "public"         // the route asks nothing
	ReasonAuthenticated Reason = "authenticated"  // the route admits all who are signed in
	ReasonRule          Reason = "rule"           // a rule matched
	ReasonNoSession     Reason = "no_session"     // nobody is signed in
	ReasonNoRule        Reason = "no_rule"        // somebody is, but no rule is for them
	ReasonGroupsUnknown Reason = "groups_unknown" // a rule might be, were the groups known
	ReasonGroupsFlat    Reason = "groups_flat"    // a rule might be, were the organization of their groups known
	ReasonOrgUnknown    Reason = "org_unknown"    // a rule might be, could their organization be read
	ReasonNoOrg         Reason = "no_org"         // they belong to several organizations and have picked none
	ReasonOtherOrg      Reason = "other_org"      // the host is another organization's than the active one
	ReasonMethod        Reason = "method"         // the route is not open to them with this method
	ReasonAddress       Reason = "address"        // the route is not open to them from this address
	ReasonNoRoute       Reason = "no_route"       // nothing is here
	ReasonAmbiguous     Reason = "ambiguous"      // the target means two things
	ReasonWebSocket     Reason = "websocket"      // the route carries no WebSockets
	ReasonOrigin        Reason = "origin"         // a WebSocket from a page of another site
	ReasonPreflight     Reason = "preflight"      // a browser asks what pages of other sites may send
	ReasonDestination   Reason = "destination"    // what the Destination header names is not theirs, or not this app's
	ReasonCarriedAlong  Reason = "carried_along"  // a COPY or MOVE would take along what another rule protects

	ReasonOwnEndpoint Reason = "own_endpoint" // a proxy asked about an address of Sallyport's own

	ReasonBearerInvalid     Reason = "bearer_invalid"     // the Authorization header holds no good access token
	ReasonBearerUnavailable Reason = "bearer_unavailable" // nobody can tell: the provider does not give its keys

	ReasonUnverifiable Reason = "sessions_unverifiable" // whether the session was ended elsewhere is not known

	ReasonNotAdmitted Reason = "not_admitted" // who they are is proved, and their provider's options admit only others

	ReasonStepUp Reason = "step_up" // theirs, once they prove again who they are: more recently, or by other means

	ReasonRulesChanged Reason = "rules_changed" // let in, and ended when the configuration changed and did not any more
)

// Verdict is an outcome with its grounds.
type Verdict struct {
	Outcome Outcome
	Reason  Reason
	Rule    int // which of the route's rules matched, from 1; else 0
	// Detail is for the log and for `explain`; it may name rules and people.
	Detail string
	// Public is one sentence for the person, without the names of others.
	Public string
	// StepUp is the route whose Proof is asked for; nil with any other reason than
	// ReasonStepUp.
	StepUp *Route
}

// Decide is the verdict on a request for route r by somebody; id is nil where
// nobody is signed in: what proves who it is (a session, an access token)
// was checked before. It is pure: front doors and `explain` get the same answer.
func Decide(f Facts, r *Route, id *identity.Identity) Verdict {
	v := decideWithoutProof(f, r, id)
	if v.Outcome != Forward || v.Reason == ReasonPublic {
		return v
	}
	if err := r.Proof.Check(id.AuthTime, id.ACR, f.At); err != nil {
		return Verdict{Outcome: Login, Reason: ReasonStepUp, StepUp: r,
			Detail: fmt.Sprintf("route %s: %s has to sign in again: %v", r.Name, id.ID(), err),
			Public: "You need to sign in again for this."}
	}
	return v
}

// decideWithoutProof does not ask how they proved who they are. Nobody whom the rules
// refuse is asked to prove anything.
func decideWithoutProof(f Facts, r *Route, id *identity.Identity) Verdict {
	v := decideAccess(f, r, id)
	if v.Outcome == Forward && f.WebSocket {
		if refused, ok := refuseWebSocket(f, r); ok {
			return refused
		}
	}
	return v
}

func decideAccess(f Facts, r *Route, id *identity.Identity) Verdict {
	switch {
	case r == nil:
		return deny(ReasonNoRoute, "no route for "+f.Host+f.Path, "There is nothing at this address.")
	case r.Access.OpenTo(f):
		return Verdict{Outcome: Forward, Reason: ReasonPublic}
	}
	if unmet, closed := r.Access.closedTo(f); closed {
		return denyUnmet(f, r, unmet)
	}
	switch {
	case id == nil:
		return Verdict{Outcome: Login, Reason: ReasonNoSession,
			Detail: "route " + r.Name + " needs a session", Public: "You need to sign in."}
	case id.MustPick(): // picking is the last step of signing in, so it comes before any rule
		return Verdict{Outcome: Login, Reason: ReasonNoOrg,
			Detail: id.ID() + " has not picked an organization", Public: "You need to choose an organization."}
	}
	return decidePerson(f, r, id)
}

// Narrow is v, unless that lets id in and one of further rules does not: a front door may be
// asked for more than the route demands. Each of the rules is one more demand, and nobody
// fulfils one where the route does not ask who it is.
func Narrow(v Verdict, f Facts, r *Route, id *identity.Identity, further []Rule) Verdict {
	if v.Outcome != Forward || len(further) == 0 {
		return v
	}
	if id == nil {
		return deny(ReasonNoRule, "more is asked for than by the route "+r.Name+", which does not ask who it is",
			"It is for certain people, and nobody can tell here who you are.")
	}
	_, bound := r.owner(f.Host)
	for _, rule := range further {
		narrower := *r
		narrower.Access = Access{Rules: []Rule{rule}}
		if asked := decideRules(f, &narrower, id, bound); asked.Outcome != Forward {
			return asked
		}
	}
	return v
}

// SwitchTo returns the organizations that somebody who was denied f could switch to
// in order to be let in.
func SwitchTo(f Facts, r *Route, id *identity.Identity) (orgs []identity.Org) {
	if id == nil {
		return nil
	}
	for _, org := range id.Orgs {
		if other, _ := id.WithOrg(org.ID); decideWithoutProof(f, r, &other).Outcome == Forward {
			orgs = append(orgs, org)
		}
	}
	return orgs
}

func decidePerson(f Facts, r *Route, id *identity.Identity) Verdict {
	owner, bound := r.owner(f.Host)
	switch {
	case bound && (owner == "" || owner != id.Org.ID):
		return denyOtherOrg(r, id, owner)
	case r.Access.Authenticated:
		return Verdict{Outcome: Forward, Reason: ReasonAuthenticated}
	}
	return decideRules(f, r, id, bound)
}

func denyOtherOrg(r *Route, id *identity.Identity, owner string) Verdict {
	if id.OrgUnknown {
		return deny(ReasonOrgUnknown,
			fmt.Sprintf("route %s: the host is for %q, "+
				"and the organization of %s could not be read out of the provider's claims",
				r.Name, owner, id.ID()),
			"This address is an organization's. "+
				"Your identity provider named your organization in a form that could not be read.")
	}
	detail := fmt.Sprintf("route %s: the host is for %q, and %s is here for %q", r.Name, owner, id.ID(), id.Org.ID)
	public := "This address is another organization's, and your account does not belong to it."
	if other, belongs := id.WithOrg(owner); belongs {
		public = "This address is for " + orgWord(other.Org) + ", and you are here for another organization."
	}
	return deny(ReasonOtherOrg, detail, public)
}

func decideRules(f Facts, r *Route, id *identity.Identity, bound bool) Verdict {
	groupsUnknown, groupsFlat, orgUnknown := false, false, false
	var unmet Reason // of a rule that is for them
	for i, rule := range r.Access.Rules {
		switch rule.admitsRequest(f, id, bound) {
		case admitted:
			return Verdict{Outcome: Forward, Reason: ReasonRule, Rule: i + 1}
		case refusedUnknownGroups:
			groupsUnknown = true
		case refusedFlatGroups:
			groupsFlat = true
		case refusedUnknownOrg:
			orgUnknown = true
		case refusedAddress:
			unmet = ReasonAddress
		case refusedMethod:
			unmet = cmp.Or(unmet, ReasonMethod)
		}
	}
	if unmet != "" {
		return denyUnmet(f, r, unmet)
	}
	switch { // what is missing is said of groups first: rules name them most often
	case groupsUnknown && id.GroupsDropped:
		return deny(ReasonGroupsUnknown,
			fmt.Sprintf("route %s: a rule needs groups, and those of %s did not fit into the session cookie", r.Name,
				id.ID()),
			"It is for members of a group. You are in more groups than your session here can hold, so none of them "+
				"counts.")
	case groupsUnknown:
		return deny(ReasonGroupsUnknown,
			fmt.Sprintf("route %s: a rule needs groups, and the provider did not tell those of %s", r.Name, id.ID()),
			"It is for members of a group, and your identity provider did not tell us which groups you are in.")
	case groupsFlat: // not told in which of several organizations
		return deny(ReasonGroupsFlat,
			fmt.Sprintf("route %s: a rule needs groups of one organization, "+
				"and the provider did not tell in which of several %s has them", r.Name, id.ID()),
			"It is for members of a group, and your identity provider did not tell us "+
				"in which of your organizations you are in it.")
	}
	if orgUnknown {
		return deny(ReasonOrgUnknown,
			fmt.Sprintf("route %s: a rule needs an organization, and that of %s could not be read out of the "+
				"provider's claims",
				r.Name, id.ID()),
			"It is for members of an organization, and your identity provider named yours in a form that could not "+
				"be read.")
	}
	return deny(ReasonNoRule,
		fmt.Sprintf("route %s: no rule admits %s; it is for %s", r.Name, id.ID(), r.Access),
		r.Access.lacks(f, id, bound))
}

// refuseWebSocket is about pages of other sites: a browser lets them open a
// WebSocket with this site's cookies, and only the Origin tells (RFC 6455 §10.2).
// A program sends none, and has no cookies but its own.
func refuseWebSocket(f Facts, r *Route) (_ Verdict, refused bool) {
	switch {
	case !r.WebSocket.Allowed:
		return deny(ReasonWebSocket, "route "+r.Name+" carries no WebSockets; it would with websocket: true",
			"This address does not take WebSockets."), true
	case f.Origin == "" || f.Origin == f.OwnOrigin() || slices.Contains(r.WebSocket.Origins, f.Origin):
		return Verdict{}, false
	}
	return deny(ReasonOrigin, fmt.Sprintf("route %s: a WebSocket from a page of %q", r.Name, f.Origin),
		"This page may not open a WebSocket here."), true
}

func deny(reason Reason, detail, public string) Verdict {
	return Verdict{Outcome: Deny, Reason: reason, Detail: detail, Public: public}
}
