package command

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/assemble"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/yamltable"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/login"
	"github.com/sallyport-proxy/sallyport/proxy"
	"github.com/sallyport-proxy/sallyport/session"
)

// question is what the command line of explain asks: about which request, by whom.
type question struct {
	config                       string
	provider, user, name         string
	claims, email, username, org string
	groups, headers              []string
	unverified, bearer           bool
	groupsUnknown                bool
	authAge, acr                 string
	age                          *time.Duration // authAge; nil: the provider does not say
	expect                       string
	format                       string
	json                         bool // --json, the older name of --format json
	method, address, from        string
}

func explainCommand(c *console) *cobra.Command {
	q := &question{}
	cmd := &cobra.Command{
		Use:   "explain [METHOD] URL",
		Short: "Say who may have what, why, and what the app would be told",
		Long: "Say what would be decided about a request, by which rule, and which headers the app\n" +
			"would see. The request goes through the same front door as with serve, to a pretend\n" +
			"app. No secret is read and no connection is opened. Without --user nobody is signed\n" +
			"in. Exit code 0 means that the request reaches the app, or that --expect is right.",
		Example: "  sallyport explain -c config.yaml --user ann@acme.example --groups staff GET " +
			"https://app.example.com/admin\n" +
			"  sallyport explain -c config.yaml --expect deny /admin",
		RunE: func(cmd *cobra.Command, args []string) error {
			if q.json && !cmd.Flags().Changed("format") {
				q.format = "json"
			}
			if err := q.take(args); err != nil {
				return err
			}
			return explain(c, q)
		},
	}
	configFlag(cmd, &q.config)
	f := cmd.Flags()
	f.StringVar(&q.user, "user", "", "who asks: an e-mail address, verified, or the person's id at the provider")
	f.StringVar(&q.claims, "claims", "", "instead of --user and its kin: a file with the claims of an ID token, JSON")
	f.StringVar(&q.provider, "provider", "", "the provider they signed in with; the first one if left out")
	f.StringVar(&q.email, "email", "", "their e-mail address, where --user is an id")
	f.BoolVar(&q.unverified, "unverified", false, "the provider does not vouch for the address")
	f.StringVar(&q.name, "name", "", "their name")
	f.StringVar(&q.username, "username", "", "their user name")
	f.StringVar(&q.org, "org", "", "the id of the organization they are active in, as a provider or the configuration "+
		"has it")
	f.StringSliceVar(&q.groups, "groups", nil, "the groups they are in, a,b,c")
	f.BoolVar(&q.groupsUnknown, "groups-unknown", false, "the provider does not tell the groups")
	f.StringVar(&q.authAge, "auth-age", "", "how long ago they proved to the provider who they are, such as "+
		"5m, for routes with max_age; the provider does not say if left out")
	f.StringVar(&q.acr, "acr", "", "by which means they did so, for routes with acr")
	f.BoolVar(&q.bearer, "bearer", false, "they come with an access token, not a session")
	f.StringArrayVarP(&q.headers, "header", "H", nil, `a header of the request, "Name: value"; may be repeated`)
	f.StringVar(&q.from, "from", "", "the client's address, for rules about addresses; not known if left out")
	f.StringVar(&q.expect, "expect", "", "allow or deny: what a test expects")
	f.StringVar(&q.format, "format", "text", "text or json")
	f.BoolVar(&q.json, "json", false, "the same as --format json")
	return cmd
}

func (q *question) take(args []string) error {
	switch len(args) {
	case 1:
		q.method, q.address = http.MethodGet, args[0]
	case 2:
		q.method, q.address = args[0], args[1]
		if upper := strings.ToUpper(q.method); upper != q.method { // another method, to apps and to rules
			return usage("a method is written in capital letters: %s, not %q", upper, q.method)
		}
	default:
		return usage("explain needs a URL, and a method before it if that is not GET; got %q", args)
	}
	switch {
	case !slices.Contains([]string{"", "allow", "deny"}, q.expect):
		return usage("--expect is allow or deny, not %q", q.expect)
	case q.format != "text" && q.format != "json":
		return usage("--format is text or json, not %q", q.format)
	case q.json && q.format != "json":
		return usage("--json is --format json, and --format is %q", q.format)
	}
	about := q.org != "" || len(q.groups) > 0 || q.groupsUnknown || q.unverified || q.email != "" ||
		q.name != "" || q.username != "" || q.bearer || q.authAge != "" || q.acr != ""
	if q.claims != "" && (q.user != "" || about) {
		return usage("--claims says all about who asks; leave out --user and its kin")
	}
	if q.authAge != "" {
		age, err := time.ParseDuration(q.authAge)
		if err != nil || age < 0 {
			return usage("--auth-age is a duration such as 5m, not %q", q.authAge)
		}
		q.age = &age
	}
	if q.user == "" && about {
		return usage("who is it? --user is missing; leave the other flags out to ask for nobody")
	}
	return nil
}

