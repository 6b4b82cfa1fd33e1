package assemble

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/identity"
)

// shelf has details of organizations, or is away.
type shelf struct {
	kept map[string]identity.OrgDetails
	err  error
}

func (s *shelf) KeepOrg(context.Context, identity.OrgDetails) error { return s.err }

func (s *shelf) OrgDetails(_ context.Context, id string) (identity.OrgDetails, bool, error) {
	if s.err != nil {
		return identity.OrgDetails{}, false, s.err
	}
	d, ok := s.kept[id]
	return d, ok, nil
}

// While the store is away sign-ins go on, with the names that it had last; what was forgotten
// does not come back.
func TestNamesOfOrganizationsOutlastAStoreThatIsAway(t *testing.T) {
	acme := identity.Org{ID: "google:acme.example", Name: "acme.example", Domain: "acme.example", Source: "claim"}
	other := identity.Org{ID: "google:other.example", Name: "other.example", Domain: "other.example", Source: "claim"}
	named := identity.Org{ID: acme.ID, Name: "Acme Rockets", Domain: "acme.example", Source: identity.SourceDirectory}
	kept := &shelf{kept: map[string]identity.OrgDetails{acme.ID: {OrgID: acme.ID, CustomerID: "C01",
		Name: "Acme Rockets", Domain: "acme.example"}}}
	o := newOrgDetails(kept, slog.New(slog.DiscardHandler))
	check := func(when string, org, want identity.Org) {
		t.Helper()
		if got := o.of(t.Context(), org); got != want {
			t.Errorf("%s: %+v, want %+v", when, got, want)
		}
	}
	check("read", acme, named)
	check("never read", other, other)
	kept.err = errors.New("away")
	check("away", acme, named)
	check("away, and never read", other, other)
	check("away, and never asked for", identity.Org{ID: "google:third.example", Name: "x"},
		identity.Org{ID: "google:third.example", Name: "x"})
	kept.err, kept.kept = nil, nil
	check("forgotten", acme, acme)
	kept.err = errors.New("away")
	check("forgotten, and away", acme, acme)
	check("no organization", identity.Org{}, identity.Org{})
}

// To end the token of a directory at Google ends all of the same project.
func TestADirectoryAndCalendarsHaveProjectsOfTheirOwn(t *testing.T) {
	const file = `version: 1
public_url: https://app.example.com
listen: {grants: "127.0.0.1:4182"}
session: {keys: [file:/k]}
store: sqlite:/var/lib/sallyport/sallyport.db
providers:
  - {id: google, type: google, client_id: 123-a.apps.googleusercontent.com, client_secret: file:/s, directory: {managed_by: [ann@example.com]}}
routes: [{name: app, path: /, upstream: http://127.0.0.1:1, allow: authenticated}]
grants:
  encryption_keys: [file:/g]
  connectors:
    - {id: calendar, type: google_calendar, client_id: %s, client_secret: file:/c, access: [freebusy]}
  apps: [{id: board, token: file:/t, routes: [app], connectors: [{id: calendar}]}]
`
	for id, refused := range map[string]bool{"123-b.apps.googleusercontent.com": true,
		"123-a.apps.googleusercontent.com": true, "124-b.apps.googleusercontent.com": false, "env:CLIENT": false} {
		cfg, faults := ConnectorTypes().Parse("f", fmt.Appendf(nil, file, id))
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		_, faults = NewPolicy(cfg)
		if got := strings.Contains(fmt.Sprint(faults), "use another project"); got != refused {
			t.Errorf("%s: %v", id, faults)
		}
	}
	cfg, faults := config.Parse("f", []byte(strings.Split(file, "grants:\n  enc")[0][:0]+
		strings.Replace(strings.Split(file, "grants:\n  enc")[0], `listen: {grants: "127.0.0.1:4182"}`+"\n", "", 1)))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	p := DirectoryPermission(cfg, cfg.Providers[0])
	if p.Redirect != "https://app.example.com/.sallyport/directory/google/callback" || len(p.Scopes) != 3 || p.Offline {
		t.Errorf("%+v", p)
	}
}
