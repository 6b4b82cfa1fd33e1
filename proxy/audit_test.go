package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// The audit stream tells of each sign-in, refusal, switch and sign-out, by whom,
// and of no page that somebody merely opens.
func TestAuditTellsOfSignInRefusalSwitchAndSignOut(t *testing.T) {
	t.Parallel()
	who := alice()
	who.Groups = nil
	who.Orgs = []identity.Org{who.Org, {ID: "main:birch", Name: "Birch"}}
	s := newTestSite(t, setup{Login: fixedLogin{who: who}})
	var stream bytes.Buffer
	audit := observe.NewAudit(&stream, func(r observe.Record, err error) { t.Errorf("lost %v: %v", r, err) })
	s.proxy.observers = append(s.proxy.observers, audit)

	b := s.browser(t)
	begun := s.begin(t, b, "/page")
	b.Open(s.callback("main", url.Values{"code": {"c"}, "state": {begun}}))
	b.Open(s.url + "/page")
	page := b.Open(s.url + "/admin")
	page = b.Post(page, prefix+"/organization", url.Values{"org": {"main:birch"}})
	b.Post(page, prefix+"/logout", nil)
	s.get(t, prefix+"/callback/main?error=access_denied&state=none",
		navigate()...) // anybody can send this: no sign-in failed
	if !audit.Close(time.Second) {
		t.Fatal("the stream does not end")
	}
	var got []string
	for dec := json.NewDecoder(&stream); ; {
		var r observe.Record
		if dec.Decode(&r) != nil {
			break
		}
		got = append(got, r.Event+" "+r.User+" "+r.Org+" "+r.Provider+" "+r.Reason)
		if r.Client != "127.0.0.1" || r.RequestID == "" || r.Time.IsZero() {
			t.Errorf("%+v", r)
		}
	}
	want := []string{
		"sign_in main:alice-1 main:acme main ",
		"refused main:alice-1 main:acme  " + string(authz.ReasonNoRule),
		"switch_org main:alice-1 main:birch  ",
		"sign_out main:alice-1 main:birch  ",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// A sign-in that fails at the provider is told too, with the reason in words.
func TestAuditTellsOfASignInThatFailed(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Login: fixedLogin{err: &identity.SignInError{Failure: identity.Rejected,
		Err: errors.New("wrong audience")}}})
	var stream bytes.Buffer
	audit := observe.NewAudit(&stream, func(r observe.Record, err error) { t.Errorf("lost %v: %v", r, err) })
	s.proxy.observers = append(s.proxy.observers, audit)
	b := s.browser(t)
	b.Open(s.callback("main", url.Values{"code": {"c"}, "state": {s.begin(t, b, "/page")}}))
	audit.Close(time.Second)
	var r observe.Record
	if err := json.Unmarshal(stream.Bytes(), &r); err != nil || r.Event != "sign_in_failed" || r.Provider != "main" ||
		r.User != "" ||
		!strings.Contains(r.Detail, "wrong audience") {
		t.Errorf("%v %s", err, stream.String())
	}
}

// Whoever ends a sign-in is in the audit stream, by whatever way they did: to sign
// in as somebody else ends the first one's, and the owner of a session that has
// ended may end what a copy of it became.
func TestAuditTellsOfEachWayToSignOut(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	var stream bytes.Buffer
	audit := observe.NewAudit(&stream, func(r observe.Record, err error) { t.Errorf("lost %v: %v", r, err) })
	s.proxy.observers = append(s.proxy.observers, audit)

	first := s.sessions.Start(alice())
	s.get(t, prefix+"/login?switch="+switchValue(&first), navigate("Cookie: "+s.seal(t, first))...)
	stale := s.sessions.Start(alice())
	cookie := s.seal(t, stale)
	_, err := s.sessions.Switch(t.Context(), headerWriter{}, s.routeHost, stale, alice()) // a copy goes on
	testenv.Check(t, err)
	s.ask(t, "POST", prefix+"/logout", "", "Cookie: "+cookie, "Origin: "+s.url)
	s.ask(t, "POST", prefix+"/logout", "", "Origin: "+s.url) // nobody
	audit.Close(time.Second)
	if got := strings.Count(stream.String(), `"event":"sign_out"`); got != 2 ||
		strings.Count(stream.String(), `"user":"main:alice-1"`) != 2 {
		t.Errorf("%d of 2 sign-outs in\n%s", got, stream.String())
	}
}

// A callback of another provider than the one that was asked is a sign-in that
// failed, and no mere page.
func TestAuditTellsOfAMixUp(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Login: fixedLogin{who: alice()}})
	var stream bytes.Buffer
	audit := observe.NewAudit(&stream, func(r observe.Record, err error) { t.Errorf("lost %v: %v", r, err) })
	s.proxy.observers = append(s.proxy.observers, audit)
	b := s.browser(t)
	b.Open(s.callback("other", url.Values{"code": {"c"}, "state": {s.begin(t, b, "/page")}}))
	audit.Close(time.Second)
	if got := stream.String(); strings.Count(got, `"event":"sign_in_failed"`) != 1 {
		t.Errorf("got %s", got)
	}
}

