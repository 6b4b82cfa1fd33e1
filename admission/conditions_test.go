package admission

import (
	"context"
	"errors"
	"math"
	"net/http"
	"net/netip"
	"testing"

	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// board asks for the route that is public for reading from 10.0.0.0/8, and needs a
// session or token for all else.
func (h *house) board(t *testing.T, method, from string, header http.Header) (Answer, error) {
	t.Helper()
	return h.Admit(context.Background(), Request{Facts: boardFacts(t, method, from), Header: header})
}

func boardFacts(t *testing.T, method, from string) authz.Facts {
	t.Helper()
	facts, err := authz.NewFacts(method, "https", host, "/board")
	testenv.Check(t, err)
	if from != "" {
		facts.Client = netip.MustParseAddr(from)
	}
	return facts
}

// P1: which credential counts, and whether one is looked at, follows from the conditions
// of the request at hand.
func TestP01_ACredentialCountsOnlyWhereAConditionLeavesItOpen(t *testing.T) {
	h := newHouse(t, tokens{"good": nil})
	ann := h.cookie(t, person("ann"))
	const inside, outside = "10.0.0.1", "203.0.113.1"
	for name, tt := range map[string]struct {
		method, from string
		header       http.Header
		want         authz.Outcome
		who          string
		status       int
	}{
		"a reader, inside":                {"GET", inside, http.Header{}, authz.Forward, "", 0},
		"a reader with a session, inside": {"GET", inside, http.Header{"Cookie": {ann}}, authz.Forward, "", 0},
		"a reader with a bad token, inside": {"GET", inside, http.Header{"Authorization": {"Bearer bad"}},
			authz.Forward, "", 0},
		"a reader, outside":      {"GET", outside, http.Header{}, authz.Login, "", 0},
		"a reader, from nowhere": {"GET", "", http.Header{}, authz.Login, "", 0},
		"a reader with a session, outside": {"GET", outside, http.Header{"Cookie": {ann}},
			authz.Forward, "main:ann", 0},
		"a reader with a bad token, outside": {"GET", outside, http.Header{"Authorization": {"Bearer bad"}},
			authz.Deny, "", 401},
		"a writer with a token, inside": {"PUT", inside, http.Header{"Authorization": {"Bearer good"}},
			authz.Forward, "main:robot", 0},
		"a writer, inside": {"PUT", inside, http.Header{}, authz.Login, "", 0},
	} {
		ans, err := h.board(t, tt.method, tt.from, tt.header)
		status, who := 0, ""
		if refusal, ok := errors.AsType[*Refusal](err); ok {
			status = refusal.Status
		}
		if ans.Principal != nil {
			who = ans.Principal.Identity.ID()
		}
		if ans.Verdict.Outcome != tt.want || who != tt.who || status != tt.status {
			t.Errorf("%s: %v for %q, status %d, %v", name, ans.Verdict, who, status, err)
		}
	}
	// Whether a session has ended elsewhere matters only where one is asked for.
	h.ended.age = math.MaxInt64
	if ans, err := h.board(t, "GET", inside, http.Header{"Cookie": {ann}}); err != nil ||
		ans.Verdict.Outcome != authz.Forward {
		t.Errorf("public, while nobody can tell: %v, %v", ans.Verdict, err)
	}
	if ans, err := h.board(t, "PUT", inside, http.Header{"Cookie": {ann}}); err == nil {
		t.Errorf("not public, while nobody can tell: %v", ans.Verdict)
	}
}

// P11: after a change of the configuration a stream is judged with the method and the
// address that it began with.
func TestP11_AStreamIsJudgedAgainByMethodAndAddress(t *testing.T) {
	h := newHouse(t, nil)
	for _, tt := range []struct {
		method, from string
		goesOn       bool
	}{{"GET", "10.0.0.1", true}, {"GET", "203.0.113.1", false}, {"GET", "", false}, {"POST", "10.0.0.1", false}} {
		if err := h.StillAdmits(boardFacts(t, tt.method, tt.from), nil); (err == nil) != tt.goesOn {
			t.Errorf("%s from %q, nobody's: %v", tt.method, tt.from, err)
		}
	}
}
