package identity_test

import (
	"fmt"
	"net/http"

	"github.com/sallyport-proxy/sallyport/identity"
)

// Headers is made once. Each route has a set of it; whatever a client sends under
// one of those names is removed on every route, in every spelling.
func ExampleHeaders() {
	headers := identity.NewHeaders()
	fields, _ := identity.Preset(identity.PresetForwarded)
	set, err := headers.Set(append(fields, identity.Field{Header: "X-Team", Claim: identity.ClaimGroups}))
	if err != nil {
		fmt.Println(err)
		return
	}
	request := http.Header{
		"Accept":           {"text/html"},
		"X-Forwarded-User": {"corp:root"}, // what the client would like to be
		"X_team":           {"admins"},    // many apps read this as X-Team
	}
	headers.Strip(request)
	fmt.Println(request)

	ann := identity.Identity{
		Provider: "corp", Subject: "ann", Email: "ann@example.org", EmailVerified: true,
		Name: "Ann Ö", Groups: []string{"staff", "admins"},
	}
	set.Render(&ann).Set(request)
	for _, name := range []string{"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Name", "X-Team"} {
		fmt.Printf("%s: %s\n", name, request.Get(name))
	}
	// Output:
	// map[Accept:[text/html]]
	// X-Forwarded-User: corp:ann
	// X-Forwarded-Email: ann@example.org
	// X-Forwarded-Name: Ann %C3%96
	// X-Team: staff,admins
}
