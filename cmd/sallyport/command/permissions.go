package command

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/assemble"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/login"
	"github.com/sallyport-proxy/sallyport/proxy/pages"
)

func permissionsCommand(c *console) *cobra.Command {
	var path, format string
	cmd := &cobra.Command{
		Use:   "permissions",
		Short: "Say what providers and third parties are asked for, what is kept and what is thrown away",
		Long: "Say, for each provider of the configuration, which scopes are requested at sign-in and\n" +
			"what they open, what is read, what is kept in the session and what is thrown away; and\n" +
			"for each connector, which scopes are requested when somebody connects an account, what\n" +
			"for, and whether that lasts while they are away. It follows from what the configuration\n" +
			"makes Sallyport do. No secret is read and no connection is opened.",
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error { return permissions(c, path, format) },
	}
	configFlag(cmd, &path)
	cmd.Flags().StringVar(&format, "format", "table", "table, markdown or json")
	return cmd
}

func permissions(c *console, path, format string) error {
	print, ok := map[string]func(io.Writer, []pages.Permission) error{
		"table": permissionTable, "markdown": permissionMarkdown, "json": permissionJSON}[format]
	if !ok {
		return usage("--format is table, markdown or json, not %q", format)
	}
	cfg, err := c.withoutSecrets(path)
	if err != nil {
		return err
	}
	summary, err := summarize(cfg)
	if err != nil {
		return err
	}
	return print(c.stdout, summary)
}

// withoutSecrets reads a configuration for commands that answer questions about it. Secrets
// make no difference to the answer, and in CI they do not exist.
func (c *console) withoutSecrets(path string) (*config.Config, error) {
	cfg, _, err := c.loadConfig(path)
	if err != nil {
		return nil, err
	}
	if faults := cfg.ResolvePublicURL(c.env, os.DirFS("/")); len(faults) > 0 {
		return nil, configFaults(faults)
	}
	return cfg, nil
}

// summarize asks providers that are made as for serve, but with fake secrets and keys, and
// connectors.
func summarize(cfg *config.Config) ([]pages.Permission, error) {
	var summary []pages.Permission
	for _, p := range cfg.Providers {
		if p.Use == login.UseTokens { // which is asked for nothing
			continue
		}
		l, err := fakeProvider(cfg, p)
		if err != nil {
			return nil, err
		}
		summary = append(summary, assemble.PermissionOf(l, assemble.RedirectURI(cfg, p.ID)))
		if !p.Directory.IsZero() {
			summary = append(summary, assemble.DirectoryPermission(cfg, p))
		}
	}
	return append(summary, assemble.ConnectorPermissions(cfg)...), nil
}

// fakeProvider makes a provider with fake secrets and keys. Nobody can sign in with it, but
// it can say what it would do.
func fakeProvider(cfg *config.Config, p config.Provider) (*login.Provider, error) {
	o := assemble.ProviderOptions(cfg, p)
	o.ClientID, o.ClientSecret = "stand-in", "a stand-in, long enough to sign with (RFC 7518 §3.2)"
	public, private, err := fakeKey()
	if err != nil {
		return nil, err
	}
	for i := range o.PublicKeys {
		o.PublicKeys[i] = public
	}
	if o.ClientKey != "" {
		o.ClientKey = private
	}
	return login.New(o)
}

// fakeKey makes a key that nobody else knows, in PEM.
func fakeKey() (public, private string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", fmt.Errorf("make a key: %w", err)
	}
	half, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return "", "", fmt.Errorf("write a key: %w", err)
	}
	whole, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", "", fmt.Errorf("write a key: %w", err)
	}
	public = string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: half}))
	private = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: whole}))
	return public, private, nil
}

// permissionParts returns the lists of a summary that have something, with their headings.
func permissionParts(p pages.Permission) []permissionPart {
	thrown := []pages.Term{}
	if len(p.Discarded) > 0 {
		thrown = append(thrown, pages.Term{Means: strings.Join(p.Discarded, ", ")})
	}
	all := []permissionPart{{"asked for", p.Scopes}, {"kept", p.Kept}, {"checked, not kept", p.Checked},
		{"deviations", p.Quirks}, {"thrown away", thrown}}
	return slices.DeleteFunc(all, func(p permissionPart) bool { return len(p.terms) == 0 })
}

type permissionPart struct {
	heading string
	terms   []pages.Term
}

func yesNo(is bool) string {
	if is {
		return "yes"
	}
	return "no"
}

// permissionTable prints one table of all, and then what becomes of each answer.
func permissionTable(out io.Writer, summary []pages.Permission) error {
	if err := permissionRows(out, summary); err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, p := range summary {
		fmt.Fprintf(w, "\n%s (%s)\n", p.ID(), p.Type)
		if p.Redirect != "" {
			fmt.Fprintf(w, "  redirect URI\t%s\n", p.Redirect)
		}
		for _, part := range permissionParts(p) {
			heading := part.heading
			for _, t := range part.terms {
				row := []string{"  " + heading, t.Name, t.Means}
				if t.Name == "" {
					row = []string{"  " + heading, t.Means}
				}
				fmt.Fprintln(w, strings.Join(row, "\t"))
				heading = ""
			}
		}
	}
	return w.Flush()
}

// permissionRows prints a row for each, with its scopes one below the other, because some are
// long.
func permissionRows(out io.Writer, summary []pages.Permission) error {
	var table bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ACTION\tAT\tSCOPES\tOFFLINE\tNOTE")
	for _, p := range summary {
		row := []string{p.Action, p.ID(), "-", yesNo(p.Offline), p.Note}
		for i := range max(1, len(p.Scopes)) {
			if i > 0 {
				row = make([]string, len(row))
			}
			if i < len(p.Scopes) {
				row[2] = p.Scopes[i].Name
			}
			fmt.Fprintln(w, strings.Join(row, "\t"))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(table.String()) {
		if _, err := fmt.Fprintln(out, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// permissionMarkdown is permissionTable for documents.
func permissionMarkdown(w io.Writer, summary []pages.Permission) error {
	escape := strings.NewReplacer("|", `\|`, "\n", " ").Replace
	var text strings.Builder
	text.WriteString("| action | at | scopes requested | offline | note |\n|---|---|---|---|---|\n")
	for _, p := range summary {
		var names []string
		for _, s := range p.Scopes {
			names = append(names, "`"+escape(s.Name)+"`")
		}
		fmt.Fprintf(&text, "| %s | %s | %s | %s | %s |\n", p.Action, p.ID(), strings.Join(names, ", "),
			yesNo(p.Offline), escape(p.Note))
	}
	for _, p := range summary {
		fmt.Fprintf(&text, "\n## %s (%s)\n\n| | | |\n|---|---|---|\n", p.ID(), p.Type)
		if p.Redirect != "" {
			fmt.Fprintf(&text, "| redirect URI | | `%s` |\n", p.Redirect)
		}
		for _, part := range permissionParts(p) {
			for _, t := range part.terms {
				name := t.Name
				if name != "" {
					name = "`" + escape(name) + "`"
				}
				fmt.Fprintf(&text, "| %s |%s| %s |\n", part.heading, spaced(name), escape(t.Means))
			}
		}
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// spaced is a cell, which is a blank where there is nothing in it.
func spaced(text string) string {
	if text == "" {
		return " "
	}
	return " " + text + " "
}

func permissionJSON(w io.Writer, summary []pages.Permission) error { return writeJSON(w, summary) }