// explanation is the answer of explain. Programs read its JSON form, so that must not change.
type explanation struct {
	Request  string          `json:"request"`
	Route    string          `json:"route,omitempty"`
	Decision string          `json:"decision"` // forward, login, deny or preflight
	Reason   string          `json:"reason"`
	Rule     int             `json:"rule,omitempty"`
	Detail   string          `json:"detail,omitempty"`
	Status   int             `json:"status"`
	App      *appView        `json:"app,omitempty"`
	Claims   json.RawMessage `json:"assertion,omitempty"`
	// LeftOut are headers of the route that the app does not see, because what they would
	// say is not known of the person.
	LeftOut []string `json:"left_out,omitempty"`

	// Directory is what becomes of the name and domain of their organization, where their
	// provider's directory can be read.
	Directory string `json:"directory,omitempty"`
}

// appView is the request that the app would receive.
type appView struct {
	Line    string              `json:"line"`
	Host    string              `json:"host"`
	Headers map[string][]string `json:"headers"`
}

func explain(c *console, q *question) error {
	cfg, err := c.withoutSecrets(q.config)
	if err != nil {
		return err
	}
	e, err := ask(cfg, q)
	if err != nil {
		return err
	}
	if q.format == "json" {
		err = printJSON(c.stdout, e)
	} else {
		e.print(c.stdout)
	}
	if err != nil {
		return err
	}
	allowed := e.Decision == "forward"
	switch {
	case q.expect == "" && !allowed:
		return silentError{errors.New("not allowed")}
	case q.expect != "" && allowed != (q.expect == "allow"):
		return fmt.Errorf("expected %s", q.expect)
	}
	return nil
}

// ask sends the request through the same front door as serve's, with fake keys, providers
// and apps.
func ask(cfg *config.Config, q *question) (*explanation, error) {
	key := session.NewKey(time.Now().Add(-time.Hour))
	ring, err := session.NewKeyring([]session.Key{key})
	if err != nil {
		return nil, err
	}
	app, seen, caller := &fakeApp{}, &lastEvent{}, &fakeVerifier{}
	process := assemble.NewProcess(prometheus.NewRegistry(), slog.New(slog.DiscardHandler), seen)
	runtime, err := process.BuildOf(cfg, assemble.Parts{Keys: ring, Providers: fakeProviders(cfg),
		Tokens: caller.forRoutes(cfg), App: app})
	if err != nil {
		return nil, asUsage(err)
	}
	process.Swap(runtime)
	r, err := q.request(cfg)
	if err != nil {
		return nil, err
	}
	var directory string
	if q.user != "" || q.claims != "" {
		who, err := q.identity(cfg)
		if err != nil {
			return nil, err
		}
		if who, err = fold(cfg, who); err != nil {
			return nil, err
		}
		if directory, err = aboutDirectory(cfg, who); err != nil {
			return nil, err
		}
		if q.bearer {
			caller.who = &who
			r.Header.Set("Authorization", "Bearer explain")
		} else if err := addCookie(r, cfg, runtime.Sessions(), who); err != nil {
			return nil, err
		}
	}
	w := &discardResponse{header: http.Header{}}
	process.ServeHTTP(w, r)
	e := &explanation{Request: q.method + " " + r.URL.String(), Status: w.status, Route: seen.Route,
		Decision: seen.Decision,
		Reason:   seen.Reason, Rule: seen.Rule, App: app.view}
	e.Detail, e.Directory = seen.Note, directory
	if seen.Err != nil {
		e.Detail = seen.Err.Error()
	}
	if e.Decision == "" { // one of our own endpoints, or a request that was refused as malformed
		e.Decision, e.Reason = "deny", "not for an app"
		if errors.Is(seen.Err, proxy.ErrNotMounted) && !cfg.Store.IsZero() {
			e.Status = 0
			e.Detail = "an address of Sallyport's own that needs the store, which explain does not open, or what is " +
				"not configured: ask `serve`"
		}
	}
	if e.App != nil {
		e.Claims = assertionClaims(e.App.Headers[identity.AssertionHeader])
	}
	if e.Claims != nil {
		e.LeftOut = leftOut(cfg, e)
	}
	return e, nil
}

