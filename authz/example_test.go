package authz_test

import (
	"fmt"

	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
)

// A table finds the route of a request; Decide says whether a person may have it.
func ExampleDecide() {
	table, err := authz.NewTable([]authz.Route{
		{Name: "site", Host: "app.example", Path: "/", Access: authz.Access{Authenticated: true}},
		{Name: "admin", Host: "app.example", Path: "/admin", Access: authz.Access{
			Rules: []authz.Rule{{Groups: []string{"admins"}}},
		}},
		{Name: "status", Host: "app.example", Path: "/status", Exact: true, Access: authz.Access{Public: true}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ann := &identity.Identity{Provider: "corp", Subject: "ann", Groups: []string{"admins"}}
	bob := &identity.Identity{Provider: "corp", Subject: "bob"}
	ask := func(who *identity.Identity, target string) {
		facts, err := authz.NewFacts("GET", "https", "app.example", target)
		if err != nil { // the target could be read in two ways
			fmt.Println(target, err)
			return
		}
		route, err := table.Lookup(facts)
		if err != nil {
			fmt.Println(target, err)
			return
		}
		verdict := authz.Decide(facts, route, who)
		fmt.Printf("%s: route %s, %s (%s)\n", target, route.Name, verdict.Outcome, verdict.Reason)
	}
	ask(nil, "/status")
	ask(nil, "/inbox?page=2")
	ask(bob, "/inbox?page=2")
	ask(bob, "/admin/people")
	ask(ann, "/admin/people")
	ask(bob, "/inbox/%2e%2e/admin/people")
	// Output:
	// /status: route status, forward (public)
	// /inbox?page=2: route site, login (no_session)
	// /inbox?page=2: route site, forward (authenticated)
	// /admin/people: route admin, deny (no_rule)
	// /admin/people: route admin, forward (rule)
	// /inbox/%2e%2e/admin/people ambiguous request target: a dot segment
}
