package login

import (
	"net/url"
	"reflect"
	"testing"

	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// RP-Initiated Logout §2, without a token to hint with.
func TestWherePeopleSignOutAtTheProvider(t *testing.T) {
	w := newWorld(t)
	perscom := worldOfKind(t, demo.Perscom)
	perscom.use(perscomBase(perscom))
	google := worldOfKind(t, demo.Google, func(o *Options) { o.Type, o.Scopes = TypeGoogle, nil })
	like := func(edit func(*Options)) *world {
		return newWorld(t, func(o *Options) { o.Issuer = w.op.URL; edit(o) })
	}
	registered := like(func(o *Options) { o.SignOut.ReturnParam = "post_logout_redirect_uri" })
	cognito := like(func(o *Options) {
		o.Endpoints.EndSessionURL = "https://example.auth.eu-west-1.amazoncognito.com/logout"
		o.SignOut.ReturnParam = "logout_uri"
	})
	with := like(func(o *Options) { o.SignOut.Params = map[string]string{"client_id": "another", "federated": ""} })
	off := like(func(o *Options) { o.SignOut.Off = true })
	rows := []struct {
		name            string
		w               *world
		returnTo, state string
		address         string
		form            url.Values
		post            bool
	}{
		{"where our page is registered", registered, "https://app.example.com/", "s", w.op.URL + demo.EndSessionPath,
			url.Values{"client_id": {clientID}, "post_logout_redirect_uri": {"https://app.example.com/"},
				"state": {"s"}}, false},
		{"where it is not", w, "https://app.example.com/", "s", w.op.URL + demo.EndSessionPath,
			url.Values{"client_id": {clientID}}, false},
		{"nowhere to return to", registered, "", "s", w.op.URL + demo.EndSessionPath,
			url.Values{"client_id": {clientID}}, false},
		{"Cognito", cognito, "https://app.example.com/", "", "https://example.auth.eu-west-1.amazoncognito.com/logout",
			url.Values{"client_id": {clientID}, "logout_uri": {"https://app.example.com/"}}, false},
		{"with what the provider wants", with, "https://app.example.com/", "", w.op.URL + demo.EndSessionPath,
			url.Values{"client_id": {"another"}, "federated": {""}}, false},
		{"not wanted", off, "https://app.example.com/", "", "", nil, false},
		{"PERSCOM: by POST", perscom, "", "", perscom.op.URL + demo.EndSessionPath, url.Values{"client_id": {clientID}},
			true},
		{"Google has none", google, "https://app.example.com/", "", "", nil, false},
	}
	for _, row := range rows {
		address, form, post, err := row.w.p.Logout(t.Context(), row.returnTo, row.state)
		if err != nil || address != row.address || !reflect.DeepEqual(form, row.form) || post != row.post {
			t.Errorf("%s: %s %v %v %v", row.name, address, form, post, err)
		}
	}
	// An address that nobody should be sent to costs the sign-out there, not the sign-in.
	for _, bad := range []any{"http://op.example/logout", "javascript:alert(1)", ""} {
		w.use()
		w.op.Set(testenv.Fault{Endpoint: testenv.Discovery, JSON: testenv.With("end_session_endpoint", bad)})
		if address, _, _, err := w.p.Logout(t.Context(), "", ""); err != nil || address != "" {
			t.Errorf("%v: %q, %v", bad, address, err)
		}
		w.want()
	}
	w.use()
	w.op.Set(testenv.Fault{Endpoint: testenv.Discovery, Status: 503})
	if address, _, _, err := w.p.Logout(t.Context(), "", ""); err == nil || address != "" {
		t.Errorf("while the provider is down: %q", address)
	}
	w.use(func(o *Options) { o.Endpoints.EndSessionURL = w.op.URL + demo.EndSessionPath })
	if address, _, _, err := w.p.Logout(t.Context(), "", ""); err != nil || address == "" {
		t.Errorf("while the provider is down, and the configuration names the address: %q, %v", address, err)
	}
}
