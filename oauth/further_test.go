package oauth

import (
	"fmt"
	"testing"
)

// Slack's tokens are of the type bot, and that of the person is in a member of its
// own: who asks for it gets it, and it is printed by nobody.
func TestTheCallerSaysWhichTypesAndMembersItTakes(t *testing.T) {
	srv, _ := server(t, answer(200, "application/json", `{"ok":true,"access_token":"x","token_type":"bot",
		"team":{"id":"T1"},"authed_user":{"id":"U1","access_token":"`+canary+`"}}`))
	r := request(srv.URL)
	if _, err := client(t, Options{}).Exchange(t.Context(), r); kindOf(t, err).Kind != Rejected {
		t.Errorf("bot is taken unasked: %v", err)
	}
	r.TokenTypes, r.Further = []string{"Bearer", "Bot"}, []string{"authed_user", "enterprise"}
	got, err := client(t, Options{}).Exchange(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	members, err := Object(got.Further["authed_user"])
	if err != nil || text(members["access_token"]) != canary || len(got.Further) != 1 {
		t.Errorf("%d members, %v", len(got.Further), err)
	}
	if s := fmt.Sprintf("%v %+v %#v", got, got, got); s != "<tokens> <tokens> <tokens>" {
		t.Error("a token is printed")
	}
}
