package login

import (
	"slices"
	"testing"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

func slackBase(o *Options) { o.Type, o.Scopes = TypeSlack, nil }

func TestP07_Slack(t *testing.T) {
	w := worldOfKind(t, demo.Slack)
	mira := identity.Identity{
		Provider: "corp", Subject: "TQIVTHLMHYF/UHQ4KV6YFPH", Name: "Mira Okafor", Email: "mira@acme.example",
		EmailVerified: true,
		Org: identity.Org{ID: "corp:TQIVTHLMHYF", Name: "Acme Rockets", Domain: "acme-demo.slack.com",
			Source: "claim"},
	}
	grid := changed(mira, func(id *identity.Identity) {
		id.Orgs = []identity.Org{id.Org, {ID: "corp:E0GRID", Name: "The Grid", Source: "claim"}}
	})
	with, without := testenv.With, testenv.Without
	info := func(f testenv.Fault) []testenv.Fault { f.Endpoint = testenv.Userinfo; return []testenv.Fault{f} }
	token := func(f testenv.Fault) []testenv.Fault { f.Endpoint = testenv.Token; return []testenv.Fault{f} }
	runFacts(t, w, slackBase, []fact{
		{name: "team and user are the key, the workspace is the organization", want: mira},
		{name: "the enterprise is kept", faults: info(testenv.Fault{JSON: func(c map[string]any) {
			c[slackEnterprise], c[slackEnterpriseName] = "E0GRID", "The Grid"
		}}), want: grid},
		{name: "no enterprise", faults: info(testenv.Fault{JSON: with(slackEnterprise, nil)}), want: mira},
		{name: "the name in the ID token spares a request", faults: tokenClaims(func(c map[string]any) {
			c[slackTeamName], c[slackTeamDomain] = "Acme Rockets", "Acme-Demo"
		}), want: mira},
		{name: "a domain that is none", faults: info(testenv.Fault{JSON: with(slackTeamDomain, "a/b")}),
			want: changed(mira, func(id *identity.Identity) { id.Org.Domain = "" })},
		{name: "nobody verified the address", who: "sam", want: identity.Identity{
			Provider: "corp", Subject: "T5FXAFWHEP4/U5FXAFWHEP4", Name: "Sam Carver", Email: "sam@acme.example",
			Org: identity.Org{ID: "corp:T5FXAFWHEP4", Name: "Sam Carver", Domain: "sam-demo.slack.com",
				Source: "claim"},
		}},
		{name: "no team", faults: tokenClaims(without(slackTeam)), refuse: identity.Rejected, says: "name the person"},
		{name: "a team that is two words", faults: tokenClaims(with(slackTeam, "T1/U1")), refuse: identity.Rejected,
			says: "name the person"},
		{name: "userinfo cannot move somebody to another team",
			faults: info(testenv.Fault{JSON: with(slackTeam, "TEVIL")}), want: mira},
		{name: "userinfo cannot move somebody to another team, though it says the rest",
			edit:   func(o *Options) { o.IdentityFrom = FromUserinfo },
			faults: info(testenv.Fault{JSON: with(slackTeam, "TEVIL")}), want: mira},
		{name: "the ID token alone has no name of the workspace",
			edit: func(o *Options) { o.IdentityFrom = FromIDToken },
			want: changed(mira, func(id *identity.Identity) { id.Org.Name, id.Org.Domain = "", "" })},
		{name: "userinfo is about another", faults: info(testenv.Fault{JSON: with("sub", "UEVIL")}),
			refuse: identity.Rejected, says: "userinfo: sub"},
		{name: "userinfo says ok: false with status 200",
			faults: info(testenv.Fault{Body: `{"ok":false,"error":"invalid_auth"}`}), refuse: identity.Rejected,
			says: "userinfo"},
		{name: "ok: false with status 200, the code",
			faults: token(testenv.Fault{Body: `{"ok":false,"error":"invalid_code"}`}), refuse: identity.Rejected,
			says: "invalid_code"},
		{name: "ok: false with status 200, our secret",
			faults: token(testenv.Fault{Body: `{"ok":false,"error":"bad_client_secret"}`}),
			refuse: identity.Misconfigured, says: "bad_client_secret"},
		{name: "ok: false with status 200, whatever else",
			faults: token(testenv.Fault{Body: `{"ok":false,"error":"c4nary"}`}), refuse: identity.Rejected},
		{name: "ok: false and a token", faults: token(testenv.Fault{JSON: with("ok", false)}),
			refuse: identity.Rejected},
		{name: "no nonce", faults: tokenClaims(without("nonce")), refuse: identity.Rejected, says: "nonce"},
		{name: "another issuer", faults: tokenClaims(with("iss", "https://slack.com.evil.example")),
			refuse: identity.Rejected, says: "iss"},
		{name: "HS256 with the public key", faults: token(testenv.Fault{Resign: testenv.SignedWithPublicKey}),
			refuse: identity.Rejected, says: "algorithm"},
	})
}

func TestSlackIsAskedWithoutPKCE(t *testing.T) {
	w := worldOfKind(t, demo.Slack, slackBase)
	q := w.authQuery(identity.AuthParams{})
	if q.Has("code_challenge") || q.Get("nonce") == "" || q.Get("scope") != "openid profile email" {
		t.Errorf("%v", q)
	}
	w.use(slackBase, func(o *Options) { o.ClientSecret = "wrong" })
	w.refuse(identity.Misconfigured)
	p, err := New(Options{ID: "slack", Type: TypeSlack, ClientID: "x", ClientSecret: "y", RedirectURL: callbackURL})
	if err != nil || p.AuthOrigins()[0] != "https://slack.com" || !slices.Contains(Types(), TypeSlack) {
		t.Errorf("%v, %+v", err, p)
	}
}
