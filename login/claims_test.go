package login

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// person signs mira in with claims bent by b.
func (w *world) person(b bend) identity.Identity {
	w.t.Helper()
	w.op.Set(testenv.Fault{Endpoint: testenv.Token, Claims: b})
	id, err := w.signIn("mira", identity.AuthParams{})
	if err != nil {
		w.t.Fatalf("sign-in failed: %v", err)
	}
	return id
}

// CVE-2026-40574: an address that can be read in two ways is not used.
func TestP20_OnlyPlainAddressesCount(t *testing.T) {
	w := newWorld(t)
	for raw, want := range map[string]string{
		"a@example.com":                          "a@example.com",
		"A.b+c_d@EXAMPLE.com":                    "A.b+c_d@example.com",
		"o'brien@acme.example":                   "o'brien@acme.example",
		"a@localhost":                            "a@localhost",
		"a@xn--exmple-cua.com":                   "a@xn--exmple-cua.com",
		"":                                       "",
		"a":                                      "",
		"@example.com":                           "",
		"a@":                                     "",
		"attacker@evil.com@example.com":          "",
		`"a@b"@example.com`:                      "",
		`"a b"@example.com`:                      "",
		"a@example.com\n":                        "",
		"a@example.com\x00":                      "",
		" a@example.com":                         "",
		"a@example.com ":                         "",
		"a b@example.com":                        "",
		"a@example.com.":                         "",
		"a@.example.com":                         "",
		"a@exam..ple.com":                        "",
		"a@-example.com":                         "",
		"a@exämple.com":                          "",
		"ä@example.com":                          "",
		"a@ｅxample.com":                          "",
		"a＠example.com":                          "",
		"a@\u212Aelvin.example":                  "",
		"a@dotless\u0131.com":                    "",
		"a@[127.0.0.1]":                          "",
		"a@example.com,b@x.com":                  "",
		"<a@example.com>":                        "",
		"a@example.com\u200b":                    "",
		"a@example_com":                          "",
		strings.Repeat("a", 64) + "@example.com": strings.Repeat("a", 64) + "@example.com",
		strings.Repeat("a", 65) + "@example.com": "",
		"a@" + strings.Repeat(strings.Repeat("b", 60)+".", 5) + "x": "",
	} {
		id := w.person(testenv.With("email", raw))
		if id.Email != want || id.EmailVerified != (want != "") {
			t.Errorf("%q: got %q, verified %v", raw, id.Email, id.EmailVerified)
		}
	}
	for _, raw := range []any{1, true, []string{"a@example.com"}, map[string]string{"x": "a@example.com"}} {
		if id := w.person(testenv.With("email", raw)); id.Email != "" || id.EmailVerified {
			t.Errorf("%v: got %q", raw, id.Email)
		}
	}
}

// OIDC Core §5.1: an address is verified only with JSON's true, and not with "true" or 1.
func TestP20_AnAddressIsVerifiedOnlyByTrue(t *testing.T) {
	// userinfo would vouch where the token says nothing
	w := newWorld(t, func(o *Options) { o.IdentityFrom = FromIDToken })
	for _, raw := range []any{"true", "yes", 1, false, nil, "", []bool{true}, map[string]bool{"x": true},
		json.RawMessage("1.0")} {
		if id := w.person(testenv.With("email_verified", raw)); id.EmailVerified || id.VerifiedEmail() != "" ||
			id.Email == "" {
			t.Errorf("%v: %+v", raw, id)
		}
	}
	if id := w.person(testenv.Without("email_verified")); id.EmailVerified {
		t.Error("missing counts as verified")
	}
	if id := w.person(testenv.With("Email_Verified", true)); !id.EmailVerified {
		t.Error("JSON true does not count")
	}
}

