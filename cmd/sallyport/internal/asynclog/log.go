// Package asynclog is the log of a command that serves. A reader of the log who
// is slow, gone or out of disk space holds up no request and never ends the
// process: lines wait in a bounded buffer, those that find no room are dropped
// and counted, and the log itself says where lines are missing.
//
// It knows nothing of what is logged. What is told about a request is in
// internal/observe.
package asynclog

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	bufferSize   = 1 << 20 // bytes that may wait for the reader of the log; as many again are being written
	closeTimeout = 2 * time.Second
)

// Log writes through a buffer. Its level can be changed while it runs. The last
// lines are lost if it is not closed.
type Log struct {
	*slog.Logger
	Level *slog.LevelVar
	lines *lineWriter
	json  bool
}

// Open begins a log on w that outlives its reader: where w is a pipe, as in
// "sallyport serve | head", the end of the reader would end the process with
// SIGPIPE. Lines that cannot be written are dropped and counted, and aside gets
// one line about it.
func Open(w, aside io.Writer, level slog.Level, format string) *Log {
	signal.Ignore(syscall.SIGPIPE)
	if format == "auto" {
		format = "json"
		if isTerminal(w) {
			format = "text"
		}
	}
	l := &Log{Level: &slog.LevelVar{}, json: format == "json"}
	l.Level.Set(level)
	l.lines = startLines(w, bufferSize, notices{
		lost: func(n uint64, cause error) []byte {
			var line bytes.Buffer
			notice := newLogger(&line, slog.LevelInfo, format)
			if cause == nil {
				notice.Warn("log lines were lost: their reader was too slow", "lines", n)
			} else {
				notice.Warn("log lines were lost: they could not be written", "lines", n, "error", cause.Error())
			}
			return line.Bytes()
		},
		failing: func(err error) {
			newLogger(aside, slog.LevelInfo, format).Error("the log cannot be written; its lines are dropped, and "+
				"counted in sallyport_log_lines_dropped_total",
				"error", err.Error())
		},
	})
	l.Logger = newLogger(l.lines, l.Level, format)
	return l
}

// JSON takes whole lines of JSON, as they are: what the log writes to, nil if its format is
// another one.
func (l *Log) JSON() io.Writer {
	if !l.json {
		return nil
	}
	return l.lines
}

// Close writes what is left, as long as the reader takes it within closeTimeout.
func (l *Log) Close() { l.lines.close(closeTimeout) }

// Measure registers the count of lines that were dropped.
func (l *Log) Measure(reg prometheus.Registerer) {
	reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "sallyport_log_lines_dropped_total",
		Help: "Log lines that were not written because the reader of the log was too slow or gone, or the disk full."},
		func() float64 { return float64(l.lines.dropped.Load()) }))
}

// newLogger writes to w: text for people, JSON for machines.
func newLogger(w io.Writer, level slog.Leveler, format string) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if format == "text" {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

// isTerminal reports whether w may be read by a person: os.DevNull is a device too, and
// nobody reads it.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}
