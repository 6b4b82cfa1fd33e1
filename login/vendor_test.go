package login

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/hostname"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// fact is one row of a vendor's table: something that the vendor does, or one false claim,
// with the result. name says which rule or document it is from.
type fact struct {
	name   string
	who    string         // "mira" if empty
	edit   func(*Options) // of our side
	faults []testenv.Fault
	want   identity.Identity      // exactly, but for auth_time and sid; or
	refuse identity.SignInFailure // this failure
	says   string                 // words of it, where another check could say no as well
}

func runFacts(t *testing.T, w *world, base func(*Options), facts []fact) {
	for _, f := range facts {
		t.Run(f.name, func(t *testing.T) {
			w.t = t
			edits := []func(*Options){base}
			if f.edit != nil {
				edits = append(edits, f.edit)
			}
			w.use(edits...)
			w.op.Set(f.faults...)
			id, err := w.signIn(or(f.who, "mira"), identity.AuthParams{})
			if f.refuse != "" {
				if err := w.failed(err, f.refuse); !strings.Contains(err.Error(), f.says) {
					t.Errorf("refused for another reason: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			id.AuthTime, id.ProviderSID = time.Time{}, ""
			if !reflect.DeepEqual(id, f.want) {
				t.Errorf("got  %+v\nwant %+v", id, f.want)
			}
		})
	}
	w.t = t
}

func tokenClaims(b bend) []testenv.Fault {
	return []testenv.Fault{{Endpoint: testenv.Token, Claims: b}}
}

func changed(id identity.Identity, f func(*identity.Identity)) identity.Identity {
	f(&id)
	return id
}

// authQuery is what the browser would carry to the provider.
func (w *world) authQuery(ap identity.AuthParams) url.Values {
	w.t.Helper()
	to, err := w.p.AuthURL(w.t.Context(), handshake(), ap)
	if err != nil {
		w.t.Fatal(err)
	}
	u, err := url.Parse(to)
	if err != nil {
		w.t.Fatal(err)
	}
	return u.Query()
}

// P8, P18: the demo provider's tokens begin as the real ones do. However a
// sign-in ends, it shows none of them.
func TestP08_NoTokenIsSeenAgain(t *testing.T) {
	kinds := map[string]func(*world) func(*Options){
		demo.Google:    func(*world) func(*Options) { return func(o *Options) { o.Type, o.Scopes = TypeGoogle, nil } },
		demo.Microsoft: func(*world) func(*Options) { return microsoftBase },
		demo.Slack:     func(*world) func(*Options) { return slackBase },
		demo.Partner:   func(w *world) func(*Options) { return partnerBase(t, w) },
		demo.Perscom:   perscomBase,
		demo.GitHub:    githubBaseOf,
		demo.PagerDuty: func(w *world) func(*Options) {
			return func(o *Options) {
				o.Type, o.Scopes = TypePagerDuty, nil
				o.Endpoints = Endpoints{AuthorizationURL: w.op.URL + demo.AuthorizePath, TokenURL: w.op.URL +
					demo.TokenPath, JWKSURL: w.op.URL + demo.JWKSPath}
			}
		},
	}
	// Every string of an answer, its own tokens among them, where a string or a
	// name of something is expected; but for iss, aud, azp and kid, which are about
	// the token, so that a refusal says what came.
	echo := func(mark string) []testenv.Fault {
		return []testenv.Fault{
			{},
			{Endpoint: testenv.Token, Claims: testenv.With("nonce", mark)},
			{Endpoint: testenv.Token, Claims: testenv.With("at_hash", mark)},
			{Endpoint: testenv.Token, Claims: testenv.With("tid", mark)},
			{Endpoint: testenv.Token, Claims: testenv.With("org_id", []any{mark, mark})},
			{Endpoint: testenv.Token, Claims: testenv.With("hd", []string{mark})},
			{Endpoint: testenv.Token, Claims: testenv.With("sub", []string{mark})},
			{Endpoint: testenv.Token, Claims: testenv.With("email", mark)},
			{Endpoint: testenv.Token, Claims: testenv.With("groups", []any{mark, 1})},
			{Endpoint: testenv.Token, Resign: testenv.SignedByStranger},
			{Endpoint: testenv.Token, JSON: func(a map[string]any) { a["id_token"] = a["access_token"] }},
			{Endpoint: testenv.Token, JSON: func(a map[string]any) { a["error"] = a["access_token"] }},
			{Endpoint: testenv.Token, JSON: func(a map[string]any) { a["token_type"] = a["access_token"] }},
			{Endpoint: testenv.Token, Truncate: true},
			{Endpoint: testenv.Userinfo, Body: mark}, {Endpoint: testenv.Userinfo, Status: 401, Body: mark},
			{Endpoint: testenv.Userinfo, JSON: testenv.With("sub", []string{mark})},
			{Endpoint: testenv.Organization, Body: mark}, {Endpoint: testenv.Organization, Status: 403, Body: mark},
			{Endpoint: testenv.Me, JSON: testenv.With("id", mark)},
			{Endpoint: testenv.JWKS, JSON: testenv.With("jwks_uri", "https://"+mark)},
			{Endpoint: testenv.User, Body: mark}, {Endpoint: testenv.User, JSON: testenv.With("id", mark)},
			{Endpoint: testenv.Memberships, Status: 403, Body: mark}, {Endpoint: testenv.Teams, Body: `["` + mark + `"]`},
			{Endpoint: testenv.UserEmails, Body: `[{"email":["` + mark + `"]}]`},
			{Endpoint: testenv.Memberships, Header: map[string]string{"Link": "<https://" + mark + `>; rel="next"`}},
			{Endpoint: testenv.Revoke, Status: 422, Body: mark},
		}
	}
	for kind, edit := range kinds {
		w := worldOfKind(t, kind)
		for _, fault := range echo(testenv.Marks(kind)[0] + "c4nary") {
			w.use(edit(w))
			w.op.Set(fault)
			id, err := w.signIn("mira", identity.AuthParams{})
			seen := w.takeLog() + fmt.Sprintf("%+v %#v %v", id, id, err)
			for e := err; e != nil; e = errors.Unwrap(e) {
				seen += fmt.Sprintf("%v %+v", e, e)
			}
			for _, mark := range append(testenv.Marks(kind), "eyJ", "demo-code-") {
				if strings.Contains(seen, mark) {
					t.Errorf("%s, %+v: %q is seen in\n%s", kind, fault, mark, seen)
				}
			}
			if fault.Endpoint == "" && err != nil {
				t.Errorf("%s: %v", kind, err)
			}
		}
	}
}

// takeLog returns what was logged since it was last asked.
func (w *world) takeLog() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.log.Reset()
	return w.log.String()
}

// FuzzVendors: whatever a vendor claims and its directory answers, an identity
// has the vendor's key and is within its bounds.
func FuzzVendors(f *testing.F) {
	for _, seed := range []string{
		`{"sub":"1","hd":"Acme.Example","email":"a@gmail.com","email_verified":true}`,
		`{"sub":"x","tid":"822b33ad-87c1-48a0-a20a-5ba7cd5ebcaa","oid":"3c38aafb-0579-dafe-18bb-584dce2786cc","email":"a@b.example","xms_edov":"1"}`,
		`{"sub":"x","account_id":"P1","user_id":"P2","subdomain":"acme","aud":["https://api.pagerduty.com","x"]}`,
		`{"sub":"U1","https://slack.com/team_id":"T1","https://slack.com/enterprise_id":"E1"}`,
		`{"id":"822b33ad-87c1-48a0-a20a-5ba7cd5ebcaa","displayName":"Acme","verifiedDomains":[{"name":"b.example","isDefault":true}]}`,
		`{"id":1,"login":"a","emails":[{"email":"a@b.example","primary":true,"verified":true}],"memberships":` +
			`[{"state":"active","organization":{"id":7,"login":"acme"}}],"teams":[{"slug":"x","organization":{"id":7,"login":"acme"}}]}`,
		`{"sub":7,"id":"x","orgs":["a",{"id":"b"},3]}`, `{}`, ``,
	} {
		f.Add([]byte(seed), []byte(seed))
	}
	var providers []*Provider
	for _, o := range []Options{
		{Type: TypeGoogle}, {Type: TypeMicrosoft, Tenant: TenantCommon}, {Type: TypePagerDuty}, {Type: TypeSlack},
		{Type: TypeGitHub}, {Type: TypeGitHub, AllowedOrgs: []string{"7"}},
		{Type: TypeOIDC, Issuer: "https://op.example", Claims: ClaimNames{Orgs: "orgs"},
			Quirks: []string{"numeric_sub", "id_as_sub", "assume_email_verified"}, EmailDomains: []string{"b.example"}},
	} {
		o.ID, o.ClientID, o.ClientSecret, o.RedirectURL = "corp", "x", "y", callbackURL
		p, err := New(o)
		if err != nil {
			f.Fatal(err)
		}
		providers = append(providers, p)
	}
	f.Fuzz(func(t *testing.T, token, more []byte) {
		who, err := oauth.Object(token)
		if err != nil {
			return
		}
		extra, err := oauth.Object(more)
		if err != nil {
			extra = claims{}
		}
		for _, p := range providers {
			who := claims(who)
			if p.dialect.prepare != nil {
				if who, err = p.dialect.prepare(who); err != nil {
					continue
				}
			}
			if p.checkSubject(who, "") != nil {
				continue
			}
			sources := []claims{who, extra}
			if p.dialect.lookup != nil {
				found, err := readDirectory(claims{"value": json.RawMessage("[" + string(more) + "]")}, extra, who)
				if err != nil {
					found = claims{}
				}
				sources[1] = found
			}
			id := p.identity(t.Context(), who, sources)
			checkBounds(t, id)
			if p.dialect.subject != nil && p.kind != TypeGoogle && p.kind != TypeGitHub && strings.Count(id.Subject, "/") != 1 {
				t.Errorf("%s: subject %q", p.kind, id.Subject)
			}
			for _, o := range append(id.Orgs, id.Org) {
				if o != (identity.Org{}) && (!strings.HasPrefix(o.ID, "corp:") || len(o.ID) == len("corp:") ||
					o.Domain != "" && !hostname.IsDomain(o.Domain)) {
					t.Errorf("%s: organization %+v", p.kind, o)
				}
			}
		}
	})
}

// Chromium holds form-action to every redirect that follows a form, so a vendor
// that sends people on at once would otherwise be a page that does nothing.
func TestVendorsMaySendBrowsersOn(t *testing.T) {
	for _, row := range []struct {
		o    Options
		want string
	}{
		{Options{Type: TypeGoogle}, "https://accounts.google.com"},
		{Options{Type: TypeMicrosoft, Tenant: TenantCommon},
			"https://login.microsoftonline.com https://login.live.com"},
		{Options{Type: TypePagerDuty}, "https://identity.pagerduty.com https://*.pagerduty.com"},
		{Options{Type: TypeSlack}, "https://slack.com https://*.slack.com"},
		{Options{Type: TypeGitHub}, "https://github.com"},
		{Options{Type: TypeGitHub, BaseURL: "https://github.example.com"}, "https://github.example.com"},
		{Options{Type: TypeSlack, Issuer: "https://slack.test"}, "https://slack.test"},
		{Options{Type: TypeMicrosoft, Tenant: TenantCommon, Issuer: "https://login.microsoftonline.us"},
			"https://login.microsoftonline.us"},
		{Options{Type: TypeOIDC, Issuer: "https://sso.example/realms/x"}, "https://sso.example"},
	} {
		row.o.ID, row.o.ClientID, row.o.ClientSecret, row.o.RedirectURL = "x", "x", "y", callbackURL
		p, err := New(row.o)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(p.AuthOrigins(), " "); got != row.want {
			t.Errorf("%s: %s, want %s", row.o.Type, got, row.want)
		}
	}
}