// A provider can verify addresses of its own domains only, and of no domain that only ends alike.
func TestAddressesOutsideTheEmailDomainsAreUnverified(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.EmailDomains = []string{"Acme.Example", "birch.example"} })
	for address, want := range map[string]bool{
		"a@acme.example": true, "a@ACME.EXAMPLE": true, "a@birch.example": true,
		"a@evilacme.example": false, "a@sub.acme.example": false, "a@acme.example.evil.com": false,
		"acme.example@evil.com": false, "a@example": false,
	} {
		if id := w.person(testenv.With("email", address)); id.EmailVerified != want || id.Email == "" {
			t.Errorf("%s: %+v", address, id)
		}
	}
}

// Groups are those that the claim has, or none, or unknown. They are never guessed.
func TestGroupsAreListedOrUnknown(t *testing.T) {
	w := newWorld(t)
	thousand := slices.Repeat([]string{"g"}, 1000)
	rows := []struct {
		name    string
		b       bend
		want    []string
		unknown bool
	}{
		{"a list", testenv.With("groups", []string{"a", "b"}), []string{"a", "b"}, false},
		{"one string", testenv.With("groups", "admins"), []string{"admins"}, false},
		{"a comma stays in its group", testenv.With("groups", []string{"a,admin"}), []string{"a,admin"}, false},
		{"one string with a comma is one group", testenv.With("groups", "a,admin"), []string{"a,admin"}, false},
		{"umlauts", testenv.With("groups", []string{"Büro"}), []string{"Büro"}, false},
		{"empty strings", testenv.With("groups", []string{"", "a", ""}), []string{"a"}, false},
		{"nothing in it", testenv.With("groups", []string{}), nil, false},
		{"not there", testenv.Without("groups"), nil, false},
		{"null", testenv.With("groups", nil), nil, false},
		{"a thousand", testenv.With("groups", thousand), thousand, false},
		{"a thousand and one", testenv.With("groups", append(thousand, "g")), nil, true},
		{"256 bytes", testenv.With("groups", []string{strings.Repeat("x", 256)}), []string{strings.Repeat("x", 256)},
			false},
		{"257 bytes", testenv.With("groups", []string{"a", strings.Repeat("x", 257)}), nil, true},
		{"a number among them", testenv.With("groups", []any{"a", 1}), nil, true},
		{"null among them", testenv.With("groups", []any{"a", nil}), nil, true},
		{"a list in the list", testenv.With("groups", []any{[]string{"admins"}}), nil, true},
		{"an object", testenv.With("groups", map[string]bool{"admins": true}), nil, true},
		{"a number", testenv.With("groups", 1), nil, true},
		{"a line break", testenv.With("groups", []string{"a\nadmins"}), nil, true},
		{"half a character", testenv.With("groups", []any{json.RawMessage(`"a\ud800"`)}), nil, true},
		{"distributed claims (Entra ID beyond 200)", func(c map[string]any) {
			delete(c, "groups")
			c["_claim_names"] = map[string]string{"groups": "src1"}
			c["_claim_sources"] = map[string]any{"src1": map[string]string{"endpoint": "https://graph.example/groups"}}
		}, nil, true},
		{"others are distributed", func(c map[string]any) {
			delete(c, "groups")
			c["_claim_names"] = map[string]string{"address": "src1"}
		}, nil, false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			id := w.person(row.b)
			if !slices.Equal(id.Groups, row.want) || id.GroupsUnknown != row.unknown {
				t.Errorf("got %q, unknown %v", id.Groups, id.GroupsUnknown)
			}
		})
	}
}

