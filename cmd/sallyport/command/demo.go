package command

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/asynclog"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/server"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/session"
)

const defaultDemo = "127.0.0.1:4180"

func demoCommand(c *console) *cobra.Command {
	var address string
	var showConfig, verbose bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See it all: a pretend identity provider, an app, and Sallyport in front of it",
		Long: "Run three pretend identity providers with nine people of five organizations, a pretend\n" +
			"Google, PagerDuty and Slack where they have accounts, a small app on two hosts that shows\n" +
			"what it is told about them and plans with what they lend it, and Sallyport in front of it.\n" +
			"Everything is on this machine, with random keys and a store that are gone when it stops.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := &demonstration{console: c, showConfig: showConfig, verbose: verbose}
			return d.run(cmd.Context(), address, cmd.Flags().Changed("listen"))
		},
	}
	cmd.Flags().StringVar(&address, "listen", defaultDemo, "a loopback address with a port")
	cmd.Flags().BoolVar(&showConfig, "show-config", false, "print the configuration that the demo would run, and end")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "log every request")
	return cmd
}

// demonstration is the whole demo: Sallyport as `serve` runs it, with a configuration like
// any other, three identity providers, third parties and an app.
type demonstration struct {
	console             *console
	showConfig, verbose bool
}

// demoConfig is the demo's configuration. It is read, checked and used in the same way as a
// file that is given to serve.
const demoConfig = `version: 1
public_url: {{.PublicURL}}
listen: {http: "{{.Listen}}", grants: "{{.Grants}}", admin: ""}
session:
  keys: ["literal:{{.Key}}"]        # in a real file: file:/run/secrets/session-key
store: "sqlite:{{.Store}}"          # who is signed in, what has ended, and what is lent
providers:
  - id: demo
    name: Demo SSO
    type: oidc
    issuer: {{.Issuer}}
    client_id: sallyport
    client_secret: literal:{{.Secret}}
    scopes: [openid, profile, email, groups, org]
    logout: {return_param: post_logout_redirect_uri}
    email_domains: [acme.example, birch.example, mail.example]
  - id: ledger                      # accountants, who work for several organizations
    name: Ledger & Co
    type: oidc
    issuer: {{.PartnerIssuer}}
    client_id: sallyport
    client_secret: literal:{{.Secret}}
    scopes: [openid, profile, email, groups, org]
    logout: {return_param: post_logout_redirect_uri}
    email_domains: [ledger.example]
    claims: {orgs: orgs}            # who has several chooses one, and can switch
  - id: google                      # says of an organization its domain only
    name: Google
    type: google
    issuer: {{.GoogleSignIn}} # the pretend one; left out in a real file, as base_url is
    client_id: sallyport
    client_secret: literal:{{.Secret}}
    directory: {managed_by: [nora@cedar.example], base_url: {{.GoogleSignIn}}} # Nora has the name read
pages: {name: Sallyport demo}
log: {level: {{.LogLevel}}, format: text}
routes:
  - {name: app, path: /, upstream: {{.App}}, allow: authenticated}
  - name: admin                     # only admins of Acme Rockets
    path: /admin
    upstream: {{.App}}
    allow: [{orgs: ["demo:acme"], groups: [admins]}]
  - name: hospital                  # only those who are here for one organization
    path: /hospital
    upstream: {{.App}}
    allow: [{orgs: ["ledger:larch"]}]
  - name: payroll                   # who signed in longer ago does so again
    path: /payroll
    upstream: {{.App}}
    allow: authenticated
    max_age: 1m
  - {name: public, path: /public, upstream: {{.App}}, public: true}
{{- if .SecondHost}}
  - {name: second, host: {{.SecondHost}}, path: /, upstream: {{.App}}, allow: authenticated}
{{- end}}
grants:                             # what people may lend the app
  encryption_keys: ["literal:{{.GrantKey}}"]
  connectors:
    - id: calendar
      type: google_calendar
      base_url: {{.Google}} # the pretend one; left out in a real file
      client_id: sallyport-calendar # a client of its own, and none that signs people in
      client_secret: literal:{{.Secret}}
      access: [freebusy, events]    # when somebody is busy, and with what; nothing else passes
    - id: oncall
      name: PagerDuty
      type: pagerduty
      base_url: {{.PagerDuty}}
      client_id: sallyport-oncall
      client_secret: literal:{{.Secret}}
      access: [read]                # changes do not pass, whatever the app tries
    - id: chat
      name: Slack
      type: slack
      base_url: {{.Slack}}
      client_id: sallyport-chat
      client_secret: literal:{{.Secret}}
      owner: org                    # an installation is a workspace's: one for all of Acme
      managed_by: [{orgs: ["demo:acme", "demo:birch"], groups: [admins, on-call]}]
      access: [read, post]
  apps:
    - id: demo-app
      name: Demo app
      token: literal:{{.AppToken}}
      routes: [app{{if .SecondHost}}, second{{end}}]
      connectors:
        - {id: calendar, access: [freebusy, events]} # one after the other, as it needs them
        - {id: oncall, access: [read]}
        - {id: chat, access: [read, post]}
`

