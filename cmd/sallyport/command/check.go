package command

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-proxy/sallyport/assertion"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/assemble"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/login"
	"github.com/sallyport-proxy/sallyport/session"
)

func checkCommand(c *console) *cobra.Command {
	var path string
	var values bool
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Judge a configuration and say what its rules mean",
		Long: "Judge a configuration and print each rule as a sentence. Looks at nothing but the\n" +
			"file; with --values also reads the variables and files that it refers to, and says\n" +
			"which session key signs, which grant key seals, and when those before can be removed.",
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
	cfg, pol, err := c.loadConfig(path)
	if err != nil {
		return err
	}
	var sec *assemble.Secrets
	if values {
		if sec, err = assemble.Resolve(cfg, c.env); err != nil {
			return asUsage(err)
		}
		var faults config.Faults
		if pol, faults = assemble.NewPolicy(cfg); len(faults) > 0 {
			return configFaults(faults)
		}
	}
	doubts := slices.Concat(warnings(cfg), reachWarnings(cfg, pol), hostWarnings(cfg))
	if sec != nil {
		doubts = append(doubts, certificateWarnings(cfg, time.Now())...)
	}
	for _, w := range doubts {
		fmt.Fprintf(c.stderr, "warning: %s\n", w.Error())
	}
	out := &bytes.Buffer{} // written at once, so that "valid" is not said of what nobody could read
	printRules(out, cfg, pol)
	if kept := cfg.KeptGroups(); kept != nil {
		fmt.Fprintln(out, keepsGroups(kept))
	}
	fmt.Fprintln(out)
	for _, p := range cfg.Providers {
		if p.Use == login.UseTokens {
			continue
		}
		fmt.Fprintf(out, "The redirect URI to register at %s: %s\n", p.ID, assemble.RedirectURI(cfg, p.ID))
		if !p.Directory.IsZero() {
			fmt.Fprintf(out, "The redirect URI for its directory, to register there too: %s\n",
				assemble.DirectoryURI(cfg, p.ID))
		}
		if p.SignOut.ReturnParam != "" {
			fmt.Fprintf(out, "The page to return to after signing out at %s, to register there too: %s\n", p.ID,
				assemble.LogoutURI(cfg))
		}
		if assemble.TakesLogouts(cfg, p) {
			fmt.Fprintf(out, "The back-channel logout URI to register at %s, if it has such a thing: %s\n", p.ID,
				assemble.BackchannelURI(cfg, p.ID))
		}
	}
	if err := printConnectors(out, cfg); err != nil {
		return asUsage(err)
	}
	if sec != nil {
		printKeys(out, cfg, sec, time.Now())
		printGrantKeys(out, sec.GrantKeys)
	}
	fmt.Fprintf(out, "\n%s is valid.\n", path)
	_, err = c.stdout.Write(out.Bytes())
	return err
}

// printConnectors says what is to be registered at third parties, and what each app may ask
// people for there.
func printConnectors(out io.Writer, cfg *config.Config) error {
	for _, p := range assemble.ConnectorPermissions(cfg) {
		if p.Redirect != "" {
			fmt.Fprintf(out, "The redirect URI to register at %s (grants): %s\n", p.Connector, p.Redirect)
		}
	}
	for _, k := range cfg.Grants.Connectors {
		if at := assemble.WebhookURI(cfg, k); at != "" {
			fmt.Fprintf(out, "The address for signed events to enter at %s: %s\n", k.ID, at)
		}
	}
	all, err := assemble.AskedOf(cfg)
	printAsked(out, all)
	printProofs(out, cfg.Grants.Apps)
	return err
}

// printGrantKeys says what each key is used for that seals what people lend, the oldest
// first. Which of them are still needed is in the store, which check does not ask.
func printGrantKeys(out io.Writer, keys assemble.GrantKeys) {
	uses := keys.Uses()
	if len(uses) == 0 {
		return
	}
	fmt.Fprintln(out, "\nKeys that seal what people lend, the oldest first:")
	newer := false // than the one that seals
	for _, k := range uses {
		use := "opens what it sealed; it can be removed once `sallyport grants rekey` says that nothing needs it"
		switch {
		case k.Seals:
			use, newer = "seals now", true
		case newer:
			use = "seals from " + k.SealsFrom.Format(time.RFC3339)
		}
		fmt.Fprintf(out, "  %s, made %s, %s\n", keys.Names[k.ID], keys.Created[k.ID].Format(time.RFC3339), use)
	}
}