// audited has the audit stream of s go to what the function returns, as far as it is written.
func (s *testSite) audited(t *testing.T) (records func() []observe.Record) {
	t.Helper()
	var stream bytes.Buffer
	audit := observe.NewAudit(&stream, func(r observe.Record, err error) { t.Errorf("lost %v: %v", r, err) })
	s.proxy.observers = append(s.proxy.observers, audit)
	return func() (all []observe.Record) {
		s.close() // every handler has told
		if !audit.Close(time.Second) {
			t.Fatal("the stream does not end")
		}
		for dec := json.NewDecoder(&stream); ; {
			var r observe.Record
			if dec.Decode(&r) != nil {
				return all
			}
			all = append(all, r)
		}
	}
}

// What our own endpoints refuse is told as what rules refuse is: a form that another site sent
// in somebody's name (CSRF), an organization that is not theirs, a sign-in that another browser
// began, and a logout token that is forged or comes again. A request without a token is not.
func TestAuditTellsOfWhatOurOwnEndpointsRefuse(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, withLogouts(setup{}))
	records := s.audited(t)
	cookie, form := "Cookie: "+s.mint(t, alice()), "Content-Type: application/x-www-form-urlencoded"
	for _, path := range []string{"/logout", "/organization"} {
		s.ask(t, "POST", prefix+path, "", cookie, "Origin: https://evil.example")
	}
	s.ask(t, "POST", prefix+"/organization", "org=main:other&return_to=/", cookie, form, "Origin: "+s.url)
	begun, err := url.Parse(s.get(t, prefix+"/login", navigate()...).header.Get("Location"))
	testenv.Check(t, err)
	flow, _, _ := strings.Cut(s.get(t, prefix+"/login", navigate()...).header.Get("Set-Cookie"), ";")
	s.get(t, prefix+"/callback/main?"+url.Values{"code": {"c"}, "state": {begun.Query().Get("state")}}.Encode(),
		"Cookie: "+flow)
	s.logout(t, s.logoutToken(t, "j-1", testenv.With("aud", "another")))
	s.logout(t, s.logoutToken(t, "j-2", testenv.With("sub", "carol")))
	s.logout(t, s.logoutToken(t, "j-2", testenv.With("sub", "carol")))
	s.logout(t, s.logoutToken(t, "j-3", func(c map[string]any) { delete(c, "sub"); c["sid"] = "s-1" }))
	s.ask(t, "POST", backchannel, "", form)
	var got []string
	for _, r := range records() {
		got = append(got, strings.TrimPrefix(r.Path, prefix)+": "+r.Event+" "+r.User+", "+r.Detail)
		if r.RequestID == "" || r.Client != "127.0.0.1" || r.Status < 200 || r.Time.IsZero() {
			t.Errorf("%+v", r)
		}
	}
	want := []string{
		"/logout: refused , sign-out from another site",
		"/organization: refused , choice of an organization from another site",
		"/organization: refused main:alice-1, choice of an organization that is not theirs",
		"/callback/main: refused , ",
		"/backchannel-logout/main: refused , logout token: ",
		"/backchannel-logout/main: sessions_ended main:carol, all sessions of the person",
		"/backchannel-logout/main: refused , logout token: its jti was used before",
		"/backchannel-logout/main: sessions_ended , sessions of the session at the provider main:s-1",
	}
	if !slices.EqualFunc(got, want, strings.HasPrefix) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// Each time that a provider was asked again is told with what became of the session: also where
// it ended because the person has to be asked, and where the answer was none or was forged.
func TestAuditTellsWhatAProviderAnsweredWhenAskedAgain(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		code   string
		fault  testenv.Fault
		detail string
	}{
		"sign in":       {code: "login_required", detail: "the session has ended, because the provider has to ask"},
		"denied":        {code: "access_denied", detail: "main no longer confirms who this is"},
		"its own fault": {code: "server_error", detail: "main could not say who this is"},
		"a forged token": {fault: testenv.Fault{Endpoint: testenv.Token, Resign: testenv.SignedByStranger},
			detail: "main could not say who this is"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, b := reauthSite(t)
			s.due(t, b)
			records := s.audited(t)
			if tt.fault.Endpoint != "" {
				s.provider.Set(tt.fault)
			}
			b.MaxHops = 0
			away := b.Open(s.url + "/admin").Header.Get("Location")
			to, err := url.Parse(away)
			testenv.Check(t, err)
			back := s.callback("main", url.Values{"state": {to.Query().Get("state")}, "error": {tt.code},
				"iss": {s.provider.URL}})
			if tt.code == "" {
				back = b.Open(away).Header.Get("Location")
			}
			b.Open(back)
			all := records()
			if len(all) != 1 || all[0].Event != "reauth" || !strings.HasPrefix(all[0].User, "main:") ||
				!strings.HasPrefix(all[0].Detail, tt.detail) {
				t.Errorf("told %+v, want a reauth: %s", all, tt.detail)
			}
		})
	}
}
