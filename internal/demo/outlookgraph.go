package demo

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	graphTime  = "2006-01-02T15:04:05.0000000"
	graphToken = "R0usmc/%d+x" // of a page, with signs that are escaped in an address
)

// graphError is an error of Graph.
// https://learn.microsoft.com/graph/errors
func graphError(w http.ResponseWriter, status int, code, message string) {
	_ = writeJSON(w, status, map[string]any{"error": map[string]any{"code": code, "message": message,
		"innerError": map[string]string{"request-id": guid("request")}}}) // the client has gone
}

// admit notes a request to Graph, and says whose token it comes with.
func (c *OutlookCalendar) admit(w http.ResponseWriter, r *http.Request) (Person, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, r.Method+" "+r.RequestURI)
	token, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	g, known := c.access.get(c.opts.Now(), token)
	switch {
	case !bearer || !known:
		graphError(w, http.StatusUnauthorized, "InvalidAuthenticationToken", "The access token is not valid.")
		return Person{}, false
	case !slices.ContainsFunc(g.scope, isCalendarScope):
		graphError(w, http.StatusForbidden, "accessDenied", "The token is for something else.")
		return Person{}, false
	}
	return g.person, true
}

// nothing is all of Graph that is not served.
func (c *OutlookCalendar) nothing(w http.ResponseWriter, r *http.Request) {
	if _, ok := c.admit(w, r); ok {
		graphError(w, http.StatusNotFound, "itemNotFound", "The pretend Microsoft does not have that.")
	}
}

// calendarView lists what is in a calendar between two times, in pages, each with the absolute
// address of the next one.
// https://learn.microsoft.com/graph/api/calendar-list-calendarview
func (c *OutlookCalendar) calendarView(w http.ResponseWriter, r *http.Request) {
	who, ok := c.admit(w, r)
	if !ok {
		return
	}
	q := r.URL.Query()
	from, to, err := graphRange(q.Get("startDateTime"), q.Get("endDateTime"))
	if err != nil {
		graphError(w, http.StatusBadRequest, "invalidRequest", err.Error())
		return
	}
	page, size := 0, outlookPage
	_, _ = fmt.Sscanf(q.Get("$skiptoken"), graphToken, &page) // none: the first
	if n, err := strconv.Atoi(q.Get("$top")); err == nil && n > 0 {
		size = n
	}
	events := between(workdays(who, from, to), from, to)
	first := max(min(page*size, len(events)), 0)
	last := min(first+size, len(events))
	value := []any{}
	for _, e := range events[first:last] {
		value = append(value, map[string]any{"id": etag(who.Email, e.summary, timestamp(e.start)), "subject": e.summary,
			"start": graphMoment(e.start), "end": graphMoment(e.end), "showAs": "busy", "isAllDay": false})
	}
	body := map[string]any{"value": value,
		"@odata.context": "https://graph.microsoft.com/v1.0/$metadata#users('" + guid(who.Key) + "')/calendarView"}
	if last < len(events) {
		q.Set("$skiptoken", fmt.Sprintf(graphToken, page+1))
		body["@odata.nextLink"] = c.opts.Origin + r.URL.Path + "?" + q.Encode()
	}
	_ = writeJSON(w, http.StatusOK, body) // the client has gone
}

// getSchedule says when people are busy; here only the person themself can be asked about.
// https://learn.microsoft.com/graph/api/calendar-getschedule
func (c *OutlookCalendar) getSchedule(w http.ResponseWriter, r *http.Request) {
	who, ok := c.admit(w, r)
	if !ok {
		return
	}
	var q struct {
		Schedules          []string
		StartTime, EndTime struct{ DateTime, TimeZone string }
	}
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		graphError(w, http.StatusBadRequest, "invalidRequest", "The body could not be read.")
		return
	}
	from, to, err := graphRange(q.StartTime.DateTime, q.EndTime.DateTime)
	if err != nil || len(q.Schedules) == 0 {
		graphError(w, http.StatusBadRequest, "invalidRequest", "Times or schedules are missing.")
		return
	}
	value := []any{}
	for _, of := range q.Schedules {
		if !strings.EqualFold(of, who.Email) {
			value = append(value, map[string]any{"scheduleId": of, "scheduleItems": []any{},
				"error": map[string]string{"responseCode": "ErrorMailRecipientNotFound"}})
			continue
		}
		items := []any{}
		for _, e := range between(workdays(who, from, to), from, to) {
			items = append(items, map[string]any{"status": "busy", "start": graphMoment(e.start),
				"end": graphMoment(e.end)})
		}
		value = append(value, map[string]any{"scheduleId": of, "scheduleItems": items})
	}
	_ = writeJSON(w, http.StatusOK, map[string]any{"value": value}) // the client has gone
}

// graphMoment is a dateTimeTimeZone.
func graphMoment(t time.Time) map[string]string {
	return map[string]string{"dateTime": t.UTC().Format(graphTime), "timeZone": "UTC"}
}

// graphRange reads two times, which are UTC where they have no zone.
func graphRange(from, to string) (begin, end time.Time, err error) {
	for _, v := range []struct {
		text string
		into *time.Time
	}{{from, &begin}, {to, &end}} {
		if *v.into, err = time.Parse(time.RFC3339, v.text); err != nil {
			*v.into, err = time.Parse("2006-01-02T15:04:05", v.text)
		}
		if err != nil {
			return begin, end, fmt.Errorf("the time %s cannot be read", url.QueryEscape(v.text))
		}
	}
	if !begin.Before(end) || end.Sub(begin) > maxRange {
		return begin, end, errors.New("the range of time is empty or too long")
	}
	return begin, end, nil
}
