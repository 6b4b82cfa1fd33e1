package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/assemble"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/yamltable"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/store"
)

func grantsCommand(c *console) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "grants",
		Short: "List and end what people lend to apps, and see to the keys that seal it",
		Long: "List and end what people lend to apps, and see to the keys that seal it, through the store\n" +
			"of the configuration: beside running processes. No command prints a credential.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SetOut(c.stderr)
			_ = cmd.Help()
			return silentError{usage("no command")}
		},
	}
	cmd.AddCommand(listGrantsCommand(c), showGrantCommand(c), revokeGrantsCommand(c), rekeyGrantsCommand(c),
		moveGrantsCommand(c))
	return cmd
}

// withGrants reads a configuration of which only the store and what is lent matter. read
// resolves its references.
func withGrants(c *console, path string, read func(*config.Config) error) (*config.Config, error) {
	cfg, _, err := c.loadConfig(path)
	if err != nil {
		return nil, err
	}
	if !cfg.Grants.On() {
		return nil, usage("%s has no grants: nobody lends anything", path)
	}
	return cfg, asUsage(read(cfg))
}

// grantsOperator is a store with grants, opened beside those that serve, and who works there.
type grantsOperator struct {
	grant.Operator
	store  *store.Store
	record func(...func(*observe.Audit)) error // the audit stream
	steps  []func(*observe.Audit)              // that it is to be told of
}

// openGrants opens the store, and the audit stream where changing says that there will be
// something to record.
func openGrants(ctx context.Context, c *console, cfg *config.Config, changing bool) (*grantsOperator, error) {
	d := &grantsOperator{Operator: grant.Operator{Name: operator(c.env), Log: plainLog(c.stderr)}}
	d.Audit = func(e grant.Event) {
		step := assemble.GrantStep(e)
		d.steps = append(d.steps, func(a *observe.Audit) { a.Grant(step) })
	}
	var err error
	if d.store, err = openBriefly(ctx, cfg); err != nil {
		return nil, err
	}
	d.Store = d.store.Grants()
	if d.Connectors, err = assemble.Connectors(cfg); err != nil {
		_ = d.store.Close()
		return nil, err
	}
	if !changing {
		return d, nil
	}
	if d.record, err = briefAudit(c, cfg); err != nil {
		_ = d.store.Close()
		return nil, err
	}
	return d, nil
}

// openGrantsWithKeys is openGrants for changes of grants that the keys of the configuration open.
func openGrantsWithKeys(ctx context.Context, c *console, path string) (*grantsOperator, assemble.GrantKeys, error) {
	var keys assemble.GrantKeys
	cfg, err := withGrants(c, path, func(cfg *config.Config) (err error) {
		keys, err = assemble.ResolveGrants(cfg, c.env, false)
		return err
	})
	if err != nil {
		return nil, keys, err
	}
	d, err := openGrants(ctx, c, cfg, true)
	if err != nil {
		return nil, keys, err
	}
	d.Keys = keys.Keyring
	return d, keys, nil
}

// plainLog is for people at a terminal: they know what time it is.
func plainLog(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

// whichGrants is what `grants list` is asked for.
type whichGrants struct{ person, org, connector, status string }

func listGrantsCommand(c *console) *cobra.Command {
	var path, format string
	var which whichGrants
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List what people lend",
		Long: "List what people and organizations lend, in the order of the ids, 1,000 at most. The status\n" +
			"is what the store knows: whether a connector's client is refused at the moment, the log of\n" +
			"the servers says too. Of the configuration's secrets only the address of the store is read.",
		Example: "  sallyport grants list -c config.yaml --person google:104\n" +
			"  sallyport grants list -c config.yaml --connector calendar --status needs_reconnect --format json",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return listGrants(cmd.Context(), c, path, format, which)
		},
	}
	configFlag(cmd, &path)
	f := cmd.Flags()
	f.StringVar(&which.person, "person", "", "whose own: <provider>:<their id there>, as in X-Forwarded-User "+
		"and the log")
	f.StringVar(&which.org, "org", "", "of which organization, by its id")
	f.StringVar(&which.connector, "connector", "", "of which connector, by its id")
	f.StringVar(&which.status, "status", "", "with which status: "+strings.Join(storedStatuses(), ", "))
	f.StringVar(&format, "format", "table", "table or json")
	return cmd
}

