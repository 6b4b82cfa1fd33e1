package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"os"
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
		Short: "Say what each provider is asked for, what is kept and what is thrown away",
		Long: "Say, for each provider of the configuration, which scopes are requested at sign-in and\n" +
			"what they open, what is read, what is kept in the session and what is thrown away. It\n" +
			"follows from what the configuration makes Sallyport do. No secret is read and no\n" +
			"connection is opened.",
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
	cfg, err := withoutSecrets(path, c.env)
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
func withoutSecrets(path string, env func(string) (string, bool)) (*config.Config, error) {
	cfg, _, err := loadConfig(path)
	if err != nil {
		return nil, err
	}
	if faults := cfg.ResolvePublicURL(env, os.DirFS("/")); len(faults) > 0 {
		return nil, configFaults(faults)
	}
	return cfg, nil
}

// summarize asks providers that are made as for serve, but with fake secrets and keys.
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
	}
	return summary, nil
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

// permissionParts returns the lists of a summary, with their headings.
func permissionParts(p pages.Permission) []struct {
	heading string
	terms   []pages.Term
} {
	return []struct {
		heading string
		terms   []pages.Term
	}{{"asked for", p.Scopes}, {"kept", p.Kept}, {"checked, not kept", p.Checked}, {"deviations", p.Quirks}}
}

func permissionTable(out io.Writer, summary []pages.Permission) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for i, p := range summary {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%s (%s)\n  redirect URI\t%s\n", p.Provider, p.Type, p.Redirect)
		for _, part := range permissionParts(p) {
			heading := part.heading
			for _, t := range part.terms {
				fmt.Fprintf(w, "  %s\t%s\t%s\n", heading, t.Name, t.Means)
				heading = ""
			}
		}
		fmt.Fprintf(w, "  thrown away\t%s\n", strings.Join(p.Discarded, ", "))
	}
	return w.Flush()
}

func permissionMarkdown(w io.Writer, summary []pages.Permission) error {
	cell := strings.NewReplacer("|", `\|`, "\n", " ")
	for i, p := range summary {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "## %s (%s)\n\n| | | |\n|---|---|---|\n| redirect URI | | `%s` |\n",
			p.Provider, p.Type, p.Redirect)
		for _, part := range permissionParts(p) {
			for _, t := range part.terms {
				fmt.Fprintf(w, "| %s | `%s` | %s |\n", part.heading, cell.Replace(t.Name), cell.Replace(t.Means))
			}
		}
		_, err := fmt.Fprintf(w, "| thrown away | | %s |\n", cell.Replace(strings.Join(p.Discarded, ", ")))
		if err != nil {
			return err
		}
	}
	return nil
}

func permissionJSON(w io.Writer, summary []pages.Permission) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(summary)
}
