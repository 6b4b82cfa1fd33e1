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
	_ = writeJSON(w, http.StatusOK, map[string]any{"changed": path}) // an error means that the client has gone
}

func (c *OnCall) read(w http.ResponseWriter, r *http.Request, g onCallGrant, path, resource string) {
	switch {
	case path == "/users/me":
		_ = writeJSON(w, http.StatusOK, map[string]any{"user": c.user(g.person)})
		return
	case path == "/abilities":
		_ = writeJSON(w, http.StatusOK, map[string]any{"abilities": []string{"teams"}})
		return
	case strings.Count(strings.TrimPrefix(path, "/v3"), "/") > 1:
		_ = writeJSON(w, http.StatusOK, map[string]any{"id": path})
		return
	}
	offset, limit := number(r, "offset", 0), number(r, "limit", 2)
	var items []any
	for i := offset; i < min(offset+limit, onCallItems); i++ {
		item := map[string]any{"id": fmt.Sprintf("P%06d", i), "summary": fmt.Sprintf("%s %d", resource, i)}
		if path == "/oncalls" {
			c.shift(item, g.person, i)
		}
		items = append(items, item)
	}
	_ = writeJSON(w, http.StatusOK, map[string]any{resource: items, "offset": offset, "limit": limit,
		"more": offset+limit < onCallItems, "total": nil})
}

// shift has the colleagues of somebody on call in turns of twelve hours, from the morning on.
// https://developer.pagerduty.com/api-reference/3a6b910f11050-list-all-of-the-on-calls
func (c *OnCall) shift(item map[string]any, of Person, i int) {
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
	item["user"] = map[string]any{"id": c.UserID(who.Key), "type": "user_reference", "summary": who.Name}
	item["schedule"] = map[string]any{"id": "PSCHED1", "type": "schedule_reference", "summary": "Day and night"}
	item["escalation_level"] = 1
	item["start"], item["end"] = timestamp(start), timestamp(start.Add(12*time.Hour))
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
