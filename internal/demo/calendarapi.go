package demo

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// HolidayCalendar is the id of a calendar that everybody may read and nobody may change. A
// client has to write its # as %23.
const HolidayCalendar = "en.usa#holiday@group.v.calendar.google.com"

const (
	maxCalendars = 50                  // calendarExpansionMax
	maxRange     = 90 * 24 * time.Hour // of a query; Google's own limit is not published
)

// apiMethod is a method of the API and the scopes of which one is needed, shortened. No
// scopes: any.
type apiMethod struct {
	pattern string
	name    string // Google's, in errors
	scopes  []string
	answer  func(http.ResponseWriter, *http.Request, calendarGrant) error
}

// apiMethods are those that are served.
// https://developers.google.com/workspace/calendar/api/v3/reference, "Authorization" of each
func (g *GoogleCalendar) apiMethods() []apiMethod {
	return []apiMethod{
		{"POST " + FreeBusyPath, "calendar.v3.Freebusy.Query",
			[]string{"calendar.readonly", "calendar", "calendar.events.freebusy", "calendar.freebusy"}, g.freeBusy},
		{"GET " + CalendarListPath, "calendar.v3.CalendarList.List",
			[]string{"calendar.readonly", "calendar", "calendar.calendarlist.readonly"}, g.calendarList},
		{"GET " + EventsPath, "calendar.v3.Events.List",
			append(readers(), "calendar.events.owned.readonly"), g.listEvents},
		{"POST " + EventsPath, "calendar.v3.Events.Insert", []string{"calendar", "calendar.events"}, g.insertEvent},
		{CalendarPath + "/", "", nil, func(http.ResponseWriter, *http.Request, calendarGrant) error {
			return notFound()
		}},
	}
}

// readers are the scopes that open events of calendars that the person does not own, too.
func readers() []string {
	return []string{"calendar.readonly", "calendar", "calendar.events.readonly", "calendar.events"}
}

func oneOf(short, scope []string) bool {
	return slices.ContainsFunc(short, func(s string) bool { return slices.Contains(scope, scopePrefix+s) })
}

// apiError is an error of the Calendar API.
// https://developers.google.com/workspace/calendar/api/guides/errors
type apiError struct {
	code                    int
	domain, reason, message string
	location                string // a parameter, or "Authorization"
	method                  string // for the details of insufficientPermissions
}

func (e *apiError) Error() string { return e.message }

func notFound() error {
	return &apiError{code: 404, domain: "global", reason: "notFound", message: "Not Found"}
}

func badParameter(domain, reason, location, message string) error {
	return &apiError{code: 400, domain: domain, reason: reason, location: location, message: message}
}

func (e *apiError) body() any {
	item := map[string]string{"domain": e.domain, "reason": e.reason, "message": e.message}
	body := map[string]any{"code": e.code, "message": e.message, "errors": []any{item}}
	if e.location != "" {
		item["location"], item["locationType"] = e.location, "parameter"
	}
	switch e.reason {
	case "authError":
		item["message"], item["locationType"] = "Invalid Credentials", "header"
		body["status"] = "UNAUTHENTICATED"
	case "insufficientPermissions":
		item["message"], body["status"] = "Insufficient Permission", "PERMISSION_DENIED"
		body["details"] = []any{map[string]any{
			"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
			"domain":   "googleapis.com",
			"metadata": map[string]string{"service": "calendar-json.googleapis.com", "method": e.method},
		}}
	}
	return map[string]any{"error": body}
}

// serve answers a method to who holds an access token with one of its scopes. The token
// counts in the header only.
func (g *GoogleCalendar) serve(m apiMethod) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		grant, err := g.admit(r, m)
		if err == nil {
			err = m.answer(w, r, grant)
		}
		if err == nil {
			return
		}
		var e *apiError
		if !errors.As(err, &e) {
			e = &apiError{code: 500, domain: "global", reason: "backendError", message: "Backend Error"}
		}
		const realm = `Bearer realm="https://accounts.google.com/"`
		switch e.reason {
		case "authError":
			w.Header().Set("WWW-Authenticate", realm+`, error="invalid_token"`) // RFC 6750 §3
		case "insufficientPermissions":
			w.Header().Set("WWW-Authenticate", realm+`, error="insufficient_scope", scope="`+
				scopePrefix+strings.Join(m.scopes, " "+scopePrefix)+`"`)
		}
		_ = writeJSON(w, e.code, e.body()) // the client has gone
	})
}

func (g *GoogleCalendar) admit(r *http.Request, m apiMethod) (calendarGrant, error) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	g.mu.Lock()
	defer g.mu.Unlock()
	grant, ok := g.access.get(g.opts.Now(), token)
	switch {
	case !ok || !strings.EqualFold(scheme, "Bearer"):
		return calendarGrant{}, &apiError{code: 401, domain: "global", reason: "authError", location: "Authorization",
			message: "Request had invalid authentication credentials."}
	case len(m.scopes) > 0 && !oneOf(m.scopes, grant.scope):
		return calendarGrant{}, &apiError{code: 403, domain: "global", reason: "insufficientPermissions",
			method: m.name, message: "Request had insufficient authentication scopes."}
	}
	return *grant, nil
}

