package assemble

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// asksToStepUp reports whether somebody who is signed in is told to sign in again.
func asksToStepUp(w *httptest.ResponseRecorder) bool {
	return (w.Code == 401 || w.Code == 302) && (strings.Contains(w.Header().Get("Location"), "step_up=") ||
		strings.Contains(w.Header().Get("WWW-Authenticate"), "insufficient_user_authentication") ||
		strings.Contains(w.Body.String(), "step_up="))
}

// steppingUp says for whom such an answer is. What a proxy that asks is told of that must
// be what the browser would be told.
func steppingUp(w *httptest.ResponseRecorder) string {
	h, body := w.Header(), w.Body.String()
	kind, asker := "token", h.Get("X-Sallyport-Asker")
	switch {
	case strings.Contains(body, "insufficient_user_authentication") && strings.Contains(body, "login_url"):
		kind = "program"
	case strings.HasPrefix(h.Get("Content-Type"), "text/html") && strings.Contains(body, "form was not sent"),
		body == "" && asker == "form": // the question was a HEAD
		kind = "form"
	case strings.HasPrefix(h.Get("Content-Type"), "text/html"):
		kind = "frame"
	case w.Code == 302, body == "" && asker == "navigation":
		kind = "navigation"
	case strings.Contains(strings.Join(h["Www-Authenticate"], ""), "Cookie"): // the question was a HEAD
		kind = "program"
	}
	wanted := kind
	if kind == "token" || kind == "frame" {
		wanted = "program"
	}
	if asker != "" && asker != wanted {
		return "step-up " + kind + " told as " + asker
	}
	return "step-up " + kind
}

// stepUpCases are routes that ask for a recent sign-in, or for one by certain means.
func stepUpCases(host string) (all []doorCase) {
	get := func(target, who, want string, lines ...string) {
		all = append(all, doorCase{method: "GET", host: host, target: target, who: who, lines: lines, want: want})
	}
	framed := []string{"Accept: text/html", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"}
	for _, path := range []string{"/payroll", "/payroll/deep?q=1%2F2&x", "/keys", "/dav/safe/x"} {
		get(path, "recent", "forward", page...)
		get(path, "recent", "forward", fetch...)
		get(path, "recent", "forward", framed...)
		get(path, "old", "step-up navigation", page...)
		get(path, "old", "step-up navigation", "Accept: text/html")
		get(path, "old", "step-up frame", framed...)
		get(path, "old", "step-up program", fetch...)
		get(path, "old", "step-up program")
		get(path, "old", "step-up program", append([]string{"Sec-Purpose: prefetch"}, page...)...)
		get(path, "", "login navigation", page...)
		get(path, "", "login program", fetch...)
		for method, want := range map[string]string{"HEAD": "step-up program", "POST": "step-up form",
			"PUT": "step-up program", "OPTIONS": "step-up program"} {
			all = append(all, doorCase{method: method, host: host, target: path, who: "old", lines: page, want: want})
		}
	}
	get("/payroll", "root", "step-up program", fetch...)   // whose provider does not say when
	get("/payroll", "future", "step-up program", fetch...) // or says that it will be
	get("/keys", "root", "step-up navigation", page...)
	get("/keys", "ann", "deny", page...) // nobody proves anything for what they may not have
	get("/keys", "future", "deny", fetch...)
	for _, token := range []string{"good", "many"} {
		get("/api/ledger", "", "step-up token", "Authorization: Bearer "+token)
		get("/api/ledger", "recent", "step-up token", append([]string{"Authorization: Bearer " + token}, page...)...)
	}
	get("/api/ledger", "", "forward", "Authorization: Bearer recent")
	get("/api/ledger", "old", "forward", "Authorization: Bearer recent")
	get("/api/ledger", "old", "bearer", "Authorization: Bearer bad")
	get("/api/ledger", "old", "step-up program", fetch...)
	get("/api/ledger", "old", "step-up navigation", page...)
	shake := []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}
	get("/payroll", "old", "step-up program", append([]string{"Origin: https://" + host}, shake...)...)
	get("/payroll", "recent", "forward", append([]string{"Origin: https://" + host}, shake...)...)
	get("/payroll", "old", "deny", append([]string{"Origin: https://evil.example"}, shake...)...)
	for who, want := range map[string]string{"recent": "forward", "old": "step-up program", "root": "step-up program"} {
		all = append(all,
			doorCase{method: "MOVE", host: host, target: "/dav/a", who: who,
				lines: []string{"Destination: /dav/safe/b"}, want: want},
			doorCase{method: "MOVE", host: host, target: "/dav/safe/a", who: who,
				lines: []string{"Destination: /dav/b"}, want: want},
			doorCase{method: "GET", host: "wiki.example.com", target: "/diary", who: who, lines: fetch, want: want})
	}
	return append(all,
		doorCase{method: "GET", host: "wiki.example.com", target: "/diary", who: "old", lines: page,
			want: "step-up navigation"},
		doorCase{method: "MOVE", host: host, target: "/dav", who: "recent", lines: []string{"Destination: /dav/b"},
			want: "deny"})
}

