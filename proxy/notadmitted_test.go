package proxy

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/login"
)

// exclusive are providers that admit people of one organization.
func exclusive(tb testing.TB) *several {
	tb.Helper()
	return newSeveral(tb, setup{},
		offer{"google", "Google", demo.Google, func(o *login.Options, _ *testenv.Faults) {
			o.Type, o.HostedDomains, o.ReauthAfter = login.TypeGoogle, []string{"acme.example"}, asked
		}},
		offer{"ms", "Microsoft", demo.Microsoft, func(o *login.Options, op *testenv.Faults) {
			o.Type, o.Tenant, o.Endpoints.GraphURL = login.TypeMicrosoft, login.TenantCommon, op.URL
			o.AllowedTenants = []string{acmeTenant}
		}},
		offer{"work", "Work accounts", demo.Microsoft, func(o *login.Options, op *testenv.Faults) {
			o.Type, o.Tenant, o.Endpoints.GraphURL = login.TypeMicrosoft, login.TenantCommon, op.URL
			o.AllowedTenants = []string{acmeTenant}
		}},
		offer{"gh", "GitHub", demo.GitHub, func(o *login.Options, op *testenv.Faults) {
			o.Type, o.Issuer, o.BaseURL = login.TypeGitHub, "", op.URL
			o.AllowedOrgs = []string{githubNumber("acme")}
		}},
		offer{"corp", "Corp Login", demo.Standard, func(o *login.Options, _ *testenv.Faults) {
			o.EmailDomains, o.Claims.Orgs = []string{"acme.example"}, "orgs"
		}})
}

