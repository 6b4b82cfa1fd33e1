package command

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/assemble"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/login"
)

// printRules describes each route in sentences.
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
		to := "is passed on by the proxy that asks"
		if cfg.Routes[i].Forwards() {
			to = "goes to " + destination(cfg.Routes[i].Upstream)
		}
		fmt.Fprintf(w, "%s: %s %s and is open to", r.Name, where, to)
		alternatives := strings.Split(r.Access.String(), "; or ")
		more := carries(cfg.Routes[i])
		if r.Access.AsksAddress() && len(cfg.TrustedProxies) == 0 {
			more = append(more, "The address of a client is that of its connection: trusted_proxies names no proxy.")
		}
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

// destination names the app, and how its certificate is verified.
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

// carries returns sentences about what a route lets through, where that is not the default.
func carries(r config.Route) []string {
	var more []string
	if r.Upstream.Host != "" {
		more = append(more, fmt.Sprintf("The app is asked for %s.", r.Upstream.Host))
	}
	switch ws := r.WebSocket; {
	case len(ws.Origins) > 0:
		more = append(more, fmt.Sprintf("WebSockets pass from pages of its own site and of %s.",
			strings.Join(ws.Origins, ", ")))
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
	switch b := r.Headers.Basic; {
	case b.Claim != "":
		more = append(more, fmt.Sprintf("The app is given a password with each person's %s; a client's own "+
			"Authorization does not reach it.", b.Claim))
	case b.Account != "":
		more = append(more, fmt.Sprintf("The app is given the password of its account %s for everybody; a client's "+
			"own Authorization does not reach it.", b.Account))
	}
	if b := r.Bearer; b.Provider != "" {
		more = append(more, fmt.Sprintf("Programs may come with an access token of %s for %s instead of a session.",
			b.Provider, strings.Join(b.Audiences, " or ")))
		for _, q := range login.BearerQuirks() {
			if slices.Contains(b.Quirks, q.Name) {
				more = append(more, q.Weakens)
			}
		}
	}
	if o := r.CORS.Origins; len(o) > 0 {
		with := "."
		if r.CORS.Credentials {
			with = ", and have cookies sent along."
		}
		more = append(more, fmt.Sprintf("Pages of %s may read its answers%s", strings.Join(o, ", "), with))
	}
	if len(r.SiteHeaders) > 0 {
		more = append(more, fmt.Sprintf("Its app's %s passes, and speaks for the whole site.",
			strings.Join(r.SiteHeaders, " and ")))
	}
	if r.MaxBody > 0 {
		more = append(more, fmt.Sprintf("Requests may have a body of up to %s.", config.Size(r.MaxBody)))
	}
	return more
}

// keepsGroups says which groups sessions keep, if these are not all.
func keepsGroups(kept []string) string {
	if len(kept) == 0 {
		return "Of a person's groups, none is kept."
	}
	names := slices.Compact(slices.Sorted(slices.Values(kept)))
	return "Of a person's groups, only these are kept: " + strings.Join(names, ", ") + "."
}

// printAsked says what each app may ask people for, at each third party.
func printAsked(w io.Writer, all []assemble.Asked) {
	if len(all) == 0 {
		return
	}
	fmt.Fprintln(w, "\nWhat apps may do where somebody agreed to it, in words for that person:")
	for _, a := range all {
		var means []string
		for _, access := range a.Accesses {
			means = append(means, access.Means)
		}
		whose := ""
		if a.Connector.Owner == config.OwnedByOrg {
			whose = ", with the account of an organization"
		}
		when := "while they are signed in"
		if a.App.Offline {
			when += ", and while they are away if they agreed to that too"
		}
		fmt.Fprintf(w, "  %s may use %s%s, to %s; %s.", a.App.ID, a.Connector.ID, whose,
			strings.Join(means, ", or to "), when)
		if a.App.RawTokens {
			fmt.Fprint(w, " It reads the tokens themselves, so that no rule holds for what it does with them.")
		}
		fmt.Fprintln(w)
	}
}

// printProofs says whose access tokens prove which app.
func printProofs(w io.Writer, apps []config.App) {
	for _, a := range apps {
		if b := a.Bearer; b.Provider != "" {
			fmt.Fprintf(w, "\nA token of %s for %s proves %s where its subject is %s.\n", b.Provider,
				strings.Join(b.Audiences, " or "), a.ID, strings.Join(b.Subjects, " or "))
		}
	}
}