// What each dialect is told for somebody who has to sign in again, and what a page of
// another site may read of it.
func TestEachDialectIsToldWhereToStepUp(t *testing.T) {
	d := newDoors(t)
	const login, back = "https://app.example.com/.sallyport/login", "?return_to=%2Fform%3F1&step_up=payroll"
	const aged = `Bearer error="insufficient_user_authentication", error_description="sign in again", max_age="900"`
	referer := "Referer: https://app.example.com/form?1"
	for _, tt := range []struct {
		dialect, method, host, target string
		lines                         []string
		status                        int
		location, challenges, body    string
	}{
		{"verify", "GET", "app.example.com", "/payroll?a=1&b", page, 401,
			login + "?return_to=%2Fpayroll%3Fa%3D1%26b&step_up=payroll", "", ""},
		{"forward", "GET", "app.example.com", "/payroll?a=1&b", page, 302,
			login + "?return_to=%2Fpayroll%3Fa%3D1%26b&step_up=payroll", "", ""},
		{"envoy", "GET", "app.example.com", "/payroll/" + strings.Repeat("x", 2000), page, 302,
			login + "?step_up=payroll", "", ""},
		{"envoy", "GET", "wiki.example.com", "/diary", page, 302,
			"https://wiki.example.com/.sallyport/login?return_to=%2Fdiary&step_up=diary", "", ""},
		{"verify", "POST", "app.example.com", "/payroll", append([]string{referer}, page...), 401, login + back,
			aged + ` + Cookie realm="sallyport", form-action="` + login + back + `"`, "form was not sent"},
		{"envoy", "POST", "app.example.com", "/payroll", page, 401, "",
			aged + ` + Cookie realm="sallyport", form-action="` + login + `?step_up=payroll"`, "form was not sent"},
		{"verify", "GET", "app.example.com", "/payroll", append([]string{referer}, fetch...), 401, login + back,
			aged + ` + Cookie realm="sallyport", form-action="` + login + back + `"`, `"login_url":"` + login + back},
		{"forward", "GET", "app.example.com", "/payroll", append([]string{"Referer: https://evil.example/"}, fetch...),
			401, "", aged + ` + Cookie realm="sallyport", form-action="` + login + `?step_up=payroll"`,
			""}, // it asks with HEAD
		{"envoy", "GET", "app.example.com", "/payroll", fetch, 401, "", aged + ` + Cookie realm="sallyport", ` +
			`form-action="` + login + `?step_up=payroll"`, `"error":"insufficient_user_authentication"`},
		{"envoy", "GET", "app.example.com", "/keys", fetch, 401, "",
			`Bearer error="insufficient_user_authentication", ` +
				`error_description="sign in again", acr_values="mfa phr" + Cookie realm="sallyport", ` +
				`form-action="` + login + `?step_up=keys"`, `"login_url":"` + login + `?step_up=keys"`},
		{"envoy", "MOVE", "app.example.com", "/dav/a", []string{"Destination: /dav/safe/a"}, 401, "", aged +
			` + Cookie realm="sallyport", form-action="` + login + `?step_up=safe"`,
			`"login_url":"` + login + `?step_up=safe"`},
		{"verify", "GET", "app.example.com", "/api/ledger", []string{"Authorization: Bearer good"}, 401, "", aged +
			`, resource_metadata="https://app.example.com/.well-known/oauth-protected-resource/api/ledger"`,
			`"error":"insufficient_user_authentication"`},
	} {
		c := doorCase{method: tt.method, host: tt.host, target: tt.target, who: "old", lines: tt.lines}
		_, w := c.ask(d, tt.dialect)
		h := w.Header()
		if got := strings.Join(h["Www-Authenticate"], " + "); w.Code != tt.status || h.Get("Location") != tt.location ||
			got != tt.challenges || !strings.Contains(strings.ReplaceAll(w.Body.String(), `\u0026`, "&"), tt.body) ||
			h.Get("Cache-Control") != "no-store" || h.Get("X-Request-Id") == "" || h.Get("X-Forwarded-User") != "" {
			t.Errorf("%s %s: %d %v\n%s", tt.dialect, c, w.Code, h, w.Body)
		}
	}
	for dialect := range fronts {
		c := doorCase{method: "PUT", host: "app.example.com", target: "/payroll", who: "old",
			lines: append([]string{"Origin: https://shop.example"}, fetch...)}
		_, w := c.ask(d, dialect)
		if w.Code != http.StatusUnauthorized ||
			w.Header().Get("Access-Control-Allow-Origin") != "https://shop.example" {
			t.Errorf("%s: a page of a listed origin is told %d %v", dialect, w.Code, w.Header())
		}
	}
}
