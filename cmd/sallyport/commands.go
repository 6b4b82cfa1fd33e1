package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/assemble"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/login"
	"github.com/sallyport-proxy/sallyport/session"
)

const defaultConfig = "/etc/sallyport/config.yaml"

func serveCommand(c *console) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "serve [FILE]",
		Short: "Run the proxy",
		Long:  "Run the proxy. SIGTERM and Ctrl-C stop it in order; a second one stops it at once.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneFile(cmd, args, &path); err != nil {
				return err
			}
			cfg, _, err := loadConfig(path)
			if err != nil {
				return err
			}
			log := openLog(c.stdout, c.stderr, logLevel(cfg.Log.Level), cfg.Log.Format)
			defer log.close()
			for _, w := range warnings(cfg) {
				log.Warn("configuration", "warning", w.Error())
			}
			return serve(cmd.Context(), cfg, c.env, log)
		},
	}
	configFlag(cmd, &path)
	return cmd
}

func configFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVarP(path, "config", "c", defaultConfig, "the configuration file")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml") // only for completion
}

// oneFile takes the configuration file as an argument too.
func oneFile(cmd *cobra.Command, args []string, path *string) error {
	switch {
	case len(args) == 0:
		return nil
	case len(args) > 1:
		return usage("%s takes one file, but got %q", cmd.Name(), args)
	case cmd.Flags().Changed("config") && *path != args[0]:
		return usage("two files: %s and %s; name one", *path, args[0])
	}
	*path = args[0]
	return nil
}

// serve runs a configuration until ctx is done.
func serve(ctx context.Context, cfg *config.Config, env func(string) (string, bool), log *logging) error {
	sec, err := assemble.Resolve(cfg, env)
	if err != nil {
		return asUsage(err)
	}
	cert, err := newCertificate(cfg, log.Logger)
	if err != nil {
		return err
	}
	reg := newRegistry()
	log.measure(reg)
	process := assemble.NewProcess(reg, log.Logger, observe.Log{Logger: log.Logger})
	runtime, err := process.Build(cfg, sec)
	if err != nil {
		return asUsage(err)
	}
	process.Swap(runtime)
	ready := &atomic.Bool{}
	s := &server{
		public: newPublicServer(process, publicLimits{header: int(cfg.Limits.Header), keepAlive: cfg.Listen.KeepAlive, h2c: cfg.Listen.H2C}, log.Logger),
		admin: newAdminServer(newAdmin(adminOptions{metrics: reg, ready: ready, level: log.level, log: log.Logger, probes: probes(cfg),
			name: hostOf(cfg.Listen.Admin.Address)}), log.Logger),
		front:      process,
		drainDelay: cfg.Stop.DrainDelay, stopTimeout: cfg.Stop.Timeout, log: log.Logger, ready: ready,
	}
	key, address := "listen.http", cfg.Listen.HTTP
	if cert != nil {
		key, address = "listen.https.address", cfg.Listen.HTTPS.Address
		s.public.TLSConfig = cert.config()
		cert.measure(reg)
	}
	public, err := listen(ctx, key, address)
	if err != nil {
		return err
	}
	var admin net.Listener
	if cfg.Listen.Admin.Address != "" {
		if admin, err = listen(ctx, "listen.admin", cfg.Listen.Admin.Address); err != nil {
			_ = public.Close()
			return err
		}
	}
	if cert != nil {
		go cert.watch(ctx, certificatePoll)
	}
	logStart(log.Logger, cfg, public, admin)
	return s.run(ctx, public, admin)
}

func probes(cfg *config.Config) []probe {
	var out []probe
	for _, p := range cfg.Listen.Admin.Probes {
		out = append(out, probe(p))
	}
	return out
}

func logStart(log *slog.Logger, cfg *config.Config, public, admin net.Listener) {
	attrs := []any{"version", version(), "public_url", cfg.PublicURL.String(), "listen", public.Addr().String()}
	if admin != nil {
		attrs = append(attrs, "admin", admin.Addr().String())
	}
	log.Info("serving", attrs...)
}

func checkCommand(c *console) *cobra.Command {
	var path string
	var values bool
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Judge a configuration and say what its rules mean",
		Long: "Judge a configuration and print each rule as a sentence. Looks at nothing but the\n" +
			"file; with --values also reads the variables and files that it refers to.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneFile(cmd, args, &path); err != nil {
				return err
			}
			return check(c, path, values)
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().BoolVar(&values, "values", false, "also read what env:, file: and dir: refer to")
	return cmd
}

