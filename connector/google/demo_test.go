package google_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport-proxy/sallyport/connector"
	"github.com/sallyport-proxy/sallyport/connector/google"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/oauth"
)

const pretendBack = "http://localhost:4180/.sallyport/connect/calendar/callback"

// demoGoogle is the connector and the demo's Google, which was written from Google's
// documentation and not from this connector.
type demoGoogle struct {
	t *testing.T
	*testenv.Faults
	*google.Connector
	verifier string
}

func newDemoGoogle(t *testing.T) *demoGoogle {
	t.Helper()
	p := &demoGoogle{t: t, verifier: strings.Repeat("v", 43)}
	p.Faults = testenv.StartCalendar(t, demo.CalendarOptions{Issuer: "https://accounts.google.com",
		Clients: []demo.CalendarClient{{ID: "me", Secret: "s3cret", RedirectURIs: []string{pretendBack}}}})
	client, err := oauth.NewClient(oauth.Options{Provider: "calendar"})
	testenv.Check(t, err)
	p.Connector, err = google.New(connector.Client{ID: "calendar", ClientID: "me", ClientSecret: "s3cret",
		Base: p.Faults.URL, OAuth: client})
	testenv.Check(t, err)
	return p
}

// request is what a person connects, with all of these accesses.
func (p *demoGoogle) request(access ...string) grant.Request {
	r := grant.Request{RedirectURI: pretendBack, Access: access, Offline: true}
	for _, a := range p.About().Accesses {
		if slices.Contains(access, a.Name) {
			r.Scopes = append(r.Scopes, a.Scopes...)
		}
	}
	slices.Sort(r.Scopes)
	r.Scopes = slices.Compact(r.Scopes)
	return r
}

// connect has Mira answer the page with form.
func (p *demoGoogle) connect(r grant.Request, form url.Values) (grant.Result, error) {
	p.t.Helper()
	h := identity.Handshake{State: "state", Nonce: "nonce", Verifier: p.verifier}
	to, err := p.AuthURL(h, r)
	testenv.Check(p.t, err)
	form.Set("person", "mira")
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.PostForm(to, form)
	testenv.Check(p.t, err)
	defer res.Body.Close()
	at, err := res.Location()
	if err != nil {
		body, _ := io.ReadAll(res.Body)
		p.t.Fatalf("the page answers %d: %s", res.StatusCode, body)
	}
	if at.Query().Get("state") != "state" {
		p.t.Errorf("the state came back as %q", at.Query().Get("state"))
	}
	return p.Redeem(context.Background(), at.Query(), h, r)
}

func (p *demoGoogle) allowed(r grant.Request) url.Values {
	return url.Values{"answer": {"allow"}, "scope": r.Scopes}
}

// busy asks the API with an access token.
func (p *demoGoogle) busy(access string) int {
	p.t.Helper()
	const day = `{"timeMin":"2026-11-23T00:00:00Z","timeMax":"2026-11-24T00:00:00Z","items":[{"id":"primary"}]}`
	req, err := http.NewRequest("POST", p.Origin(grant.Account{})+"/calendar/v3/freeBusy", strings.NewReader(day))
	testenv.Check(p.t, err)
	req.Header.Set("Authorization", "Bearer "+access)
	res, err := http.DefaultClient.Do(req)
	testenv.Check(p.t, err)
	testenv.Check(p.t, res.Body.Close())
	return res.StatusCode
}

// The life of a grant at the demo's Google: connected, used, refreshed also after a lost
// answer, ended.
func TestTheDemosGoogleAndTheConnectorAgree(t *testing.T) {
	p := newDemoGoogle(t)
	r := p.request(google.FreeBusy)
	got, err := p.connect(r, p.allowed(r))
	if err != nil {
		t.Fatal(err)
	}
	if want := (grant.Account{ID: p.Calendar.Subject("mira"), Name: "mira@acme.example"}); got.Account != want {
		t.Errorf("the account is %v, want %v", got.Account, want)
	}
	if status := p.busy(got.Tokens.Access); status != http.StatusOK {
		t.Errorf("the access token opens freeBusy: %d", status)
	}

	p.Set(testenv.Fault{Endpoint: testenv.Token, Lose: true, Times: 1})
	var failed *grant.Error
	if _, err := p.Refresh(t.Context(), got.Tokens, r.Scopes); !errors.As(err, &failed) || failed.Class != grant.Lost {
		t.Errorf("a lost answer is %v", err)
	}
	again, err := p.Refresh(t.Context(), got.Tokens, r.Scopes)
	if err != nil || again.Tokens.Access == got.Tokens.Access || again.Tokens.Refresh != "" {
		t.Fatalf("the same refresh token, once more: %v", err)
	}
	if p.Hits(testenv.Token) != 3 {
		t.Errorf("the token endpoint was asked %d times, want 3", p.Hits(testenv.Token))
	}

	if how, err := p.Revoke(t.Context(), got.Tokens, 1); how != grant.SharedThere || err != nil ||
		p.Hits(testenv.Revoke) != 0 {
		t.Errorf("while another grant of the account is kept: %s, %v", how, err)
	}
	if how, err := p.Revoke(t.Context(), got.Tokens, 0); how != grant.Revoked || err != nil {
		t.Errorf("ended: %s, %v", how, err)
	}
	if p.busy(again.Tokens.Access) != http.StatusUnauthorized || p.Calendar.RefreshTokens("mira") != 0 {
		t.Error("what was ended still works")
	}
	if _, err := p.Refresh(t.Context(), got.Tokens, r.Scopes); !errors.As(err, &failed) || failed.Class != grant.Yours {
		t.Errorf("a refresh of what was ended: %v", err)
	}
}

// Who leaves out a scope has connected nothing, and what they had before goes on.
func TestTheDemosGoogleGrantsLess(t *testing.T) {
	p := newDemoGoogle(t)
	first := p.request(google.FreeBusy)
	had, err := p.connect(first, p.allowed(first))
	testenv.Check(t, err)
	r := p.request(google.FreeBusy, google.Events)
	var failed *grant.Error
	_, err = p.connect(r, url.Values{"answer": {"allow"}, "scope": first.Scopes})
	if !errors.As(err, &failed) || failed.Class != grant.Narrow ||
		!slices.Equal(failed.Missing, []string{"https://www.googleapis.com/auth/calendar.events.readonly"}) {
		t.Errorf("without the events: %v", err)
	}
	if _, err := p.connect(r, url.Values{"answer": {"cancel"}}); err == nil {
		t.Error("who said no has connected something")
	}
	if status := p.busy(had.Tokens.Access); status != http.StatusOK || p.Hits(testenv.Revoke) != 0 {
		t.Errorf("what they had before: %d, %d revocations", status, p.Hits(testenv.Revoke))
	}
}
