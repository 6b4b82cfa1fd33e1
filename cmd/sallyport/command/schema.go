package command

import "github.com/spf13/cobra"

func schemaCommand(c *console) *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the configuration",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := c.stdout.Write(c.types.Schema())
			return err
		},
	}
}
