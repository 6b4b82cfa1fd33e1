package command

import (
	"log/slog"
	"runtime/debug"
)

// limitMemory tells Go's runtime what its container or service may take, so that it collects
// more often before the kernel would end the process. A tenth is for what the runtime does not
// count, such as the program's own pages. What GOMEMLIMIT says, "off" too, stays.
func limitMemory(env func(string) (string, bool), ofCgroup func() (uint64, error), log *slog.Logger) {
	if _, set := env("GOMEMLIMIT"); set {
		return
	}
	limit, err := ofCgroup()
	if err != nil {
		log.Debug("no limit of memory is known", "reason", err.Error())
		return
	}
	ours := int64(limit / 10 * 9)
	debug.SetMemoryLimit(ours)
	log.Info("memory is limited", "bytes", limit, "go_limit", ours)
}
