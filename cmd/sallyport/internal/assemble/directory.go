package assemble

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/connector/google"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/recent"
	"github.com/sallyport-proxy/sallyport/login"
	"github.com/sallyport-proxy/sallyport/proxy"
	"github.com/sallyport-proxy/sallyport/proxy/pages"
	"github.com/sallyport-proxy/sallyport/store"
)

var (
	_ proxy.DirectoryReader = (*login.Provider)(nil)
	_ proxy.OrgKeeper       = (*store.Store)(nil)
)

const (
	// detailsTime is how long a sign-in waits for what is kept of the organization.
	detailsTime = 2 * time.Second
	// detailsKnown is of how many organizations it is remembered.
	detailsKnown = 10_000
)

// orgDetails adds to organizations what their directories said. While the store is away, what
// it had last goes on; of others a sign-in tells the name by itself, which is the domain.
type orgDetails struct {
	kept  proxy.OrgKeeper
	log   *slog.Logger
	known *recent.Cache[string, identity.OrgDetails]
}

func newOrgDetails(kept proxy.OrgKeeper, log *slog.Logger) *orgDetails {
	return &orgDetails{kept, log, recent.New[string, identity.OrgDetails](2 * detailsKnown)}
}

// of is org with the details that are kept of it.
func (o *orgDetails) of(ctx context.Context, org identity.Org) identity.Org {
	ctx, cancel := context.WithTimeout(ctx, detailsTime)
	defer cancel()
	d, _, err := o.kept.OrgDetails(ctx, org.ID) // none are of no organization
	if err != nil {
		o.log.Warn("the name of an organization could not be read", "org", org.ID, "error", err)
		d, _ = o.known.Get(org.ID)
		return d.Of(org)
	}
	o.known.Put(org.ID, d, 1)
	return d.Of(org)
}

// NewDirectory is the directory of a provider that has one.
func NewDirectory(p config.Provider, l proxy.DirectoryReader) *proxy.Directory {
	return &proxy.Directory{DirectoryReader: l, ManagedBy: rules(p.Directory.Rules())}
}

// orgKeeper is where details are kept, where there is a store.
func (p *Process) orgKeeper() proxy.OrgKeeper {
	if p.store == nil {
		return nil
	}
	return p.store
}

// DirectoryPermission is the summary of what an administrator is asked for.
func DirectoryPermission(cfg *config.Config, p config.Provider) pages.Permission {
	sum := pages.Permission{Action: pages.Reads, Provider: p.ID, Type: p.Type, Redirect: DirectoryURI(cfg, p.ID),
		Note: "Once, by people whom managed_by names. The token is ended at Google as soon as that is read.",
		Kept: []pages.Term{{Name: "id", Means: "the customer id (Directory API)"},
			{Name: "customerDomain", Means: "the primary domain (Directory API)"},
			{Name: "postalAddress.organizationName", Means: "the organization's name (Directory API)"}},
		Checked: []pages.Term{{Name: "sub", Means: "that it is the same account as here (ID token)"},
			{Name: "hd", Means: "that it is the same Workspace as here (ID token)"}},
		Discarded: []string{"the access token, after it was ended at Google", "the ID token",
			"all that is not listed"}}
	for _, s := range login.DirectoryScopes() {
		sum.Scopes = append(sum.Scopes, pages.Term{Name: s.Name, Means: s.Opens})
	}
	return sum
}

// directoryFaults finds connectors that would lose what people lent them: to end the token of
// a directory ends, at Google, all that its person granted to the same project
// (docs/connectors/google_calendar.md).
func directoryFaults(cfg *config.Config) (faults config.Faults) {
	for i, p := range cfg.Providers {
		if p.Directory.IsZero() {
			continue
		}
		for _, k := range cfg.Grants.Connectors {
			if k.Type == google.Type && google.SameProject(p.ClientID, k.ClientID) {
				faults = append(faults, cfg.Fault(fmt.Sprintf("providers[%d].directory", i), "its client_id is of the "+
					"same project at Google as that of the connector %s: when its token is ended, Google ends the "+
					"calendars that the same person has lent too; use another project for one of them", k.ID))
			}
		}
	}
	return faults
}
