package identity

import (
	"errors"
	"fmt"
	"testing"
)

func TestEmailCountsOnlyIfVerified(t *testing.T) {
	id := Identity{Email: "a@b.test"}
	if id.VerifiedEmail() != "" {
		t.Error("an address nobody vouched for counts")
	}
	id.EmailVerified = true
	if id.VerifiedEmail() != "a@b.test" {
		t.Error("a verified address does not count")
	}
}

// The same subject or address at two providers is two people (OIDC Core §5.7).
func TestIDsOfTwoProvidersDiffer(t *testing.T) {
	a, b := Identity{Provider: "google", Subject: "1"}, Identity{Provider: "partner", Subject: "1"}
	if a.ID() != "google:1" || a.ID() == b.ID() {
		t.Errorf("%q %q", a.ID(), b.ID())
	}
}

func TestFailureNobodyClassifiedIsARejection(t *testing.T) {
	cause := errors.New("cause")
	wrapped := fmt.Errorf("redeem: %w", &SignInError{Failure: Unavailable, Err: cause})
	for err, want := range map[error]SignInFailure{nil: Rejected, cause: Rejected, wrapped: Unavailable} {
		if got := FailureOf(err); got != want {
			t.Errorf("%v: %s", err, got)
		}
	}
	if !errors.Is(wrapped, cause) || wrapped.Error() != "redeem: unavailable: cause" {
		t.Errorf("%v", wrapped)
	}
}
