package login

import (
	"strings"
	"testing"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// acmeByAddress folds people into acme who have a verified address at acme.example
// and are not said to belong to another organization.
func acmeByAddress(t *testing.T) *identity.Organizations {
	t.Helper()
	orgs, err := identity.NewOrganizations([]identity.Organization{{ID: "acme", Name: "Acme",
		EmailDomains: []string{"acme.example"}}})
	if err != nil {
		t.Fatal(err)
	}
	return orgs
}

// An organization that cannot be read is not "none": if it were, the address
// would make somebody of another organization a member of the configured one.
func TestP01_AnOrganizationThatCannotBeReadIsNotFoldedByAddress(t *testing.T) {
	orgs := acmeByAddress(t)
	w := newWorld(t, func(o *Options) { o.Claims.OrgID = "tenant" })
	for name, value := range map[string]any{
		"a fraction": 1.5, "negative": -1, "true": true, "an object": map[string]any{"id": "birch"},
		"an empty object": map[string]any{},
		"two":             []any{"birch", "cedar"}, "a list in a list": []any{[]any{"birch"}},
		"a list of null":    []any{nil},
		"a list of nothing": []any{""},
		"257 bytes":         strings.Repeat("x", 257), "two lines": "bir\nch",
		"an endless number": strings.Repeat("9", 300),
	} {
		w.t = t
		id := w.person(testenv.With("tenant", value))
		if folded := orgs.Fold(id); !id.OrgUnknown || folded.Org.ID != "" || folded.Orgs != nil || !folded.OrgUnknown {
			t.Errorf("%s: %+v, folded into %+v", name, id, folded.Org)
		}
	}
	elsewhere := func(c map[string]any) { c["_claim_names"] = map[string]string{"tenant": "src1"} }
	broken := func(c map[string]any) { c["_claim_names"] = `{"tenant":"src1"}` }
	for name, b := range map[string]bend{"kept elsewhere": elsewhere, "perhaps kept elsewhere": broken} {
		if id := orgs.Fold(w.person(b)); id.Org.ID != "" || !id.OrgUnknown {
			t.Errorf("%s: folded into %+v", name, id.Org)
		}
	}
	if said := strings.Count(w.logged(), "the claim with the organization's id cannot be read"); said != 1 {
		t.Errorf("the log says it %d times", said)
	}
	for _, value := range []any{nil, "", []any{}} { // that is none, and the address counts
		if id := orgs.Fold(w.person(testenv.With("tenant", value))); id.Org.ID != "acme" || id.OrgUnknown {
			t.Errorf("%v: %+v", value, id)
		}
	}
	if id := orgs.Fold(w.person(testenv.Without("tenant"))); id.Org.ID != "acme" {
		t.Errorf("absent: %+v", id)
	}
}

// The log names the type of what came, never what was in it.
func TestP18_TheLogOfAnUnreadableOrganizationHoldsNoValue(t *testing.T) {
	w := newWorld(t)
	w.person(testenv.With("org_id", []string{"c4nary-1", "c4nary-2"}))
	if log := w.logged(); strings.Contains(log, "c4nary-") || !strings.Contains(log, "list of 2 texts") {
		t.Error(log)
	}
}

// The vendors' own claims follow the same rule.
func TestP01_AnUnreadableHostedDomainOrEnterpriseIsNotNone(t *testing.T) {
	for name, row := range map[string]struct {
		o      Options
		claims string
	}{
		"hd a list": {Options{Type: TypeGoogle},
			`{"sub":"1","hd":["birch.example"],"email":"a@gmail.com","email_verified":true}`},
		"hd no domain": {Options{Type: TypeGoogle},
			`{"sub":"1","hd":"bücher.example","email":"a@gmail.com","email_verified":true}`},
		"enterprise a list": {Options{Type: TypeSlack},
			`{"sub":"U1","https://slack.com/team_id":"T1","https://slack.com/enterprise_id":["E1"]}`},
		"enterprise not a word": {Options{Type: TypeSlack},
			`{"sub":"U1","https://slack.com/team_id":"T1","https://slack.com/enterprise_id":"E1 "}`},
	} {
		row.o.ID, row.o.ClientID, row.o.ClientSecret, row.o.RedirectURL = "corp", "x", "y", callbackURL
		p, err := New(row.o)
		if err != nil {
			t.Fatal(err)
		}
		id, err := p.IdentityFromClaims(t.Context(), []byte(row.claims))
		if err != nil || !id.OrgUnknown || id.Org != (identity.Org{}) || id.Orgs != nil {
			t.Errorf("%s: %+v, %v", name, id, err)
		}
	}
}

// Okta tells the address in the ID token and at userinfo whether it is verified.
func TestUserinfoVouchesForTheAddressOfTheIDToken(t *testing.T) {
	w := newWorld(t)
	info := func(b bend) testenv.Fault { return testenv.Fault{Endpoint: testenv.Userinfo, JSON: b} }
	token := testenv.Fault{Endpoint: testenv.Token, Claims: testenv.Without(emailVerified)}
	for name, row := range map[string]struct {
		faults []testenv.Fault
		want   bool
	}{
		"the same address":     {[]testenv.Fault{token}, true},
		"denied there":         {[]testenv.Fault{token, info(testenv.With(emailVerified, false))}, false},
		"nothing there either": {[]testenv.Fault{token, info(testenv.Without(emailVerified))}, false},
		"another address":      {[]testenv.Fault{token, info(testenv.With("email", "boss@acme.example"))}, false},
		"the same in capitals": {[]testenv.Fault{token, info(testenv.With("email", "MIRA@acme.example"))}, false},
		"the token said no": {[]testenv.Fault{{Endpoint: testenv.Token, Claims: testenv.With(emailVerified, false)}},
			false},
		"the token said what?": {[]testenv.Fault{{Endpoint: testenv.Token, Claims: testenv.With(emailVerified, "yes")}},
			false},
	} {
		w.op.Set(row.faults...)
		id, err := w.signIn("mira", identity.AuthParams{})
		if err != nil || id.Email != "mira@acme.example" || id.EmailVerified != row.want {
			t.Errorf("%s: %+v, %v", name, id, err)
		}
	}
}

// A claim that a rule reads is looked for in userinfo, under its usual name too.
func TestWhatRulesReadIsAskedOfUserinfo(t *testing.T) {
	w := newWorld(t)
	for name, row := range map[string]struct {
		needs  Needs
		absent []string
		asked  int
	}{
		"groups":               {Needs{Groups: true}, []string{"groups"}, 1},
		"groups, for no rule":  {Needs{}, []string{"groups"}, 0},
		"organization":         {Needs{Orgs: true}, []string{"org_id"}, 1},
		"no organization rule": {Needs{}, []string{"org_id"}, 0},
		"all there":            {Needs{true, true, true}, nil, 0},
	} {
		w.use(func(o *Options) { o.Needs = row.needs })
		w.op.Set(testenv.Fault{Endpoint: testenv.Token, Claims: testenv.Without(row.absent...)})
		before := w.op.Hits(testenv.Userinfo)
		id := w.want()
		if n := w.op.Hits(testenv.Userinfo) - before; n != row.asked {
			t.Errorf("%s: userinfo was asked %d times", name, n)
		}
		if told := len(id.Groups) == 2 && id.Org.ID == "corp:acme"; told != (row.asked == 1 || row.absent == nil) {
			t.Errorf("%s: %+v", name, id)
		}
		for _, c := range w.p.Permissions().Claims { // and the summary for operators says the truth
			if needed := row.needs != (Needs{}); row.absent != nil && c.Name == row.absent[0] &&
				(c.From == "ID token, else userinfo") != needed {
				t.Errorf("%s: permissions say %q", name, c.From)
			}
		}
	}
}

// A proven person is not kept out for the sake of a user name. But without what
// rules read, nobody is signed in: an absent organization would be "none".
func TestP01_WithoutUserinfoNobodyIsSignedInWithLessThanRulesRead(t *testing.T) {
	all := Needs{Email: true, Groups: true, Orgs: true}
	w := newWorld(t)
	for name, row := range map[string]struct {
		needs  Needs
		absent string
		info   testenv.Fault
		refuse identity.SignInFailure // "" if somebody is signed in
	}{
		"401, a user name":        {all, "preferred_username", testenv.Fault{Status: 401}, ""},
		"500, a user name":        {all, "preferred_username", testenv.Fault{Status: 500}, ""},
		"a page, a name":          {all, "name", testenv.Fault{Body: "<html>"}, ""},
		"signed, a name":          {all, "name", testenv.Fault{ContentType: "application/jwt"}, ""},
		"cut, a name":             {all, "name", testenv.Fault{Truncate: true}, ""},
		"somebody else's, a name": {all, "name", testenv.Fault{JSON: testenv.With("sub", "tomoko")}, identity.Rejected},
		"401, organization":       {all, "org_id", testenv.Fault{Status: 401}, identity.Unavailable},
		"500, organization":       {all, "org_id", testenv.Fault{Status: 500}, identity.Unavailable},
		"signed, organization":    {all, "org_id", testenv.Fault{ContentType: "application/jwt"}, identity.Rejected},
		"500, groups":             {all, "groups", testenv.Fault{Status: 500}, identity.Unavailable},
		"500, who vouches":        {all, emailVerified, testenv.Fault{Status: 500}, identity.Unavailable},
		"500, nothing needed":     {Needs{}, emailVerified, testenv.Fault{Status: 500}, ""},
		"404, organization":       {all, "org_id", testenv.Fault{Status: 404}, identity.Unavailable},
	} {
		w.use(func(o *Options) { o.Needs = row.needs })
		row.info.Endpoint = testenv.Userinfo
		w.op.Set(testenv.Fault{Endpoint: testenv.Token, Claims: testenv.Without(row.absent)}, row.info)
		w.takeLog()
		for range 2 {
			id, err := w.signIn("mira", identity.AuthParams{})
			if row.refuse != "" {
				w.failed(err, row.refuse)
			} else if err != nil || id.Subject != "mira" {
				t.Errorf("%s: %v", name, err)
			}
		}
		if said := strings.Count(w.logged(), "userinfo failed"); said != map[bool]int{true: 1}[row.refuse == ""] {
			t.Errorf("%s: the log says it %d times", name, said)
		}
	}
	w.use(func(o *Options) { o.Needs = all })
	w.op.Set(testenv.Fault{Endpoint: testenv.Token, Claims: testenv.Without("org_id", "at_hash")},
		testenv.Fault{Endpoint: testenv.Token, JSON: testenv.Without("access_token")})
	w.refuse(identity.Rejected) // userinfo could not even be asked
}

// JumpCloud, LinkedIn, Cognito's userinfo and Apple write it in quotes.
func TestEmailVerifiedAsATextCountsWithItsQuirkAlone(t *testing.T) {
	allow := func(names ...string) func(*Options) {
		return func(o *Options) { o.Quirks, o.EmailDomains = names, []string{"acme.example"} }
	}
	for _, row := range []struct {
		quirks []string
		value  any
		want   bool
	}{
		{nil, "true", false}, {nil, true, true},
		{[]string{"string_email_verified"}, "true", true}, {[]string{"string_email_verified"}, true, true},
		{[]string{"string_email_verified"}, "false", false}, {[]string{"string_email_verified"}, "True", false},
		{[]string{"string_email_verified"}, " true", false},
		{[]string{"string_email_verified"}, 1, false}, {[]string{"string_email_verified"}, []string{"true"}, false},
		{[]string{"assume_email_verified"}, "true", false}, {[]string{"assume_email_verified"}, "false", false},
		{[]string{"string_email_verified", "assume_email_verified"}, "false", false},
		{[]string{"string_email_verified", "assume_email_verified"}, "true", true},
		{[]string{"string_email_verified", "assume_email_verified"}, nil, true},
	} {
		w := newWorld(t, allow(row.quirks...))
		if id := w.person(testenv.With(emailVerified, row.value)); id.EmailVerified != row.want {
			t.Errorf("%v, %v: verified %v", row.quirks, row.value, id.EmailVerified)
		}
		w.person(testenv.With(emailVerified, row.value))
		named := strings.Count(w.logged(), "quirks: [string_email_verified]")
		if missing := row.value == "true" && !row.want; (named == 1) != missing || named > 1 || missing &&
			!strings.Contains(w.logged(), `"level":"INFO"`) {
			t.Errorf("%v, %v: the log names the quirk %d times", row.quirks, row.value, named)
		}
	}
}

// Zitadel, and Keycloak with an audience mapper, issue a token for several.
func TestP07_TrustedAudiencesCountForTheClientThatAsked(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.TrustedAudiences = []string{"project", "other"} })
	for name, row := range map[string]struct {
		aud  any
		azp  any // nil: none
		want string
	}{
		"all of them":         {[]string{clientID, "other", "project"}, clientID, ""},
		"in another order":    {[]string{"project", clientID}, clientID, ""},
		"us alone":            {clientID, nil, ""},
		"no azp":              {[]string{clientID, "project"}, nil, "azp"},
		"another azp":         {[]string{clientID, "project"}, "project", "azp"},
		"azp a list":          {[]string{clientID, "project"}, []string{clientID}, "azp"},
		"somebody else":       {[]string{clientID, "project", "evil"}, clientID, `"evil"`},
		"not us":              {[]string{"project"}, clientID, "aud"},
		"in capitals":         {[]string{clientID, "PROJECT"}, clientID, `"PROJECT"`},
		"us twice and no azp": {[]string{clientID, clientID}, nil, "azp"},
	} {
		w.op.Set(testenv.Fault{Endpoint: testenv.Token, Claims: func(c map[string]any) {
			if c["aud"] = row.aud; row.azp != nil {
				c["azp"] = row.azp
			}
		}})
		_, err := w.signIn("mira", identity.AuthParams{})
		if row.want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if w.failed(err, identity.Rejected); !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.use()
	w.op.Set(testenv.Fault{Endpoint: testenv.Token,
		Claims: func(c map[string]any) { c["aud"], c["azp"] = []string{clientID, "project"}, clientID }})
	if err := w.refuse(identity.Rejected); !strings.Contains(err.Error(), `"project"`) ||
		!strings.Contains(err.Error(), "trusted_audiences") {
		t.Errorf("the message does not help: %v", err)
	}
}

