package admission_test

import (
	"errors"
	"net/http"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/authz"
)

// A front door turns a request into Facts, asks once, and forwards only in one case.
func ExampleAdmission_Admit() {
	var gate *admission.Admission // made once for a configuration, with New
	serve := func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
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
			forward.ServeHTTP(w, r)
		case answer.Verdict.Outcome == authz.Login:
			http.Error(w, "sign in first", http.StatusUnauthorized)
		default:
			http.Error(w, answer.Verdict.Public, http.StatusForbidden)
		}
	}
	_ = serve
}
