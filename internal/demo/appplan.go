package demo

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// planPath is the page of the app that plans who is on call, with what people lend it of
// three third parties.
const planPath = "/plan"

// planDays is how far it plans.
const planDays = 3

// lentPlan is what that page shows.
type lentPlan struct {
	Parts  []planPart
	Shifts []shift
	Ready  bool     // it can be posted
	Posted string   // the channel that it was posted to just now
	Failed string   // why it was not posted, or something is missing
	Wrote  *refusal // what came of the attempt to change the schedule
	Asked  []asked
}

// planPart is one third party of the three.
type planPart struct {
	Title, Use string // "On call", "who is on call"
	Connector  string
	Access     string // "": all that the app is configured for
	Account    string
	Connected  bool
	Connect    string // where the person connects it
	Failed     string // why it cannot be used now
}

// shift is one line of the plan.
type shift struct {
	When, Who string
	Clashes   []string // when the reader of the page is busy meanwhile
}

type span struct{ Start, End time.Time }

func (s span) overlaps(o span) bool { return s.Start.Before(o.End) && o.Start.Before(s.End) }

// The buttons of the page.
const (
	planPosts  = "post"
	planWrites = "write"
)

// plans reports whether there is all that a plan needs.
func (l *lender) plans() bool { return l.OnCall != "" && l.Chat != "" }

// plan makes the plan for whom the assertion names, and does what the button says; back is
// the address of the page.
func (l *lender) plan(ctx context.Context, assertion, back, button string) lentPlan {
	v := lentPlan{Parts: []planPart{
		{Title: "Calendar", Use: "when you are busy", Connector: l.Connector, Access: "freebusy"},
		{Title: "PagerDuty", Use: "who is on call", Connector: l.OnCall},
		{Title: "Slack", Use: "to post the plan", Connector: l.Chat},
	}}
	if err := l.parts(ctx, &v, assertion, back); err != nil {
		v.Failed = err.Error()
		return v
	}
	calendar, onCall, chat := &v.Parts[0], &v.Parts[1], &v.Parts[2]
	if button == planWrites && onCall.Connected {
		v.Wrote = refused(l.ask(ctx, &v.Asked, assertion, "DELETE", through(l.OnCall, "/schedules/PSCHED1"), nil, nil))
	}
	day := l.now().UTC().Truncate(24 * time.Hour)
	var busy []span
	if calendar.Connected {
		var err error
		busy, err = l.busy(ctx, &v.Asked, assertion, day, planDays)
		calendar.failed(err)
	}
	if onCall.Connected {
		onCall.failed(l.shifts(ctx, &v, assertion, day, busy))
	}
	v.Ready = chat.Connected && len(v.Shifts) > 0
	if button == planPosts && v.Ready {
		chat.failed(l.post(ctx, &v, assertion))
	}
	return v
}

func (p *planPart) failed(err error) {
	if err != nil {
		p.Failed = err.Error()
	}
}

// parts asks Sallyport which of the three are connected.
func (l *lender) parts(ctx context.Context, v *lentPlan, assertion, back string) error {
	var lent struct {
		Grants []struct {
			Connector  string
			Status     string
			ConnectURL string `json:"connect_url"`
			ConnectBy  string `json:"connect_by"` // manager: not the person
			Account    struct{ Name string }
		}
	}
	if err := l.ask(ctx, &v.Asked, assertion, "GET", "/v1/grants", nil, &lent); err != nil {
		return err
	}
	for _, g := range lent.Grants {
		i := slices.IndexFunc(v.Parts, func(p planPart) bool { return p.Connector == g.Connector })
		if i < 0 {
			continue
		}
		p := &v.Parts[i]
		p.Account, p.Connected = g.Account.Name, g.Status == "active" || g.Status == "degraded"
		if !p.Connected && g.ConnectBy == "" {
			p.Connect = returning(g.ConnectURL, back, p.Access)
		}
	}
	return nil
}

// shifts asks PagerDuty who is on call.
// https://developer.pagerduty.com/api-reference/3a6b910f11050-list-all-of-the-on-calls
func (l *lender) shifts(ctx context.Context, v *lentPlan, assertion string, day time.Time, busy []span) error {
	type onCall struct {
		User struct{ Summary string }
		span
	}
	var list struct {
		OnCalls []onCall `json:"oncalls"`
	}
	q := url.Values{"since": {timestamp(day)}, "until": {timestamp(day.AddDate(0, 0, planDays))},
		"limit": {"25"}}
	path := through(l.OnCall, "/oncalls?"+q.Encode())
	if err := l.ask(ctx, &v.Asked, assertion, "GET", path, nil, &list); err != nil {
		return err
	}
	slices.SortStableFunc(list.OnCalls, func(a, b onCall) int { return a.Start.Compare(b.Start) })
	for _, o := range list.OnCalls {
		s := shift{When: interval(o.Start, o.End), Who: o.User.Summary}
		for _, b := range busy {
			if b.overlaps(o.span) {
				s.Clashes = append(s.Clashes, interval(b.Start, b.End))
			}
		}
		v.Shifts = append(v.Shifts, s)
	}
	return nil
}

// post posts the plan to the first channel that there is.
// https://docs.slack.dev/reference/methods/chat.postMessage
func (l *lender) post(ctx context.Context, v *lentPlan, assertion string) error {
	var list struct {
		OK       bool
		Error    string
		Channels []struct{ ID, Name string }
	}
	err := l.ask(ctx, &v.Asked, assertion, "GET", through(l.Chat, "/api/conversations.list?limit=100"), nil, &list)
	switch {
	case err != nil:
		return err
	case !list.OK:
		return fmt.Errorf("the answer of Slack was %q", list.Error)
	case len(list.Channels) == 0:
		return errors.New("there is no channel")
	}
	var text strings.Builder
	text.WriteString("On call:")
	for _, s := range v.Shifts {
		text.WriteString("\n" + s.When + ": " + s.Who)
	}
	var said struct {
		OK    bool
		Error string
	}
	err = l.ask(ctx, &v.Asked, assertion, "POST", through(l.Chat, "/api/chat.postMessage"),
		map[string]string{"channel": list.Channels[0].ID, "text": text.String()}, &said)
	if err != nil {
		return err
	}
	if !said.OK {
		return fmt.Errorf("the answer of Slack was %q", said.Error)
	}
	v.Posted = list.Channels[0].Name
	return nil
}