// leftOut names the headers of the route that are without a value, each with its claim.
func leftOut(cfg *config.Config, e *explanation) (names []string) {
	i := slices.IndexFunc(cfg.Routes, func(r config.Route) bool { return r.Name == e.Route })
	if i < 0 {
		return nil
	}
	own := cfg.Routes[i].Headers
	preset, _ := identity.Preset(own.Preset)
	preset = slices.DeleteFunc(slices.Clone(preset), func(f identity.Field) bool {
		same := func(o identity.Field) bool { return strings.EqualFold(o.Header, f.Header) }
		return slices.ContainsFunc(own.Set, same)
	})
	for _, f := range slices.Concat(own.Set, preset) {
		if e.App.Headers[http.CanonicalHeaderKey(f.Header)] == nil && e.App.Headers[f.Header] == nil {
			names = append(names, fmt.Sprintf("%s (%s)", f.Header, f.Claim))
		}
	}
	return names
}

// aboutDirectory says whether somebody may have the directory of their organization be read; ""
// where there is none. What was read is in the store, which is not opened.
func aboutDirectory(cfg *config.Config, who identity.Identity) (string, error) {
	i := slices.IndexFunc(cfg.Providers, func(p config.Provider) bool { return p.ID == who.Provider })
	if i < 0 || cfg.Providers[i].Directory.IsZero() {
		return "", nil
	}
	l, err := fakeProvider(cfg, cfg.Providers[i])
	if err != nil {
		return "", err
	}
	const after = "; once it is, the app is told the name and domain that are there (sallyport orgs list)"
	switch domain, may := assemble.NewDirectory(cfg.Providers[i], l).Of(who); {
	case domain == "":
		return "", nil
	case may:
		return domain + ": they may have its details read, on their account page" + after, nil
	default:
		return domain + ": its details are read for people in managed_by, of whom they are none" + after, nil
	}
}

func (q *question) request(cfg *config.Config) (*http.Request, error) {
	address := q.address
	if strings.HasPrefix(address, "/") {
		address = cfg.PublicURL.String() + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return nil, usage("%q is not a URL such as %s/admin", q.address, cfg.PublicURL)
	}
	r := &http.Request{Method: q.method, URL: u, Host: u.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Body: http.NoBody,
		// Without a port it is an address that rules do not take for the client's.
		RequestURI: target(address), RemoteAddr: "192.0.2.1:0"}
	if err := q.comeFrom(r, cfg); err != nil {
		return nil, err
	}
	for _, line := range q.headers {
		name, value, ok := strings.Cut(line, ":")
		if !ok || strings.TrimSpace(name) == "" {
			return nil, usage("--header %q is not \"Name: value\"", line)
		}
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if strings.EqualFold(name, "Host") { // as net/http does, which removes it from the header
			r.Host = value
			continue
		}
		r.Header.Add(name, value)
	}
	return r.WithContext(context.Background()), nil
}

// comeFrom gives r the address that --from names. One of a trusted proxy counts only as
// the address that such a proxy names.
func (q *question) comeFrom(r *http.Request, cfg *config.Config) error {
	if q.from == "" {
		return nil
	}
	addr, err := netip.ParseAddr(q.from)
	if err != nil {
		return usage("--from %q is not an address such as 10.1.2.3", q.from)
	}
	r.RemoteAddr = netip.AddrPortFrom(addr, 40000).String()
	if slices.ContainsFunc(cfg.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(addr.Unmap()) }) {
		r.Header.Set("X-Forwarded-For", addr.String())
	}
	return nil
}

// target returns the request target that a browser would send for address, unchanged.
func target(address string) string {
	_, rest, _ := strings.Cut(address, "://")
	rest, _, _ = strings.Cut(rest, "#")
	i := strings.IndexAny(rest, "/?")
	switch {
	case i < 0:
		return "/"
	case rest[i] == '?':
		return "/" + rest[i:]
	}
	return rest[i:]
}

