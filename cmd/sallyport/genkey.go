package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-proxy/sallyport/session"
)

func genkeyCommand(c *console) *cobra.Command {
	return &cobra.Command{
		Use:   "genkey",
		Short: "Print a new session key",
		Long: "Print a new session key, to be kept in a file that session.keys names.\n\n" +
			"To rotate, add the new key and keep the old one until the longest session is over:\n" +
			"all keys open sessions, and a new one seals them once it is ten minutes old.",
		Example: "  sallyport genkey > session-key && chmod 600 session-key",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(c.stdout, session.NewKey(time.Now()).Text())
			return err
		},
	}
}
