package outlook_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/sallyport-proxy/sallyport/connector/outlook"
	"github.com/sallyport-proxy/sallyport/gateway/gatewaytest"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// schedule asks when Mira is busy.
const schedule = `{"schedules": ["mira@acme.example"], "startTime": {"dateTime": "2026-11-02T00:00:00", ` +
	`"timeZone": "UTC"}, "endTime": {"dateTime": "2026-11-03T00:00:00", "timeZone": "UTC"}}`

// lending is the gateway in front of the pretend Microsoft, for an app and a person.
type lending struct {
	*broker
	url, assertion string
}

func startLending(t *testing.T, c *outlook.Connector) *lending {
	t.Helper()
	l := &lending{broker: newBroker(t, c)}
	g := gatewaytest.Start(t, gatewaytest.Options{Broker: l.Broker, Connector: c})
	l.url, l.assertion = g.URL, g.Assertion(t, mira)
	return l
}

// ask sends a request of the app to an address, as it is.
func (l *lending) ask(t *testing.T, method, address, body string) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	testenv.Check(t, err)
	req.Header.Set("Authorization", "Bearer "+gatewaytest.Token)
	req.Header.Set("X-Sallyport-Assertion", l.assertion)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(req)
	testenv.Check(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	testenv.Check(t, err)
	return res.StatusCode, string(b)
}

// Graph's addresses of further pages are absolute. The app follows them as it gets them.
func TestP12_AnAppReadsACalendarPastItsFirstPage(t *testing.T) {
	p := startMicrosoft(t)
	l := startLending(t, calendar(t, p.URL, "organizations"))
	if _, err := l.connect(t, outlook.Basic); err != nil {
		t.Fatal(err)
	}
	at := l.url + "/gateway/outlook/v1.0/me/calendarView?startDateTime=2026-11-02T00:00:00Z&" +
		"endDateTime=2026-11-03T00:00:00Z&$top=1&$select=subject,start"
	var subjects []string
	for at != "" && len(subjects) < 9 {
		if !strings.HasPrefix(at, l.url+"/gateway/outlook/") {
			t.Fatalf("the next page is at %s", at)
		}
		status, body := l.ask(t, "GET", at, "")
		var page struct {
			Context string `json:"@odata.context"`
			Value   []struct{ Subject string }
			Next    string `json:"@odata.nextLink"`
		}
		if err := json.Unmarshal([]byte(body), &page); status != http.StatusOK || err != nil {
			t.Fatalf("%s: %d %s", at, status, body)
		}
		if !strings.HasPrefix(page.Context, "https://graph.microsoft.com/") {
			t.Errorf("the context is %s", page.Context)
		}
		subjects = append(subjects, page.Value[0].Subject)
		at = page.Next
	}
	if strings.Join(subjects, ", ") != "Stand-up, Talk with the auditors, Review of last night's incident" {
		t.Errorf("the pages have %q", subjects)
	}
	if graph := p.Outlook.Asked(); len(graph) != 3 || !strings.Contains(graph[2], "skiptoken=R0usmc%2F2%2Bx") ||
		!strings.HasSuffix(graph[0], "&$top=1&$select=subject,start") {
		t.Errorf("Graph was asked %q", graph)
	}
}

func TestP12_WhatIsNotOfTheAccessDoesNotReachGraph(t *testing.T) {
	p := startMicrosoft(t)
	l := startLending(t, calendar(t, p.URL, "organizations"))
	if _, err := l.connect(t, outlook.FreeBusy); err != nil {
		t.Fatal(err)
	}
	const batch = `{"requests":[{"id":"1","method":"DELETE","url":"/me/events/1"}]}`
	for request, want := range map[string]int{
		"POST /v1.0/$batch":                                 http.StatusForbidden,
		"POST /v1.0/%24batch":                               http.StatusForbidden,
		"POST /v1.0/me/events":                              http.StatusForbidden,
		"GET /v1.0/me/messages":                             http.StatusForbidden,
		"GET /v1.0/me/calendarView":                         http.StatusConflict, // of a wider access: the person is asked
		"GET /v1.0/me/calendar/getSchedule":                 http.StatusForbidden,
		"POST /v1.0/me/calendar/getSchedule?access_token=x": http.StatusBadRequest,
	} {
		method, path, _ := strings.Cut(request, " ")
		body := batch
		if method == "GET" {
			body = ""
		}
		if status, answer := l.ask(t, method, l.url+"/gateway/outlook"+path, body); status != want {
			t.Errorf("%s: %d %s", request, status, answer)
		}
	}
	if graph := p.Outlook.Asked(); graph != nil {
		t.Errorf("Graph was asked %q", graph)
	}
	if status, answer := l.ask(t, "POST", l.url+"/gateway/outlook/v1.0/me/calendar/getSchedule", schedule); status !=
		http.StatusOK {
		t.Errorf("getSchedule: %d %s", status, answer)
	}
}