type demoValues struct {
	PublicURL, Listen, Key, Issuer, PartnerIssuer, Secret, LogLevel, App string
	Store, Config                                                        string // files
	Grants, GrantKey, AppToken                                           string // Grants: an address for apps
	GoogleSignIn, Google, PagerDuty, Slack                               string
	SecondHost, SecondURL                                                string // "" where there is none
}

func (d *demonstration) run(ctx context.Context, address string, chosen bool) error {
	if err := loopbackOnly(address); err != nil {
		return err
	}
	address, note, err := freeAddress(ctx, address, chosen)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	providerListener, err := server.Listen(ctx, "the provider's address", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer providerListener.Close()
	partnerListener, err := server.Listen(ctx, "the second provider's address", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer partnerListener.Close()
	signInListener, err := server.Listen(ctx, "the third provider's address", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer signInListener.Close()
	googleListener, err := server.Listen(ctx, "the pretend Google's address", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer googleListener.Close()
	pagerdutyListener, err := server.Listen(ctx, "the pretend PagerDuty's address", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer pagerdutyListener.Close()
	slackListener, err := server.Listen(ctx, "the pretend Slack's address", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer slackListener.Close()
	appListener, err := server.Listen(ctx, "the app's address", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer appListener.Close()

	grants, err := quietAddress(ctx)
	if err != nil {
		return err
	}
	v := demoValues{
		PublicURL: "http://" + publicName(address), Listen: address, Key: session.NewKey(time.Now()).Text(),
		Issuer:        "http://" + providerListener.Addr().String(),
		PartnerIssuer: "http://" + partnerListener.Addr().String(),
		GoogleSignIn:  "http://" + signInListener.Addr().String(),
		Secret:        rand.Text(), LogLevel: "warn", App: "http://" + appListener.Addr().String(),
		Grants: grants, GrantKey: session.NewKey(time.Now()).Text(), Google: "http://" + googleListener.Addr().String(),
		PagerDuty: "http://" + pagerdutyListener.Addr().String(), Slack: "http://" + slackListener.Addr().String(),
		AppToken: rand.Text() + rand.Text(),
	}
	v.SecondHost, v.SecondURL = secondHost(address)
	if d.verbose {
		v.LogLevel = "info"
	}
	folder := os.TempDir()
	if !d.showConfig {
		if folder, err = os.MkdirTemp("", "sallyport-demo-"); err != nil {
			return fmt.Errorf("make a folder for the store: %w", err)
		}
		defer os.RemoveAll(folder)
	}
	v.Store = filepath.Join(folder, "sallyport-demo.db")
	var text strings.Builder
	if err := template.Must(template.New("").Parse(demoConfig)).Execute(&text, v); err != nil {
		return err
	}
	if d.showConfig {
		_, err := io.WriteString(d.console.stdout, text.String())
		return err
	}
	cfg, _, err := parseConfig("demo.yaml", []byte(text.String()))
	if err != nil {
		return err
	}
	v.Config = filepath.Join(folder, "demo.yaml")
	if err := os.WriteFile(v.Config, []byte(text.String()), 0o600); err != nil {
		return fmt.Errorf("write the configuration for other commands: %w", err)
	}
	if err := d.serveOthers(ctx, v, providerListener, partnerListener, signInListener, appListener); err != nil {
		return err
	}
	if err := serveThirdParties(ctx, v, googleListener, pagerdutyListener, slackListener); err != nil {
		return err
	}
	log := asynclog.Open(d.console.stdout, d.console.stderr, logLevel(cfg.Log.Level), cfg.Log.Format)
	defer log.Close()
	d.welcome(v, note)
	return serve(ctx, d.console, cfg, log)
}

// serveOthers serves the identity providers and the app until ctx is done.
func (d *demonstration) serveOthers(
	ctx context.Context, v demoValues, provider, partner, google, app net.Listener,
) error {
	for _, o := range []struct {
		demo.ProviderOptions
		id string
		on net.Listener
	}{
		{demo.ProviderOptions{Issuer: v.Issuer, Title: "Demo SSO", People: demo.People()}, "demo", provider},
		{demo.ProviderOptions{Issuer: v.PartnerIssuer, Title: "Ledger & Co", People: demo.PartnerPeople()},
			"ledger", partner},
		{demo.ProviderOptions{Issuer: v.GoogleSignIn, Title: "Pretend Google", Kind: demo.Google,
			People: demo.WorkspacePeople()}, "google", google},
	} {
		o.ClientID, o.ClientSecret = "sallyport", v.Secret
		o.RedirectURIs = []string{v.PublicURL + "/.sallyport/callback/" + o.id,
			v.PublicURL + "/.sallyport/directory/" + o.id + "/callback"}
		o.PostLogoutURIs = []string{v.PublicURL + "/.sallyport/logout"}
		if v.SecondURL != "" {
			o.LeadsTo = []string{v.SecondURL}
		}
		idp, err := demo.NewProvider(o.ProviderOptions)
		if err != nil {
			return err
		}
		serveInBackground(ctx, idp, o.on)
	}
	demoApp, err := demo.NewApp(demo.AppOptions{
		JWKSURL: v.PublicURL + "/.sallyport/jwks.json", Issuer: v.PublicURL, Second: v.SecondURL,
		Grants: &demo.AppGrants{URL: "http://" + v.Grants, Token: v.AppToken, Connector: "calendar",
			OnCall: "oncall", Chat: "chat"}})
	if err != nil {
		return err
	}
	serveInBackground(ctx, demoApp, app)
	return nil
}

// serveThirdParties serves the pretend Google, PagerDuty and Slack until ctx is done.
func serveThirdParties(ctx context.Context, v demoValues, google, pagerduty, slack net.Listener) error {
	const name = "Sallyport demo"
	callback := func(connector string) []string {
		return []string{v.PublicURL + "/.sallyport/connect/" + connector + "/callback"}
	}
	var leadsTo []string
	if v.SecondURL != "" {
		leadsTo = []string{v.SecondURL}
	}
	calendars, err := demo.NewGoogleCalendar(demo.CalendarOptions{Origin: v.Google, LeadsTo: leadsTo,
		Issuer: "https://accounts.google.com", Clients: []demo.CalendarClient{{ID: "sallyport-calendar", Name: name,
			Secret: v.Secret, RedirectURIs: callback("calendar")}}})
	if err != nil {
		return err
	}
	serveInBackground(ctx, calendars, google)
	onCall, err := demo.NewOnCall(demo.OnCallOptions{Origin: v.PagerDuty, LeadsTo: leadsTo,
		ClientID: "sallyport-oncall", ClientSecret: v.Secret, ClientName: name, RedirectURIs: callback("oncall")})
	if err != nil {
		return err
	}
	serveInBackground(ctx, onCall, pagerduty)
	workspaces, err := demo.NewSlackWorkspaces(demo.SlackOptions{Origin: v.Slack, LeadsTo: leadsTo,
		Clients: []demo.SlackClient{{ID: "sallyport-chat", Name: name, Secret: v.Secret,
			RedirectURIs: callback("chat")}}})
	if err != nil {
		return err
	}
	serveInBackground(ctx, workspaces, slack)
	return nil
}

func serveInBackground(ctx context.Context, h http.Handler, l net.Listener) {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	go func() { _ = srv.Serve(l) }() // ends with Close below
	context.AfterFunc(ctx, func() { _ = srv.Close() })
}

func (d *demonstration) welcome(v demoValues, note string) {
	w := d.console.stdout
	if note != "" {
		fmt.Fprintln(w, note)
	}
	fmt.Fprintf(w, `Sallyport is in front of a small app. Open it:

    %[1]s/

Things to try:
  - Sign in with Demo SSO as Mira. The page shows all that the app was told, and the signed assertion.
  - Open a deep link in a private window; after sign-in you are there:
        %[1]s/reports/2026?team=blue
  - Open %[1]s/admin as Jonas, then as Tomoko, and read why she is refused.
  - Sign in with Ledger & Co as Ines, who works for two organizations. She chooses one, and
    can switch when %[1]s/hospital refuses the other.
  - Sign in with Google as Nora. Google says of her organization nothing but its domain; on her
    account page she has its name read, once, and who signs in from then on has it.
  - Open %[1]s/payroll two minutes after you signed in: that page asks for a sign-in
    of the last minute, so you are asked again who you are, and then you are there.
  - Lend the app your calendar: open %[1]s/calendar and connect one. The app shows when
    you are busy, never sees a token, and cannot write. To read the events it has to ask you
    for more: leave out a box at the pretend Google, and nothing changes.
  - Plan who is on call: open %[1]s/plan and connect the calendar, PagerDuty and
    Slack. The app shows who is on call and when you are busy, posts the plan to a channel, and
    cannot delete the schedule. Then disconnect one on your account page.
  - See your own page: %[1]s/.sallyport/account
    Sign in with another browser or a private window as the same person: the page lists both,
    and ends the other one.
  - Ask as a program would:  curl -i %[1]s/api/me
  - Look as who runs it does:
        sallyport grants list -c %[2]s
    and so with orgs list, sessions list and permissions.
`, v.PublicURL, v.Config)
	if v.SecondURL != "" {
		fmt.Fprintf(w, `  - Open another host, which has a cookie of its own: you are signed in there without typing
    anything, and signing out on either host signs out on both:
        %[1]s/
`, v.SecondURL)
	}
	fmt.Fprintln(w, "\nPress Ctrl-C to stop.")
}

// loopbackOnly refuses addresses that other machines can reach, because people sign in to
// the demo without passwords.
func loopbackOnly(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil || port == "" {
		return usage("--listen: %q is not an address with a port, such as %s", address, defaultDemo)
	}
	if host != "localhost" && host != "127.0.0.1" && host != "::1" { // where browsers look for localhost
		return usage("--listen: the demo lets anybody in, so it listens on this machine only: "+
			"use 127.0.0.1, [::1] or localhost, not %q", host)
	}
	return nil
}

// freeAddress returns address, or one with a free port if address names none ("…:0"), or if
// it is the default address and another program uses it.
func freeAddress(ctx context.Context, address string, chosen bool) (free, note string, err error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	switch {
	case err == nil:
		defer l.Close()
		return l.Addr().String(), "", nil
	case !server.IsAddrInUse(err):
		return "", "", fmt.Errorf("cannot listen on %s: %w", address, err)
	case chosen:
		return "", "", fmt.Errorf("cannot listen on %s: another program has it; choose another with --listen", address)
	}
	l, err = (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", errors.Join(errors.New("found no free port"), err)
	}
	defer l.Close()
	note = fmt.Sprintf("%s is taken by another program, so this demo took %s.\n", address, l.Addr())
	return l.Addr().String(), note, nil
}

// quietAddress returns an address that is free, with a port that no system gives out by itself
// (RFC 6056 §2.1 has where they begin): none is on its way to another program until somebody
// listens there.
func quietAddress(ctx context.Context) (string, error) {
	const first, ports, tries = 5000, 7000, 100
	var err error
	for range tries {
		var l net.Listener
		at := fmt.Sprintf("127.0.0.1:%d", first+mathrand.IntN(ports))
		if l, err = (&net.ListenConfig{}).Listen(ctx, "tcp", at); err == nil {
			return at, l.Close()
		}
	}
	return "", fmt.Errorf("found no free port: %w", err)
}

// secondHost returns another name under which a browser opens address, and its URL. For
// the IPv6 address there is none.
func secondHost(address string) (host, url string) {
	host, port, _ := net.SplitHostPort(address)
	if host != "127.0.0.1" {
		return "", ""
	}
	return host, "http://" + net.JoinHostPort(host, port)
}

// publicName returns the host and port under which a browser opens address. With
// "localhost" the cookies of where people sign in are not sent to the provider, which is at
// 127.0.0.1: cookies know hosts and no ports.
func publicName(address string) string {
	_, port, _ := net.SplitHostPort(address) // the address of a listener has a port
	return net.JoinHostPort("localhost", port)
}
