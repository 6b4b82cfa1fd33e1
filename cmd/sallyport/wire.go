package main

import (
	"errors"
	"log/slog"
	"os"
	"strconv"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/assemble"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
)

// loadConfig reads and judges a configuration file. It opens no connection and
// looks at no reference; resolve does that.
func loadConfig(path string) (*config.Config, *assemble.Policy, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, usage("cannot read the configuration: %w (name the file with -c)", err)
	}
	return parseConfig(path, data)
}

func parseConfig(name string, data []byte) (*config.Config, *assemble.Policy, error) {
	cfg, faults := config.Parse(name, data)
	if len(faults) > 0 {
		return nil, nil, configFaults(faults)
	}
	pol, faults := assemble.NewPolicy(cfg)
	if len(faults) > 0 {
		return nil, nil, configFaults(faults)
	}
	return cfg, pol, nil
}

// asUsage gives faults of the configuration their layout, and the exit code 2.
func asUsage(err error) error {
	if faults, ok := errors.AsType[config.Faults](err); ok {
		return configFaults(faults)
	}
	return err
}

// configFaults keeps the faults' own layout: one per paragraph, ready to read.
func configFaults(faults config.Faults) error {
	n := "1 fault"
	if len(faults) > 1 {
		n = strconv.Itoa(len(faults)) + " faults"
	}
	return usage("the configuration has %s\n\n%w", n, faults.Err())
}

func logLevel(name string) slog.Level {
	var level slog.Level
	_ = level.UnmarshalText([]byte(name)) // the configuration allows only its names
	return level
}
