package command

import (
	"errors"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/assemble"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
)

// loadConfig reads and checks a configuration file. It opens no connection, and does not
// read the files and variables that it refers to; assemble.Resolve does that.
func (c *console) loadConfig(path string) (*config.Config, *assemble.Policy, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, cannotRead(path, err)
	}
	return parseConfigOf(c.types, path, data)
}

func cannotRead(path string, err error) error {
	if path == "-" {
		return usage("cannot read the configuration: there is no file -; for what is piped in, name /dev/stdin")
	}
	if info, statErr := os.Stat(path); statErr == nil && info.IsDir() {
		return usage("cannot read the configuration: %s is a directory; name the file in it", path)
	}
	if path == defaultConfig { // nobody has named it
		return usage("cannot read the configuration: %w (name the file with -c)", err)
	}
	return usage("cannot read the configuration: %w", err)
}

func parseConfig(name string, data []byte) (*config.Config, *assemble.Policy, error) {
	return parseConfigOf(nil, name, data)
}

// parseConfigOf is parseConfig for a program that has further types of connectors.
func parseConfigOf(types config.Types, name string, data []byte) (*config.Config, *assemble.Policy, error) {
	cfg, faults := types.Parse(name, data)
	if len(faults) > 0 {
		return nil, nil, configFaults(faults)
	}
	pol, faults := assemble.NewPolicy(cfg)
	if len(faults) > 0 {
		return nil, nil, configFaults(faults)
	}
	return cfg, pol, nil
}

// asUsage turns faults of the configuration into an error with their layout and exit code 2.
func asUsage(err error) error {
	if faults, ok := errors.AsType[config.Faults](err); ok {
		return configFaults(faults)
	}
	return err
}

// configFaults makes an error that lists the faults, each in a paragraph of its own.
func configFaults(faults config.Faults) error {
	n := "1 fault"
	if len(faults) > 1 {
		n = strconv.Itoa(len(faults)) + " faults"
	}
	return usage("the configuration has %s\n\n%w", n, faults.Err())
}

const defaultConfig = "/etc/sallyport/config.yaml"

func configFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVarP(path, "config", "c", defaultConfig, "the configuration file")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml") // only for completion
}

// oneFile takes the configuration file as an argument too.
func oneFile(cmd *cobra.Command, args []string, path *string) error {
	switch {
	case len(args) == 0:
		return nil
	case len(args) > 1:
		return usage("%s takes one file, but got %q", cmd.Name(), args)
	case cmd.Flags().Changed("config") && *path != args[0]:
		return usage("two files: %s and %s; name one", *path, args[0])
	}
	*path = args[0]
	return nil
}
