package identity

import (
	"net/http"
	"strings"
	"testing"
)

func TestP02_AnAppThatKnowsOnlyBasicIsToldAName(t *testing.T) {
	for name, c := range map[string]struct {
		basic Basic
		id    Identity
		want  string // what follows "Basic " before base64; "": no header
	}{
		"a claim":                  {Basic{Claim: ClaimEmail, Password: "pw:1"}, *alice(), "alice@acme.test:pw:1"},
		"an account for everybody": {Basic{Account: "svc", Password: "pw"}, *alice(), "svc:pw"},
		"a name beyond ASCII":      {Basic{Claim: ClaimUsername, Password: "pw"}, Identity{Username: "Jürgen"}, "Jürgen:pw"},
		"an unverified address":    {Basic{Claim: ClaimEmail, Password: "pw"}, Identity{Email: "a@b.test"}, ""},
		"a colon would be a second name": {Basic{Claim: ClaimUsername, Password: "pw"},
			Identity{Username: "admin:x"}, ""},
		"a line break": {Basic{Claim: ClaimUsername, Password: "pw"}, Identity{Username: "a\nb"}, ""},
		"no name":      {Basic{Claim: ClaimUsername, Password: "pw"}, Identity{}, ""},
	} {
		set, err := mustSet(t, NewHeaders()).WithBasic(c.basic)
		if err != nil {
			t.Fatal(name, err)
		}
		out := http.Header{}
		set.Render(&c.id).Set(out)
		r := http.Request{Header: out}
		user, password, ok := r.BasicAuth()
		if got := user + ":" + password; ok != (c.want != "") || ok && got != c.want {
			t.Errorf("%s: %q", name, got)
		}
		if !set.DropsAuthorization() {
			t.Errorf("%s: a client's own would pass", name)
		}
	}
}

func TestP15_BasicCredentialsThatCannotBeAreRefused(t *testing.T) {
	for want, b := range map[string]Basic{
		"one of a claim and an account":  {},
		"one of a claim and an account ": {Claim: ClaimEmail, Account: "a"},
		"has a colon":                    {Claim: ClaimUser},
		"is no name":                     {Claim: ClaimGroups},
		"a colon or a control":           {Account: "a:b"},
		"the password has a control":     {Account: "a", Password: "x\n"},
	} {
		if _, err := (HeaderSet{}).WithBasic(b); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(want)) {
			t.Errorf("%+v: %v", b, err)
		}
	}
}