func TestOrganizationsComeFromClaims(t *testing.T) {
	w := newWorld(t)
	only := func(name string, value any) bend {
		return func(c map[string]any) { delete(c, "org_name"); delete(c, "org_domain"); c[name] = value }
	}
	rows := []struct {
		name string
		b    bend
		want identity.Org
	}{
		{"all three", func(c map[string]any) {
			c["org_id"], c["org_name"], c["org_domain"] = "t-1", "Büro",
				"BÜRO.example"
		},
			identity.Org{ID: "corp:t-1", Name: "Büro", Source: "claim"}}, // not a DNS name
		{"domain in capitals", testenv.With("org_domain", "ACME.example"),
			identity.Org{ID: "corp:acme", Name: "Acme Rockets", Domain: "acme.example", Source: "claim"}},
		{"no id", testenv.Without("org_id"), identity.Org{}},
		{"empty id", testenv.With("org_id", ""), identity.Org{}},
		{"id null", testenv.With("org_id", nil), identity.Org{}},
		{"id a list of none", testenv.With("org_id", []string{}), identity.Org{}},
		{"id a whole number", only("org_id", 7), identity.Org{ID: "corp:7", Source: "claim"}},
		{"id a list of one", only("org_id", []string{"acme"}), identity.Org{ID: "corp:acme", Source: "claim"}},
		{"id a list of one number", only("org_id", []int{7}), identity.Org{ID: "corp:7", Source: "claim"}},
		{"name with a control character", testenv.With("org_name", "A\x00"),
			identity.Org{ID: "corp:acme", Domain: "acme.example", Source: "claim"}},
		{"only an id", testenv.Without("org_name", "org_domain"), identity.Org{ID: "corp:acme", Source: "claim"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if id := w.person(row.b); id.Org != row.want || id.Orgs != nil || id.OrgUnknown {
				t.Errorf("got %+v", id.Org)
			}
		})
	}
	w.use(func(o *Options) {
		o.Claims = ClaimNames{OrgID: "tenant_sub", OrgName: "tenant_name", Username: "login", Groups: "https://x/roles"}
	})
	id := w.person(func(c map[string]any) {
		c["tenant_sub"], c["tenant_name"], c["login"], c["https://x/roles"] = "17", "Seventeenth", "m", []string{"r"}
	})
	if id.Org.ID != "corp:17" || id.Org.Name != "Seventeenth" || id.Username != "m" ||
		!slices.Equal(id.Groups, []string{"r"}) {
		t.Errorf("mapped claims: %+v", id)
	}
}

// OIDC Core §5.3.2, and userinfo-* of the conformance suite.
func TestP20_UserinfoOfSomebodyElseOrInAnotherFormIsRefused(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.IdentityFrom = FromUserinfo })
	rows := []struct {
		name  string
		fault testenv.Fault
		want  identity.SignInFailure
	}{
		{"sub of another", testenv.Fault{JSON: testenv.With("sub", "tomoko")}, identity.Rejected},
		{"no sub", testenv.Fault{JSON: testenv.Without("sub")}, identity.Rejected},
		{"sub a number", testenv.Fault{JSON: testenv.With("sub", 1)}, identity.Rejected},
		{"sub twice", testenv.Fault{Body: `{"sub":"tomoko","sub":"mira"}`}, identity.Rejected},
		{"a list", testenv.Fault{Body: `[{"sub":"mira"}]`}, identity.Rejected},
		{"a page", testenv.Fault{Body: `<html>`}, identity.Rejected},
		{"signed", testenv.Fault{ContentType: "application/jwt; charset=utf-8"}, identity.Rejected},
		{"endless", testenv.Fault{Pad: 2 << 20}, identity.Rejected},
		{"a redirect", testenv.Fault{Redirect: "https://evil.example/"}, identity.Misconfigured},
		{"refused", testenv.Fault{Status: 401}, identity.Misconfigured},
		{"failing", testenv.Fault{Status: 502}, identity.Unavailable},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			row.fault.Endpoint = testenv.Userinfo
			w.op.Set(row.fault)
			w.refuse(row.want)
		})
	}
	w.op.Set(testenv.Fault{Endpoint: testenv.Discovery, JSON: testenv.Without("userinfo_endpoint")})
	w.use(func(o *Options) { o.IdentityFrom = FromUserinfo })
	w.refuse(identity.Misconfigured)
}

