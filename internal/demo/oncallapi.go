package demo

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// onCallResources are those of which there are scopes here.
func onCallResources() []string {
	return []string{"abilities", "escalation_policies", "incidents", "oncalls", "schedules", "services", "teams",
		"users"}
}

const onCallItems = 5 // of a collection, on pages of `limit`

// api answers requests of the REST API of a region. Whoever comes to another region than that
// of their account is not known there.
func (c *OnCall) api(europe bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		path := r.URL.Path
		if europe {
			path = strings.TrimPrefix(path, OnCallEurope)
		}
		g, ok := c.bearer(r)
		if !ok || inEurope(g.person) != europe {
			w.Header().Set("WWW-Authenticate", "Token realm=\"pagerduty\"")
			c.refuseAPI(w, http.StatusUnauthorized, 2006, "Authentication failed")
			return
		}
		if g.account && path == "/users/me" {
			// Here the error is a text, whatever the others are.
			_ = writeJSON(w, http.StatusBadRequest, map[string]string{
				"error": "The current user cannot be resolved with an account-level access token."})
			return
		}
		resource, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(path, "/v3"), "/"), "/")
		if !slices.Contains(onCallResources(), resource) {
			c.refuseAPI(w, http.StatusNotFound, 2100, "Not Found")
			return
		}
		reads := r.Method == http.MethodGet
		if !g.admits(resource, reads) {
			c.refuseAPI(w, http.StatusForbidden, 2010, "Access Denied")
			return
		}
		if !reads {
			c.change(w, r, g, path)
			return
		}
		c.read(w, r, g, path, resource)
	}
}

// bearer is what a request proves. An API token has a form of its own, to the letter.
func (c *OnCall) bearer(r *http.Request) (onCallGrant, bool) {
	shown := r.Header.Get("Authorization")
	c.mu.Lock()
	defer c.mu.Unlock()
	if token, ok := strings.CutPrefix(shown, "Bearer "); ok {
		if g, ok := c.access.get(c.opts.Now(), token); ok {
			return *g, true
		}
		return onCallGrant{}, false
	}
	for _, k := range c.opts.Keys {
		if shown == "Token token="+k.Key {
			who, _ := find(c.opts.People, k.Person)
			return onCallGrant{person: who, key: true, account: k.Person == "", readOnly: k.ReadOnly}, true
		}
	}
	return onCallGrant{}, false
}

func (g onCallGrant) admits(resource string, reads bool) bool {
	if g.key {
		return reads || !g.readOnly
	}
	if slices.Contains(g.scope, "write") || reads && slices.Contains(g.scope, "read") {
		return true
	}
	kind := ".write"
	if reads {
		kind = ".read"
	}
	return slices.Contains(g.scope, resource+kind)
}

// change: who uses a key of the account has to say who they are, by an address of a user.
func (c *OnCall) change(w http.ResponseWriter, r *http.Request, g onCallGrant, path string) {
	from := r.Header.Get("From")
	if _, known := find(c.opts.People, from); g.account && (!known || !strings.Contains(from, "@")) {
		c.refuseAPI(w, http.StatusBadRequest, 2016, "Requester User Not Found")
		return
	}
	c.mu.Lock()
	c.changes = append(c.changes, OnCallChange{r.Method, path, from})
	c.mu.Unlock()
	status := http.StatusOK
	switch r.Method {
	case http.MethodDelete:
		w.WriteHeader(http.StatusNoContent)
		return
	case http.MethodPost:
		status = http.StatusCreated
	}
	_ = writeJSON(w, status, c.single(g.person, path)) // an error means that the client has gone
}

// single is the answer of a path that is of one thing, or of what is below it; a collection
// has one that is new.
func (c *OnCall) single(of Person, path string) map[string]any {
	resource, id, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(path, "/v3"), "/"), "/")
	if id == "" {
		id = "PNEW001"
	}
	if below := strings.LastIndex(id, "/"); below >= 0 {
		return map[string]any{id[below+1:]: []any{}}
	}
	return map[string]any{kindOf(resource): c.thing(of, resource, id)}
}

