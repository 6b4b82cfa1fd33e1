package observe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

func refused() *Event {
	return &Event{
		Start: time.Date(2026, 11, 28, 9, 30, 0, 0, time.FixedZone("", 3600)), Took: 1500 * time.Microsecond,
		RequestID: "id", Door: "proxy", Client: "192.0.2.1", Method: "GET", Host: "app.example.com", Path: "/admin",
		Status: 403, Bytes: 12, Route: "admin", User: "main:ann", Org: "acme", Decision: "deny", Reason: "no_rule",
		Err: errors.New("route admin: no rule admits main:ann"),
	}
}

func TestARequestIsOneLineOfTheLog(t *testing.T) {
	var out bytes.Buffer
	Log{Logger: slog.New(slog.NewJSONHandler(&out, nil))}.Observe(context.Background(), refused())
	line := out.String()
	_, rest, _ := strings.Cut(line, `"level"`)
	want := `:"INFO","msg":"request","request_id":"id","method":"GET","host":"app.example.com","path":"/admin",` +
		`"status":403,"bytes":12,"ms":1.5,"client":"192.0.2.1","route":"admin","decision":"deny","reason":"no_rule",` +
		`"user":"main:ann","org":"acme","error":"route admin: no rule admits main:ann"}` + "\n"
	if rest != want {
		t.Errorf("got\n%s\nwant\n%s", rest, want)
	}
}

// What a stranger sends does not make lines of the log as long as they like.
func TestLongTextsAreCut(t *testing.T) {
	var out bytes.Buffer
	e := refused()
	e.Path, e.Host, e.Method = strings.Repeat("p", 1<<16), strings.Repeat("h", 1<<16), strings.Repeat("M", 1<<16)
	Log{Logger: slog.New(slog.NewJSONHandler(&out, nil))}.Observe(context.Background(), e)
	if out.Len() > 2<<10 {
		t.Errorf("a line of %d bytes", out.Len())
	}
}

// FuzzALineIsTheSameWithoutSlog: where Lines writes a line, slog's is the same byte for byte,
// whatever is in it; and what has to be escaped is left to slog.
func FuzzALineIsTheSameWithoutSlog(f *testing.F) {
	f.Add("GET", "/reports/2026", "main:ann", "no rule", int64(1500), int64(12), 200, 1, true)
	f.Add("M\"", "/a\\b", "main:änn", "\x7f\x00\u2028<&>", int64(0), int64(-1), 0, 0, false)
	f.Add("", "", "", "a\tb\nc", int64(1), int64(1<<62), 999, -1, false)
	f.Fuzz(func(t *testing.T, method, path, user, detail string, took, size int64, status, rule int, failed bool) {
		e := refused()
		e.Method, e.Path, e.User, e.Status, e.Rule, e.Bytes, e.Failed = method, path, user, status, rule, size, failed
		e.Took, e.Note, e.Door = time.Duration(took)*time.Microsecond, detail, detail
		e.Err, e.Session = errors.New(detail), errors.New(user)
		if took < 0 || took > 1<<53 {
			return // no request takes that long
		}
		now, level := time.Unix(1767225600+took%1000, size%1000), slog.LevelInfo
		var want, got bytes.Buffer
		r := slog.NewRecord(now, level, message, 0)
		var attrs attributes
		writeFields(&attrs, e)
		r.AddAttrs(attrs...)
		testenv.Check(t, slog.NewJSONHandler(&want, nil).Handle(t.Context(), r))
		plain := NewLines(&got).write(now, level, e)
		escaped := strings.ContainsFunc(cut(method, 32)+cut(path, 1024)+user+detail, func(r rune) bool {
			return r < ' ' || r > '~' || r == '"' || r == '\\'
		})
		if plain == escaped {
			t.Errorf("written: %t, to be escaped: %t", plain, escaped)
		}
		if plain && got.String() != want.String() {
			t.Errorf("got\n%swant\n%s", got.String(), want.String())
		}
		if !plain && got.Len() > 0 {
			t.Errorf("left to slog, and written: %s", got.String())
		}
	})
}

// A log with Lines has every line once, in whichever way it was written.
func TestEveryRequestIsOneLineWithLinesToo(t *testing.T) {
	var out bytes.Buffer
	log := Log{Logger: slog.New(slog.NewJSONHandler(&out, nil)), Lines: NewLines(&out)}
	quiet := log
	quiet.Logger = slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelError}))
	for _, path := range []string{"/plain", "/ä", "/\"", "/plain"} {
		e := refused()
		e.Path = path
		log.Observe(t.Context(), e)
		quiet.Observe(t.Context(), e)
	}
	var got []string
	for dec := json.NewDecoder(&out); dec.More(); {
		var l struct{ Path, Level string }
		testenv.Check(t, dec.Decode(&l))
		got = append(got, l.Level+" "+l.Path)
	}
	if want := []string{"INFO /plain", "INFO /ä", "INFO /\"", "INFO /plain"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// BenchmarkALine is what a request pays for its line, without and with Lines.
func BenchmarkALine(b *testing.B) {
	slow := Log{Logger: slog.New(slog.NewJSONHandler(io.Discard, nil))}
	fast := slow
	fast.Lines = NewLines(io.Discard)
	e := refused()
	for name, log := range map[string]Log{"slog": slow, "lines": fast} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				log.Observe(b.Context(), e)
			}
		})
	}
}