// With identity_from: userinfo nothing about the person is taken from the ID token.
func TestIdentityComesFromWhereItIsConfigured(t *testing.T) {
	w := newWorld(t)
	token := testenv.Fault{Endpoint: testenv.Token, Claims: testenv.With("name", "From Token")}
	info := testenv.Fault{Endpoint: testenv.Userinfo, JSON: func(c map[string]any) {
		c["name"] = "From Userinfo"
		delete(c, "groups")
	}}
	poor := testenv.Fault{Endpoint: testenv.Token,
		Claims: testenv.Without("name", "email", "email_verified", "preferred_username", "groups", "org_id", "org_name",
			"org_domain")}
	without := func(names ...string) testenv.Fault {
		return testenv.Fault{Endpoint: testenv.Token, Claims: testenv.Without(names...)}
	}
	rows := []struct {
		name   string
		from   string
		claims ClaimNames
		faults []testenv.Fault
		asked  int
		check  func(identity.Identity) bool
	}{
		{"userinfo", FromUserinfo, ClaimNames{}, []testenv.Fault{token, info}, 1, func(id identity.Identity) bool {
			return id.Name == "From Userinfo" && id.Groups == nil && id.ProviderSID != ""
		}},
		{"id_token", FromIDToken, ClaimNames{}, []testenv.Fault{token, info}, 0,
			func(id identity.Identity) bool { return id.Name == "From Token" && len(id.Groups) == 2 }},
		{"id_token never asks", FromIDToken, ClaimNames{Groups: "groups"}, []testenv.Fault{poor}, 0,
			func(id identity.Identity) bool { return id.Email == "" && id.Name == "" }},
		{"auto, all there", FromAuto, ClaimNames{OrgID: "org_id", Groups: "groups"}, []testenv.Fault{token, info}, 0,
			func(id identity.Identity) bool { return id.Name == "From Token" }},
		{"auto, nothing there", "", ClaimNames{}, []testenv.Fault{poor}, 1, func(id identity.Identity) bool {
			return id.Email == "mira@acme.example" && id.EmailVerified && id.Org.ID == "corp:acme" &&
				len(id.Groups) == 2
		}},
		{"auto, no e-mail", FromAuto, ClaimNames{}, []testenv.Fault{without("email")}, 1,
			func(id identity.Identity) bool { return id.EmailVerified && id.Email == "mira@acme.example" }},
		{"auto, groups nobody configured", FromAuto, ClaimNames{}, []testenv.Fault{without("groups")}, 0,
			func(id identity.Identity) bool { return id.Groups == nil && !id.GroupsUnknown }},
		{"auto, groups somebody configured", FromAuto, ClaimNames{Groups: "groups"}, []testenv.Fault{without("groups")},
			1, func(id identity.Identity) bool { return len(id.Groups) == 2 }},
		{"auto, the token's word goes first", FromAuto, ClaimNames{},
			[]testenv.Fault{without("preferred_username"), info}, 1,
			func(id identity.Identity) bool { return id.Name == "Mira Okafor" && id.Username == "mira" }},
		{"auto, one source does not vouch for another's address", FromAuto, ClaimNames{}, []testenv.Fault{
			{Endpoint: testenv.Token, Claims: func(c map[string]any) {
				c["email"] = "boss@acme.example"
				delete(c, "email_verified")
				delete(c, "name")
			}},
		}, 1, func(id identity.Identity) bool { return id.Email == "boss@acme.example" && !id.EmailVerified }},
		{"auto, no access token", FromAuto, ClaimNames{},
			[]testenv.Fault{without("name", "at_hash"),
				{Endpoint: testenv.Token, JSON: testenv.Without("access_token")}}, 0,
			func(id identity.Identity) bool { return id.Name == "" && id.Email != "" }},
		{"auto, no userinfo endpoint", FromAuto, ClaimNames{},
			[]testenv.Fault{without("name"), {Endpoint: testenv.Discovery, JSON: testenv.Without("userinfo_endpoint")}},
			0, func(id identity.Identity) bool { return id.Name == "" && id.Email != "" }},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			w.use(func(o *Options) { o.IdentityFrom, o.Claims = row.from, row.claims })
			w.op.Set(row.faults...)
			before := w.op.Hits(testenv.Userinfo)
			id, err := w.signIn("mira", identity.AuthParams{})
			if err != nil {
				t.Fatal(err)
			}
			if n := w.op.Hits(testenv.Userinfo) - before; n != row.asked {
				t.Errorf("userinfo was asked %d times, want %d", n, row.asked)
			}
			if !row.check(id) {
				t.Errorf("got %+v", id)
			}
		})
	}
	w.use(func(o *Options) { o.IdentityFrom = FromUserinfo })
	w.op.Set(without("at_hash"), testenv.Fault{Endpoint: testenv.Token, JSON: testenv.Without("access_token")})
	w.refuse(identity.Rejected)
}