// storedStatuses are those that a grant in a list can have.
func storedStatuses() []string {
	var names []string
	for _, s := range []grant.Status{grant.Active, grant.Degraded, grant.NeedsReconnect, grant.NeedsAdmin,
		grant.TooNarrow, grant.RevokedUpstream, grant.OperatorError} {
		names = append(names, string(s))
	}
	return names
}

func listGrants(ctx context.Context, c *console, path, format string, which whichGrants) error {
	print, ok := map[string]func(io.Writer, []grant.Entry) error{"table": grantTable, "json": grantsJSON}[format]
	switch {
	case !ok:
		return usage("--format is table or json, not %q", format)
	case which.person != "" && which.org != "":
		return usage("a grant is a person's or an organization's: give --person or --org, not both")
	case which.status != "" && !slices.Contains(storedStatuses(), which.status):
		return usage("--status is one of %s, not %q", strings.Join(storedStatuses(), ", "), which.status)
	}
	cfg, err := withGrants(c, path, func(cfg *config.Config) error { return resolveStore(cfg, c.env) })
	if err != nil {
		return err
	}
	f := grant.Filter{Connector: which.connector}
	if which.person != "" {
		if err := checkOfProvider(cfg, "--person", which.person); err != nil {
			return err
		}
		f.Owners = []grant.Owner{{Kind: grant.OwnedByUser, ID: which.person}}
	}
	if which.org != "" {
		f.Owners = []grant.Owner{{Kind: grant.OwnedByOrg, ID: which.org}}
		if why := cfg.DeadOrg(which.org); why != "" {
			fmt.Fprintf(c.stderr, "--org %s: %s. What is listed is left over, if there is anything\n",
				yamltable.Quote(which.org), why)
		}
	}
	if which.connector != "" && !slices.ContainsFunc(cfg.Grants.Connectors,
		func(k config.Connector) bool { return k.ID == which.connector }) {
		fmt.Fprintf(c.stderr, "the configuration has no connector %q: these are left over, if there are any\n",
			which.connector)
	}
	d, err := openGrants(ctx, c, cfg, false)
	if err != nil {
		return err
	}
	defer d.store.Close()
	list, err := d.list(ctx, f, which.status)
	if err != nil {
		return err
	}
	if len(list) > listedMost {
		list = list[:listedMost]
		fmt.Fprintf(c.stderr, "only %d of them: ask for less with --person, --org, --connector or --status\n",
			listedMost)
	}
	return print(c.stdout, list)
}

// list reads page after page until there are more than can be listed.
func (d *grantsOperator) list(ctx context.Context, f grant.Filter, status string) (all []grant.Entry, err error) {
	for f.Most = 500; ; {
		page, err := d.List(ctx, f)
		if err != nil {
			return nil, err
		}
		for _, e := range page {
			f.After = e.ID
			e = asConfigured(e)
			if status == "" || string(e.Status) == status {
				all = append(all, e)
			}
		}
		if len(page) < f.Most || len(all) > listedMost {
			return all, nil
		}
	}
}

// ownerText is whose a grant is, as apps name them in X-Sallyport-Person.
func ownerText(o grant.Owner) string {
	if o.Kind == grant.OwnedByOrg {
		return "org:" + o.ID
	}
	return o.ID
}

// moved is the reason of a grant that is not lent because the configuration has another address
// than when it was connected. No store has it: the address may be put back.
const moved = "moved"

// asConfigured is a grant with the status that it has for servers with this configuration.
func asConfigured(e grant.Entry) grant.Entry {
	if e.Moved != "" {
		e.Status, e.Reason = grant.NeedsReconnect, moved
	}
	return e
}

func statusText(e grant.Entry) string {
	if e.Reason == "" {
		return string(e.Status)
	}
	return string(e.Status) + " (" + e.Reason + ")"
}

// momentOrNone is "" for a moment that is not known, or that does not come.
func momentOrNone(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return rfc3339(t)
}

func grantTable(w io.Writer, list []grant.Entry) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tCONNECTOR\tOWNER\tACCOUNT\tSTATUS\tCONNECTED\tUSED\tAPPS")
	for _, e := range list {
		var apps []string
		for _, consent := range e.Consents {
			apps = append(apps, consent.App)
		}
		fmt.Fprintln(t, strings.Join([]string{e.ID, cell(e.Connector), cell(ownerText(e.Owner)), cell(e.Account.Name),
			cell(statusText(e)), rfc3339(e.ConnectedAt), cell(momentOrNone(e.UsedAt)),
			cell(strings.Join(apps, ", "))}, "\t"))
	}
	return t.Flush()
}