// calendarEvent is an event. One of whole days is in nobody's way.
type calendarEvent struct {
	summary    string
	start, end time.Time
	wholeDay   bool
}

// calendarOf returns the id of a calendar that a person can open: their own under two names,
// or that of the holidays.
func calendarOf(who Person, id string) (string, error) {
	switch {
	case id == "primary", strings.EqualFold(id, who.Email):
		return who.Email, nil
	case id == HolidayCalendar:
		return id, nil
	}
	return "", notFound()
}

// events returns what is in a calendar between two times, the earliest first.
func (g *GoogleCalendar) events(who Person, calendar string, from, to time.Time) []calendarEvent {
	if calendar == HolidayCalendar {
		var all []calendarEvent
		for day := from.UTC().Truncate(24 * time.Hour); day.Before(to); day = day.AddDate(0, 0, 1) {
			if day.Month() == time.January && day.Day() == 1 {
				all = append(all, calendarEvent{"New Year's Day", day, day.AddDate(0, 0, 1), true})
			}
		}
		return between(all, from, to)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return between(append(workdays(who, from, to), g.written[who.Key]...), from, to)
}

// between are the events that are at least partly between two times, the earliest first.
func between(all []calendarEvent, from, to time.Time) []calendarEvent {
	all = slices.DeleteFunc(all, func(e calendarEvent) bool { return !e.end.After(from) || !e.start.Before(to) })
	slices.SortStableFunc(all, func(a, b calendarEvent) int { return a.start.Compare(b.start) })
	return all
}

// workdays is what somebody does on all days that are partly between two times.
func workdays(who Person, from, to time.Time) (all []calendarEvent) {
	for day := from.UTC().Truncate(24 * time.Hour); day.Before(to); day = day.AddDate(0, 0, 1) {
		all = append(all, workday(who, day)...)
	}
	return all
}

// workday is what somebody does on a day. It is always the same for the same person, and
// not the same for two.
func workday(who Person, day time.Time) []calendarEvent {
	sum := sha256.Sum256([]byte(who.Key))
	first := 8 + int(sum[0]%2)
	at := func(hour, minute int, length time.Duration, summary string) calendarEvent {
		start := day.Add(time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute)
		return calendarEvent{summary: summary, start: start, end: start.Add(length)}
	}
	return []calendarEvent{
		at(first, 30, 30*time.Minute, "Stand-up"),
		at(first+2+int(sum[1]%2), 0, time.Hour, "Talk with the auditors"),
		at(first+6, 15*int(sum[2]%4), 90*time.Minute, "Review of last night's incident"),
	}
}

// freeBusy: https://developers.google.com/workspace/calendar/api/v3/reference/freebusy/query
func (g *GoogleCalendar) freeBusy(w http.ResponseWriter, r *http.Request, grant calendarGrant) error {
	var q struct {
		TimeMin, TimeMax string
		Items            []struct{ ID string }
	}
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		return badParameter("global", "parseError", "", "Parse Error")
	}
	from, to, err := timeRange(q.TimeMin, q.TimeMax)
	if err != nil {
		return err
	}
	calendars := map[string]any{}
	for i, item := range q.Items {
		calendar, err := calendarOf(grant.person, item.ID)
		switch {
		case i >= maxCalendars:
			calendars[item.ID] = unreadable("tooManyCalendarsRequested")
		case err != nil:
			calendars[item.ID] = unreadable("notFound")
		default:
			calendars[item.ID] = map[string]any{"busy": busy(g.events(grant.person, calendar, from, to))}
		}
	}
	return writeJSON(w, http.StatusOK, map[string]any{"kind": "calendar#freeBusy",
		"timeMin": timestamp(from), "timeMax": timestamp(to), "calendars": calendars})
}

func unreadable(reason string) any {
	return map[string]any{"errors": []any{map[string]string{"domain": "global", "reason": reason}}, "busy": []any{}}
}

// busy are the times of events; those that touch or overlap are one.
func busy(events []calendarEvent) []map[string]string {
	var spans []calendarEvent
	for _, e := range events {
		last := len(spans) - 1
		switch {
		case e.wholeDay:
		case last >= 0 && !e.start.After(spans[last].end):
			if e.end.After(spans[last].end) {
				spans[last].end = e.end
			}
		default:
			spans = append(spans, e)
		}
	}
	out := []map[string]string{}
	for _, s := range spans {
		out = append(out, map[string]string{"start": timestamp(s.start), "end": timestamp(s.end)})
	}
	return out
}

func timestamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// timeRange reads two times, which have to have a zone (RFC 3339).
func timeRange(min, max string) (from, to time.Time, err error) {
	for _, v := range []struct {
		name, text string
		into       *time.Time
	}{{"timeMin", min, &from}, {"timeMax", max, &to}} {
		if v.text == "" {
			return from, to, badParameter("global", "required", v.name, "Missing "+v.name+" parameter.")
		}
		if *v.into, err = time.Parse(time.RFC3339, v.text); err != nil {
			return from, to, badParameter("global", "badRequest", v.name, "Bad Request")
		}
	}
	switch {
	case !from.Before(to):
		return from, to, badParameter("calendar", "timeRangeEmpty", "timeMax", "The specified time range is empty.")
	case to.Sub(from) > maxRange:
		return from, to, badParameter("calendar", "timeRangeTooLong", "timeMax",
			"The requested time range is too long.")
	}
	return from, to, nil
}

// calendarList: https://developers.google.com/workspace/calendar/api/v3/reference/calendarList/list
func (g *GoogleCalendar) calendarList(w http.ResponseWriter, _ *http.Request, grant calendarGrant) error {
	entry := func(id, summary, role string, primary bool) map[string]any {
		e := map[string]any{"kind": "calendar#calendarListEntry", "etag": etag(id), "id": id, "summary": summary,
			"timeZone": "UTC", "selected": true, "accessRole": role, "defaultReminders": []any{}}
		if primary {
			e["primary"] = true
		}
		return e
	}
	own := grant.person.Email
	return writeJSON(w, http.StatusOK, map[string]any{"kind": "calendar#calendarList", "etag": etag(own, "list"),
		"items": []any{entry(own, own, "owner", true), entry(HolidayCalendar, "Holidays", "reader", false)}})
}

// listEvents: https://developers.google.com/workspace/calendar/api/v3/reference/events/list
// Without times it is the next seven days. All answers are one page.
func (g *GoogleCalendar) listEvents(w http.ResponseWriter, r *http.Request, grant calendarGrant) error {
	calendar, err := calendarOf(grant.person, r.PathValue("id"))
	if err != nil {
		return err
	}
	own := calendar == grant.person.Email
	if !own && !oneOf(readers(), grant.scope) {
		return notFound()
	}
	v, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return badParameter("global", "badRequest", "", "Bad Request")
	}
	now := g.opts.Now()
	from, to, err := timeRange(cmp.Or(v.Get("timeMin"), timestamp(now)),
		cmp.Or(v.Get("timeMax"), timestamp(now.AddDate(0, 0, 7))))
	if err != nil {
		return err
	}
	items := []any{}
	for _, e := range g.events(grant.person, calendar, from, to) {
		items = append(items, e.resource(calendar, own))
	}
	role, summary := "owner", grant.person.Email
	if !own {
		role, summary = "reader", "Holidays"
	}
	return writeJSON(w, http.StatusOK, map[string]any{"kind": "calendar#events", "etag": etag(calendar, "events"),
		"summary": summary, "updated": timestamp(now), "timeZone": "UTC", "accessRole": role,
		"defaultReminders": []any{}, "items": items})
}

// insertEvent: https://developers.google.com/workspace/calendar/api/v3/reference/events/insert
func (g *GoogleCalendar) insertEvent(w http.ResponseWriter, r *http.Request, grant calendarGrant) error {
	calendar, err := calendarOf(grant.person, r.PathValue("id"))
	switch {
	case err != nil:
		return err
	case calendar == HolidayCalendar:
		return &apiError{code: 403, domain: "calendar", reason: "requiredAccessLevel",
			message: "You need to have writer access to this calendar."}
	}
	var q struct {
		Summary    string
		Start, End struct{ DateTime string }
	}
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		return badParameter("global", "parseError", "", "Parse Error")
	}
	from, to, err := timeRange(q.Start.DateTime, q.End.DateTime)
	if err != nil {
		return err
	}
	event := calendarEvent{summary: q.Summary, start: from, end: to}
	g.mu.Lock()
	g.written[grant.person.Key] = append(g.written[grant.person.Key], event)
	g.mu.Unlock()
	return writeJSON(w, http.StatusOK, event.resource(calendar, true))
}

func (e calendarEvent) resource(calendar string, own bool) map[string]any {
	at := func(t time.Time) map[string]string {
		if e.wholeDay {
			return map[string]string{"date": t.UTC().Format(time.DateOnly)}
		}
		return map[string]string{"dateTime": timestamp(t), "timeZone": "UTC"}
	}
	id := etag(calendar, e.summary, timestamp(e.start))
	id = strings.Trim(id, `"`) // hexadecimal digits are among the letters of an event's id
	made := timestamp(e.start.AddDate(0, 0, -7))
	who := map[string]any{"email": calendar, "self": own}
	out := map[string]any{"kind": "calendar#event", "etag": etag(id, made), "id": id, "status": "confirmed",
		"htmlLink": "https://www.google.com/calendar/event?eid=" + id, "created": made, "updated": made,
		"summary": e.summary, "creator": who, "organizer": who, "start": at(e.start), "end": at(e.end),
		"iCalUID": id + "@google.com", "sequence": 0, "eventType": "default"}
	if e.wholeDay {
		out["transparency"] = "transparent"
	}
	return out
}

func etag(parts ...string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", parts))
	return `"` + hex.EncodeToString(sum[:13]) + `"`
}
