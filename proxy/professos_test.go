package proxy

import (
	"net/http"
	"strings"
	"testing"

	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/login"
)

// The tests for clients of PrOfESSOS (Ruhr University Bochum, RUB-NDS/PrOfESSOS,
// rp_test.xml) that need two providers or two browsers, by their public names. One provider
// is honest, and one is evil: it has the same client id, and wants to know the honest one's
// codes, or to have somebody signed in as a person of the honest one. The other tests are in
// package login.
func TestP06_TestsOfPrOfESSOSWithTwoProviders(t *testing.T) {
	t.Parallel()
	scopes := []string{"openid", "profile", "email", "groups", "org"}
	m := newSeveral(t, setup{},
		offer{"honest", "Honest", demo.Standard, func(o *login.Options, _ *testenv.Faults) { o.Scopes = scopes }},
		offer{"evil", "Evil", demo.Standard, func(o *login.Options, _ *testenv.Faults) { o.Scopes = scopes }})
	honest, evil := m.ops["honest"], m.ops["evil"]
	at := func(b *testenv.Browser, provider string) testenv.Page {
		return b.Choose(b.Open(m.url+"/deep"), "provider", provider)
	}
	// pretends is an answer of the evil provider about a person of the honest one.
	pretends := func(sign testenv.Signer, names ...string) {
		all := map[string]any{"iss": honest.URL, "sub": "tomoko", "aud": "client-of-honest", "name": "Tomoko Hayashi",
			"email": "tomoko@birch.example", "preferred_username": "tomoko"}
		bend := func(c map[string]any) {
			for _, name := range names {
				c[name] = all[name]
			}
		}
		if sign == nil {
			evil.Set(testenv.Fault{Endpoint: testenv.Token, Claims: bend})
			return
		}
		evil.Set(testenv.Fault{Endpoint: testenv.Token,
			Resign: func(p *demo.Provider, h, c map[string]any) (string, error) {
				bend(c)
				return sign(p, h, c)
			}})
	}
	// finish is a sign-in of the evil provider's own person, at it.
	finish := func(b *testenv.Browser) testenv.Page { return b.SignIn(at(b, "evil"), "mira") }
	for name, tt := range map[string]struct {
		attack func(t *testing.T, b *testenv.Browser) testenv.Page
		as     string // who is signed in afterwards; "": nobody
		status int
		says   string
		codes  int // that the evil provider is shown
	}{
		"ID Spoofing 1 - ID Token (sub)": {func(_ *testing.T, b *testenv.Browser) testenv.Page {
			pretends(nil, "sub")
			return finish(b)
		}, "evil:tomoko", 200, "", 1},
		"ID Spoofing 2 - ID Token (sub+iss)": {func(_ *testing.T, b *testenv.Browser) testenv.Page {
			pretends(nil, "iss", "sub")
			return finish(b)
		}, "", 502, notTrusted, 1},
		"ID Spoofing 3 - ID Token (name+username+email)": {func(_ *testing.T, b *testenv.Browser) testenv.Page {
			pretends(nil, "name", "email", "preferred_username")
			return finish(b)
		}, "evil:mira", 200, "", 1},
		"Key Confusion 6 - Session Overwriting": {func(t *testing.T, b *testenv.Browser) testenv.Page {
			pretends(testenv.SignedHS256([]byte("c4nary+secret/of=honest")), "iss", "sub", "aud")
			_, q := m.answerOf(t, b, at(b, "evil"), "mira")
			at(b, "honest") // begun meanwhile, and left
			return b.Open(m.callback("evil", q))
		}, "", 502, notTrusted, 1},
		// Each provider has a callback of its own: what the honest one answers there is for a
		// sign-in with it.
		"IdP Confusion": {func(t *testing.T, b *testenv.Browser) testenv.Page {
			known, asked := at(b, "honest").URL.Query(), at(b, "evil").URL.Query()
			asked.Set("nonce", known.Get("nonce"))
			asked.Set("client_id", "client-of-honest")
			page := b.Open(honest.URL + demo.AuthorizePath + "?" + asked.Encode())
			if !strings.HasPrefix(page.URL.String(), honest.URL) || page.Status != 400 {
				t.Errorf("the honest one knows the callback of the other: %d at %s", page.Status, page.URL)
			}
			asked.Set("redirect_uri", known.Get("redirect_uri"))
			_, q := m.answerOf(t, b, b.Open(honest.URL+demo.AuthorizePath+"?"+asked.Encode()), "tomoko")
			return b.Open(m.callback("honest", q))
		}, "", 400, wrongProvider, 0},
		"Malicious Endpoint Attack": {func(t *testing.T, b *testenv.Browser) testenv.Page {
			page := at(b, "evil") // its discovery could lead to the honest one, with its own client
			return b.Open(honest.URL + demo.AuthorizePath + "?" + page.URL.RawQuery)
		}, "", 400, "", 0},
		"Session Overwriting 1": {func(t *testing.T, b *testenv.Browser) testenv.Page {
			_, q := m.answerOf(t, b, at(b, "honest"), "tomoko")
			at(b, "evil")
			return b.Open(m.callback("honest", q))
		}, "honest:tomoko", 200, "", 0}, // as they wanted, and the evil one learns nothing of it
		"Session Overwriting 2": {func(t *testing.T, b *testenv.Browser) testenv.Page {
			pretends(nil, "iss", "sub")
			_, q := m.answerOf(t, b, at(b, "evil"), "mira")
			at(b, "honest")
			return b.Open(m.callback("evil", q))
		}, "", 502, notTrusted, 1},
		"CSRF 1": {func(t *testing.T, b *testenv.Browser) testenv.Page {
			_, q := m.answerOf(t, b, at(b, "evil"), "mira")
			q.Set("state", "invalid")
			return b.Open(m.callback("evil", q))
		}, "", 400, "Start again", 0},
		"CSRF 2": {func(t *testing.T, b *testenv.Browser) testenv.Page {
			other := m.browser(t)
			_, theirs := m.answerOf(t, other, at(other, "evil"), "mira")
			_, q := m.answerOf(t, b, at(b, "evil"), "mira")
			q.Set("state", theirs.Get("state"))
			b.MaxHops = 0
			return b.Open(m.callback("evil", q))
		}, "", 0, "", 0},
		"CSRF 3": {func(t *testing.T, b *testenv.Browser) testenv.Page {
			_, q := m.answerOf(t, b, at(b, "evil"), "mira")
			q.Del("state")
			return b.Open(m.callback("evil", q))
		}, "", 400, "Start again", 0},
		"TRC 3": {func(_ *testing.T, b *testenv.Browser) testenv.Page {
			pretends(nil, "aud")
			return finish(b)
		}, "", 502, notTrusted, 1},
	} {
		t.Run(name, func(t *testing.T) {
			evil.Set()
			b, shown := m.browser(t), evil.Hits(testenv.Token)
			page := tt.attack(t, b)
			if tt.status != 0 && page.Status != tt.status || !strings.Contains(page.Body, tt.says) {
				t.Errorf("ended at %s with %d\n%s", page.URL, page.Status, page.Body)
			}
			who := ""
			if s := m.sessionOf(b); s != nil {
				who = s.Identity.ID()
			}
			if who != tt.as {
				t.Errorf("signed in as %q, want %q", who, tt.as)
			}
			if got := evil.Hits(testenv.Token) - shown; got != tt.codes {
				t.Errorf("the evil provider was shown %d codes, want %d", got, tt.codes)
			}
			for _, r := range evil.Requests(testenv.Token)[shown:] {
				_, secret, _ := (&http.Request{Header: r.Header}).BasicAuth()
				if strings.Contains(secret+string(r.Body), "honest") {
					t.Error("the evil provider was shown what is for the honest one")
				}
			}
		})
	}
}
