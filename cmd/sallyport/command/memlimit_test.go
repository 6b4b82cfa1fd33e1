package command

import (
	"bytes"
	"errors"
	"log/slog"
	"math"
	"runtime/debug"
	"strings"
	"testing"
)

// A container that has a limit is not ended for what a collection would have given back.
func TestTheLimitOfACgroupBoundsTheHeap(t *testing.T) {
	was := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(was) })
	for name, c := range map[string]struct {
		variable string
		limit    uint64
		err      error
		want     int64
		told     string
	}{
		"a limit":                       {limit: 100 << 20, want: 100 << 20 / 10 * 9, told: "go_limit=94371840"},
		"no limit":                      {err: errors.New("no limit"), want: math.MaxInt64, told: ""},
		"one that the operator has set": {variable: "60MiB", limit: 100 << 20, want: math.MaxInt64},
		"none, the operator says":       {variable: "off", limit: 100 << 20, want: math.MaxInt64},
	} {
		t.Run(name, func(t *testing.T) {
			debug.SetMemoryLimit(math.MaxInt64)
			var log bytes.Buffer
			limitMemory(func(name string) (string, bool) { return c.variable, name == "GOMEMLIMIT" && c.variable != "" },
				func() (uint64, error) { return c.limit, c.err }, slog.New(slog.NewTextHandler(&log, nil)))
			if got := debug.SetMemoryLimit(-1); got != c.want {
				t.Errorf("%d instead of %d", got, c.want)
			}
			if !strings.Contains(log.String(), c.told) || c.told == "" && log.Len() > 0 {
				t.Errorf("it was told %q", log.String())
			}
		})
	}
}