// listedGrant is an interface: docs/grants.md has it.
type listedGrant struct {
	ID          string          `json:"id"`
	Connector   string          `json:"connector"`
	Owner       string          `json:"owner"` // user or org
	Person      string          `json:"person,omitempty"`
	Org         string          `json:"org,omitempty"`
	Account     listedAccount   `json:"account"`
	ClientID    string          `json:"client_id"`
	Status      string          `json:"status"`
	Reason      string          `json:"reason"`
	Access      []string        `json:"access"`
	Requested   []string        `json:"requested"`
	Scopes      []string        `json:"scopes"`
	Offline     bool            `json:"offline"`
	ConnectedBy string          `json:"connected_by"`
	ConnectedAt string          `json:"connected_at"`
	RefreshedAt string          `json:"refreshed_at"`
	RetryAt     string          `json:"retry_at"`
	ExpiresAt   string          `json:"expires_at"`
	ReconsentAt string          `json:"reconsent_at"`
	UsedAt      string          `json:"used_at"`
	Key         string          `json:"key"` // the id of the key that seals it
	SentTo      []listedAddress `json:"sent_to"`
	Apps        []listedConsent `json:"apps"`
}

type listedAccount struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// listedAddress is a place to which a credential may be sent.
type listedAddress struct {
	For    string `json:"for"` // api, refresh or revoke
	Origin string `json:"origin"`
}

type listedConsent struct {
	App     string   `json:"app"`
	Access  []string `json:"access"`
	Offline bool     `json:"offline"`
	Until   string   `json:"until"` // of offline
	By      string   `json:"by"`
	At      string   `json:"at"`
	UsedAt  string   `json:"used_at"`
}

func listed(e grant.Entry) listedGrant {
	g := listedGrant{ID: e.ID, Connector: e.Connector, Owner: string(e.Owner.Kind),
		Account: listedAccount{e.Account.ID, e.Account.Name}, ClientID: e.ClientID, Status: string(e.Status),
		Reason: e.Reason, Access: orEmpty(e.Access), Requested: orEmpty(e.Requested), Scopes: orEmpty(e.Scopes),
		Offline: e.Offline, ConnectedBy: e.ConnectedBy, ConnectedAt: rfc3339(e.ConnectedAt),
		RefreshedAt: momentOrNone(e.RefreshedAt), RetryAt: momentOrNone(e.RetryAt),
		ExpiresAt: momentOrNone(e.AccessExpires), ReconsentAt: momentOrNone(e.Reconsent),
		UsedAt: momentOrNone(e.UsedAt), Key: e.KeyID, SentTo: []listedAddress{}, Apps: []listedConsent{}}
	for _, d := range e.Destinations {
		g.SentTo = append(g.SentTo, listedAddress{string(d.Purpose), d.Origin})
	}
	if e.Owner.Kind == grant.OwnedByOrg {
		g.Org = e.Owner.ID
	} else {
		g.Person = e.Owner.ID
	}
	for _, consent := range e.Consents {
		g.Apps = append(g.Apps, listedConsent{App: consent.App, Access: orEmpty(consent.Access),
			Offline: consent.Offline, Until: momentOrNone(consent.OfflineUntil()), By: consent.By,
			At: rfc3339(consent.At), UsedAt: momentOrNone(consent.UsedAt)})
	}
	return g
}

func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

func grantsJSON(w io.Writer, list []grant.Entry) error {
	out := struct {
		Grants []listedGrant `json:"grants"`
	}{[]listedGrant{}}
	for _, e := range list {
		out.Grants = append(out.Grants, listed(e))
	}
	return writeJSON(w, out)
}

func showGrantCommand(c *console) *cobra.Command {
	var path, format string
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show one grant, and what each app may do with it",
		Long: "Show one grant, and what each app may do with it. The credential itself is never shown. Of\n" +
			"the configuration's secrets only the address of the store is read.",
		Example: "  sallyport grants show -c config.yaml 4XQ2BF6TZ7KMWRJYHVD5ACLNPE",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage("which grant? Give one id, as `sallyport grants list` shows it")
			}
			return showGrant(cmd.Context(), c, path, format, args[0])
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	return cmd
}