// FuzzClaims: with any claims of a provider, an identity keeps within its limits.
func FuzzClaims(f *testing.F) {
	for _, seed := range []string{
		`{"sub":"mira","email":"a@b.example","email_verified":true,"groups":["a","b"],"org_id":"x","org_domain":"b.example"}`,
		`{"sub":"m","email":"a@b@c","email_verified":"true","groups":"a","auth_time":1.5,"acr":"x","sid":"y"}`,
		`{"sub":"m","groups":[1],"_claim_names":{"groups":"s"},"name":null,"preferred_username":{}}`,
		`{"sub":"","exp":1e999}`, `{"sub":"a","sub":"b"}`, `[]`, ``,
	} {
		f.Add([]byte(seed), []byte(seed))
	}
	p, err := New(Options{ID: "corp", Issuer: "https://op.example", ClientID: clientID, RedirectURL: callbackURL})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, token, info []byte) {
		members, err := oauth.Object(token)
		if err != nil {
			return
		}
		c := claims(maps.Clone(members))
		c["iss"], c["aud"] = json.RawMessage(`"https://op.example"`), json.RawMessage(fmt.Sprintf("%q", clientID))
		delete(c, "azp")
		if p.checkParties(c) != nil {
			return
		}
		p.checkTimes(c)
		p.checkBinding(idToken{c, "RS256", ""}, "at", handshake())
		sources := []claims{c}
		if more, err := oauth.Object(info); err == nil {
			sources = append(sources, more)
		}
		checkIdentity(t, p.identity(t.Context(), c, sources), sources)
	})
}

// checkBounds checks the limits of an identity.
func checkBounds(t *testing.T, id identity.Identity) {
	t.Helper()
	if id.Subject == "" || len(id.Subject) > 255 || id.Provider != "corp" {
		t.Errorf("key %q", id.ID())
	}
	for _, s := range append([]string{id.Subject, id.Email, id.Name, id.Username, id.Org.ID, id.Org.Name, id.Org.Domain,
		id.ACR, id.ProviderSID}, id.Groups...) {
		if len(s) > 256+len("corp:") || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
			t.Errorf("out of bounds: %q", s)
		}
	}
	if id.Email != "" && (strings.Count(id.Email, "@") != 1 ||
		strings.ContainsFunc(id.Email, func(r rune) bool { return r <= ' ' || r > '~' })) {
		t.Errorf("e-mail %q", id.Email)
	}
	if (id.Org.ID == "") != (id.Org == identity.Org{}) {
		t.Errorf("an organization without an id: %+v", id.Org)
	}
}

func checkIdentity(t *testing.T, id identity.Identity, sources []claims) {
	t.Helper()
	checkBounds(t, id)
	if id.EmailVerified && !slices.ContainsFunc(sources,
		func(c claims) bool { return string(c["email_verified"]) == "true" && c.has("email") }) {
		t.Errorf("%q is verified by nobody", id.Email)
	}
	if id.GroupsUnknown && len(id.Groups) > 0 &&
		!slices.ContainsFunc(sources, func(c claims) bool { return c.has("_claim_names") }) {
		t.Errorf("groups %q and unknown", id.Groups)
	}
}