func (q *question) identity(cfg *config.Config) (identity.Identity, error) {
	i := slices.IndexFunc(cfg.Providers, func(p config.Provider) bool {
		return p.ID == q.provider || q.provider == "" && p.Use != login.UseTokens
	})
	if i < 0 {
		return identity.Identity{}, usage("no provider is called %q%s", q.provider,
			yamltable.ThereIs(cfg.ProviderIDs()))
	}
	if q.claims != "" {
		return q.identityFromClaims(cfg, cfg.Providers[i])
	}
	id := identity.Identity{Provider: cfg.Providers[i].ID, Subject: q.user, Email: q.email,
		EmailVerified: !q.unverified,
		Name:          q.name, Username: q.username, Groups: q.groups, GroupsUnknown: q.groupsUnknown}
	if id.Email == "" && strings.Contains(q.user, "@") {
		id.Email, id.Subject = q.user, unknownSubject
	}
	if id.Email == "" {
		id.EmailVerified = false
	}
	id.ACR = q.acr
	if q.age != nil {
		id.AuthTime = time.Now().Add(-*q.age)
	}
	if q.org != "" {
		id.Org = identity.Org{ID: q.org, Source: "claim"}
	}
	return id, nil
}

// identityFromClaims reads claims in the same way as those of a sign-in.
func (q *question) identityFromClaims(cfg *config.Config, p config.Provider) (identity.Identity, error) {
	data, err := os.ReadFile(q.claims)
	if err != nil {
		return identity.Identity{}, usage("cannot read the claims: %w", err)
	}
	l, err := fakeProvider(cfg, p)
	if err != nil {
		return identity.Identity{}, err
	}
	id, err := l.IdentityFromClaims(context.Background(), data)
	if err != nil {
		return identity.Identity{}, fmt.Errorf("nobody could sign in with these claims: %w", err)
	}
	return id, nil
}

// unknownSubject stands for the id at the provider, which is not known if --user is an
// e-mail address.
const unknownSubject = "(id-at-the-provider)"

// addCookie adds the session that somebody has on the host of r. On an organization's
// own host that organization is the active one, if it is theirs.
func addCookie(r *http.Request, cfg *config.Config, sessions *session.Manager, who identity.Identity) error {
	w := &discardResponse{header: http.Header{}}
	host, err := authz.CanonicalHost(r.Host)
	if err != nil {
		return nil // the front door refuses this host in any case
	}
	s := sessions.Start(who)
	if pol, _ := assemble.NewPolicy(cfg); host != cfg.PublicHost() {
		if theirs, ok := who.WithOrg(pol.Table.OrgOf(host)); ok {
			s.Identity = theirs
		}
		s = sessions.HandedOver(s, host)
	}
	if err := sessions.Write(w, host, s); err != nil {
		return fmt.Errorf("nobody can be so: %w", err)
	}
	pair, _, _ := strings.Cut(w.header.Get("Set-Cookie"), ";")
	r.Header.Add("Cookie", pair)
	return nil
}

// discardResponse keeps the header and the status of an answer, and discards its body.
type discardResponse struct {
	header http.Header
	status int
}

func (u *discardResponse) Header() http.Header { return u.header }

func (u *discardResponse) WriteHeader(status int) {
	if u.status == 0 {
		u.status = status
	}
}

func (u *discardResponse) Write(b []byte) (int, error) {
	u.WriteHeader(http.StatusOK)
	return len(b), nil
}

// fakeProviders returns providers with the names of the configured ones. Nobody can sign in
// with them.
func fakeProviders(cfg *config.Config) []proxy.Provider {
	var out []proxy.Provider
	for _, p := range cfg.Providers {
		if p.Use == login.UseTokens {
			continue
		}
		out = append(out, proxy.Provider{ID: p.ID, Name: p.ID, Login: fakeLogin{}})
	}
	return out
}

type fakeLogin struct{}

var errFakeLogin = &identity.SignInError{Failure: identity.Unavailable, Err: errors.New("explain signs nobody in")}

func (fakeLogin) AuthURL(context.Context, identity.Handshake, identity.AuthParams) (string, error) {
	return "", errFakeLogin
}

func (fakeLogin) Redeem(context.Context, url.Values, identity.Handshake, identity.AuthParams) (
	identity.Identity, error,
) {
	return identity.Identity{}, errFakeLogin
}

// fakeVerifier accepts every access token as one of who. It verifies nothing.
type fakeVerifier struct{ who *identity.Identity }

func (b *fakeVerifier) forRoutes(cfg *config.Config) []*admission.Tokens {
	tokens := make([]*admission.Tokens, len(cfg.Routes))
	for i, r := range cfg.Routes {
		if r.Bearer.Provider != "" {
			tokens[i] = &admission.Tokens{TokenVerifier: b, Provider: r.Bearer.Provider}
		}
	}
	return tokens
}

