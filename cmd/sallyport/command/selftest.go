package command

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/selftest"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/hostname"
)

// attack is what the command line of selftest says.
type attack struct {
	config, connect, echo, cookie, ca, format string
	timeout                                   time.Duration
}

func selftestCommand(c *console) *cobra.Command {
	a := &attack{}
	cmd := &cobra.Command{
		Use:   "selftest URL",
		Short: "Attack a live chain of front proxy and Sallyport, and say which line is missing",
		Long: "Send what an attacker would send to a site: forged headers in every spelling, paths that\n" +
			"can be read in two ways, requests without a session and from pages of other sites. Say\n" +
			"what reached the app, and which line of the front's configuration is missing.\n\n" +
			"With --echo this process stands in the place of the app while it runs, behind routes that\n" +
			"it prints; without it answers are judged from outside only. Exit code 0 means that all is\n" +
			"well, 1 that something leaked, is missing or cannot be reached.",
		Example: "  sallyport selftest https://app.example.com --echo 127.0.0.1:8089 --cookie file:session.txt",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage("selftest takes one URL, but got %q", args)
			}
			return a.run(cmd.Context(), c, args[0])
		},
	}
	f := cmd.Flags()
	f.StringVarP(&a.config, "config", "c", "", "the configuration, for its names of headers and its prefix; without "+
		"it those of the preset forwarded")
	f.StringVar(&a.echo, "echo", "", "an address at which this process answers in the place of the app")
	f.StringVar(&a.connect, "connect", "", "the host:port of the front, where the URL's name does not lead there yet")
	f.StringVar(&a.cookie, "cookie", "", "file:PATH of the Cookie header of somebody who is signed in")
	f.StringVar(&a.ca, "ca", "", "a file with the certificate of the authority that vouches for the site")
	f.DurationVar(&a.timeout, "timeout", 10*time.Second, "how long each request may take")
	f.StringVar(&a.format, "format", "text", "text or json")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml") // only for completion
	_ = cmd.MarkFlagFilename("ca", "pem", "crt")      // only for completion
	return cmd
}

func (a *attack) run(ctx context.Context, c *console, address string) error {
	o, err := a.options(c, address)
	if err != nil {
		return err
	}
	if a.echo != "" {
		if o.Echo, err = (&net.ListenConfig{}).Listen(ctx, "tcp", a.echo); err != nil {
			return usage("--echo: %w", err)
		}
		fmt.Fprintf(c.stderr, "In the place of the app for %s/…, with these routes, until this ends:\n\n%s\n",
			selftest.Area, selftest.RouteLines(o.URL.Hostname(), o.Echo.Addr().String()))
	}
	report, err := selftest.Run(ctx, o)
	if err != nil && report == nil {
		return fmt.Errorf("%s: %w", o.URL.Host, err)
	}
	write := report.Text
	if a.format == "json" {
		write = report.JSON
	}
	switch writeErr := write(c.stdout); {
	case err != nil:
		return fmt.Errorf("%s: %w", o.URL.Host, err)
	case writeErr != nil:
		return writeErr
	case !report.Well():
		return silentError{errors.New("not all is well")}
	}
	return nil
}

// options reads what the command line names.
func (a *attack) options(c *console, address string) (selftest.Options, error) {
	o := selftest.Options{Connect: a.connect, Timeout: a.timeout, Names: defaultNames(), Prefix: config.DefaultPrefix}
	var err error
	if o.URL, err = siteURL(address); err != nil {
		return o, err
	}
	switch {
	case a.format != "text" && a.format != "json":
		return o, usage("--format is text or json, not %q", a.format)
	case a.timeout <= 0:
		return o, usage("--timeout must be more than nothing")
	}
	if _, _, err := net.SplitHostPort(a.connect); a.connect != "" && err != nil {
		return o, usage("--connect: %w", err)
	}
	if a.config != "" {
		cfg, pol, err := c.loadConfig(a.config)
		if err != nil {
			return o, err
		}
		o.Names, o.Prefix = append(pol.HeaderNames(), identity.AssertionHeader), cfg.Prefix
	}
	if o.Cookie, err = cookieOf(a.cookie, o.URL, a.connect); err != nil {
		return o, err
	}
	if a.ca != "" {
		pem, err := os.ReadFile(a.ca)
		if err != nil {
			return o, usage("--ca: %w", err)
		}
		if o.Roots, err = x509.SystemCertPool(); err != nil {
			o.Roots = x509.NewCertPool()
		}
		if !o.Roots.AppendCertsFromPEM(pem) {
			return o, usage("--ca: no certificate in %s", a.ca)
		}
	}
	return o, nil
}

// defaultNames are the headers of a configuration that says nothing of headers.
func defaultNames() (names []string) {
	fields, _ := identity.Preset(identity.PresetForwarded)
	for _, f := range fields {
		names = append(names, f.Header)
	}
	slices.Sort(names)
	return append(names, identity.AssertionHeader)
}

// siteURL reads the address of the site.
func siteURL(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" ||
		(u.Scheme != "http" && u.Scheme != "https") {
		return nil, usage("the URL must be an http or https address without a query, not %q", address)
	}
	return u, nil
}

// cookieOf reads the Cookie header of somebody who is signed in.
func cookieOf(reference string, site *url.URL, connect string) (string, error) {
	if reference == "" {
		return "", nil
	}
	path, ok := strings.CutPrefix(reference, "file:")
	if !ok || path == "" {
		return "", usage("--cookie must be file:PATH: on the command line others could read it")
	}
	at := site.Hostname()
	if host, _, err := net.SplitHostPort(connect); err == nil {
		at = host
	}
	if site.Scheme != "https" && !hostname.IsLoopback(at) {
		return "", usage("--cookie: over http a session cookie would cross the network readable")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", usage("--cookie: %w", err)
	}
	cookie := strings.TrimPrefix(strings.TrimSpace(string(data)), "Cookie: ")
	if !strings.Contains(cookie, "=") || strings.ContainsFunc(cookie, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "", usage("--cookie: %s is not one line of name=value", path)
	}
	return cookie, nil
}
