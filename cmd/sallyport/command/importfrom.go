package command

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/importer"
)

func importCommand(c *console) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import",
		Short: "Make a configuration from that of another proxy",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SetOut(c.stderr)
			_ = cmd.Help()
			return silentError{usage("no proxy to import from")}
		},
	}
	cmd.AddCommand(importOAuth2ProxyCommand(c))
	return cmd
}

func importOAuth2ProxyCommand(c *console) *cobra.Command {
	var envFile, out string
	cmd := &cobra.Command{
		Use:   "oauth2-proxy FILE…",
		Short: "Make a configuration from that of oauth2-proxy",
		Long: "Print a configuration made from that of oauth2-proxy, and on stderr a line for each key: what\n" +
			"it is mapped to, or why it is not. A FILE holds flags or a command, variables, oauth2-proxy.cfg\n" +
			"(TOML), an alpha configuration, values of the Helm chart, manifests of Kubernetes with\n" +
			"oauth2-proxy or with auth-* annotations of ingress-nginx, a compose file, or the addresses of\n" +
			"authenticated-emails-file. Of several, flags count before variables, and these before files.\n\n" +
			"What cannot be said exactly is left out, never opened wider; where a restriction is left out\n" +
			"nobody may pass until you say who. Secrets become references and are printed nowhere.\n\n" +
			"Exit code 0: all that has to do with security mapped; 1: some did not, see the lines that say\n" +
			"`refused`; 2: a file cannot be read, or is nothing of oauth2-proxy's.",
		Example: "  sallyport import oauth2-proxy oauth2-proxy.cfg --env-file oauth2-proxy.env -o sallyport.yaml\n" +
			"  helm get values oauth2-proxy | sallyport import oauth2-proxy /dev/stdin",
		RunE: func(_ *cobra.Command, args []string) error {
			return importOAuth2Proxy(c, args, envFile, out)
		},
	}
	cmd.Flags().StringVar(&envFile, "env-file", "", "a file with variables, NAME=value on each line")
	cmd.Flags().StringVarP(&out, "output", "o", "", "write the configuration into this file, which must not exist yet")
	return cmd
}

func importOAuth2Proxy(c *console, files []string, envFile, out string) error {
	var inputs []importer.Input
	read := func(name string, env bool) error {
		data, err := os.ReadFile(name)
		if err != nil {
			return usage("cannot read %s: %w", name, errors.Unwrap(err))
		}
		inputs = append(inputs, importer.Input{Name: name, Data: data, Env: env})
		return nil
	}
	for _, name := range files {
		if err := read(name, false); err != nil {
			return err
		}
	}
	if envFile != "" {
		if err := read(envFile, true); err != nil {
			return err
		}
	}
	if len(inputs) == 0 {
		return usage("import oauth2-proxy takes the files to import")
	}
	res, err := importer.Import(inputs)
	if err != nil {
		return usage("%w", err)
	}
	if err := deliver(c, res.Config, out); err != nil {
		return err
	}
	for _, line := range res.Lines {
		fmt.Fprintln(c.stderr, line)
	}
	if !res.Complete() {
		return silentError{errors.New("something that has to do with security did not map")}
	}
	return nil
}

// deliver prints a configuration, or writes it into a file that only its owner can read. A
// file that is there is never overwritten.
func deliver(c *console, config []byte, out string) error {
	if out == "" {
		_, err := c.stdout.Write(config)
		return err
	}
	f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case errors.Is(err, fs.ErrExist):
		return usage("%s is there already, and is not overwritten", out)
	case err != nil:
		return usage("cannot write %s: %w", out, errors.Unwrap(err))
	}
	_, err = f.Write(config)
	if err = errors.Join(err, f.Chmod(0o600), f.Close()); err != nil { // Chmod: whatever the umask is
		return fmt.Errorf("write %s: %w", out, errors.Join(err, os.Remove(out)))
	}
	return nil
}