// The log line of a refused sign-in says what was received, and which configuration key or
// quirk accepts it.
func TestARefusedSignInNamesWhatCameAndWhatTakesIt(t *testing.T) {
	w := newWorld(t)
	claim := func(b bend) testenv.Fault { return testenv.Fault{Endpoint: testenv.Token, Claims: b} }
	for name, row := range map[string]struct {
		fault testenv.Fault
		says  []string
	}{
		"iss": {claim(testenv.With("iss", "https://sso.example/")),
			[]string{`"https://sso.example/"`, w.op.URL, "`issuer`"}},
		"no iss": {claim(testenv.Without("iss")), []string{"absent"}},
		"aud":    {claim(testenv.With("aud", "another")), []string{`"another"`, `"` + clientID + `"`}},
		"azp":    {claim(testenv.With("azp", "another")), []string{`"another"`, "client_id"}},
		"nonce":  {claim(testenv.Without("nonce")), []string{"no_nonce"}},
		"sub":    {claim(testenv.With("sub", 7)), []string{"whole number", "numeric_sub"}},
		"id": {claim(func(c map[string]any) { c["id"] = c["sub"]; delete(c, "sub") }),
			[]string{"absent", "id_as_sub"}},
		"exp": {claim(testenv.With("exp", "soon")), []string{"exp", "text of 4 bytes"}},
		"HS256": {testenv.Fault{Endpoint: testenv.Token, Resign: testenv.SignedHS256([]byte(clientSecret))},
			[]string{`"HS256"`, "RS256", "hs256_id_token"}},
		"kid": {testenv.Fault{Endpoint: testenv.Token, Resign: testenv.WithKid("k-2")},
			[]string{`"k-2"`, "RS256"}},
		"encrypted": {testenv.Fault{Endpoint: testenv.Token, JSON: testenv.With("id_token", "a.b.c.d.e")},
			[]string{"encrypted", "not supported"}},
	} {
		w.op.Set(row.fault)
		err := w.refuse(identity.Rejected)
		for _, want := range row.says {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: no %q in %v", name, want, err)
			}
		}
	}
}

// A provider that writes a secret of the sign-in where a name belongs does not
// get it into our log.
func TestP18_ARefusalShowsNoSecretOfTheSignIn(t *testing.T) {
	w := newWorld(t)
	for _, claim := range []string{"iss", "aud", "azp"} {
		w.op.Set(testenv.Fault{Endpoint: testenv.Token,
			Claims: func(c map[string]any) { c[claim] = "x" + c["nonce"].(string) }})
		if err := w.refuse(identity.Rejected); strings.Contains(err.Error(), "nonce-") ||
			!strings.Contains(err.Error(), "not shown") {
			t.Errorf("%s: %v", claim, err)
		}
	}
}