func showGrant(ctx context.Context, c *console, path, format, id string) error {
	if format != "text" && format != "json" {
		return usage("--format is text or json, not %q", format)
	}
	cfg, err := withGrants(c, path, func(cfg *config.Config) error { return resolveStore(cfg, c.env) })
	if err != nil {
		return err
	}
	d, err := openGrants(ctx, c, cfg, false)
	if err != nil {
		return err
	}
	defer d.store.Close()
	e, err := d.Show(ctx, id)
	e = asConfigured(e)
	switch {
	case errors.Is(err, grant.ErrNotFound):
		return noGrant(id)
	case err != nil:
		return err
	case format == "json":
		return writeJSON(c.stdout, listed(e))
	}
	return grantText(c.stdout, e)
}

// sentFor says what of a credential goes to a place.
var sentFor = map[grant.Purpose]string{grant.ToAPI: "with requests", grant.ToRefresh: "to refresh or end it",
	grant.ToRevoke: "to end it"}

func noGrant(id string) error {
	return fmt.Errorf("there is no grant %q, or it has ended; `sallyport grants list` shows those that there are",
		cell(id))
}

func grantText(w io.Writer, e grant.Entry) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, value string) { fmt.Fprintf(t, "%s\t%s\n", name, value) }
	words := func(list []string) string { return cell(strings.Join(list, " ")) }
	means, next := e.Status.Words(cell(e.Connector))
	line("id", e.ID)
	line("connector", cell(e.Connector))
	line("owner", cell(ownerText(e.Owner)))
	account := e.Account.Name
	if e.Account.ID != "" && e.Account.ID != account {
		account = strings.TrimSpace(account + " (" + e.Account.ID + ")")
	}
	line("account", cell(account))
	if e.Moved != "" {
		means, next = strings.ToUpper(e.Moved[:1])+e.Moved[1:]+".", "Put the address back, or connect it again."
	}
	line("status", cell(statusText(e))+": "+strings.TrimSpace(means+" "+next))
	line("connected", rfc3339(e.ConnectedAt)+" by "+cell(e.ConnectedBy))
	line("refreshed", cell(momentOrNone(e.RefreshedAt)))
	line("token expires", cell(momentOrNone(e.AccessExpires)))
	if !e.RetryAt.IsZero() {
		line("next try", rfc3339(e.RetryAt))
	}
	if !e.Reconsent.IsZero() {
		line("asks the person again", rfc3339(e.Reconsent))
	}
	line("client", cell(e.ClientID))
	line("asked for", words(e.Requested))
	line("granted", words(e.Scopes))
	line("key", cell(e.KeyID))
	for _, d := range e.Destinations {
		line("sent to", cell(d.Origin)+", "+sentFor[d.Purpose])
	}
	for _, consent := range e.Consents {
		text := strings.Join(consent.Access, ", ")
		if end := consent.OfflineUntil(); !end.IsZero() {
			text += ", also while the person is away, until " + rfc3339(end)
		}
		text += "; agreed " + rfc3339(consent.At) + " by " + consent.By
		if !consent.UsedAt.IsZero() {
			text += "; last used " + rfc3339(consent.UsedAt)
		}
		line("app "+cell(consent.App), cell(text))
	}
	return t.Flush()
}

func revokeGrantsCommand(c *console) *cobra.Command {
	var path, format string
	var forget bool
	cmd := &cobra.Command{
		Use:   "revoke ID…",
		Short: "End grants here, and at the third parties",
		Long: "End grants: here first, for all apps, which every server knows within 2 seconds, and then at\n" +
			"the third party, where it can be asked for that. What became of it there is said. To ask, the\n" +
			"keys that seal grants and the client secrets of the connectors are read; with --forget only\n" +
			"the address of the store. With log.audit there is a line for each in the audit stream, with\n" +
			"your user name. The exit code is 1 where a grant could not be ended, or a third party not be\n" +
			"asked.",
		Example: "  sallyport grants revoke -c config.yaml 4XQ2BF6TZ7KMWRJYHVD5ACLNPE\n" +
			"  sallyport grants revoke -c config.yaml --forget 4XQ2BF6TZ7KMWRJYHVD5ACLNPE",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage("which grants? Give their ids, as `sallyport grants list` shows them")
			}
			return revokeGrants(cmd.Context(), c, path, format, args, forget)
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().BoolVar(&forget, "forget", false, "end it here only, and do not ask the third party")
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	return cmd
}

// endedGrant is what became of a grant; its JSON form is an interface.
type endedGrant struct {
	listedGrant
	There     string `json:"there"`      // one of grant.Revocation
	FinishURL string `json:"finish_url"` // where to end it there, if that was not done
}

