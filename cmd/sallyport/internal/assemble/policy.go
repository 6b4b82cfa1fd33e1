package assemble

import (
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/extauthz"
	"github.com/sallyport-proxy/sallyport/identity"
)

// Policy is the part of the configuration that decides: it is complete without
// any secret, so that `check` can judge it anywhere.
type Policy struct {
	Table   *authz.Table
	routes  []admission.Route // those of Table; the tokens they take are no part of the policy
	orgs    *identity.Organizations
	headers *identity.Headers
	compat  *identity.HeaderSet // for proxies that were set up for oauth2-proxy; nil: none may ask
}

// HeaderNames are the headers that say of a person to any app who it is.
func (pol *Policy) HeaderNames() []string { return pol.headers.Names() }

// NewPolicy judges what of the configuration decides. The faults have their places in the file.
func NewPolicy(cfg *config.Config) (*Policy, config.Faults) {
	pol := &Policy{headers: identity.NewHeaders()}
	orgs, faults := NewOrganizations(cfg)
	pol.orgs = orgs
	var routes []authz.Route
	for i, r := range cfg.Routes {
		fields, _ := identity.Preset(r.Headers.Preset)
		set, err := pol.headers.Set(overlay(fields, r.Headers.Set))
		if err != nil {
			faults = append(faults, cfg.Fault(fmt.Sprintf("routes[%d].headers", i), "%v", err))
		}
		if basic := &r.Headers.Basic; !basic.IsZero() {
			if set, err = set.WithBasic(basic.Credentials()); err != nil {
				faults = append(faults, cfg.Fault(fmt.Sprintf("routes[%d].headers.basic", i), "%v", err))
			}
		}
		to := admission.Route{Headers: set, AppHost: r.Upstream.Host, CORS: cors(r)}
		if r.Forwards() {
			to.App = r.Upstream.URL.String() + " " + r.Upstream.Host
		}
		pol.routes = append(pol.routes, to)
		routes = append(routes, authz.Route{
			Name: r.Name, Host: routeHost(r), Orgs: orgIDs(cfg), Path: r.Path, Exact: r.Exact,
			Encoded: r.Encoded, Doubled: r.Doubled, Access: access(r), Proof: r.Proof,
			WebSocket: authz.WebSocket(r.WebSocket)})
	}
	if cfg.Listen.ExternalAuth.Compat != "" {
		set, err := pol.headers.Set(extauthz.CompatFields(len(cfg.Providers)))
		if err != nil {
			faults = append(faults, cfg.Fault("listen.external_auth.compat", "%v", err))
		}
		pol.compat = &set
	}
	faults = append(faults, pol.keepHeaders(cfg)...)
	faults = append(faults, cfg.BearerFaults()...)
	faults = append(faults, directoryFaults(cfg)...)
	_, unable := unresolvedConnectors(cfg)
	faults = append(faults, unable...)
	table, err := authz.NewTable(routes)
	pol.Table = table
	for i, r := range table.Routes() {
		pol.routes[i].Route = r
	}
	return pol, append(faults, tableFaults(cfg, err)...)
}

// keepHeaders comes after all sets: what any route sets, none may keep.
func (pol *Policy) keepHeaders(cfg *config.Config) (faults config.Faults) {
	for i, r := range cfg.Routes {
		kept, err := pol.headers.Keep(r.Headers.Keep)
		if err == nil && kept.NeedFront() && len(cfg.TrustedProxies) == 0 {
			err = errors.New("keeps what a proxy before Sallyport sets, but trusted_proxies names none: " +
				"then any client could set it")
		}
		if err != nil {
			faults = append(faults, cfg.Fault(fmt.Sprintf("routes[%d].headers.keep", i), "%v", err))
		}
		pol.routes[i].Keep = kept
	}
	return faults
}

// UnknownHost stands in for public_url's host while that is only a reference.
const UnknownHost = "public-url.invalid"

func routeHost(r config.Route) string {
	if r.Host == "" {
		return UnknownHost
	}
	return r.Host
}

func access(r config.Route) authz.Access {
	a := authz.Access{Public: r.Public, PublicIf: authz.Conditions(r.PublicIf), Authenticated: r.Allow.Authenticated}
	a.Rules = rules(r.Allow.Any)
	return a
}

// cors is nil where the app says what pages of other sites may do.
func cors(r config.Route) *admission.CORS {
	if r.CORS.Origins == nil {
		return nil
	}
	c := admission.CORS(r.CORS)
	return &c
}

func rules(list []config.Rule) []authz.Rule {
	var out []authz.Rule
	for _, rule := range list {
		out = append(out, authz.Rule(rule))
	}
	return out
}

// overlay puts a route's own headers in the place of the preset's of that name.
func overlay(preset, own []identity.Field) []identity.Field {
	fields := slices.DeleteFunc(slices.Clone(preset), func(p identity.Field) bool {
		return slices.ContainsFunc(own, func(f identity.Field) bool {
			return http.CanonicalHeaderKey(f.Header) == p.Header
		})
	})
	return append(fields, own...)
}

// tableFaults gives each fault of the table its place in the file.
func tableFaults(cfg *config.Config, err error) config.Faults {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return nil
	}
	var faults config.Faults
	for _, err := range joined.Unwrap() {
		var route *authz.RouteError
		var conflict *authz.ConflictError
		switch {
		case errors.As(err, &route):
			faults = append(faults, cfg.Fault(RouteKey(cfg, route.Route, route.Field), "%s", route.Why))
		case errors.As(err, &conflict):
			faults = append(faults, cfg.Fault(RouteKey(cfg, conflict.Second, "path"), "%s", conflict.Why))
		default:
			faults = append(faults, cfg.Fault("routes", "%v", err))
		}
	}
	return faults
}

// RouteKey is the place in the file of a field of a route.
func RouteKey(cfg *config.Config, i int, field string) string {
	if field == "path" && cfg.Routes[i].Exact {
		field = "path_exact"
	}
	return fmt.Sprintf("routes[%d].%s", i, field)
}

// NewOrganizations gives each fault that identity finds its place in the file.
func NewOrganizations(cfg *config.Config) (*identity.Organizations, config.Faults) {
	var list []identity.Organization
	for _, o := range cfg.Organizations {
		list = append(list, identity.Organization{ID: o.ID, Name: o.Name, Domain: o.Domain,
			OrgIDs: o.Match.OrgIDs, EmailDomains: o.Match.EmailDomains})
	}
	orgs, err := identity.NewOrganizations(list)
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return orgs, nil
	}
	var faults config.Faults
	for _, err := range joined.Unwrap() {
		var fault *identity.OrganizationError
		if !errors.As(err, &fault) {
			faults = append(faults, cfg.Fault("organizations", "%v", err))
			continue
		}
		path := fmt.Sprintf("organizations[%d].%s", fault.Organization, fault.Field)
		if fault.Field != "id" {
			path = fmt.Sprintf("organizations[%d].match.%s[%d]", fault.Organization, fault.Field, fault.Index)
		}
		faults = append(faults, cfg.Fault(path, "%s", fault.Why))
	}
	return nil, faults
}

// orgIDs are what {org} in a host may stand for.
func orgIDs(cfg *config.Config) []string {
	var ids []string
	for _, o := range cfg.Organizations {
		ids = append(ids, o.ID)
	}
	return ids
}
