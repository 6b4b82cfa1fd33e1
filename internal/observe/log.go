package observe

import (
	"context"
	"log/slog"
)

// Log is the request log: one line for each request.
type Log struct{ *slog.Logger }

var _ Observer = Log{}

// Observe implements Observer.
func (l Log) Observe(ctx context.Context, e *Event) {
	level := slog.LevelInfo
	if e.Failed {
		level = slog.LevelError
	}
	if !l.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 16)
	attrs = append(attrs,
		slog.String("request_id", e.RequestID), slog.String("method", cut(e.Method, 32)),
		slog.String("host", cut(e.Host, 255)), slog.String("path", cut(e.Path, 1024)),
		slog.Int("status", e.Status), slog.Int64("bytes", e.Bytes),
		slog.Float64("ms", float64(e.Took.Microseconds())/1000),
		slog.String("client", e.Client), slog.String("route", e.Route))
	add := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	if e.Door != DoorProxy {
		add("mode", e.Door)
	}
	add("decision", e.Decision)
	add("reason", e.Reason)
	if e.Rule > 0 {
		attrs = append(attrs, slog.Int("rule", e.Rule))
	}
	add("user", e.User)
	add("org", e.Org)
	add("app", e.App)
	add("connector", e.Connector)
	if e.Session != nil {
		add("session", e.Session.Error())
	}
	add("note", e.Note)
	if e.Err != nil {
		add("error", e.Err.Error())
	}
	l.LogAttrs(ctx, level, "request", attrs...)
}

// cut keeps a stranger's text from filling the log.
func cut(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}