func revokeGrants(ctx context.Context, c *console, path, format string, ids []string, forget bool) error {
	if format != "text" && format != "json" {
		return usage("--format is text or json, not %q", format)
	}
	var keys assemble.GrantKeys
	cfg, err := withGrants(c, path, func(cfg *config.Config) (err error) {
		if forget {
			return resolveStore(cfg, c.env)
		}
		keys, err = assemble.ResolveGrants(cfg, c.env, true)
		return err
	})
	if err != nil {
		return err
	}
	connectors, err := assemble.Connectors(cfg)
	if err != nil {
		return asUsage(err)
	}
	d, err := openGrants(ctx, c, cfg, true)
	if err != nil {
		return err
	}
	defer d.store.Close()
	d.Keys, d.Connectors = keys.Keyring, connectors
	ended := []endedGrant{}
	failed := 0
	var unasked []string // and where
	for _, id := range ids {
		was, err := d.Revoke(ctx, id, forget)
		switch {
		case errors.Is(err, grant.ErrNotFound):
			err = noGrant(id)
		case errors.Is(err, grant.ErrKeyUnknown):
			err = fmt.Errorf("grant %s was not ended: %w. Put that key back, so that the third party can be asked, or "+
				"end it here only, with --forget", cell(id), err)
		}
		if err != nil {
			failed++
			fmt.Fprintf(c.stderr, "sallyport: %v\n", err)
			continue
		}
		if was.There == grant.RevokeFailed {
			unasked = append(unasked, was.ID+" at "+cell(was.Name))
		}
		ended = append(ended, endedGrant{listed(was.Entry), string(was.There), was.FinishURL})
		if format == "text" {
			fmt.Fprintf(c.stdout, "ended: %s of %s (grant %s); every replica knows within 2 s. %s\n",
				cell(was.Connector), cell(ownerText(was.Owner)), was.ID, outcomeThere(was))
		}
	}
	if format == "json" {
		err = writeJSON(c.stdout, struct {
			Ended []endedGrant `json:"ended"`
		}{ended})
	}
	if err = errors.Join(err, d.record(d.steps...)); err != nil {
		return err
	}
	switch {
	case failed > 0:
		return silentError{fmt.Errorf("grants that were not ended: %d", failed)}
	case len(unasked) > 0:
		return fmt.Errorf("grants that may go on, because the third party could not be asked: %s",
			strings.Join(unasked, ", "))
	}
	return nil
}

// outcomeThere says in words what became of a grant at the third party.
func outcomeThere(was grant.Ended) string {
	at, begins := cell(was.Name), cell(was.Name)
	if was.Name == "" { // its connector is no more in the configuration
		at, begins = "the third party", "The third party"
	}
	finish := "It may go on at " + at + ": it has to be ended there by hand."
	if was.FinishURL != "" {
		finish = "It may go on at " + at + ": end it there, at " + was.FinishURL
	}
	switch was.There {
	case grant.Revoked:
		return "It was ended at " + at + " too."
	case grant.NotSupported:
		return begins + " cannot be asked to end it. " + finish
	case grant.RevokeFailed:
		return begins + " could not be asked. " + finish
	case grant.SharedThere:
		return begins + " was not asked, because other grants of the account would have ended too. " + finish
	}
	return begins + " was not asked. " + finish
}

func rekeyGrantsCommand(c *console) *cobra.Command {
	var path, format string
	cmd := &cobra.Command{
		Use:   "rekey",
		Short: "Seal all grants with the newest key",
		Long: "Wrap the own key of each grant with the key of grants.encryption_keys that seals now, beside\n" +
			"running servers, and say which key is needed for how many. It can be stopped at any moment\n" +
			"and started again. Of the configuration's secrets the address of the store and these keys\n" +
			"are read. The exit code is 1 where grants keep another key.",
		Example: "  sallyport grants rekey -c config.yaml",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return rekeyGrants(cmd.Context(), c, path, format) },
	}
	configFlag(cmd, &path)
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	return cmd
}

// rekeyed is how far `grants rekey` came; its JSON form is an interface.
type rekeyed struct {
	Done      int       `json:"done"`
	Left      int       `json:"left"`
	Key       string    `json:"key"` // that seals now
	Keys      []usedKey `json:"keys"`
	Newest    string    `json:"newest"` // that does not seal yet
	SealsFrom string    `json:"seals_from"`
}

type usedKey struct {
	Key    string `json:"key"`
	Name   string `json:"name"` // where it comes from; "" where it is not in the configuration
	Grants int    `json:"grants"`
}

