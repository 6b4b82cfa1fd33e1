package login

import (
	"slices"
	"strings"
	"testing"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// The demo provider makes these of "acme", "birch" and of the people's keys.
const (
	acmeTenant  = "822b33ad-87c1-48a0-a20a-5ba7cd5ebcaa"
	birchTenant = "548a4251-7fa2-8525-d6af-7249de69bd6f"
)

func microsoftBase(o *Options) { o.Type, o.Scopes, o.Tenant = TypeMicrosoft, nil, TenantCommon }

func TestP07_Microsoft(t *testing.T) {
	w := worldOfKind(t, demo.Microsoft, microsoftBase)
	mira := identity.Identity{
		Provider: "corp", Subject: acmeTenant + "/3c38aafb-0579-dafe-18bb-584dce2786cc", Name: "Mira Okafor",
		Username: "mira@acme.example",
		Email:    "mira@acme.example", EmailVerified: true,
		Groups: []string{"8c85b663-9e62-e10b-8330-a8b883004b43", "e746efb0-763e-0fc5-a3c4-09e13679b46a"},
		Org: identity.Org{ID: "corp:" + acmeTenant, Name: "Acme Rockets", Domain: "acme.example",
			Source: "directory"},
	}
	zoe := identity.Identity{Provider: "corp", Subject: personalAccounts + "/9d017e26-81b7-f317-25e1-c0fbe2612e89",
		Name: "Zoë Martín", Username: "zoe@mail.example", Email: "zoe@mail.example"}
	tenant := func(name string) func(*Options) { return func(o *Options) { o.Tenant = name } }
	only := func(ids ...string) func(*Options) { return func(o *Options) { o.AllowedTenants = ids } }
	with, without := testenv.With, testenv.Without
	from := func(tid string) bend {
		return func(c map[string]any) { c["tid"], c["iss"] = tid, w.op.URL+"/"+tid+"/v2.0" }
	}
	keys := func(b bend) []testenv.Fault { return []testenv.Fault{{Endpoint: testenv.JWKS, JSON: eachKey(b)}} }
	org := func(b bend) []testenv.Fault {
		return []testenv.Fault{{Endpoint: testenv.Organization,
			JSON: func(d map[string]any) { b(d["value"].([]any)[0].(map[string]any)) }}}
	}
	me := func(b bend) []testenv.Fault { return []testenv.Fault{{Endpoint: testenv.Me, JSON: b}} }
	unverified := changed(mira, func(id *identity.Identity) { id.EmailVerified = false })
	address := func(a string, verified bool) identity.Identity {
		return changed(mira, func(id *identity.Identity) { id.Email, id.EmailVerified = a, verified })
	}
	facts := []fact{
		{name: "tid and oid are the key, Graph describes the organization", want: mira},
		{name: "one tenant by its GUID", edit: tenant(acmeTenant), want: mira},
		{name: "one tenant by its domain", edit: tenant("acme.example"), want: mira},
		{name: "organizations", edit: tenant(TenantOrganizations), want: mira},
		{name: "allowed_tenants", edit: only(birchTenant, acmeTenant), want: mira},
		{name: "allowed_tenants refuses another", edit: only(birchTenant), refuse: identity.NotAdmitted,
			says: "allowed_tenants"},
		{name: "allowed_tenants refuses personal accounts", edit: only(acmeTenant), who: "zoe",
			refuse: identity.NotAdmitted, says: "a personal account"},
		{name: "allowed_tenants never excuses a key of another tenant", edit: only(birchTenant),
			faults: keys(with("issuer", w.op.URL+"/"+birchTenant+"/v2.0")), refuse: identity.Rejected,
			says: "signed with a key that is not for its issuer"},
		{name: "personal accounts have no organization", who: "zoe", want: zoe},
		{name: "consumers", edit: tenant(TenantConsumers), who: "zoe", want: zoe},

		{name: "v1 token", faults: tokenClaims(func(c map[string]any) {
			c["ver"], c["iss"] = "1.0", "https://sts.windows.net/"+acmeTenant+"/"
		}), refuse: identity.Rejected},
		{name: "ver 1.0", faults: tokenClaims(with("ver", "1.0")), refuse: identity.Rejected, says: "ver is not"},
		{name: "no ver", faults: tokenClaims(without("ver")), refuse: identity.Rejected, says: "ver is not"},
		{name: "(1) the template itself", faults: tokenClaims(with("iss", w.op.URL+"/{tenantid}/v2.0")),
			refuse: identity.Rejected},
		{name: "(1) another tenant than the configured one", edit: tenant(birchTenant), who: "tomoko",
			faults: tokenClaims(from(acmeTenant)), refuse: identity.Rejected,
			says: "another tenant than the configured"},
		{name: "(1) an organization's at consumers", edit: tenant(TenantConsumers), who: "zoe",
			faults: tokenClaims(from(acmeTenant)), refuse: identity.Rejected,
			says: "another tenant than the configured"},
		{name: "a personal account at organizations", edit: tenant(TenantOrganizations),
			faults: tokenClaims(from(personalAccounts)), refuse: identity.NotAdmitted, says: "only organizations"},
		{name: "(2) iss of another tenant than tid", faults: tokenClaims(with("iss", w.op.URL+"/"+birchTenant+"/v2.0")),
			refuse: identity.Rejected, says: "tid is not the tenant"},
		{name: "(2) tid of another tenant than iss", faults: tokenClaims(with("tid", birchTenant)),
			refuse: identity.Rejected, says: "tid is not the tenant"},
		{name: "(2) no tid", faults: tokenClaims(without("tid")), refuse: identity.Rejected},
		{name: "(2) tid in capitals", faults: tokenClaims(from(strings.ToUpper(acmeTenant))),
			refuse: identity.Rejected},
		{name: "(2) tid is no GUID", faults: tokenClaims(from("acme.example")), refuse: identity.Rejected},
		{name: "(2) tid climbs", faults: tokenClaims(from("../" + acmeTenant)), refuse: identity.Rejected},
		{name: "(2) tid is empty", faults: tokenClaims(from("")), refuse: identity.Rejected},
		{name: "(2) another host", faults: tokenClaims(with("iss", "https://evil.example/"+acmeTenant+"/v2.0")),
			refuse: identity.Rejected},
		{name: "(3) a key without issuer", faults: keys(without("issuer")), refuse: identity.Rejected,
			says: "signed with a key that is not for its issuer"},
		{name: "(3) a key for personal accounts", faults: keys(with("issuer", w.op.URL+"/"+personalAccounts+"/v2.0")),
			refuse: identity.Rejected, says: "signed with a key that is not for its issuer"},
		{name: "(3) a key for another tenant", faults: keys(with("issuer", w.op.URL+"/"+birchTenant+"/v2.0")),
			refuse: identity.Rejected, says: "signed with a key that is not for its issuer"},
		{name: "(3) a key of another cloud",
			faults: keys(with("issuer", "https://login.microsoftonline.us/{tenantid}/v2.0")), refuse: identity.Rejected,
			says: "signed with a key that is not for its issuer"},
		{name: "(3) a key for this tenant", faults: keys(with("issuer", w.op.URL+"/"+acmeTenant+"/v2.0")), want: mira},
		{name: "(3) personal accounts with their own key", who: "zoe",
			faults: keys(with("issuer", w.op.URL+"/"+personalAccounts+"/v2.0")), want: zoe},
		{name: "(4) no oid", faults: tokenClaims(without("oid")), refuse: identity.Rejected,
			says: "claims that name the person"},
		{name: "(4) oid is no GUID", faults: tokenClaims(with("oid", "mira")), refuse: identity.Rejected,
			says: "claims that name the person"},
		{name: "another tenant altogether, and Graph knows better", faults: tokenClaims(from(birchTenant)),
			refuse: identity.Rejected, says: "the organization is not"},
		{name: "HS256 with the public key",
			faults: []testenv.Fault{{Endpoint: testenv.Token, Resign: testenv.SignedWithPublicKey}},
			refuse: identity.Rejected},

		{name: "the organization is another", faults: org(with("id", birchTenant)), refuse: identity.Rejected,
			says: "organization is not"},
		{name: "nulls: User.Read reads only three properties",
			faults: org(func(o map[string]any) { o["city"], o["displayName"] = nil, nil }),
			want:   changed(mira, func(id *identity.Identity) { id.Org.Name = "" })},
		{name: "no default domain", faults: org(with("verifiedDomains", []any{map[string]any{"name": "acme.example"}})),
			want: changed(mira, func(id *identity.Identity) { id.Org.Domain = "" })},
		{name: "no organization",
			faults: []testenv.Fault{{Endpoint: testenv.Organization, JSON: with("value", []any{})}},
			refuse: identity.Rejected, says: "not exactly one"},
		{name: "two organizations",
			faults: []testenv.Fault{{Endpoint: testenv.Organization, JSON: func(d map[string]any) {
				d["value"] = append(d["value"].([]any), d["value"].([]any)[0])
			}}}, refuse: identity.Rejected},
		{name: "the person is another", faults: me(with("id", personalAccounts)), refuse: identity.Rejected,
			says: "person is not"},
		{name: "Graph without User.Read", faults: []testenv.Fault{{Endpoint: testenv.Organization, Status: 403}},
			refuse: identity.Misconfigured},
		{name: "Graph is down", faults: []testenv.Fault{{Endpoint: testenv.Me, Status: 503}},
			refuse: identity.Unavailable},
		{name: "Graph sends us elsewhere",
			faults: []testenv.Fault{{Endpoint: testenv.Me, Redirect: "https://evil.example/"}},
			refuse: identity.Misconfigured},
		{name: "Graph says a name twice", faults: []testenv.Fault{{Endpoint: testenv.Me, Body: `{"id":"a","id":"b"}`}},
			refuse: identity.Rejected},
		{name: "no access token for Graph",
			faults: []testenv.Fault{{Endpoint: testenv.Token, JSON: without("access_token")}},
			refuse: identity.Rejected, says: "no access token"},

		{name: "nOAuth: any address can be written down", faults: tokenClaims(with("email", "victim@corp.example")),
			want: address("victim@corp.example", false)},
		{name: "email_verified is nothing Entra says",
			faults: tokenClaims(func(c map[string]any) {
				c["email"], c["email_verified"] = "victim@corp.example",
					true
			}),
			want: address("victim@corp.example", false)},
		{name: "a domain that the tenant verified", faults: tokenClaims(with("email", "m@ACME.onmicrosoft.com")),
			want: address("m@acme.onmicrosoft.com", true)},
		{name: "a domain below one that the tenant verified", faults: tokenClaims(with("email", "m@x.acme.example")),
			want: address("m@x.acme.example", false)},
		{name: "guest: acct 1", faults: tokenClaims(with("acct", 1)), want: unverified},
		{name: "member: acct 0", faults: tokenClaims(with("acct", 0)), want: mira},
		{name: "guest: idp is another", faults: tokenClaims(with("idp", "https://sts.windows.net/"+birchTenant+"/")),
			want: unverified},
		{name: "guest: the directory's name for somebody from elsewhere",
			faults: me(with("userPrincipalName", "mira_mail.example#EXT#@acme.onmicrosoft.com")), want: unverified},
		{name: "no e-mail claim: Graph's, which the tenant vouches for", faults: tokenClaims(without("email")),
			want: mira},
		{name: "no e-mail claim: Graph's, which nobody vouches for",
			faults: append(tokenClaims(without("email")), me(with("mail", "victim@corp.example"))...),
			want:   address("victim@corp.example", false)},
		{name: "xms_edov is about the claim email",
			faults: append(tokenClaims(func(c map[string]any) { delete(c, "email"); c["xms_edov"] = true }),
				me(with("mail", "victim@corp.example"))...), want: address("victim@corp.example", false)},
		{name: "xms_edov is not about an address in another claim", edit: func(o *Options) { o.Claims.Email = "upn" },
			faults: tokenClaims(func(c map[string]any) {
				c["upn"], c["email"], c["xms_edov"] = "victim@corp.example", "m@elsewhere.example", true
			}), want: address("victim@corp.example", false)},
		{name: "email_domains still bounds what counts",
			edit: func(o *Options) { o.EmailDomains = []string{"birch.example"} }, want: unverified},

		{name: "an organization that the operator names is not mixed with the directory's",
			edit:   func(o *Options) { o.Claims.OrgID = "department" },
			faults: tokenClaims(with("department", "d1")),
			want: changed(mira, func(id *identity.Identity) {
				id.Org = identity.Org{ID: "corp:d1",
					Source: "claim"}
			})},
		{name: "groups overage is unknown, not none", faults: tokenClaims(func(c map[string]any) {
			delete(c, "groups")
			c["_claim_names"] = map[string]string{"groups": "src1"}
			c["_claim_sources"] = map[string]any{
				"src1": map[string]string{"endpoint": "https://graph.windows.net/x/getMemberObjects"},
			}
		}), want: changed(mira, func(id *identity.Identity) { id.Groups, id.GroupsUnknown = nil, true })},
	}
	for _, edov := range []any{true, "true", 1, "1"} {
		facts = append(facts, fact{name: "xms_edov " + mustJSON(t, edov), want: address("m@elsewhere.example", true),
			faults: tokenClaims(func(c map[string]any) {
				c["email"], c["xms_edov"], c["acct"] = "m@elsewhere.example",
					edov, 1
			})})
	}
	for _, edov := range []any{false, "false", 0, "0", nil, "yes", 2, []bool{true}, "TRUE"} {
		facts = append(facts, fact{name: "xms_edov " + mustJSON(t, edov), want: address("m@elsewhere.example", false),
			faults: tokenClaims(func(c map[string]any) { c["email"], c["xms_edov"] = "m@elsewhere.example", edov })})
	}
	runFacts(t, w, microsoftBase, facts)
}

// docs/providers/microsoft.md: where the accounts of a tenant are judged by Microsoft, too.
func TestMicrosoftAsksTheConfiguredTenant(t *testing.T) {
	w := worldOfKind(t, demo.Microsoft, microsoftBase)
	for _, tenant := range []string{TenantCommon, TenantOrganizations, TenantConsumers, acmeTenant, "acme.example"} {
		w.use(microsoftBase, func(o *Options) { o.Tenant = tenant })
		to, err := w.p.AuthURL(t.Context(), handshake(), identity.AuthParams{})
		if err != nil || !strings.HasPrefix(to, w.op.URL+"/"+tenant+"/v2.0/authorize?") {
			t.Errorf("%s: %s, %v", tenant, to, err)
		}
		if scope := w.authQuery(identity.AuthParams{}).Get("scope"); scope != "openid profile email User.Read" &&
			scope != "openid profile email "+w.op.URL+"/User.Read" {
			t.Errorf("scope %q", scope)
		}
	}
}

// The document's issuer, for each kind of tenant.
func TestP07_MicrosoftDocumentsOfAnotherTenantAreRefused(t *testing.T) {
	w := worldOfKind(t, demo.Microsoft, microsoftBase)
	template, acme, personal := w.op.URL+"/{tenantid}/v2.0", w.op.URL+"/"+acmeTenant+"/v2.0",
		w.op.URL+"/"+personalAccounts+"/v2.0"
	good := map[string][]string{
		TenantCommon: {template}, TenantOrganizations: {template}, TenantConsumers: {personal}, acmeTenant: {acme},
		"acme.example": {acme, personal},
	}
	for tenant, issuers := range good {
		for _, issuer := range []string{template, acme, personal, "", "https://evil.example/{tenantid}/v2.0",
			w.op.URL + "/" + birchTenant, w.op.URL} {
			w.use(microsoftBase, func(o *Options) { o.Tenant = tenant })
			w.op.Set(testenv.Fault{Endpoint: testenv.Discovery, JSON: testenv.With("issuer", issuer)})
			_, err := w.p.AuthURL(t.Context(), handshake(), identity.AuthParams{})
			if want := slices.Contains(issuers, issuer); (err == nil) != want {
				t.Errorf("tenant %s, issuer %q: %v", tenant, issuer, err)
			}
		}
	}
}

// P8: the access token goes to Graph, in a header, twice, and nowhere else.
func TestP08_TheTokenForGraphIsUsedForTwoQuestions(t *testing.T) {
	w := worldOfKind(t, demo.Microsoft, microsoftBase)
	if _, err := w.signIn("mira", identity.AuthParams{}); err != nil {
		t.Fatal(err)
	}
	for endpoint, want := range map[string]string{
		testenv.Organization: "/v1.0/organization?$select=id,displayName,verifiedDomains",
		testenv.Me:           "/v1.0/me?$select=id,displayName,mail,userPrincipalName",
	} {
		asked := w.op.Requests(endpoint)
		if len(asked) != 1 || asked[0].Target != want ||
			!strings.HasPrefix(asked[0].Header.Get("Authorization"), "Bearer EwB") {
			t.Errorf("%s: %d requests, %+v", endpoint, len(asked), asked)
		}
	}
	if w.op.Hits(testenv.Userinfo) != 0 {
		t.Error("userinfo was asked as well")
	}
	w.use(microsoftBase)
	if _, err := w.signIn("zoe", identity.AuthParams{}); err != nil || w.op.Hits(testenv.Organization) != 1 ||
		w.op.Hits(testenv.Me) != 1 {
		t.Errorf("%v: Graph was asked about a personal account", err)
	}
}

func TestMicrosoftOptions(t *testing.T) {
	good := Options{ID: "ms", Type: TypeMicrosoft, Tenant: "common", ClientID: "x", ClientSecret: "y",
		RedirectURL: callbackURL}
	p, err := New(good)
	if err != nil || p.AuthOrigins()[0] != "https://login.microsoftonline.com" ||
		!slices.Equal(p.scopes, []string{"openid", "profile", "email", "User.Read"}) {
		t.Errorf("%v, %+v", err, p)
	}
	for name, bend := range map[string]func(*Options){
		"no tenant":                  func(o *Options) { o.Tenant = "" },
		"tenant with a path":         func(o *Options) { o.Tenant = "a/b" },
		"tenant as template":         func(o *Options) { o.Tenant = "{tenantid}" },
		"tenant in capitals":         func(o *Options) { o.Tenant = strings.ToUpper(acmeTenant) },
		"allowed tenant in capitals": func(o *Options) { o.AllowedTenants = []string{strings.ToUpper(acmeTenant)} },
		"allowed tenant of one": func(o *Options) {
			o.Tenant, o.AllowedTenants = acmeTenant,
				[]string{acmeTenant}
		},
		"userinfo":           func(o *Options) { o.IdentityFrom = FromUserinfo },
		"graph in cleartext": func(o *Options) { o.Endpoints.GraphURL = "http://graph.example" },
		"without discovery": func(o *Options) {
			o.Endpoints.AuthorizationURL, o.Endpoints.TokenURL = "https://a.example", "https://a.example"
		},
		"tenant of another type":     func(o *Options) { o.Type, o.Issuer = TypeOIDC, "https://a.example" },
		"hosted domains of another":  func(o *Options) { o.HostedDomains = []string{"a.example"} },
		"a type that does not exist": func(o *Options) { o.Type = "entra" },
		"graph of another type": func(o *Options) {
			*o = Options{ID: "g", Type: TypeGoogle, ClientID: "x", ClientSecret: "y", RedirectURL: callbackURL,
				Endpoints: Endpoints{GraphURL: "https://a.example"}}
		},
		"tenants of another type": func(o *Options) {
			*o = Options{ID: "g", Type: TypeGoogle, ClientID: "x", ClientSecret: "y", RedirectURL: callbackURL,
				AllowedTenants: []string{acmeTenant}}
		},
		"a national cloud in the air": func(o *Options) { o.Issuer = "login.microsoftonline.us" },
	} {
		o := good
		bend(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	// A national cloud has its own Graph and scopes.
	o := good
	o.Issuer, o.Endpoints.GraphURL = "https://login.microsoftonline.us", "https://graph.microsoft.us"
	if p, err := New(o); err != nil || p.scopes[3] != "https://graph.microsoft.us/User.Read" {
		t.Errorf("%v", err)
	}
}
