package config

import (
	"testing"

	"github.com/sallyport-proxy/sallyport/login"
)

// What decides is needed of a provider; what apps are told is not.
func TestWhatRulesOperatorsAndFoldingReadIsNeeded(t *testing.T) {
	for _, row := range []struct {
		allow, more string
		want        login.Needs
	}{
		{"allow: authenticated", "", login.Needs{}},
		{"allow: authenticated\n    headers: {set: {X-Groups: groups, X-Mail: email}}", "", login.Needs{}},
		{"allow: [{groups: [a]}]", "", login.Needs{Groups: true}},
		{"allow: [{emails: [a@example.com]}]", "", login.Needs{Email: true}},
		{"allow: [{email_domains: [example.com]}]", "", login.Needs{Email: true}},
		{"allow: [{orgs: [\"main:x\"]}]", "", login.Needs{Orgs: true}},
		{"allow: authenticated", "operators: [{groups: [a]}]", login.Needs{Groups: true}},
		{"allow: authenticated", "organizations: [{id: x, name: X, match: {email_domains: [example.com]}}]",
			login.Needs{Email: true, Orgs: true}},
		{"allow: authenticated", "organizations: [{id: x, name: X, match: {org_ids: [\"main:1\"]}}]",
			login.Needs{Orgs: true}},
	} {
		if got := parse(t, with(t, "allow: authenticated", row.allow)+row.more).Needs(); got != row.want {
			t.Errorf("%s, %s: %+v", row.allow, row.more, got)
		}
	}
}