// The audit stream is an interface: what it says of each event, byte for byte.
func TestAuditSaysWhoDidWhat(t *testing.T) {
	var out bytes.Buffer
	a := NewAudit(&out, func(r Record, err error) { t.Errorf("lost %v: %v", r, err) })
	a.Observe(context.Background(), refused())
	in := refused()
	in.Action, in.Provider, in.Decision, in.Reason, in.Err, in.Status, in.Route, in.Path = SignIn, "main", "", "", nil,
		303, RouteOwn, "/.sallyport/callback/main"
	a.Observe(context.Background(), in)
	a.Observe(context.Background(), &Event{Start: in.Start, Action: SessionsEnded, User: "main:ann",
		Ended: "the session x", Err: errors.New("store: away")})
	for _, passes := range []*Event{{Decision: "forward"}, {Decision: "login"}, {}} {
		a.Observe(context.Background(), passes) // these are for the log
	}
	a.now = func() time.Time { return time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC) }
	a.Operator("127.0.0.1", "log level: info to debug")
	a.SessionsEnded("root", Ended{User: "main:ann"}, "sessions of person main:ann that began before "+
		"2026-11-28T09:00:00.000Z")
	if !a.Close(time.Second) {
		t.Error("not closed")
	}
	want := `{"schema":1,"time":"2026-11-28T08:30:00Z","event":"refused","request_id":"id","client":"192.0.2.1","user":"main:ann","org":"acme",` +
		`"method":"GET","host":"app.example.com","path":"/admin","route":"admin","status":403,"reason":"no_rule","detail":"route admin: no rule admits main:ann"}
{"schema":1,"time":"2026-11-28T08:30:00Z","event":"sign_in","request_id":"id","client":"192.0.2.1","user":"main:ann","org":"acme","provider":"main",` +
		`"method":"GET","host":"app.example.com","path":"/.sallyport/callback/main","route":"_own","status":303}
{"schema":1,"time":"2026-11-28T08:30:00Z","event":"sessions_ended","user":"main:ann","detail":"the session x: store: away"}
{"schema":1,"time":"2026-11-28T09:00:00Z","event":"operator","client":"127.0.0.1","detail":"log level: info to debug"}
{"schema":1,"time":"2026-11-28T09:00:00Z","event":"sessions_ended","client":"root","user":"main:ann",` +
		`"detail":"sessions of person main:ann that began before 2026-11-28T09:00:00.000Z"}
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// A full disk loses lines, and each loss is told; the stream goes on when there is
// room again.
func TestWhatCannotBeWrittenIsTold(t *testing.T) {
	full := true
	var written, told int
	a := NewAudit(writerFunc(func(b []byte) (int, error) {
		if full {
			return 0, errors.New("no space left on device")
		}
		written++
		return len(b), nil
	}), func(r Record, err error) {
		if told++; r.RequestID != "id" || err == nil {
			t.Errorf("told %v %v", r, err)
		}
	})
	for range 3 {
		a.Observe(context.Background(), refused())
	}
	full = false
	a.Observe(context.Background(), refused())
	a.Close(time.Second)
	a.Observe(context.Background(), refused()) // too late
	if told != 4 || written != 1 {
		t.Errorf("told of %d, written %d", told, written)
	}
}

// A reader that stalls delays a request by a second at most, and loses nothing.
func TestAStalledReaderLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		a := NewAudit(w, func(r Record, err error) { t.Errorf("lost %v: %v", r, err) })
		begun := time.Now()
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() { a.Observe(context.Background(), refused()) })
		}
		all.Wait()
		if took := time.Since(begun); took > patience {
			t.Errorf("requests were delayed by %s", took)
		}
		if a.Close(time.Second) {
			t.Error("closed though nobody reads")
		}
		dec := json.NewDecoder(r)
		for i := range 100 {
			var got Record
			if err := dec.Decode(&got); err != nil || got.RequestID != "id" {
				t.Fatalf("line %d: %v %v", i, got, err)
			}
		}
		if !a.Close(time.Second) {
			t.Error("not closed")
		}
	})
}

// Beyond the queue lines are lost, and that is told.
func TestAStalledReaderHasABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		var mu sync.Mutex
		told := 0
		a := NewAudit(w, func(Record, error) { mu.Lock(); told++; mu.Unlock() })
		var all sync.WaitGroup
		for range queue + 11 { // one more is being written
			all.Go(func() { a.Observe(context.Background(), refused()) })
		}
		all.Wait()
		if told != 10 {
			t.Errorf("told of %d", told)
		}
		go func() { _, _ = io.Copy(io.Discard, r) }()
		a.Close(time.Minute)
		w.Close()
	})
}
