package observe

import (
	"context"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"time"
)

// Log is the request log: one line for each request.
type Log struct {
	*slog.Logger
	// Lines, if there are any, are what Logger writes to, in JSON and without attributes of
	// its own. They are the same bytes, for less.
	Lines *Lines
}

var _ Observer = Log{}

// Observe implements Observer.
func (l Log) Observe(ctx context.Context, e *Event) {
	level := slog.LevelInfo
	if e.Failed {
		level = slog.LevelError
	}
	if !l.Enabled(ctx, level) || l.Lines != nil && l.Lines.write(time.Now(), level, e) {
		return
	}
	attrs := make(attributes, 0, 16)
	writeFields(&attrs, e)
	l.LogAttrs(ctx, level, message, attrs...)
}

const message = "request"

// fields take what the log says of a request, in its order.
type fields interface {
	text(key, value string)
	number(key string, value int64)
	float(key string, value float64)
}

// writeFields is the one list of the log's fields.
func writeFields(f fields, e *Event) {
	add := func(key, value string) {
		if value != "" {
			f.text(key, value)
		}
	}
	f.text("request_id", e.RequestID)
	f.text("method", cut(e.Method, 32))
	f.text("host", cut(e.Host, 255))
	f.text("path", cut(e.Path, 1024))
	f.number("status", int64(e.Status))
	f.number("bytes", e.Bytes)
	f.float("ms", float64(e.Took.Microseconds())/1000)
	f.text("client", e.Client)
	f.text("route", e.Route)
	if e.Door != DoorProxy {
		add("mode", e.Door)
	}
	add("decision", e.Decision)
	add("reason", e.Reason)
	if e.Rule > 0 {
		f.number("rule", int64(e.Rule))
	}
	add("user", e.User)
	add("org", e.Org)
	add("app", e.App)
	add("connector", e.Connector)
	if e.Session != nil {
		f.text("session", e.Session.Error())
	}
	add("note", e.Note)
	if e.Err != nil {
		f.text("error", e.Err.Error())
	}
}

// cut keeps a stranger's text from filling the log.
func cut(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}

// attributes are the fields for slog.
type attributes []slog.Attr

func (a *attributes) text(key, value string)      { *a = append(*a, slog.String(key, value)) }
func (a *attributes) number(key string, n int64)  { *a = append(*a, slog.Int64(key, n)) }
func (a *attributes) float(key string, n float64) { *a = append(*a, slog.Float64(key, n)) }

// Lines writes lines of JSON as slog.JSONHandler does, each with one Write, but only those
// in whose texts nothing has to be escaped: nearly all, and it need not know how the others
// look. It is safe for concurrent use if its writer is.
type Lines struct {
	out  io.Writer
	pool sync.Pool // *line
}

// NewLines writes to out, which must not keep what it is given.
func NewLines(out io.Writer) *Lines { return &Lines{out: out} }

// line is a line of JSON.
type line struct {
	bytes []byte
	plain bool // nothing in it has to be escaped
}

// write reports whether e was such a line.
func (l *Lines) write(now time.Time, level slog.Level, e *Event) bool {
	to, ok := l.pool.Get().(*line)
	if !ok {
		to = new(line)
	}
	defer l.pool.Put(to)
	b := append(to.bytes[:0], `{"time":"`...)
	b = now.AppendFormat(b, time.RFC3339Nano)
	b = append(append(b, `","level":"`...), level.String()...)
	to.bytes, to.plain = append(b, `","msg":"`+message+`"`...), true
	writeFields(to, e)
	if !to.plain {
		return false
	}
	to.bytes = append(to.bytes, "}\n"...)
	_, _ = l.out.Write(to.bytes) // as slog does
	return true
}

func (l *line) key(key string) { l.bytes = append(append(append(l.bytes, `,"`...), key...), `":`...) }

func (l *line) text(key, value string) {
	if !l.plain {
		return
	}
	for i := range len(value) {
		if c := value[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			l.plain = false
			return
		}
	}
	l.key(key)
	l.bytes = append(append(append(l.bytes, '"'), value...), '"')
}

func (l *line) number(key string, n int64) {
	l.key(key)
	l.bytes = strconv.AppendInt(l.bytes, n, 10)
}

// float is for numbers that need no exponent in JSON: from a thousandth on.
func (l *line) float(key string, n float64) {
	l.key(key)
	l.bytes = strconv.AppendFloat(l.bytes, n, 'f', -1, 64)
}
