package apikey

import (
	"cmp"
	"errors"
	"slices"

	"github.com/sallyport-proxy/sallyport/connector"
	"github.com/sallyport-proxy/sallyport/grant"
)

// The accesses that a Known third party may have.
const (
	Read  = "read"
	Write = "write" // all of Read, too
)

// Known is a third party whose API is described here, so that a configuration names its type
// and little more. Known.New makes a connector of it.
type Known struct {
	// Options are those that do not depend on the configuration. BaseURL is "" where each
	// customer has their own.
	Options
	// Elsewhere: some customers have a host of their own, which a configuration may name
	// instead of BaseURL.
	Elsewhere bool
	// FurtherHeaders: a configuration may name headers that every request has.
	FurtherHeaders bool

	see, change string   // what Read and Write mean, to follow "may"; change is "" where there is no Write
	read, write []string // the rules of Read, and those that Write has beside them
}

// All are the third parties that are known. What an entry says has been read in the documents
// that are named beside it, and was not tried at the third party.
func All() []Known {
	return []Known{
		// api-docs.incident.io: Utilities V1, Schedules V2, Users V2. The probe says what the key
		// is, and every key may ask for it.
		{Options: Options{Type: "incidentio_key", Name: "incident.io", BaseURL: "https://api.incident.io",
			Probe:   "GET /v1/identity",
			KeyHint: "an API key of incident.io that may view schedules and little else",
			KeyURL:  "https://app.incident.io/settings/api-keys"},
			see: "see on-call schedules at incident.io, and who is on call",
			read: []string{"GET /v2/schedules", "GET /v2/schedules/*", "GET /v2/schedule_entries",
				"GET /v2/users", "GET /v2/users/*"},
			change: "see and change on-call schedules at incident.io, and put somebody else on call",
			write: []string{"POST /v2/schedules", "PUT /v2/schedules/*", "DELETE /v2/schedules/*",
				"POST /v2/schedule_overrides"}},
		// grafana.com/docs/grafana-cloud, OnCall API reference: the key without a word before it,
		// and with the token of a service account X-Grafana-URL. That token is of no user, so
		// users/current is no probe; a list of schedules is what every access here may read.
		{Options: Options{Type: "grafana_irm_key", Name: "Grafana IRM", Format: placeholder,
			Probe: "GET /api/v1/schedules/", PageLinks: []string{"next", "previous"},
			KeyHint: "the token of a service account that may read schedules and little else, or an OnCall API key " +
				"(Grafana: IRM, Settings, Admin & API)"},
			FurtherHeaders: true,
			see:            "see on-call schedules and shifts at Grafana IRM, and who is on call",
			read: []string{"GET /api/v1/schedules/", "GET /api/v1/schedules/*", "GET /api/v1/on_call_shifts/",
				"GET /api/v1/on_call_shifts/*", "GET /api/v1/users/", "GET /api/v1/users/*", "GET /api/v1/teams/",
				"GET /api/v1/teams/*"},
			change: "see and change on-call schedules and shifts at Grafana IRM",
			write: []string{"POST /api/v1/schedules/", "PUT /api/v1/schedules/*/", "DELETE /api/v1/schedules/*/",
				"POST /api/v1/on_call_shifts/", "PUT /api/v1/on_call_shifts/*/", "DELETE /api/v1/on_call_shifts/*/"}},
		// docs.rootly.com, API reference: Schedules, Shifts, ScheduleRotations, OverrideShifts,
		// OnCalls, Users. A global key is of no user, so users/me is no probe.
		{Options: Options{Type: "rootly_key", Name: "Rootly", BaseURL: "https://api.rootly.com",
			Probe: "GET /v1/schedules?page%5Bsize%5D=1",
			KeyHint: "an API key of Rootly with a role that may see schedules and little else (Rootly: Organization " +
				"Settings, API Keys)"},
			see: "see on-call schedules and shifts at Rootly, and who is on call",
			read: []string{"GET /v1/schedules", "GET /v1/schedules/*", "GET /v1/schedule_rotations/*",
				"GET /v1/override_shifts/*", "GET /v1/oncalls", "GET /v1/users", "GET /v1/users/*"},
			change: "see and change on-call schedules and shifts at Rootly",
			write: []string{"POST /v1/schedules", "PUT /v1/schedules/*", "DELETE /v1/schedules/*",
				"POST /v1/schedules/*/schedule_rotations", "PUT /v1/schedule_rotations/*",
				"DELETE /v1/schedule_rotations/*", "POST /v1/schedules/*/override_shifts", "PUT /v1/override_shifts/*",
				"DELETE /v1/override_shifts/*"}},
		// developer.atlassian.com/cloud/jira/platform: Basic auth for REST APIs, REST API v3. A
		// search may be a POST, which changes nothing.
		{Options: Options{Type: "jira", Name: "Jira", Basic: true, Probe: "GET /rest/api/3/myself",
			PageLinks: []string{"nextPage"},
			KeyHint:   "your e-mail address at Atlassian, a colon and an API token, as in ann@example.com:token",
			KeyURL:    "https://id.atlassian.com/manage-profile/security/api-tokens"},
			see: "read issues and projects at Jira, all that you can open there",
			read: []string{"GET /rest/api/3/myself", "GET /rest/api/3/search/jql", "POST /rest/api/3/search/jql",
				"GET /rest/api/3/issue/*", "GET /rest/api/3/project/*"}},
		// docs.github.com/rest: Authenticating to the REST API, Users, Repositories, Organizations,
		// Search. Programs choose the version of the API by a header. Of a repository, a user and an
		// organization the address of the next page has the number and not the name, and so has the
		// one of a repository that was renamed.
		{Options: Options{Type: "github", Name: "GitHub", BaseURL: "https://api.github.com", Probe: "GET /user",
			Forward: []string{"X-GitHub-Api-Version"},
			KeyHint: "a fine-grained personal access token, read-only and for the repositories that are needed",
			KeyURL:  "https://github.com/settings/personal-access-tokens"},
			Elsewhere: true,
			see:       "read repositories and organizations at GitHub, as far as the token goes",
			read: []string{"GET /user", "GET /user/repos", "GET /user/orgs", "GET /repos/*", "GET /orgs/*",
				"GET /users/*", "GET /search/*", "GET /repositories/*", "GET /organizations/*",
				"GET /user/{id}/repos"}},
	}
}

