package storetest

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/store"
)

// SizeOfGrants keeps grants, 300 of them and 10,000 with SALLYPORT_CAMPAIGN=1, with the consent
// of one app each, refreshes each of them, and says how many bytes that takes:
// once with tokens of the length of Google's, once with a JWT of two KiB as access token. A
// grant takes less than three times what its tokens do and four KiB: PostgreSQL keeps the rows
// of before for a while.
func SizeOfGrants(t *testing.T, open func(t *testing.T) (s *store.Store, bytes func() int64)) {
	many := 300
	if os.Getenv("SALLYPORT_CAMPAIGN") != "" {
		many = 10_000
	}
	for _, kind := range []struct {
		name            string
		access, refresh int // bytes
	}{{"short tokens", 220, 103}, {"a JWT", 2048, 1200}} {
		t.Run(kind.name, func(t *testing.T) {
			s, bytes := open(t)
			key := grant.SealingKey{ID: "key"}
			copy(key.Secret[:], strings.Repeat("k", len(key.Secret)))
			ring, err := grant.NewKeyring([]grant.SealingKey{key})
			testenv.Check(t, err)
			seal := func(r grant.Record) (grant.Record, error) {
				return ring.Seal(r, grant.Tokens{Access: strings.Repeat("a", kind.access),
					Refresh: strings.Repeat("r", kind.refresh), AccessIssued: time.Now(),
					AccessExpires: time.Now().Add(time.Hour), Destinations: toGoogle})
			}
			empty := bytes()
			var records []grant.Record
			for i := range many {
				records = append(records, keepOne(t, s.Grants(), i, seal))
			}
			limit := int64(3*(kind.access+kind.refresh) + 4<<10)
			each := func(when string) {
				t.Helper()
				took := bytes() - empty
				t.Logf("%s: %d grants take %d bytes, %d each", when, many, took, took/int64(many))
				if took > limit*int64(many) {
					t.Errorf("%s: a grant takes %d bytes, more than %d", when, took/int64(many), limit)
				}
			}
			each("connected")
			for _, r := range records {
				l, r, err := s.Grants().Lease(context.Background(), r.ID, r.Generation)
				testenv.Check(t, err)
				_, err = s.Grants().Commit(context.Background(), l, r, seal)
				testenv.Check(t, err)
			}
			each("each refreshed once")
		})
	}
}

// toGoogle is where a grant of Google's may be sent.
var toGoogle = []grant.Destination{
	{Purpose: grant.ToAPI, Origin: "https://www.googleapis.com", Shipped: "google_calendar"},
	{Purpose: grant.ToRefresh, Origin: "https://oauth2.googleapis.com", Shipped: "google_calendar"}}

// keepOne connects the calendar of one person for one app.
func keepOne(t *testing.T, g *store.Grants, i int, seal grant.Seal) grant.Record {
	t.Helper()
	who := fmt.Sprintf("google:1%020d", i)
	scopes := []string{"email", "https://www.googleapis.com/auth/calendar.freebusy", "openid"}
	now := time.Now()
	r, err := g.Connect(context.Background(), grant.Record{
		Key:       grant.Key{Connector: "calendar", Owner: grant.Owner{Kind: grant.OwnedByUser, ID: who}},
		Account:   grant.Account{ID: fmt.Sprintf("1%020d", i), Name: fmt.Sprintf("person-%d@example.com", i)},
		ClientID:  "123456789012-abcdefghijklmnopqrstuvwxyz012345.apps.googleusercontent.com",
		Access:    []string{"freebusy"},
		Requested: scopes, Scopes: scopes, Offline: true, Status: grant.Active, AccessExpires: now.Add(time.Hour),
		ConnectedBy: who, ConnectedAt: now, RefreshedAt: now,
	}, grant.Consent{App: "planner", Access: []string{"freebusy"}, By: who, At: now}, 0, seal)
	testenv.Check(t, err)
	return r
}