func check(c *console, path string, values bool) error {
	cfg, pol, err := loadConfig(path)
	if err != nil {
		return err
	}
	if values {
		if _, err := assemble.Resolve(cfg, c.env); err != nil {
			return asUsage(err)
		}
		if _, err := newCertificate(cfg, slog.New(slog.DiscardHandler)); err != nil {
			return err
		}
		var faults config.Faults
		if pol, faults = assemble.NewPolicy(cfg); len(faults) > 0 {
			return configFaults(faults)
		}
	}
	for _, w := range append(warnings(cfg), reachWarnings(cfg, pol)...) {
		fmt.Fprintf(c.stderr, "warning: %s\n", w.Error())
	}
	printRules(c.stdout, cfg, pol)
	if kept := cfg.KeptGroups(); kept != nil {
		fmt.Fprintln(c.stdout, keepsGroups(kept))
	}
	fmt.Fprintln(c.stdout)
	for _, p := range cfg.Providers {
		fmt.Fprintf(c.stdout, "The redirect URI to register at %s: %s\n", p.ID, assemble.RedirectURI(cfg, p.ID))
		if p.SignOut.ReturnParam != "" {
			fmt.Fprintf(c.stdout, "The page to return to after signing out at %s, to register there too: %s\n", p.ID, assemble.LogoutURI(cfg))
		}
	}
	fmt.Fprintf(c.stdout, "\n%s is valid.\n", path)
	return nil
}

// warnings are what is allowed but should be looked at twice.
func warnings(cfg *config.Config) []config.Fault {
	return append(cfg.Warnings(), deadRules(cfg)...)
}

// reachWarnings tell where a method that takes a folder with all that is in it
// reaches what another rule protects. We see one path and cannot know whether the
// app has folders, so that is said by check, and not at each start.
func reachWarnings(cfg *config.Config, pol *assemble.Policy) (all []config.Fault) {
	routes := pol.Table.Routes()
	for i, r := range routes {
		var below []string
		for j, other := range routes {
			if u, v := cfg.Routes[i].Upstream, cfg.Routes[j].Upstream; u.URL.String() == v.URL.String() && u.Host == v.Host && r.Below(other) {
				below = append(below, other.Name)
			}
		}
		if len(below) > 0 {
			all = append(all, cfg.Fault(assemble.RouteKey(cfg, i, "path"),
				"if the app is a WebDAV server: DELETE and PROPFIND of a folder here reach what is below it, also what only %s should open (COPY and MOVE of it are refused)",
				strings.Join(below, ", ")))
		}
	}
	return all
}

// printRules says each route in sentences.
func printRules(w io.Writer, cfg *config.Config, pol *assemble.Policy) {
	for i, r := range pol.Table.Routes() {
		where := r.Host + r.Path
		if r.Host == assemble.UnknownHost {
			where = "<host of public_url>" + r.Path
		}
		if r.Exact {
			where += " (only this path)"
		} else if r.Path != "/" {
			where += " and all below"
		}
		fmt.Fprintf(w, "%s: %s goes to %s and is open to", r.Name, where, destination(cfg.Routes[i].Upstream))
		alternatives := strings.Split(r.Access.String(), "; or ")
		more := carries(cfg.Routes[i])
		if len(alternatives) == 1 {
			fmt.Fprintf(w, " %s.%s\n", alternatives[0], strings.Join(append([]string{""}, more...), " "))
			continue
		}
		fmt.Fprintf(w, "\n  - %s.\n", strings.Join(alternatives, ", or\n  - "))
		if len(more) > 0 {
			fmt.Fprintf(w, "  %s\n", strings.Join(more, " "))
		}
	}
}

// destination is the app, and by what it proves that it is the one.
func destination(u config.Upstream) string {
	switch u.URL.Scheme {
	case "unix":
		return "the socket " + u.URL.Path
	case "h2c":
		return u.URL.Host + " by HTTP/2 without TLS"
	case "http":
		return u.URL.Host
	}
	name, by := u.URL.Hostname(), "the system's authorities"
	if u.ServerName != "" {
		name = u.ServerName
	}
	if !u.CA.IsZero() {
		by = u.CA.String()
	}
	return fmt.Sprintf("%s over TLS (verified as %s against %s)", u.URL.Host, name, by)
}

// carries are sentences about what a route lets through, and how, where that
// is not the default.
func carries(r config.Route) []string {
	var more []string
	if r.Upstream.Host != "" {
		more = append(more, fmt.Sprintf("The app is asked for %s.", r.Upstream.Host))
	}
	switch ws := r.WebSocket; {
	case len(ws.Origins) > 0:
		more = append(more, fmt.Sprintf("WebSockets pass from pages of its own site and of %s.", strings.Join(ws.Origins, ", ")))
	case ws.Allowed:
		more = append(more, "WebSockets pass from pages of its own site.")
	}
	if r.Encoded {
		more = append(more, "Escaped / % # ? ; and letters that are not UTF-8 pass in the path.")
	}
	if r.Doubled {
		more = append(more, "Doubled slashes pass in the path.")
	}
	if len(r.Headers.Keep) > 0 {
		more = append(more, fmt.Sprintf("It keeps %s of the request.", strings.Join(r.Headers.Keep, ", ")))
	}
	if b := r.Bearer; b.Provider != "" {
		more = append(more, fmt.Sprintf("Programs may come with an access token of %s for %s instead of a session.", b.Provider, strings.Join(b.Audiences, " or ")))
		for _, q := range login.BearerQuirks() {
			if slices.Contains(b.Quirks, q.Name) {
				more = append(more, q.Weakens)
			}
		}
	}
	if len(r.SiteHeaders) > 0 {
		more = append(more, fmt.Sprintf("Its app's %s passes, and speaks for the whole site.", strings.Join(r.SiteHeaders, " and ")))
	}
	if r.MaxBody > 0 {
		more = append(more, fmt.Sprintf("Requests may have a body of up to %s.", config.Size(r.MaxBody)))
	}
	return more
}