// Graph refuses the access token, and the refresh is refused for a reason: what becomes of
// the grant, and what the person is shown.
func TestWhatARefusedRefreshMakesOfAGrant(t *testing.T) {
	for name, tt := range map[string]struct {
		happens func(*demo.OutlookCalendar)
		status  grant.Status
		reason  string
		link    bool
	}{
		"the password was changed": {func(c *demo.OutlookCalendar) { c.ChangePassword("mira") }, grant.NeedsReconnect,
			"grant_refused", false},
		"what was agreed to is taken back": {func(c *demo.OutlookCalendar) { c.TakeBack("mira", clientID) },
			grant.NeedsAdmin, outlook.NotApproved, true},
		"our secret is over": {func(c *demo.OutlookCalendar) { c.ChangeSecret(clientID, "another") },
			grant.OperatorError, "client_refused", false},
	} {
		t.Run(name, func(t *testing.T) {
			p := startMicrosoft(t)
			l := startLending(t, calendar(t, p.URL, "common"))
			if _, err := l.connect(t, outlook.FreeBusy); err != nil {
				t.Fatal(err)
			}
			p.Outlook.EndAccessTokens()
			tt.happens(p.Outlook)
			status, body := l.ask(t, "POST", l.url+"/gateway/outlook/v1.0/me/calendar/getSchedule", schedule)
			if status != http.StatusConflict && status != http.StatusServiceUnavailable {
				t.Errorf("the app gets %d %s", status, body)
			}
			views, err := l.View(t.Context(), mira)
			if err != nil || len(views) != 1 || views[0].Status != tt.status || views[0].Kept.Reason != tt.reason {
				t.Fatalf("%+v, %v", views, err)
			}
			link := views[0].ApproveURL
			tenant, _ := p.Outlook.Account("mira")
			if strings.HasPrefix(link, p.URL+"/"+tenant+"/v2.0/adminconsent?") != tt.link || (link != "") != tt.link {
				t.Errorf("the link is %q", link)
			}
			if forms, graph := p.Outlook.Forms(), p.Outlook.Asked(); len(forms) != 2 || len(graph) != 1 {
				t.Errorf("the token endpoint was asked %d times, Graph %q", len(forms), graph)
			}
		})
	}
}

// It is deleted here, and nobody says that it is over there.
func TestP12_DisconnectingSaysThatItGoesOnAtMicrosoft(t *testing.T) {
	p := startMicrosoft(t)
	l := startLending(t, calendar(t, p.URL, "common"))
	if _, err := l.connect(t, outlook.FreeBusy); err != nil {
		t.Fatal(err)
	}
	if became, err := l.End(context.Background(), mira, "outlook"); became != grant.NotSupported || err != nil {
		t.Errorf("%s, %v", became, err)
	}
	if views, err := l.View(t.Context(), mira); err != nil || len(views) != 1 || views[0].Kept != nil {
		t.Errorf("%+v, %v", views, err)
	}
	status, body := l.ask(t, "POST", l.url+"/gateway/outlook/v1.0/me/calendar/getSchedule", schedule)
	if status != http.StatusConflict || !strings.Contains(body, "grant-required") {
		t.Errorf("%d %s", status, body)
	}
	forms, graph := p.Outlook.Forms(), p.Outlook.Asked()
	if len(forms) != 1 || graph != nil || forms[0].Get("grant_type") != "authorization_code" {
		t.Errorf("Microsoft was asked %v, %q", forms, graph)
	}
}
