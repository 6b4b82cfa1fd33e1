package grant

import "testing"

func TestP12_ARuleLetsThroughWhatItNamesAndNothingElse(t *testing.T) {
	for _, c := range []struct {
		rule, method, path string
		want               bool
	}{
		{"GET /rest/*", "GET", "/rest/a", true},
		{"GET /rest/*", "HEAD", "/rest/a/b", true},
		{"GET /rest/*", "GET", "/rest", false},
		{"GET /rest/*", "GET", "/rest/", false},
		{"GET /rest/*", "GET", "/rest/a/", true},
		{"GET /rest/*", "GET", "/rest/a/b/", true},
		{"GET /rest/*", "GET", "/rest/a//", false},
		{"GET /rest/*", "GET", "/rest//", false},
		{"GET /*", "GET", "/a/", true},
		{"GET /*", "GET", "//", false},
		{"GET /rest/", "GET", "/rest/", true},
		{"GET /rest/", "GET", "/rest", false},
		{"GET /rest/", "GET", "/rest//", false},
		{"GET /rest/", "GET", "/rest/a", false},
		{"GET /rest", "GET", "/rest/", false},
		{"GET /rest/*/", "GET", "/rest/a/", true},
		{"GET /rest/*/", "GET", "/rest/a", false},
		{"GET /rest/*/", "GET", "/rest//", false},
		{"GET /rest/*/", "GET", "/rest/a/b/", false},
		{"GET /rest/*", "GET", "/rest//a", false},
		{"GET /rest/*", "POST", "/rest/a", false},
		{"GET /rest/*", "GET", "/restful/a", false},
		{"POST /x", "HEAD", "/x", false},
		{"GET /*", "GET", "/a", true},
		{"GET /*", "GET", "/", false},
		{"GET /", "GET", "/", true},
		{"GET /", "GET", "/a", false},
		{"GET /", "GET", "//", false},
		{"GET /calendars/*/events", "GET", "/calendars/de.german%23holiday%40group.v.calendar.google.com/events", true},
		{"GET /calendars/*/events", "GET", "/calendars/a%2Fevents", false},
		{"GET /calendars/*/events", "GET", "/calendars/a/b/events", false},
		{"GET /calendars/*/events", "GET", "/calendars/a/events/", false},
		{"GET /calendars/*/events", "GET", "/calendars//events", false},
		{"GET /calendars/*/events", "GET", "calendars/a/events", false},
		{"GET /api/conversations.list", "GET", "/api/conversations%2Elist", false},
		{"GET /users/{id}", "GET", "/users/PX", true},
		{"GET /users/{id}", "HEAD", "/users/PX", true},
		{"GET /users/{id}", "GET", "/users/a%40b.example", true},
		{"GET /users/{id}", "GET", "/users/a%23b", true},
		{"GET /users/{id}", "GET", "/users/...", true},
		{"GET /users/{id}", "GET", "/users", false},
		{"GET /users/{id}", "GET", "/users/", false},
		{"GET /users/{id}", "GET", "/users//", false},
		{"GET /users/{id}", "GET", "/users//PX", false},
		{"GET /users/{id}", "GET", "//users/PX", false},
		{"GET /users/{id}", "GET", "/users/PX/", false},
		{"GET /users/{id}", "GET", "/users/PX/sessions", false},
		{"GET /users/{id}", "GET", "/users/PX%2Fsessions", false},
		{"GET /users/{id}", "GET", "/users/PX%2fsessions", false},
		{"GET /users/{id}", "GET", "/users/PX%252Fsessions", false},
		{"GET /users/{id}", "GET", "/users/PX%5Csessions", false},
		{"GET /users/{id}", "GET", "/users/PX\\sessions", false},
		{"GET /users/{id}", "GET", "/users/..", false},
		{"GET /users/{id}", "GET", "/users/.", false},
		{"GET /users/{id}", "GET", "/users/%2e%2e", false},
		{"GET /users/{id}", "GET", "/users/.%2E", false},
		{"GET /users/{id}", "GET", "/users/PX;sessions", false},
		{"GET /users/{id}", "GET", "/users/PX;v=1", false},
		{"GET /users/{id}", "GET", "/users/PX%3Bsessions", false},
		{"GET /users/{id}", "GET", "/users/PX%2", false},
		{"GET /users/{id}", "POST", "/users/PX", false},
		{"GET /users/{id}/", "GET", "/users/PX/", true},
		{"GET /users/{id}/", "GET", "/users/PX", false},
		{"GET /users/{id}/*", "GET", "/users/PX/teams/PY", true},
		{"GET /users/{id}/*", "GET", "/users/PX%2Fa/teams", false},
		{"GET /*/{id}", "GET", "/users/PX", true},
		{"GET /*/{id}", "GET", "/users/PX/teams", false},
		{"GET /{a}/{b}", "GET", "/users/PX", true},
	} {
		rule, err := ParseRule(c.rule)
		if err != nil {
			t.Errorf("%s: %v", c.rule, err)
			continue
		}
		if got := rule.Match(c.method, c.path); got != c.want {
			t.Errorf("%s of %s %s: %t", c.rule, c.method, c.path, got)
		}
		if rule.String() != c.rule {
			t.Errorf("%q prints as %q", c.rule, rule)
		}
	}
}

func TestP15_ARuleThatCouldBeReadInTwoWaysIsRefused(t *testing.T) {
	for _, text := range []string{"", "GET", "GET ", "/x", "get /x", "GET x", "GET  /x", "GET /a//b", "GET /a//",
		"GET //",
		"GET /./a", "GET /a/..", "GET /a*", "GET /a/b*/c", "GET /a%2Fb", "GET /a?b", "GET /a#b", "GET /a b", "GET /ä",
		"GET /a\\b", "* /x", "GET,POST /x", "GET /**", "GET /{}", "GET /{a", "GET /a}", "GET /{a}b", "GET /x{a}",
		"GET /{a}{b}", "GET /{{a}}", "GET /{*}", "GET /{a.b}", "GET /{a:.*}", "GET /{a/b}"} {
		if rule, err := ParseRule(text); err == nil {
			t.Errorf("%q was read as %s", text, rule)
		}
	}
}
