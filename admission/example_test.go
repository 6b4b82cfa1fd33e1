package admission_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/assertion"
	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/session"
)

// A front door turns a request into Facts, asks once, and forwards only in one case.
func ExampleAdmission_Admit() {
	gate, sessions, err := newGate()
	if err != nil {
		fmt.Println(err)
		return
	}
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "hello, ", r.Header.Get("X-Forwarded-User"))
	})
	door := func(w http.ResponseWriter, r *http.Request) {
		facts, err := authz.NewFacts(r.Method, "https", r.Host, r.RequestURI)
		if err != nil {
			http.Error(w, "this address cannot be used", http.StatusBadRequest)
			return
		}
		admission.NoteWebSocket(&facts, r)
		answer, err := gate.Admit(r.Context(), admission.Request{Facts: facts, Header: r.Header})
		if refusal, ok := errors.AsType[*admission.Refusal](err); ok {
			http.Error(w, refusal.Public, refusal.Status)
			return
		}
		switch {
		case err != nil:
			http.Error(w, "this is our fault", http.StatusInternalServerError)
		case answer.Verdict.Outcome == authz.Forward:
			answer.SetHeaders(r.Header)
			app.ServeHTTP(w, r)
		case answer.Verdict.Outcome == authz.Login:
			http.Error(w, "sign in first", http.StatusUnauthorized)
		default:
			http.Error(w, answer.Verdict.Public, http.StatusForbidden)
		}
	}

	signedIn := httptest.NewRecorder() // what a sign-in ends with
	ann := sessions.Start(identity.Identity{Provider: "corp", Subject: "ann"})
	if err := sessions.Write(signedIn, "app.example", ann); err != nil {
		fmt.Println(err)
		return
	}
	cookie, _, _ := strings.Cut(signedIn.Header().Get("Set-Cookie"), ";")

	ask := func(path string, header http.Header) {
		r := httptest.NewRequest("GET", path, nil)
		r.Host, r.Header = "app.example", header
		w := httptest.NewRecorder()
		door(w, r)
		fmt.Println(path, w.Code, strings.TrimSpace(w.Body.String()))
	}
	ask("/", http.Header{"X-Forwarded-User": {"corp:root"}})
	ask("/", http.Header{"X-Forwarded-User": {"corp:root"}, "Cookie": {cookie}})
	ask("/admin", http.Header{"Cookie": {cookie}})
	// Output:
	// / 401 sign in first
	// / 200 hello, corp:ann
	// /admin 403 It is for members of a group that you are not in.
}

// newGate makes the two things that are made once for a configuration.
func newGate() (*admission.Admission, *session.Manager, error) {
	key := session.NewKey(time.Now())
	keys, err := session.NewKeyring([]session.Key{key})
	if err != nil {
		return nil, nil, err
	}
	sessions, err := session.New(session.Options{Keys: keys, Secure: true, AbsoluteTimeout: 12 * time.Hour,
		IdleTimeout: time.Hour})
	if err != nil {
		return nil, nil, err
	}
	signer, err := assertion.New(assertion.Options{
		Issuer: "https://app.example", Signing: keys.Signing,
		Seeds: [][]byte{key.Derive("assertion signing", assertion.SeedBytes)},
	})
	if err != nil {
		return nil, nil, err
	}
	table, err := authz.NewTable([]authz.Route{
		{Name: "app", Host: "app.example", Path: "/", Access: authz.Access{Authenticated: true}},
		{Name: "admin", Host: "app.example", Path: "/admin", Access: authz.Access{
			Rules: []authz.Rule{{Groups: []string{"admins"}}},
		}},
	})
	if err != nil {
		return nil, nil, err
	}
	headers := identity.NewHeaders()
	fields, _ := identity.Preset(identity.PresetForwarded)
	set, err := headers.Set(fields)
	if err != nil {
		return nil, nil, err
	}
	var routes []admission.Route
	for _, r := range table.Routes() {
		routes = append(routes, admission.Route{Route: r, Headers: set})
	}
	gate, err := admission.New(admission.Options{
		PublicHost: "app.example", Prefix: "/.sallyport", Table: table, Routes: routes, Headers: headers,
		Sessions:  sessions,
		Providers: []string{"corp"}, Assertions: signer,
	})
	return gate, sessions, err
}