func rekeyGrants(ctx context.Context, c *console, path, format string) error {
	if format != "text" && format != "json" {
		return usage("--format is text or json, not %q", format)
	}
	d, keys, err := openGrantsWithKeys(ctx, c, path)
	if err != nil {
		return err
	}
	defer d.store.Close()
	became, failure := d.Rekey(ctx)
	r := rekeyed{Done: became.Done, Left: became.Left, Key: became.Key, Newest: became.Newest,
		SealsFrom: momentOrNone(became.SealsFrom)}
	for _, k := range keys.Uses() {
		r.Keys = append(r.Keys, usedKey{k.ID, keys.Names[k.ID], became.Keys[k.ID]})
	}
	for _, id := range slices.Sorted(maps.Keys(became.Keys)) {
		if keys.Names[id] == "" {
			r.Keys = append(r.Keys, usedKey{id, "", became.Keys[id]})
		}
	}
	if format == "json" {
		err = writeJSON(c.stdout, r)
	} else {
		err = r.print(c.stdout, keys.Names, failure != nil)
	}
	if err = errors.Join(failure, err, d.record(d.steps...)); err != nil {
		return err
	}
	if r.Left > 0 {
		return fmt.Errorf("grants that keep another key than the one that seals: %d", r.Left)
	}
	return nil
}

// print says how far it came. Where it broke off, what is left is not known.
func (r *rekeyed) print(w io.Writer, names map[string]string, brokeOff bool) error {
	if brokeOff {
		_, err := fmt.Fprintf(w, "grants sealed anew: %d; it broke off: start it again\n", r.Done)
		return err
	}
	fmt.Fprintf(w, "grants sealed anew: %d; left: %d\n", r.Done, r.Left)
	for _, k := range r.Keys {
		name := k.Name
		if name == "" {
			name = "a key that is not in grants.encryption_keys (" + cell(k.Key) + ")"
		}
		use := fmt.Sprintf("needed for %d", k.Grants)
		switch {
		case k.Key == r.Key:
			use += "; it seals now"
		case k.Key == r.Newest:
			use += "; it seals from " + r.SealsFrom + " on"
		case k.Grants == 0:
			use += "; it can be removed, once every server has read the one that seals and a run after that says so " +
				"again"
		}
		fmt.Fprintf(w, "  %s: %s\n", name, use)
	}
	if r.Newest != "" {
		fmt.Fprintf(w, "start it again after %s, when %s seals\n", r.SealsFrom, names[r.Newest])
	}
	return nil
}

func moveGrantsCommand(c *console) *cobra.Command {
	var path, format, from, to string
	cmd := &cobra.Command{
		Use:   "move --from ORG --to ORG",
		Short: "Give the grants of an organization to another one",
		Long: "Give the grants of an organization to another one, all or none, for the day on which the\n" +
			"configuration gives an organization another id. People agreed to what their organization\n" +
			"lends, not to what it is called: move grants between names of one organization only. Of the\n" +
			"configuration's secrets the address of the store and the keys that seal grants are read. With\n" +
			"log.audit there is a line for each connector in the audit stream, with your user name.",
		Example: "  sallyport grants move -c config.yaml --from acme.example --to acme",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return moveGrants(cmd.Context(), c, path, format, from, to)
		},
	}
	configFlag(cmd, &path)
	f := cmd.Flags()
	f.StringVar(&from, "from", "", "the id of the organization whose grants they are")
	f.StringVar(&to, "to", "", "the id of the organization whose they become")
	f.StringVar(&format, "format", "text", "text or json")
	return cmd
}

func moveGrants(ctx context.Context, c *console, path, format, from, to string) error {
	switch {
	case format != "text" && format != "json":
		return usage("--format is text or json, not %q", format)
	case from == "" || to == "":
		return usage("whose grants, and whose do they become? Give --from and --to, ids of organizations")
	case from == to:
		return usage("--from and --to are the same organization")
	}
	d, _, err := openGrantsWithKeys(ctx, c, path)
	if err != nil {
		return err
	}
	defer d.store.Close()
	n, err := d.Move(ctx, from, to)
	if err != nil {
		return fmt.Errorf("nothing was moved: %w", err)
	}
	if format == "json" {
		err = writeJSON(c.stdout, struct {
			From  string `json:"from"`
			To    string `json:"to"`
			Moved int    `json:"moved"`
		}{from, to, n})
	} else {
		_, err = fmt.Fprintf(c.stdout, "grants moved from organization %s to %s: %d\n", cell(from), cell(to), n)
	}
	return errors.Join(err, d.record(d.steps...))
}
