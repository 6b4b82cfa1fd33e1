package command

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/assemble"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/yamltable"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/session"
	"github.com/sallyport-proxy/sallyport/store"
)

func sessionsCommand(c *console) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sessions",
		Short: "List who is signed in, and end sessions",
		Long: "List who is signed in, and end sessions, through the store of the configuration: beside\n" +
			"running processes, each of which knows within 2 seconds. Of the configuration's secrets\n" +
			"only the address of the store is read.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SetOut(c.stderr)
			_ = cmd.Help()
			return silentError{usage("no command")}
		},
	}
	cmd.AddCommand(listSessionsCommand(c), endSessionsCommand(c))
	return cmd
}

// listedMost is how many sessions are listed at most.
const listedMost = 1000

func listSessionsCommand(c *console) *cobra.Command {
	var path, format string
	which := session.Which{Most: listedMost + 1}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List who is signed in",
		Long: "List who is signed in, the newest sign-in first, 1,000 at most: everybody, a person, an\n" +
			"organization, or a person as a member of an organization. The organization that is shown\n" +
			"is the one that was active at the sign-in; asked for by --org are all that they are in.",
		Example: "  sallyport sessions list -c config.yaml --person google:104\n" +
			"  sallyport sessions list -c config.yaml --org acme --format json",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return listSessions(cmd.Context(), c, path, format, which)
		},
	}
	configFlag(cmd, &path)
	f := cmd.Flags()
	f.StringVar(&which.Person, "person", "", "whose: <provider>:<their id there>, as in X-Forwarded-User and the log")
	f.StringVar(&which.Org, "org", "", "of whom: the id of an organization")
	f.StringVar(&format, "format", "table", "table or json")
	return cmd
}

func listSessions(ctx context.Context, c *console, path, format string, which session.Which) error {
	print, ok := map[string]func(io.Writer, []session.Entry) error{"table": sessionTable, "json": sessionJSON}[format]
	if !ok {
		return usage("--format is table or json, not %q", format)
	}
	cfg, err := withStore(c, path, sessionsWithoutStore)
	if err != nil {
		return err
	}
	if which.Person != "" {
		if err := checkOfProvider(cfg, "--person", which.Person); err != nil {
			return err
		}
	}
	s, err := openBriefly(ctx, cfg)
	if err != nil {
		return err
	}
	defer s.Close()
	list, err := s.Sessions(ctx, which)
	if err != nil {
		return err
	}
	if len(list) > listedMost {
		list = list[:listedMost]
		fmt.Fprintf(c.stderr, "only the newest %d: ask for less with --person or --org\n", listedMost)
	}
	return print(c.stdout, list)
}

const sessionsWithoutStore = "each process knows its own sessions only, and nobody else can list or end them"

// withStore reads a configuration of which only the store matters. without says how it is
// without one.
func withStore(c *console, path, without string) (*config.Config, error) {
	cfg, _, err := c.loadConfig(path)
	if err != nil {
		return nil, err
	}
	if err := resolveStore(cfg, c.env); err != nil {
		return nil, asUsage(err)
	}
	if cfg.Store.IsZero() {
		return nil, usage("%s has no store: %s", path, without)
	}
	return cfg, nil
}

// resolveStore reads the address of the store. Its error is config.Faults.
func resolveStore(cfg *config.Config, env func(string) (string, bool)) error {
	if faults := cfg.ResolveStore(env, os.DirFS("/")); len(faults) > 0 {
		return faults
	}
	return nil
}

// openBriefly opens the store beside those that serve.
func openBriefly(ctx context.Context, cfg *config.Config) (*store.Store, error) {
	s, err := assemble.OpenStore(ctx, cfg, store.Options{Brief: true})
	return s, asUsage(err)
}

