package asynclog

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// stalling is a reader of the log that reads nothing until it is let.
type stalling struct {
	entered, let chan struct{}
	once         sync.Once
	bytes.Buffer
}

func newStalling() *stalling {
	return &stalling{entered: make(chan struct{}), let: make(chan struct{})}
}

func (s *stalling) Write(b []byte) (int, error) {
	s.once.Do(func() { close(s.entered) })
	<-s.let
	return s.Buffer.Write(b)
}

var noticeForTest = notices{lost: func(n uint64, _ error) []byte { return fmt.Appendf(nil, "lost %d\n", n) }}

// TestAStalledReaderOfTheLogStallsNobody: lines that find the buffer full are
// dropped and counted; the rest comes whole, in order, and where lines are
// missing it says how many.
func TestAStalledReaderOfTheLogStallsNobody(t *testing.T) {
	out := newStalling()
	w := startLines(out, 40, noticeForTest)
	line := func(n int) { fmt.Fprintf(w, "line %04d\n", n) } // 10 bytes
	line(0)
	<-out.entered // its reader is stuck with the first
	for n := 1; n <= 7; n++ {
		line(n) // 1-4 fit
	}
	if got := w.dropped.Load(); got != 3 {
		t.Errorf("%d lines were dropped, want 3", got)
	}
	close(out.let)
	for { // until the full buffer is out, one more finds no room
		before := w.dropped.Load()
		if line(8); w.dropped.Load() == before {
			break
		}
		time.Sleep(time.Millisecond)
	}
	lost := w.dropped.Load()
	w.close(time.Minute)
	want := fmt.Sprintf("line 0000\nline 0001\nline 0002\nline 0003\nline 0004\nlost %d\nline 0008\n", lost)
	if got := out.String(); got != want {
		t.Errorf("the log is\n%swant\n%s", got, want)
	}
}

// TestTheLogKeepsLinesWholeAndInOrder, written by many at once.
func TestTheLogKeepsLinesWholeAndInOrder(t *testing.T) {
	r, pipe, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w := startLines(pipe, bufferSize, noticeForTest)
	const writers, each = 8, 500
	var all sync.WaitGroup
	for i := range writers {
		all.Go(func() {
			for n := range each {
				fmt.Fprintf(w, "%d %d %s.\n", i, n, strings.Repeat("x", n%300))
			}
		})
	}
	go func() {
		all.Wait()
		w.close(time.Minute)
		_ = pipe.Close()
	}()
	next, lines := map[int]int{}, 0
	for in := bufio.NewScanner(r); in.Scan(); lines++ {
		var i, n int
		if _, err := fmt.Sscanf(in.Text(), "%d %d", &i, &n); err != nil || next[i] != n ||
			in.Text() != fmt.Sprintf("%d %d %s.", i, n, strings.Repeat("x", n%300)) {
			t.Fatalf("after %d of %d: %q", next[i], i, in.Text())
		}
		next[i]++
	}
	if lines != writers*each || w.dropped.Load() != 0 {
		t.Errorf("%d lines of %d, %d dropped", lines, writers*each, w.dropped.Load())
	}
}

// halfway takes some bytes and then fails, as a full disk does.
type halfway struct {
	bytes.Buffer
	room int
}

func (h *halfway) Write(b []byte) (int, error) {
	if len(b) > 1 && len(b) > h.room {
		n, _ := h.Buffer.Write(b[:h.room])
		h.room = 1 << 20
		return n, errors.New("no space")
	}
	return h.Buffer.Write(b)
}

func TestALineCutByAFullDiskDoesNotSpoilTheNext(t *testing.T) {
	out := &halfway{room: 6}
	w := &lineWriter{out: out, notices: noticeForTest}
	w.put([]byte("one\ntwo\nthree\n"))
	w.put([]byte("four\n"))
	if got := out.String(); got != "one\ntw\nlost 2\nfour\n" || w.dropped.Load() != 2 {
		t.Errorf("the log is %q, %d lines dropped", got, w.dropped.Load())
	}
}

// TestLeavingDoesNotWaitForAStalledReader longer than told, and what comes after
// is counted, not written.
func TestLeavingDoesNotWaitForAStalledReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := newStalling()
		defer close(out.let)
		w := startLines(out, 100, noticeForTest)
		fmt.Fprintln(w, "one")
		start := time.Now()
		w.close(20 * time.Millisecond)
		if took := time.Since(start); took != 20*time.Millisecond {
			t.Errorf("it waited %s", took)
		}
		fmt.Fprintln(w, "late")
		if got := w.dropped.Load(); got != 1 {
			t.Errorf("%d lines dropped, want the late one", got)
		}
	})
}

// TestTheLogSaysWhatItLost in its own format and in the metrics.
func TestTheLogSaysWhatItLost(t *testing.T) {
	for format, want := range map[string]string{
		"json": `"level":"WARN","msg":"log lines were lost: their reader was too slow","lines":2}`,
		"text": `level=WARN msg="log lines were lost: their reader was too slow" lines=2`,
		"auto": `"lines":2}`, // not a terminal
	} {
		out := newStalling()
		log := Open(out, io.Discard, slog.LevelError, format) // the notice comes at any level
		reg := prometheus.NewRegistry()
		log.Measure(reg)
		log.Error("first")
		<-out.entered
		log.Error("as long as the buffer", "x", strings.Repeat("x", bufferSize-200))
		log.Error("lost", "x", strings.Repeat("x", 300))
		log.Error("lost too") // it would fit, but one before it is missing
		close(out.let)
		log.Close()
		if got := out.String(); !strings.HasSuffix(got, want+"\n") {
			t.Errorf("%s: it ends with %q", format, got[max(0, len(got)-200):])
		}
		want := "# HELP sallyport_log_lines_dropped_total Log lines that were not written because the reader of the " +
			"log was too slow or gone, or the disk full.\n# TYPE sallyport_log_lines_dropped_total counter\n" +
			"sallyport_log_lines_dropped_total 2\n"
		if err := testutil.GatherAndCompare(reg, strings.NewReader(want)); err != nil {
			t.Errorf("%s: %v", format, err)
		}
	}
}

// BenchmarkLog is what a request pays for its line: written to a pipe at once, or
// through the buffer. The reader keeps up; every 1,000 lines it is waited for, so
// that none is dropped.
func BenchmarkLog(b *testing.B) {
	for name, buffered := range map[string]bool{"direct": false, "buffered": true} {
		b.Run(name, func(b *testing.B) {
			r, pipe, err := os.Pipe()
			if err != nil {
				b.Fatal(err)
			}
			read := make(chan struct{})
			go func() { _, _ = io.Copy(io.Discard, r); close(read) }()
			var w io.Writer = pipe
			lines := startLines(pipe, bufferSize, noticeForTest)
			if buffered {
				w = lines
			}
			log := newLogger(w, slog.LevelInfo, "json")
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				log.Info("request", "request_id", "y6uacngi33blzcv3", "method", "GET", "host", "app.example.com",
					"path",
					"/reports/2026",
					"status", 200, "bytes", 1234, "ms", 1.25, "client", "192.0.2.1", "route", "app", "user", "sso:1234")
				if n%1000 == 999 {
					b.StopTimer()
					for lines.waiting() > 0 {
						time.Sleep(100 * time.Microsecond)
					}
					b.StartTimer()
				}
			}
			lines.close(time.Minute)
			if lines.dropped.Load() > 0 {
				b.Errorf("%d lines were dropped", lines.dropped.Load())
			}
			_ = pipe.Close()
			<-read
		})
	}
}

func (w *lineWriter) waiting() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.filling)
}
