// Package command is the program: its commands, one file for each, and Main, by which a
// program of one's own is Sallyport too, with connectors that Sallyport does not have.
//
// internal/config reads the configuration, internal/assemble makes a running Sallyport from
// it, and proxy handles the requests. Cobra is used here only: the functions that do a
// command's work take plain values.
package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
)

// Exit codes, as documented in the README.
const (
	exitOK     = 0
	exitFailed = 1
	exitConfig = 2 // wrong usage or configuration
)

// console is what a command uses of its environment. Tests replace it.
type console struct {
	stdout, stderr io.Writer
	env            func(string) (string, bool)
	types          config.Types // of connectors, beside our own
}

// usageError is an error that the user can correct: exit code 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// run runs the command of args and returns the exit code.
func run(args []string, c *console) int {
	// The first signal asks to stop. Then the handler is removed, so that a second signal
	// ends the process at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	root := newRoot(c)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	var silent silentError
	if !errors.As(err, &silent) {
		fmt.Fprintln(c.stderr, "sallyport: "+err.Error())
	}
	var u usageError
	if errors.As(err, &u) {
		return exitConfig
	}
	return exitFailed
}

// silentError is an error that the user has been told already.
type silentError struct{ error }

func (e silentError) Unwrap() error { return e.error }

func newRoot(c *console) *cobra.Command {
	root := &cobra.Command{
		Use:   "sallyport",
		Short: "Sign people in, in front of an app, and tell the app who they are",
		Long: "Sallyport stands in front of an app, signs people in with OpenID Connect and tells\n" +
			"the app who is asking, and for which organization, in headers only it can write.\n\n" +
			"See it without setting anything up:  sallyport demo",
		SilenceUsage: true, SilenceErrors: true,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SetOut(c.stderr)
			_ = cmd.Help()
			return silentError{usage("no command")}
		},
	}
	root.Version = version() // adds the flag --version
	root.SetVersionTemplate(versionLine())
	root.SetOut(c.stdout)
	root.SetErr(c.stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		words := cmd.Flags().Args() // those before the flag
		switch {
		case cmd.HasSubCommands() && len(words) > 0:
			return unknownCommand(cmd, words[0])
		case cmd.HasSubCommands():
			return usage("%w: a command comes first (see `%s --help`)", err, cmd.CommandPath())
		}
		return usage("%w (see `%s --help`)", err, cmd.CommandPath())
	})
	root.CompletionOptions.DisableDefaultCmd = false
	root.AddCommand(serveCommand(c), demoCommand(c), checkCommand(c), explainCommand(c), permissionsCommand(c),
		sessionsCommand(c), orgsCommand(c), grantsCommand(c), importCommand(c),
		genkeyCommand(c), schemaCommand(c),
		selftestCommand(c), healthcheckCommand(c), versionCommand(c))
	strictCobra(root)
	return root
}

// strictCobra has cobra's own commands refuse a word that they do not know, as ours do: they
// print help and succeed, also where a shell is to run what they print.
func strictCobra(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	root.InitDefaultHelpCmd()
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "completion":
			cmd.Args = noArgs
			cmd.RunE = func(cmd *cobra.Command, _ []string) error {
				cmd.SetOut(cmd.ErrOrStderr())
				_ = cmd.Help()
				return silentError{usage("no shell")}
			}
		case "help":
			cmd.Run = nil
			cmd.RunE = func(_ *cobra.Command, args []string) error {
				about, rest, err := root.Find(args)
				if err != nil || len(rest) > 0 {
					return unknownCommand(cmp.Or(about, root), strings.Join(rest, " "))
				}
				about.InitDefaultHelpFlag()
				return about.Help()
			}
		}
	}
}

// noArgs is cobra.NoArgs with our exit code and a hint.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		return unknownCommand(cmd, args[0])
	}
	return usage("%s takes no arguments, but got %q", strings.TrimPrefix(cmd.CommandPath(), "sallyport "), args[0])
}

func unknownCommand(below *cobra.Command, name string) error {
	return usage("unknown command %q (see `%s --help`)", name, below.CommandPath())
}