// checkOfProvider judges <provider>:<id>, so that nobody believes to have ended what a
// slip has missed.
func checkOfProvider(cfg *config.Config, flag, value string) error {
	provider, id, ok := strings.Cut(value, ":")
	if !ok || id == "" {
		return usage("%s is <provider>:<id>, not %q", flag, value)
	}
	if known := cfg.ProviderIDs(); !slices.Contains(known, provider) {
		return usage("%s: there is no provider %q%s", flag, provider, yamltable.ThereIs(known))
	}
	return nil
}

func sessionTable(w io.Writer, list []session.Entry) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SINCE\tUNTIL\tPERSON\tORG\tFROM\tBROWSER\tSESSION")
	for _, e := range list {
		fmt.Fprintln(t, strings.Join([]string{rfc3339(e.Since), rfc3339(e.Until), cell(e.Person), cell(e.Org),
			cell(e.From), cell(e.Browser), e.SID}, "\t"))
	}
	return t.Flush()
}

// cell is a text of somebody else's: it must not steer a terminal, or end a cell.
func cell(text string) string {
	if text == "" {
		return "-"
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}

// milliseconds are those of RFC 3339: a moment of a sign-in has no more.
const milliseconds = "2006-01-02T15:04:05.000Z07:00"

func rfc3339(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// listedSession is an interface: docs/guide.md has it.
type listedSession struct {
	Session  string `json:"session"`
	Person   string `json:"person"`
	Org      string `json:"org"`
	Provider string `json:"provider"`
	Since    string `json:"since"`
	Until    string `json:"until"`
	From     string `json:"from"`
	Browser  string `json:"browser"`
}

func sessionJSON(w io.Writer, list []session.Entry) error {
	out := struct {
		Sessions []listedSession `json:"sessions"`
	}{[]listedSession{}}
	for _, e := range list {
		out.Sessions = append(out.Sessions, listedSession{Session: e.SID, Person: e.Person, Org: e.Org,
			Provider: e.Provider, Since: rfc3339(e.Since), Until: rfc3339(e.Until), From: e.From, Browser: e.Browser})
	}
	return writeJSON(w, out)
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// ending is what `sessions end` is asked to end: one of them.
type ending struct{ person, org, sid, session, before string }

func endSessionsCommand(c *console) *cobra.Command {
	var path, format string
	var e ending
	cmd := &cobra.Command{
		Use:   "end",
		Short: "End sessions, on all servers",
		Long: "End sessions that have begun by now: all of a person or of an organization, those of one\n" +
			"session at a provider, one session, or everybody's that began before a moment. Every\n" +
			"server that uses the store knows within 2 seconds. Who ends sessions has them signed in\n" +
			"again at their next request, as far as the provider and the rules let them. With\n" +
			"log.audit there is a line in the audit stream, with your user name.",
		Example: "  sallyport sessions end -c config.yaml --person google:104\n" +
			"  sallyport sessions end -c config.yaml --before now",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return endSessions(cmd.Context(), c, path, format, e)
		},
	}
	configFlag(cmd, &path)
	f := cmd.Flags()
	f.StringVar(&e.person, "person", "", "all of a person: <provider>:<their id there>, as in X-Forwarded-User and "+
		"the log")
	f.StringVar(&e.org, "org", "", "all of the members of an organization, by its id")
	f.StringVar(&e.sid, "sid", "", "those of one session at a provider: <provider>:<sid>")
	f.StringVar(&e.session, "session", "", "one session, as 'sessions list' shows it, and apps know it as sid of "+
		"the assertion")
	f.StringVar(&e.before, "before", "", "everybody's that began by then: a time as 2026-01-02T15:04:05Z, or now")
	f.StringVar(&format, "format", "text", "text or json")
	return cmd
}

// ended is what was ended; its JSON form is an interface.
type ended struct {
	Kind   string `json:"kind"` // person, org, sid, session or all
	Key    string `json:"key"`  // as it was asked for; "" with all
	Before string `json:"before"`
	Until  string `json:"until"` // so long it is kept at least

	words string
}

func endSessions(ctx context.Context, c *console, path, format string, e ending) error {
	if format != "text" && format != "json" {
		return usage("--format is text or json, not %q", format)
	}
	cut, result, err := e.cut()
	if err != nil {
		return err
	}
	cfg, err := withStore(c, path, sessionsWithoutStore)
	if err != nil {
		return err
	}
	for flag, value := range map[string]string{"--person": e.person, "--sid": e.sid} {
		if value != "" {
			if err := checkOfProvider(cfg, flag, value); err != nil {
				return err
			}
		}
	}
	s, err := openBriefly(ctx, cfg)
	if err != nil {
		return err
	}
	defer s.Close()
	now := s.Now()
	if cut.Before.IsZero() {
		cut.Before = now
	}
	if cut.Before.After(now) {
		return usage("--before %s is in the future, by the store's clock: %s", e.before, rfc3339(now))
	}
	cut.Until = s.Until(cut.Before)
	own := cut.Before.Add(cfg.Session.AbsoluteTimeout + 2*time.Minute)
	if own.After(cut.Until) { // nobody has served with this configuration yet
		cut.Until = own
	}
	result.Before, result.Until = cut.Before.UTC().Format(milliseconds), rfc3339(cut.Until)
	record, err := briefAudit(c, cfg)
	if err != nil {
		return err
	}
	told := func(what string) error {
		whose := observe.Ended{User: cut.Person, Org: cut.Org, Provider: cut.Provider}
		return record(func(a *observe.Audit) { a.SessionsEnded(operator(c.env), whose, what) })
	}
	if err := s.End(ctx, cut); err != nil {
		_ = told("failed, and may have ended all the same: " + result.words)
		return fmt.Errorf("end sessions: %w", err)
	}
	if err := result.print(c.stdout, format); err != nil {
		return err
	}
	return told(result.words + " that began before " + result.Before)
}

func (r *ended) print(w io.Writer, format string) error {
	if format == "json" {
		return writeJSON(w, r)
	}
	_, err := fmt.Fprintf(w, "ended: %s that began before %s; every replica knows within 2 s\n", cell(r.words),
		r.Before)
	return err
}

// cut is what e asks to end. Its times are not known yet, but for --before.
func (e *ending) cut() (cut session.Cut, result ended, err error) {
	asked := 0
	for _, by := range [...]struct {
		value, kind, words string
		into               *string
	}{
		{e.person, "person", "sessions of person ", &cut.Person},
		{e.org, "org", "sessions of organization ", &cut.Org},
		{e.sid, "sid", "sessions of the session at the provider ", &cut.ProviderSID},
		{e.session, "session", "sessions of the sign-in ", &cut.SID},
		{e.before, "all", "sessions of everybody", nil},
	} {
		if by.value == "" {
			continue
		}
		asked++
		result = ended{Kind: by.kind, words: by.words}
		if by.into != nil {
			*by.into, result.Key, result.words = by.value, by.value, by.words+by.value
		}
	}
	if asked != 1 {
		return cut, result, usage("what is to be ended? Give one of --person, --org, --sid, --session and --before")
	}
	cut.Provider, cut.ProviderSID, _ = strings.Cut(cut.ProviderSID, ":")
	if _, ok := session.KeyOfSID(e.session); !ok && e.session != "" {
		return cut, result, usage("--session is what `sallyport sessions list` shows, 22 characters, not %q", e.session)
	}
	if e.before != "" && e.before != "now" {
		if cut.Before, err = time.Parse(time.RFC3339, e.before); err != nil {
			return cut, result, usage("--before is now, or a time such as 2026-01-02T15:04:05Z, not %q", e.before)
		}
	}
	return cut, result, nil
}

// operator is the name of the user who runs this, and of who asked for that through
// sudo, which the user who runs this could have made up.
func operator(env func(string) (string, bool)) string {
	name := "uid " + strconv.Itoa(os.Getuid())
	if u, err := user.Current(); err == nil && u.Username != "" {
		name = u.Username
	}
	if asked, _ := env("SUDO_USER"); asked != "" && asked != name {
		name += " (sudo: " + cell(asked) + ")"
	}
	return name
}