// read answers as the API's document has it: https://github.com/PagerDuty/api-schema
func (c *OnCall) read(w http.ResponseWriter, r *http.Request, g onCallGrant, path, resource string) {
	switch {
	case path == "/users/me":
		_ = writeJSON(w, http.StatusOK, map[string]any{"user": c.user(g.person)})
		return
	case path == "/abilities":
		_ = writeJSON(w, http.StatusOK, map[string]any{"abilities": []string{"teams"}})
		return
	case strings.Count(strings.TrimPrefix(path, "/v3"), "/") > 1:
		_ = writeJSON(w, http.StatusOK, c.single(g.person, path))
		return
	}
	offset, limit := number(r, "offset", 0), number(r, "limit", 2)
	var items []any
	for i := offset; i < min(offset+limit, onCallItems); i++ {
		if path == "/oncalls" {
			items = append(items, c.shift(g.person, i))
			continue
		}
		items = append(items, c.thing(g.person, resource, fmt.Sprintf("P%06d", i)))
	}
	if items == nil {
		items = []any{} // a page behind the last one is an empty list, and not null
	}
	_ = writeJSON(w, http.StatusOK, map[string]any{resource: items, "offset": offset, "limit": limit,
		"more": offset+limit < onCallItems, "total": nil})
}

// kindOf is the type of what a resource has.
func kindOf(resource string) string {
	if one, ok := strings.CutSuffix(resource, "ies"); ok {
		return one + "y"
	}
	return strings.TrimSuffix(resource, "s")
}

// thing is one of a resource, with what always is there.
func (c *OnCall) thing(of Person, resource, id string) map[string]any {
	kind := kindOf(resource)
	name := strings.ReplaceAll(kind, "_", " ") + " " + id
	item := map[string]any{"id": id, "type": kind, "summary": name, "html_url": nil, "name": name,
		"self": c.opts.Origin + "/" + resource + "/" + id}
	since := timestamp(c.opts.Now().UTC().Truncate(24 * time.Hour))
	user := c.reference("user", c.UserID(of.Key), of.Name)
	switch kind {
	case "user":
		item["email"], item["role"] = strings.ToLower(id)+"@acme.example", "user"
	case "schedule":
		item["time_zone"] = "Etc/UTC"
		item["schedule_layers"] = []any{map[string]any{"id": "PLAYER1", "start": since, "rotation_virtual_start": since,
			"rotation_turn_length_seconds": 43200, "users": []any{map[string]any{"user": user}}}}
	case "escalation_policy":
		item["num_loops"] = 0
		item["escalation_rules"] = []any{map[string]any{"id": "PRULE01", "escalation_delay_in_minutes": 30,
			"targets": []any{user}}}
	case "service":
		item["status"] = "active"
		item["escalation_policy"] = c.reference("escalation_policy", "PESCAL1", "First aid")
	case "incident":
		delete(item, "name")
		item["title"], item["status"], item["urgency"] = name, "triggered", "high"
		item["incident_number"], item["created_at"] = 1, since
		item["service"] = c.reference("service", "PSERVI1", "The shop")
	}
	return item
}

func (c *OnCall) reference(kind, id, summary string) map[string]any {
	return map[string]any{"id": id, "type": kind + "_reference", "summary": summary}
}

// shift has the colleagues of somebody on call in turns of twelve hours, from the morning on.
// https://developer.pagerduty.com/api-reference/3a6b910f11050-list-all-of-the-on-calls
func (c *OnCall) shift(of Person, i int) map[string]any {
	var turns []Person
	for _, p := range c.opts.People {
		if p.OrgID == of.OrgID {
			turns = append(turns, p)
		}
	}
	if len(turns) == 0 { // the key of an account
		turns = c.opts.People
	}
	who := turns[i%len(turns)]
	start := c.opts.Now().UTC().Truncate(24 * time.Hour).Add(time.Duration(8+12*i) * time.Hour)
	return map[string]any{"user": c.reference("user", c.UserID(who.Key), who.Name),
		"schedule":          c.reference("schedule", "PSCHED1", "Day and night"),
		"escalation_policy": c.reference("escalation_policy", "PESCAL1", "First aid"),
		"escalation_level":  1, "start": timestamp(start), "end": timestamp(start.Add(12 * time.Hour))}
}

func number(r *http.Request, name string, otherwise int) int {
	if n, err := strconv.Atoi(r.URL.Query().Get(name)); err == nil && n >= 0 && n <= 100 {
		return n
	}
	return otherwise
}

func (c *OnCall) user(p Person) map[string]any {
	return map[string]any{"id": c.UserID(p.Key), "type": "user", "name": p.Name, "email": p.Email, "role": "user"}
}

// refuseAPI: https://developer.pagerduty.com/docs/errors
func (c *OnCall) refuseAPI(w http.ResponseWriter, status, code int, message string) {
	if c.opts.Quirks.TextErrors {
		_ = writeJSON(w, status, map[string]string{"error": message})
		return
	}
	_ = writeJSON(w, status, map[string]any{"error": map[string]any{"message": message, "code": code,
		"errors": []string{message}}})
}