// Somebody whom a provider proved, and whom its options exclude, is refused like anybody else
// who may not come in: by name, with the way to another account, and counted as that. What
// means that the provider cannot be believed stays its failure.
func TestSomebodyWhomAProvidersOptionsExcludeIsRefusedAndNotTheProvider(t *testing.T) {
	t.Parallel()
	m := exclusive(t)
	many := make([]string, 51)
	for i := range many {
		many[i] = fmt.Sprint("org-", i)
	}
	claim := func(name string, value any) []testenv.Fault {
		return []testenv.Fault{claims(testenv.With(name, value))}
	}
	for _, row := range []struct {
		provider, person string
		faults           []testenv.Fault
		title            string
		says             []string // beside the title
		log              string
	}{
		{"google", "tomoko", nil, notAdmitted, []string{"with Google as tomoko@birch.example",
			"accounts of birch.example are none of those"}, "hd is not one of hosted_domains"},
		{"google", "zoe", nil, notAdmitted, []string{"as zoe@mail.example", "it is a personal account"}, "no hd"},
		{"google", "tomoko", claim("email", "<b>x</b>"), notAdmitted, []string{"with Google as Tomoko"},
			"hd is not one"},
		{"ms", "tomoko", nil, notAdmitted, []string{"with Microsoft as tomoko@birch.example",
			"its organization is none of those"}, "allowed_tenants"},
		{"work", "zoe", nil, notAdmitted, []string{"it is a personal account"}, "a personal account"},
		{"gh", "zoe", nil, notAdmitted, []string{"with GitHub as zoe@mail.example", "its owners may have to let"},
			"no active member of any of allowed_orgs"},
		{"gh", "mira", []testenv.Fault{{Endpoint: testenv.Token, Body: `{"error":"unverified_user_email"}`}}, notAdmitted,
			[]string{"you have not verified your e-mail address there"}, "verify their primary address"},
		{"corp", "mira", claim("orgs", many), "You belong to too many organizations",
			[]string{"as mira@acme.example", "They can have Corp Login tell of fewer"}, "more than 50 organizations"},

		{"google", "tomoko", claim("nonce", "another"), notTrusted, nil, "nonce"},
		{"google", "mira", claim("hd", []string{"acme.example"}), notTrusted, nil, "hd cannot be read"},
		{"ms", "tomoko", claim("tid", personalTenant), notTrusted, nil, "tid is not the tenant"},
		{"corp", "mira", claim("orgs", "all"), notTrusted, nil, "claim orgs"},
	} {
		t.Run(row.provider+" "+row.person+", "+row.log, func(t *testing.T) {
			m.ops[row.provider].Set(row.faults...)
			defer m.ops[row.provider].Set()
			before := m.signIns(t)
			b := m.browser(t)
			page := m.signInWith(t, b, row.provider, "/deep?x=1", row.person)
			status, result := http.StatusForbidden, "not_admitted"
			if row.title == notTrusted {
				status, result = http.StatusBadGateway, "rejected"
			}
			for _, words := range append(row.says, "<h1>"+row.title+"</h1>") {
				if !strings.Contains(page.Body, words) {
					t.Errorf("the page lacks %q:\n%s", words, page.Body)
				}
			}
			if page.Status != status || m.sessionOf(b) != nil {
				t.Errorf("%d, signed in: %v", page.Status, m.sessionOf(b) != nil)
			}
			line := m.log.event(t, page.Header.Get("X-Request-Id"))
			if !strings.Contains(fmt.Sprint(line["error"]), row.log) {
				t.Errorf("logged %v", line)
			}
			refused := line["reason"] == "not_admitted" && line["decision"] == "deny" && line["level"] == "INFO" &&
				(strings.HasPrefix(fmt.Sprint(line["user"]), row.provider+":") || row.log == "verify their primary address")
			if nobody := line["reason"] == nil && line["user"] == nil && line["level"] == "ERROR"; refused !=
				(status == 403) || nobody != (status == 502) {
				t.Errorf("logged %v", line)
			}
			if after := m.signIns(t); after[result] != before[result]+1 {
				t.Errorf("counted %v, before %v", after, before)
			}
			if status == http.StatusBadGateway {
				return
			}
			// The button asks for the account, and leads back to where they wanted to go.
			m.ops[row.provider].Set()
			b.MaxHops = 0
			again := b.Open(m.url + prefix + "/login?switch=account&provider=" + row.provider + "&return_to=%2Fdeep%3Fx%3D1")
			if !strings.Contains(page.Body, "/login?switch=account&amp;return_to=%2Fdeep%3Fx%3D1") {
				t.Errorf("no way to another account:\n%s", page.Body)
			}
			to, err := url.Parse(again.Header.Get("Location"))
			testenv.Check(t, err)
			if got := to.Query().Get("prompt"); got != "select_account" {
				t.Errorf("prompt %q at %s", got, to)
			}
		})
	}
}

const notAdmitted = "Your account may not use this site"

// A session of somebody whom the options exclude by now ends when their provider is asked
// again, and the page says what it is.
func TestWhoIsExcludedMeanwhileIsSignedOutWhenTheProviderIsAskedAgain(t *testing.T) {
	t.Parallel()
	m := exclusive(t)
	b := m.browser(t)
	if page := m.signInWith(t, b, "google", "/deep", "mira"); page.Status != 200 {
		t.Fatalf("%d\n%s", page.Status, page.Body)
	}
	m.ops["google"].Set(claims(testenv.With("hd", "elsewhere.example")))
	m.clock.Advance(2 * asked)
	b.Open(m.url + "/deep")
	google := m.proxy.signIns.providers[0].Login.(Reauthenticator)
	testenv.Eventually(t, "Google to answer", func() bool { return google.Answering(t.Context()) })
	page := b.Open(m.url + "/deep")
	if page.Status != 403 || m.sessionOf(b) != nil || !strings.Contains(page.Body, "You have been signed out") ||
		!strings.Contains(page.Body, "accounts of elsewhere.example are none of those") {
		t.Errorf("%d, signed in: %v\n%s", page.Status, m.sessionOf(b) != nil, page.Body)
	}
}