// printKeys says what each session key is used for, the oldest first.
func printKeys(out io.Writer, cfg *config.Config, sec *assemble.Secrets, now time.Time) {
	fmt.Fprintln(out, "\nSession keys, the oldest first:")
	for i, key := range sec.Keys.All() {
		from, until := sec.Keys.Signs(i)
		fmt.Fprintf(out, "  %s, made %s, %s\n", sec.KeyNames[i], key.Created().Format(time.RFC3339),
			keyUse(from, until, overlap(cfg), now))
	}
}

// overlap returns how long anything that a key has signed can be valid.
func overlap(cfg *config.Config) time.Duration {
	return max(cfg.Session.AbsoluteTimeout, session.FlowTime, assertion.Lifetime)
}

// keyUse says what a key is used for that signs between two times, which
// session.Keyring.Signs returns.
func keyUse(from, until time.Time, overlap time.Duration, now time.Time) string {
	moment := func(t time.Time) string { return t.Format(time.RFC3339) }
	switch needed := until.Add(overlap); {
	case now.Before(from):
		return "signs from " + moment(from)
	case until.IsZero():
		return "signs now"
	case now.Before(until):
		return "signs now, until " + moment(until) + ", and opens what it signed until " + moment(needed)
	case now.Before(needed):
		return "opens what it signed until " + moment(needed) + "; then it can be removed"
	default:
		return "has not been needed since " + moment(needed) + ": remove it"
	}
}

// warnings returns what the configuration may say but what is probably a mistake.
func warnings(cfg *config.Config) []config.Fault {
	return append(cfg.Warnings(), cfg.DeadRules()...)
}

// hostWarnings tell what several hosts mean where nothing is shared by the servers.
func hostWarnings(cfg *config.Config) (all []config.Fault) {
	if domain := cfg.Session.CookieDomain; domain != "" {
		return append(all, cfg.Fault("session.cookie_domain",
			"every host below %[1]s is sent the session cookie, also those that Sallyport does not serve: "+
				"whoever runs one, or takes one over, can use the sessions of the people who open it, and can put "+
				"a session of their own into a browser, whose owner then works as somebody else. Without it each "+
				"host has a cookie of its own, which no other host can read or set", domain))
	}
	if !cfg.Store.IsZero() {
		return nil
	}
	for i, r := range cfg.Routes {
		if hosts := cfg.OtherHosts(); len(hosts) > 0 && r.Host == hosts[0] {
			return append(all, cfg.Fault(assemble.RouteKey(cfg, i, "host"),
				"people sign in at %s, and their session is handed over from there to %s: without `store`, each of "+
					"several servers by itself lets the address that hands it over be used once, and only the one "+
					"that hears of a sign-out ends the session",
				cfg.PublicHost(), strings.Join(hosts, ", ")))
		}
	}
	return nil
}

// reachWarnings says where a method that acts on a whole folder could reach paths that other
// rules protect. We cannot know whether the app has folders, so this is a warning of check,
// and not one at each start.
func reachWarnings(cfg *config.Config, pol *assemble.Policy) (all []config.Fault) {
	routes := pol.Table.Routes()
	for i, r := range routes {
		var below []string
		for j, other := range routes {
			if r.Below(other) && maySameApp(cfg.Routes[i], cfg.Routes[j]) {
				below = append(below, other.Name)
			}
		}
		if len(below) > 0 {
			all = append(all, cfg.Fault(assemble.RouteKey(cfg, i, "path"),
				"if the app is a WebDAV server: DELETE and PROPFIND of a folder here reach what is below it, "+
					"also what only %s should open (COPY and MOVE of it are refused)",
				strings.Join(below, ", ")))
		}
	}
	return all
}

// maySameApp reports whether two routes lead, or may lead, to one app: where another proxy
// passes the requests of a route on, only that knows.
func maySameApp(a, b config.Route) bool {
	return !a.Forwards() || !b.Forwards() || a.SameApp(b)
}
