package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
)

// AppGrants say how the app asks Sallyport for what people lend it.
type AppGrants struct {
	URL       string // of listen.grants, such as http://127.0.0.1:4184
	Token     string // the app's
	Connector string // the id of the connector of the pretend Google
	OnCall    string // of the pretend PagerDuty; "": there is none, and no plan
	Chat      string // of the pretend Slack, likewise
}

// calendarPath is the page of the app that shows when somebody is busy.
const calendarPath = "/calendar"

const maxLent = 256 << 10 // bytes of an answer

// lentCalendar is what the page shows of somebody's calendar.
type lentCalendar struct {
	Account string   // whose it is, as Google says
	Busy    []string // when, for two days
	Events  []string // when and what; nil: the person has not agreed to that
	More    string   // where they agree to that; "": nothing is missing
	Connect string   // where the person agrees first; "": nothing is missing
	Failed  string   // why nothing is shown otherwise
	Asked   []asked
	Wrote   *refusal // what came of the attempt to write
}

// asked is one request of the app to Sallyport, and its answer.
type asked struct {
	Request string
	Status  int
}

// refusal is a problem of Sallyport's (RFC 9457).
type refusal struct {
	Status     int
	Title      string
	Detail     string
	ConnectURL string `json:"connect_url"`
	Allowed    []string
}

// lender is the app as a client of listen.grants. It names the person by the assertion that
// came with their request, and never holds a token of Google's.
type lender struct {
	AppGrants
	now    func() time.Time
	client *http.Client
}

func newLender(g AppGrants, now func() time.Time) *lender {
	return &lender{g, now, &http.Client{
		Timeout:       15 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// show reads the calendar of whom the request names; back is the address of the page. Where
// write is true it tries to write into the calendar first, which nobody allowed.
func (l *lender) show(ctx context.Context, assertion, back string, write bool) lentCalendar {
	v := lentCalendar{}
	at := l.now().UTC()
	if write {
		body := map[string]any{"summary": "Written by the demo app",
			"start": map[string]string{"dateTime": timestamp(at)},
			"end":   map[string]string{"dateTime": timestamp(at.Add(time.Hour))}}
		v.Wrote = refused(l.ask(ctx, &v.Asked, assertion, "POST", l.gateway(CalendarPath+"/calendars/primary/events"),
			body, nil))
	}
	day := at.Truncate(24 * time.Hour)
	err := l.read(ctx, &v, assertion, day)
	if v.Connect = connectLink(err, back, "freebusy"); err == nil {
		err = l.events(ctx, &v, assertion, day)
		v.More = connectLink(err, back, "")
	}
	if err != nil && v.Connect == "" && v.More == "" {
		v.Failed = err.Error()
	}
	return v
}

// refused is err in words for the page; nil where there is none.
func refused(err error) *refusal {
	if err == nil {
		return nil
	}
	r := &refusal{Title: err.Error()}
	_ = errors.As(err, &r) // else the title is all there is
	return r
}

// connectLink is where somebody agrees to what err says is missing; "" where it does not. The
// link of Sallyport's is for all that the app may ever ask for, or, where access names one,
// for that alone.
func connectLink(err error, back, access string) string {
	var r *refusal
	if !errors.As(err, &r) || r.Status != http.StatusConflict {
		return ""
	}
	return returning(r.ConnectURL, back, access)
}

// returning is a link of Sallyport's with the page to come back to; "" where there is none.
func returning(link, back, access string) string {
	to, err := url.Parse(link)
	if err != nil || link == "" {
		return ""
	}
	q := to.Query()
	q.Set("return_to", back)
	if access != "" {
		q.Set("access", access)
	}
	to.RawQuery = q.Encode()
	return to.String()
}

// busy asks when somebody is busy, for so many days from day on.
func (l *lender) busy(ctx context.Context, log *[]asked, assertion string, day time.Time, days int) ([]span, error) {
	var free struct {
		Calendars struct{ Primary struct{ Busy []span } }
	}
	query := map[string]any{"timeMin": timestamp(day), "timeMax": timestamp(day.AddDate(0, 0, days)),
		"items": []map[string]string{{"id": "primary"}}}
	err := l.ask(ctx, log, assertion, "POST", l.gateway(FreeBusyPath), query, &free)
	return free.Calendars.Primary.Busy, err
}

// read asks when somebody is busy, for two days from day on, and whose calendar that is.
func (l *lender) read(ctx context.Context, v *lentCalendar, assertion string, day time.Time) error {
	busy, err := l.busy(ctx, &v.Asked, assertion, day, 2)
	if err != nil {
		return err
	}
	for _, s := range busy {
		v.Busy = append(v.Busy, interval(s.Start, s.End))
	}
	var lent struct {
		Grants []struct {
			Connector string
			Account   struct{ Name string }
		}
	}
	if err := l.ask(ctx, &v.Asked, assertion, "GET", "/v1/grants", nil, &lent); err != nil {
		return err
	}
	for _, g := range lent.Grants {
		if g.Connector == l.Connector {
			v.Account = g.Account.Name
		}
	}
	return nil
}

// events asks what somebody does in these two days, which is another access.
func (l *lender) events(ctx context.Context, v *lentCalendar, assertion string, day time.Time) error {
	var list struct {
		Items []struct {
			Summary    string
			Start, End struct{ DateTime time.Time }
		}
	}
	times := url.Values{"timeMin": {timestamp(day)}, "timeMax": {timestamp(day.AddDate(0, 0, 2))},
		"singleEvents": {"true"}, "orderBy": {"startTime"}}
	path := l.gateway(CalendarPath+"/calendars/primary/events") + "?" + times.Encode()
	if err := l.ask(ctx, &v.Asked, assertion, "GET", path, nil, &list); err != nil {
		return err
	}
	for _, e := range list.Items {
		v.Events = append(v.Events, interval(e.Start.DateTime, e.End.DateTime)+": "+e.Summary)
	}
	return nil
}

func interval(start, end time.Time) string {
	const day, clock = "Mon 2 Jan, ", "15:04"
	begin, until := start.UTC(), end.UTC()
	text := begin.Format(day+clock) + " to "
	if begin.YearDay() != until.YearDay() {
		text += until.Format(day)
	}
	return text + until.Format(clock+" MST")
}

// gateway is where Sallyport passes requests with a path on to the third party.
func (l *lender) gateway(path string) string { return through(l.Connector, path) }

func through(connector, path string) string { return "/gateway/" + connector + path }

func (r *refusal) Error() string { return fmt.Sprintf("%d %s", r.Status, r.Title) }

// ask makes one request to Sallyport, and adds it to log. What is not as it was asked for is
// a *refusal.
func (l *lender) ask(
	ctx context.Context, log *[]asked, assertion, method, path string, body, answer any,
) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	if body == nil {
		text = nil
	}
	req, err := http.NewRequestWithContext(ctx, method, l.URL+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+l.Token)
	req.Header.Set(identity.AssertionHeader, assertion)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := l.client.Do(req)
	if err != nil {
		return errors.New("the gateway could not be asked")
	}
	defer res.Body.Close()
	shown, _, _ := strings.Cut(path, "?")
	*log = append(*log, asked{method + " " + shown, res.StatusCode})
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxLent))
	if err != nil {
		return errors.New("the answer broke off")
	}
	if res.StatusCode != http.StatusOK {
		r := &refusal{}
		if json.Unmarshal(raw, r) != nil || r.Title == "" {
			r.Title = http.StatusText(res.StatusCode)
		}
		r.Status = res.StatusCode
		return r
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(raw, answer); err != nil {
		return errors.New("the answer could not be read")
	}
	return nil
}
