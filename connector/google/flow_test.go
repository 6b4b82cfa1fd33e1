package google_test

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/connector"
	"github.com/sallyport-proxy/sallyport/connector/google"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// trip goes to the pretend Google as r says, agrees there to scopes (nil: to all that are
// asked for; none: refuses), and comes back.
func trip(t *testing.T, c *google.Connector, r grant.Request, scopes []string) url.Values {
	t.Helper()
	address, err := c.AuthURL(handshake(), r)
	if err != nil {
		t.Fatal(err)
	}
	form := url.Values{"person": {"mira"}, "answer": {"allow"}, "scope": r.Scopes}
	if scopes != nil {
		form["scope"] = scopes
	}
	if scopes != nil && len(scopes) == 0 {
		form.Set("answer", "deny")
	}
	browser := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := browser.PostForm(address, form)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	back, err := res.Location()
	if err != nil {
		body, _ := io.ReadAll(res.Body)
		t.Fatalf("%s, %v: %s", res.Status, err, body)
	}
	return back.Query()
}

func startCalendar(t *testing.T, o demo.CalendarOptions) (f *testenv.Faults, c, other *google.Connector) {
	t.Helper()
	otherID := strings.Replace(clientID, "-abc", "-other", 1)
	o.Issuer = "https://accounts.google.com"
	o.Clients = []demo.CalendarClient{{ID: clientID, Secret: secret, RedirectURIs: []string{redirect}},
		{ID: otherID, Secret: secret, RedirectURIs: []string{redirect}}}
	f = testenv.StartCalendar(t, o)
	return f, calendarOf(t, f.URL, clientID), calendarOf(t, f.URL, otherID)
}

func status(t *testing.T, method, address, access, body string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+access)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

func TestACalendarIsConnectedUsedRefreshedAndEnded(t *testing.T) {
	f, c, _ := startCalendar(t, demo.CalendarOptions{})
	var tokens grant.Tokens
	for _, what := range []string{"the first time", "again"} {
		got, err := c.Redeem(t.Context(), trip(t, c, request(freebusy), nil), handshake(), request(freebusy))
		if err != nil || got.Tokens.Refresh == "" {
			t.Fatalf("%s: %v", what, err)
		}
		want := grant.Account{ID: f.Calendar.Subject("mira"), Name: "mira@acme.example"}
		if got.Account != want || !slices.Equal(got.Scopes, []string{email, freebusy, openID}) {
			t.Errorf("%s: %+v with %q", what, got.Account, got.Scopes)
		}
		if !got.Tokens.Reconsent.IsZero() {
			t.Errorf("%s: people are asked again at %v", what, got.Tokens.Reconsent)
		}
		tokens = got.Tokens
	}
	origin := c.Origin(grant.Account{})
	busy, list := origin+demo.FreeBusyPath, origin+"/calendar/v3/calendars/primary/events"
	const day = `{"timeMin":"2026-11-02T00:00:00Z","timeMax":"2026-11-03T00:00:00Z","items":[{"id":"primary"}]}`
	refreshed, err := c.Refresh(t.Context(), tokens, []string{freebusy})
	if err != nil || refreshed.Tokens.Refresh != "" || refreshed.Tokens.Access == tokens.Access {
		t.Fatalf("a refresh: %v", err)
	}
	for _, access := range []string{tokens.Access, refreshed.Tokens.Access} {
		if got := status(t, "POST", busy, access, day); got != http.StatusOK {
			t.Errorf("freeBusy: %d", got)
		}
		if got := status(t, "GET", list, access, ""); got != http.StatusForbidden {
			t.Errorf("events, which are not of the scope: %d", got)
		}
	}
	if became, err := c.Revoke(t.Context(), tokens, 0); became != grant.Revoked {
		t.Errorf("%s, %v", became, err)
	}
	if got := status(t, "POST", busy, refreshed.Tokens.Access, day); got != http.StatusUnauthorized {
		t.Errorf("afterwards: %d", got)
	}
	_, err = c.Refresh(t.Context(), tokens, nil)
	fails(t, "afterwards", err, grant.Yours, connector.GrantRefused)
	if became, err := c.Revoke(t.Context(), tokens, 0); became != grant.Revoked {
		t.Errorf("ended twice: %s, %v", became, err)
	}
}

// This is what Shares is for.
func TestAGrantOfAnotherClientOfTheProjectEndsWithIt(t *testing.T) {
	_, c, other := startCalendar(t, demo.CalendarOptions{})
	var kept []grant.Tokens
	for _, c := range []*google.Connector{c, other} {
		got, err := c.Redeem(t.Context(), trip(t, c, request(freebusy), nil), handshake(), request(freebusy))
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, got.Tokens)
	}
	if !c.Shares(c.About().ClientID, other.About().ClientID) {
		t.Fatal("the clients share nothing")
	}
	if became, err := c.Revoke(t.Context(), kept[0], 1); became != grant.SharedThere || err != nil {
		t.Errorf("beside the other: %s, %v", became, err)
	}
	if _, err := other.Refresh(t.Context(), kept[1], nil); err != nil {
		t.Errorf("the other: %v", err)
	}
	if became, err := c.Revoke(t.Context(), kept[0], 0); became != grant.Revoked || err != nil {
		t.Errorf("alone: %s, %v", became, err)
	}
	_, err := other.Refresh(t.Context(), kept[1], nil)
	fails(t, "the other afterwards", err, grant.Yours, connector.GrantRefused)
}

func TestWhoUnticksOrRefusesConnectsNothing(t *testing.T) {
	f, c, _ := startCalendar(t, demo.CalendarOptions{})
	r := request(freebusy, events)
	_, err := c.Redeem(t.Context(), trip(t, c, r, []string{openID, email, freebusy}), handshake(), r)
	if e, _ := errors.AsType[*grant.Error](err); e == nil || e.Class != grant.Narrow || !slices.Equal(e.Missing,
		[]string{events}) {
		t.Errorf("unticked: %v", err)
	}
	_, err = c.Redeem(t.Context(), trip(t, c, r, []string{}), handshake(), r)
	fails(t, "refused", err, grant.Yours, connector.Denied)
	if n := f.Hits(testenv.Revoke); n != 0 {
		t.Errorf("what came was ended %d times, and with it all else of the person", n)
	}
}

func TestAProjectInTestingSaysWhenItsGrantsEnd(t *testing.T) {
	_, c, _ := startCalendar(t, demo.CalendarOptions{RefreshLife: 7 * 24 * time.Hour})
	got, err := c.Redeem(t.Context(), trip(t, c, request(freebusy), nil), handshake(), request(freebusy))
	if left := time.Until(got.Tokens.Reconsent); err != nil || left > 7*24*time.Hour || left < 6*24*time.Hour {
		t.Errorf("people are asked again in %v, %v", left, err)
	}
}