// P8: nothing that this package exports can hold or hand out a token.
func TestP08_NothingExportedHoldsAToken(t *testing.T) {
	exported := map[string]reflect.Type{
		"Options": reflect.TypeFor[Options](), "Endpoints": reflect.TypeFor[Endpoints](),
		"Conflict": reflect.TypeFor[Conflict](), "Quirk": reflect.TypeFor[Quirk](),
		"QuirkNames": reflect.TypeOf(QuirkNames), "AllQuirks": reflect.TypeOf(AllQuirks),
		"Permissions": reflect.TypeFor[Permissions](), "Scope": reflect.TypeFor[Scope](),
		"Claim": reflect.TypeFor[Claim](), "CheckPublicKeys": reflect.TypeOf(CheckPublicKeys),
		"ClaimNames":    reflect.TypeFor[ClaimNames](),
		"TokenVerifier": reflect.TypeFor[*TokenVerifier](), "BearerOptions": reflect.TypeFor[BearerOptions](),
		"Needs": reflect.TypeFor[Needs](), "SignOut": reflect.TypeFor[SignOut](),
		"CheckClientAssertion": reflect.TypeOf(CheckClientAssertion),
		"CheckClientKey":       reflect.TypeOf(CheckClientKey), "ClaimForm": reflect.TypeFor[ClaimForm](),
		"BearerQuirks": reflect.TypeOf(BearerQuirks), "LogoutVerifier": reflect.TypeFor[*LogoutVerifier](),
		"Directory": reflect.TypeFor[Directory](), "DirectoryScopes": reflect.TypeOf(DirectoryScopes),
		"Provider": reflect.TypeFor[*Provider](), "New": reflect.TypeOf(New), "Types": reflect.TypeOf(Types),
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range exportedNames(file) {
			if exported[found] == nil && !strings.HasSuffix(name, "_test.go") {
				t.Errorf("%s is exported: add it to this test", found)
			}
		}
	}
	holders := []reflect.Type{reflect.TypeFor[oauth.TokenResponse](), reflect.TypeFor[oauth2.Token](),
		reflect.TypeFor[oidc.IDToken](), reflect.TypeFor[oidc.UserInfo]()}
	for name, typ := range exported {
		walk(typ, func(path string, found reflect.Type) {
			field := strings.ToLower(path[strings.LastIndex(path, ".")+1:])
			if slices.Contains(holders, found) || strings.HasSuffix(field, "token") ||
				strings.HasSuffix(field, "tokens") {
				t.Errorf("%s%s is %s", name, path, found)
			}
		})
	}
}

func exportedNames(file *ast.File) []string {
	var names []string
	for _, decl := range file.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil && d.Name.IsExported() {
				names = append(names, d.Name.Name)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				if s, ok := spec.(*ast.TypeSpec); ok && s.Name.IsExported() {
					names = append(names, s.Name.Name)
				}
			}
		}
	}
	return names
}

// walk visits what a value of typ can hold and what its methods return. It stays
// in this package and identity: oauth's client makes tokens, and keeps none.
func walk(typ reflect.Type, visit func(path string, found reflect.Type)) {
	seen := map[reflect.Type]bool{}
	var step func(string, reflect.Type)
	step = func(path string, typ reflect.Type) {
		visit(path, typ)
		if seen[typ] || typ == reflect.TypeFor[*oauth.Client]() {
			return
		}
		seen[typ] = true
		for i := range typ.NumMethod() {
			step(path+"."+typ.Method(i).Name+"()", typ.Method(i).Type)
		}
		switch typ.Kind() {
		case reflect.Func:
			for i := range typ.NumOut() {
				step(path, typ.Out(i))
			}
		case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map, reflect.Chan:
			step(path, typ.Elem())
		case reflect.Struct:
			if !strings.HasSuffix(typ.PkgPath(), "/login") && !strings.HasSuffix(typ.PkgPath(), "/identity") {
				return
			}
			for i := range typ.NumField() {
				step(path+"."+typ.Field(i).Name, typ.Field(i).Type)
			}
		}
	}
	step("", typ)
}

// OIDC Core §5.1: email_verified is about the claim email. Under another name
// an address would borrow its verification.
func TestP07_VerificationIsNotBorrowedFromAnotherClaim(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Claims.Email = "nickname" })
	for nickname, verified := range map[string]bool{"root@example.com": false, "mira@acme.example": true} {
		if id := w.person(testenv.With("nickname", nickname)); id.Email != nickname || id.EmailVerified != verified {
			t.Errorf("%s: got %q, verified %v", nickname, id.Email, id.EmailVerified)
		}
	}
}