func genkeyCommand(c *console) *cobra.Command {
	return &cobra.Command{
		Use:   "genkey",
		Short: "Print a new session key",
		Long: "Print a new session key, to be kept in a file that session.keys names.\n\n" +
			"To rotate, add the new key and keep the old one until the longest session is over:\n" +
			"all keys open sessions, and a new one seals them once it is ten minutes old.",
		Example: "  sallyport genkey > session-key && chmod 600 session-key",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(c.stdout, session.NewKey(time.Now()).Text())
			return err
		},
	}
}

func schemaCommand(c *console) *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the configuration",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := c.stdout.Write(config.Schema())
			return err
		},
	}
}

func healthcheckCommand(c *console) *cobra.Command {
	var address, path string
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask a running Sallyport whether it is ready (for containers without a shell)",
		Long: "Ask a running Sallyport whether it is ready, at the address that its configuration names\n" +
			"(listen.admin). Where that is switched off, a public listener that answers is healthy.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			asked := healthQuestion{url: address}
			if address == "" {
				var err error
				if asked, err = configuredHealth(path, cmd.Flags().Changed("config")); err != nil {
					return err
				}
			}
			return asked.ask(cmd.Context(), c)
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().StringVar(&address, "url", "", "ask this address instead")
	return cmd
}

// healthQuestion is the address that tells whether Sallyport is ready.
type healthQuestion struct {
	url    string
	public bool   // the public listener, of which any answer will do that is no failure
	host   string // under which it is asked; "": that of url
}

// configuredHealth is where the configuration at path says that Sallyport can be
// asked. Without one, or with one that was broken since Sallyport read it, that
// is the default, unless the file was named.
func configuredHealth(path string, named bool) (healthQuestion, error) {
	cfg, _, err := loadConfig(path)
	switch {
	case err != nil && named:
		return healthQuestion{}, err
	case err != nil:
		return healthQuestion{url: "http://127.0.0.1:4181/readyz"}, nil
	case cfg.Listen.Admin.Address != "":
		return healthQuestion{url: "http://" + reachable(cfg.Listen.Admin.Address) + "/readyz"}, nil
	}
	scheme, address, host := "http", cfg.Listen.HTTP, ""
	if cfg.PublicURL != nil { // else it is only a reference
		host = cfg.PublicURL.Host
	}
	if cfg.Listen.HTTPS.Address != "" {
		scheme, address = "https", cfg.Listen.HTTPS.Address
	}
	return healthQuestion{url: scheme + "://" + reachable(address) + cfg.Prefix + "/jwks.json", public: true, host: host}, nil
}

// reachable is an address to ask a listener on this machine at.
func reachable(listener string) string {
	host, port, _ := net.SplitHostPort(listener) // the configuration has judged it
	switch host {
	case "", "0.0.0.0":
		host = "127.0.0.1"
	case "::":
		host = "::1"
	}
	return net.JoinHostPort(host, port)
}

func hostOf(address string) string {
	host, _, _ := net.SplitHostPort(address) // "" switches the listener off
	return host
}

func (q healthQuestion) ask(ctx context.Context, c *console) error {
	u, err := url.Parse(q.url)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return usage("--url must be an http or https address, not %q", q.url)
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, q.url, nil)
	if err != nil {
		return usage("--url: %w", err)
	}
	req.Host = q.host
	client := &http.Client{Transport: &http.Transport{}}
	if q.public { // on this machine, under no name of its certificate, and it is told nothing
		client.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("not healthy: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK && (!q.public || res.StatusCode >= http.StatusInternalServerError) {
		return fmt.Errorf("not healthy: %s answered %s", q.url, res.Status)
	}
	fmt.Fprintln(c.stdout, "healthy")
	return nil
}

func versionCommand(c *console) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := io.WriteString(c.stdout, versionLine())
			return err
		},
	}
}

func versionLine() string {
	return fmt.Sprintf("sallyport %s (%s %s/%s)\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// release is what the linker was told: -ldflags "-X main.release=v1.2.3". It is
// for builds from a copy of the files without their history, such as the image's.
var release string

// version is what the build says of itself: a module version, or the commit.
func version() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return "devel-" + s.Value[:min(12, len(s.Value))]
		}
	}
	return "devel"
}

// newRegistry holds the metrics of this process, beginning with what every
// process tells about itself.
func newRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	info := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "sallyport_build_info",
		Help: "Always 1; the labels say what is running.", ConstLabels: prometheus.Labels{
			"version": version(), "go": strings.TrimPrefix(runtime.Version(), "go")}}, func() float64 { return 1 })
	reg.MustRegister(info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg
}