func (b *fakeVerifier) Verify(context.Context, string) (identity.Identity, time.Time, error) {
	if b.who == nil {
		return identity.Identity{}, time.Time{}, errors.New("explain verifies no access tokens; say with --user and " +
			"--bearer whose it is")
	}
	return *b.who, time.Now().Add(time.Hour), nil
}

// fakeApp keeps the request that it receives.
type fakeApp struct{ view *appView }

func (a *fakeApp) RoundTrip(r *http.Request) (*http.Response, error) {
	a.view = &appView{Line: r.Method + " " + r.URL.RequestURI() + " HTTP/1.1", Host: r.Host,
		Headers: map[string][]string{}}
	for name, values := range r.Header {
		if len(values) > 0 {
			a.view.Headers[name] = values
		}
	}
	return &http.Response{StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{},
		Body: http.NoBody, Request: r}, nil
}

// lastEvent keeps the event of a request.
type lastEvent struct{ observe.Event }

func (l *lastEvent) Observe(_ context.Context, e *observe.Event) { l.Event = *e }

// assertionClaims returns the claims of the assertion.
func assertionClaims(lines []string) json.RawMessage {
	if len(lines) != 1 {
		return nil
	}
	parts := strings.Split(lines[0], ".")
	if len(parts) != 3 {
		return nil
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil
	}
	return payload
}

func printJSON(w io.Writer, e *explanation) error {
	if e.App != nil {
		e.App.mask()
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(e)
}

// mask replaces values that are different for every request.
func (a *appView) mask() {
	for name, placeholder := range map[string]string{"X-Request-Id": "<one per request>",
		"X-Forwarded-For": "<address of the client>", identity.AssertionHeader: "<signed JWT>"} {
		if a.Headers[name] != nil {
			a.Headers[name] = []string{placeholder}
		}
	}
}

func (e *explanation) print(w io.Writer) {
	fmt.Fprintf(w, "%s\n\n", e.Request)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%-9s %s\n", name, value)
		}
	}
	line("route", e.Route)
	decision := e.Decision
	switch {
	case e.Reason == string(authz.ReasonStepUp):
		decision += ": they have to sign in again"
	case e.Decision == "login":
		decision = "login: nobody is signed in"
	}
	line("decision", decision)
	reason := e.Reason
	if e.Rule > 0 {
		reason = fmt.Sprintf("%s: rule %d of the route", e.Reason, e.Rule)
	}
	line("reason", reason)
	line("detail", e.Detail)
	line("directory", e.Directory)
	if e.App == nil {
		if e.Status != 0 {
			line("status", fmt.Sprint(e.Status))
		}
		return
	}
	e.App.mask()
	fmt.Fprintf(w, "\nThe app sees\n\n  %s\n  Host: %s\n", e.App.Line, e.App.Host)
	names := make([]string, 0, len(e.App.Headers))
	for name := range e.App.Headers {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, v := range e.App.Headers[name] {
			fmt.Fprintf(w, "  %s: %s\n", name, v)
		}
	}
	if len(e.LeftOut) > 0 {
		fmt.Fprintf(w, "\nLeft out, because there is nothing to say: %s\n", strings.Join(e.LeftOut, ", "))
	}
	if e.Claims != nil {
		fmt.Fprintf(w, "\nThe assertion says\n\n  %s\n", e.Claims)
	}
}

// fold maps the organizations of who to those of the configuration, as a sign-in does. An
// organization of the configuration can also be given by its id, as in rules.
func fold(cfg *config.Config, who identity.Identity) (identity.Identity, error) {
	orgs, faults := assemble.NewOrganizations(cfg)
	if len(faults) > 0 {
		return who, configFaults(faults)
	}
	if strings.Contains(who.Org.ID, ":") || who.Org.ID == "" {
		return orgs.Fold(who), nil
	}
	i := slices.IndexFunc(cfg.Organizations, func(o config.Organization) bool { return o.ID == who.Org.ID })
	if i < 0 {
		var ids []string
		for _, o := range cfg.Organizations {
			ids = append(ids, o.ID)
		}
		return who, usage("--org: no organization is called %q; an id at a provider is \"%s:…\"%s",
			who.Org.ID, who.Provider, yamltable.ThereIs(ids))
	}
	o := cfg.Organizations[i]
	who.Org = identity.Org{ID: o.ID, Name: o.Name, Domain: o.Domain, Source: identity.SourceConfig}
	return who, nil
}
