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
	perscom := shapedWorld(t, demo.Perscom)
	perscom.use(perscomBase(perscom))
	google := shapedWorld(t, demo.Google, func(o *Options) { o.Type, o.Scopes = TypeGoogle, nil })
	rows := []struct {
		name            string
		w               *world
		returnTo, state string
		address         string
		form            url.Values
		post            bool
	}{
		{"the standard", w, "https://app.example.com/", "s", w.op.URL + demo.EndSessionPath,
			url.Values{"client_id": {clientID}, "post_logout_redirect_uri": {"https://app.example.com/"}, "state": {"s"}}, false},
		{"nowhere to return to", w, "", "s", w.op.URL + demo.EndSessionPath, url.Values{"client_id": {clientID}}, false},
		{"seed 003: by POST", perscom, "", "", perscom.op.URL + demo.EndSessionPath, url.Values{"client_id": {clientID}}, true},
		{"§2.1 Google has none", google, "https://app.example.com/", "", "", nil, false},
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
}
