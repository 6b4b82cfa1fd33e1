package login

import (
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// fact is one row of a vendor's table: something true of the vendor, or one
// lie, and what becomes of it. name cites where it is from.
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

// P8, P18: the tokens have the marks of the real ones (providers.md §10 (5)).
// Whatever becomes of a sign-in, none shows them.
func TestP08_NoTokenIsSeenAgain(t *testing.T) {
	shapes := map[string]struct {
		edit  func(*world) func(*Options)
		marks []string
	}{
		demo.Google:    {func(*world) func(*Options) { return func(o *Options) { o.Type, o.Scopes = TypeGoogle, nil } }, []string{"ya29.", "1//0"}},
		demo.Microsoft: {func(*world) func(*Options) { return microsoftBase }, []string{"EwB", "0.A"}},
		demo.Slack:     {func(*world) func(*Options) { return slackBase }, []string{"xoxp-", "xoxe-"}},
		demo.Partner:   {func(w *world) func(*Options) { return partnerBase(t, w) }, []string{"demo-at-"}},
		demo.Perscom:   {perscomBase, []string{"demo-at-"}},
		demo.PagerDuty: {func(w *world) func(*Options) {
			return func(o *Options) {
				o.Type, o.Scopes = TypePagerDuty, nil
				o.Endpoints = Endpoints{AuthorizationURL: w.op.URL + demo.AuthorizePath, TokenURL: w.op.URL + demo.TokenPath, JWKSURL: w.op.URL + demo.JWKSPath}
			}
		}, []string{"pdus+"}},
	}
	// Every string of an answer, its own tokens among them, where a string or a
	// name of something is expected.
	echo := func(mark string) []testenv.Fault {
		return []testenv.Fault{
			{},
			{Endpoint: testenv.Token, Claims: testenv.With("iss", mark)}, {Endpoint: testenv.Token, Claims: testenv.With("aud", mark)},
			{Endpoint: testenv.Token, Claims: testenv.With("azp", mark)}, {Endpoint: testenv.Token, Claims: testenv.With("tid", mark)},
			{Endpoint: testenv.Token, Claims: testenv.With("hd", []string{mark})}, {Endpoint: testenv.Token, Claims: testenv.With("sub", []string{mark})},
			{Endpoint: testenv.Token, Claims: testenv.With("email", mark)}, {Endpoint: testenv.Token, Claims: testenv.With("groups", []any{mark, 1})},
			{Endpoint: testenv.Token, Resign: testenv.WithKid(mark)}, {Endpoint: testenv.Token, Resign: testenv.SignedByStranger},
			{Endpoint: testenv.Token, JSON: func(a map[string]any) { a["id_token"] = a["access_token"] }},
			{Endpoint: testenv.Token, JSON: func(a map[string]any) { a["error"] = a["access_token"] }},
			{Endpoint: testenv.Token, JSON: func(a map[string]any) { a["token_type"] = a["access_token"] }},
			{Endpoint: testenv.Token, Truncate: true},
			{Endpoint: testenv.Userinfo, Body: mark}, {Endpoint: testenv.Userinfo, Status: 401, Body: mark},
			{Endpoint: testenv.Userinfo, JSON: testenv.With("sub", []string{mark})},
			{Endpoint: testenv.Organization, Body: mark}, {Endpoint: testenv.Organization, Status: 403, Body: mark},
			{Endpoint: testenv.Me, JSON: testenv.With("id", mark)},
			{Endpoint: testenv.JWKS, JSON: testenv.With("jwks_uri", "https://"+mark)},
		}
	}
	for shape, row := range shapes {
		w := shapedWorld(t, shape)
		for _, fault := range echo(row.marks[0] + "c4nary") {
			w.use(row.edit(w))
			w.op.Set(fault)
			id, err := w.signIn("mira", identity.AuthParams{})
			seen := w.takeLog() + fmt.Sprintf("%+v %#v %v", id, id, err)
			for e := err; e != nil; e = errors.Unwrap(e) {
				seen += fmt.Sprintf("%v %+v", e, e)
			}
			for _, mark := range append(row.marks, "eyJ", "demo-code-") {
				if strings.Contains(seen, mark) {
					t.Errorf("%s, %+v: %q is seen in\n%s", shape, fault, mark, seen)
				}
			}
			if fault.Endpoint == "" && err != nil {
				t.Errorf("%s: %v", shape, err)
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