// New makes a connector of what is known and of what a configuration says of it: ID, Name,
// BaseURL, Headers and Owner. The rest of o that is known is not asked.
func (k Known) New(o Options) (*Connector, error) {
	if o.Name = cmp.Or(o.Name, k.Name); o.BaseURL != "" && k.BaseURL != "" {
		k.KeyURL = "" // which is of another host
	}
	if o.Shipped = ""; o.BaseURL == "" {
		o.Shipped = k.Type
	}
	if o.BaseURL = cmp.Or(o.BaseURL, k.BaseURL); o.BaseURL == "" {
		return nil, connector.FaultAt("base_url", errors.New("is required: each customer has their own"))
	}
	read, err := connector.Rules(k.read)
	if err != nil {
		return nil, err
	}
	o.Accesses = []grant.Access{{Name: Read, Means: k.see, Rules: read}}
	if k.change != "" {
		write, err := connector.Rules(k.write)
		if err != nil {
			return nil, err
		}
		o.Accesses = append(o.Accesses, grant.Access{Name: Write, Means: k.change, Rules: slices.Concat(read, write)})
	}
	o.Type, o.Header, o.Format, o.Basic, o.Probe = k.Type, k.Header, k.Format, k.Basic, k.Probe
	o.Forward, o.PageLinks, o.KeyHint, o.KeyURL = k.Forward, k.PageLinks, k.KeyHint, k.KeyURL
	return New(o)
}
