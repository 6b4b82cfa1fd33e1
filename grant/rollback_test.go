package grant_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
)

// A configuration that asks for more than people have agreed to may be put back: what was refreshed
// meanwhile is lent as before, and nobody has to connect again.
func TestAConfigurationThatAsksForMoreLeavesNoTrace(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		r.lend(use("a"))
		before := r.kept().RefreshedAt
		r.broker.Close()
		was := r.provider.about.Accesses
		r.provider.about.Accesses = slices.Clone(was)
		r.provider.about.Accesses[0].Scopes = []string{"busy", "more"}
		wider := r.another()
		r.after(8 * 24 * time.Hour)
		if kept := r.kept(); !kept.RefreshedAt.After(before) || kept.Status != grant.Active {
			t.Errorf("refreshed %v after it was connected, it is %s (%s)", kept.RefreshedAt.Sub(before), kept.Status,
				kept.Reason)
		}
		r.broker = wider
		r.refused(use("a"), "freebusy", "events")
		wider.Close()
		r.provider.about.Accesses = was
		r.broker = r.another()
		r.lend(use("a"))
	})
}

// What the third party itself takes away is another matter.
func TestScopesThatTheThirdPartyTakesAwayAreMissed(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.connect(r.ask("a", "freebusy", "events"))
		r.provider.set(nil, func(_ context.Context, got grant.Result) (grant.Result, error) {
			got.Scopes = []string{"other"}
			return got, nil
		})
		r.after(life)
		r.refused(use("a"), "freebusy", "events")
		if kept := r.kept(); kept.Status != grant.TooNarrow || kept.Reason != "scopes_taken_away" {
			t.Errorf("it is %s (%s)", kept.Status, kept.Reason)
		}
	})
}

// A server that does not have the configuration yet, or one in which an app or a connector is missing
// by mistake, does not end what people agreed to for the time in which they are away.
func TestASignInWhereAnAppIsNotKnownEndsNothing(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		a := r.ask("a", "freebusy")
		a.Offline = true
		r.connect(a)
		for name, change := range map[string]func(*grant.Options){
			"app":       func(o *grant.Options) { o.Apps = o.Apps[1:] },
			"connector": func(o *grant.Options) { o.Apps, o.Offers = nil, nil },
		} {
			was := r.options
			change(&r.options)
			other := r.another()
			r.options = was
			if err := other.SignedIn(r.Context(), ann); err != nil {
				t.Fatal(err)
			}
			if _, err := r.broker.Lend(r.Context(), away()); err != nil {
				t.Errorf("after a sign-in where the %s is missing: %v", name, err)
			}
		}
	})
}
