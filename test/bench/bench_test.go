package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// mainVariable makes a process of these tests the program itself.
const mainVariable = "SALLYPORT_BENCH_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(mainVariable) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// bench runs the program, and returns what it wrote into its document and the folder of charts.
func bench(t *testing.T, name string, args ...string) (document, charts string) {
	t.Helper()
	binary := os.Getenv("SALLYPORT_BINARY")
	if binary == "" {
		binary = filepath.Join(t.TempDir(), "sallyport")
		build := exec.Command("go", "build", "-o", binary, "./cmd/sallyport")
		build.Dir = filepath.Join("..", "..")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build sallyport: %v\n%s", err, out)
		}
	}
	file, charts := filepath.Join(t.TempDir(), "performance.md"), t.TempDir()
	frame := fmt.Sprintf("before\n<!-- begin: %s -->\nof last time\n<!-- end: %[1]s -->\nafter\n", name)
	check(t, os.WriteFile(file, []byte(frame), 0o600))
	cmd := exec.Command(os.Args[0], append(args, "-binary", binary, "-document", file, "-charts", charts)...)
	cmd.Env = append(os.Environ(), mainVariable+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(file)
	check(t, err)
	for _, want := range []string{"before\n<!-- begin: " + name, name + " -->\nafter\n"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q was not left alone:\n%s", want, text)
		}
	}
	if strings.Contains(string(text), "of last time") {
		t.Error("what was written last time is still there")
	}
	return string(text), charts
}

// TestEveryRowIsMeasured runs it all for some fractions of a second. How long anything takes is
// not looked at: other tests run at the same time.
func TestEveryRowIsMeasured(t *testing.T) {
	upstream, err := freeAddress()
	check(t, err)
	at, err := freeAddresses(3)
	check(t, err)
	peer := exec.Command(os.Args[0], "bare", at[0], at[1], at[2], "http://"+upstream)
	peer.Env = append(os.Environ(), mainVariable+"=1")
	check(t, peer.Start())
	t.Cleanup(func() {
		_ = peer.Process.Kill()
		_ = peer.Wait()
	})
	text, charts := bench(t, "make bench", "rounds", "-rounds", "2", "-round", "200ms", "-upstream", upstream,
		"-peer", "name=a peer,url=http://"+at[0]+"/x,cookie=a=b")
	const figures = ` [0-9]+ \| [0-9.]+ \| [0-9.]+ \| [0-9.]+( \([0-9.]+–[0-9.]+\))? \|`
	want := []string{"bare `httputil.ReverseProxy`", "Sallyport, a public route", "**Sallyport, signed in**",
		"Sallyport, a public route, `lane`", "Sallyport, signed in, `lane`", "Sallyport, `/verify`, `lane`",
		"Sallyport, gateway (an app uses a grant)", "a peer", "bare `net/http` handler", "**Sallyport, `/verify`**",
		"bare `net/http` handler, HTTP/2", "**Sallyport, Envoy's check over gRPC**"}
	for name, rows := range map[string][]string{"nginx": {"nginx", "nginx, our headers and a JSON log"}, "haproxy": {"HAProxy"}} {
		if _, ok := program(name); ok || os.Getenv("SALLYPORT_REQUIRE") == "1" {
			want = append(want, rows...)
		}
	}
	for _, row := range want {
		found := regexp.MustCompile(`(?m)^\| ` + regexp.QuoteMeta(row) + ` \|` + figures + `.*$`).FindString(text)
		if found == "" {
			t.Errorf("no row of %s", row)
		}
		if strings.Contains(row, "Sallyport") && !regexp.MustCompile(`\| [0-9]+, [0-9]+ \|$`).MatchString(found) {
			t.Errorf("no allocations in %q", found)
		}
	}
	for _, row := range []string{"bare `httputil.ReverseProxy`", "Sallyport, a public route", "Sallyport, signed in",
		"Sallyport, signed in, `lane`"} {
		if !regexp.MustCompile(`(?m)^\| ` + regexp.QuoteMeta(row) + ` \| [0-9]+ \| -?[0-9]+ \(.*\) \| -?[0-9]+ \(.*\) \|$`).
			MatchString(text) {
			t.Errorf("no row of %s at half load", row)
		}
	}
	for _, row := range []string{"bare `httputil.ReverseProxy`", "Sallyport", "Sallyport, with a store and grants"} {
		if !regexp.MustCompile(`(?m)^\| ` + regexp.QuoteMeta(row) + ` \| [0-9]+\.[0-9] \| [0-9]+\.[0-9] \|$`).MatchString(text) {
			t.Errorf("no memory of %s", row)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
	if !regexp.MustCompile(`Other programs took [0-9.]+% of these cores meanwhile`).MatchString(text) {
		t.Error("nothing of what else the machine did")
	}
	for _, name := range []string{"requests.svg", "checks.svg"} {
		isChart(t, filepath.Join(charts, name))
	}
}

// TestEveryCurveIsMeasured runs the first two points of each.
func TestEveryCurveIsMeasured(t *testing.T) {
	text, charts := bench(t, "make bench-scaling", "scaling", "-points", "2", "-rounds", "1", "-round", "200ms")
	all := curves()
	if len(all) != 7 {
		t.Errorf("%d curves", len(all))
	}
	for _, c := range all {
		isChart(t, filepath.Join(charts, c.name+".svg"))
		_, table, ok := strings.Cut(text, "| "+c.unit+" | ")
		table, _, _ = strings.Cut(table, "\n\n")
		if rows := regexp.MustCompile(`(?m)^\| [0-9].* \| [0-9.]+( \| [–0-9., ]+)+ \|$`).FindAllString(table, -1); !ok ||
			len(rows) != 2 {
			t.Errorf("%s has not two rows:\n%s", c.name, table)
		}
	}
}

// isChart wants a well-formed picture that has text and follows the reader's colours.
func isChart(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	check(t, err)
	for d := xml.NewDecoder(bytes.NewReader(text)); ; {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	for _, want := range []string{"<svg xmlns=", "prefers-color-scheme: dark", "<title>", "</text>"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s has no %s", file, want)
		}
	}
	if strings.Contains(string(text), "NaN") || strings.Contains(string(text), "Inf") {
		t.Errorf("%s has places that are none", file)
	}
}

// TestFiguresOfNoughtHaveAPlaceInAChart: processes at rest take no tick of the clock within two seconds.
func TestFiguresOfNoughtHaveAPlaceInAChart(t *testing.T) {
	line := filepath.Join(t.TempDir(), "line.svg")
	check(t, os.WriteFile(line, []byte(lineChart("CPU", []finding{{label: "1"}, {label: "2"}})), 0o600))
	isChart(t, line)
	bars := filepath.Join(t.TempDir(), "bars.svg")
	check(t, os.WriteFile(bars, []byte(barChart("CPU", []bar{{name: "Sallyport"}})), 0o600))
	isChart(t, bars)
}

// rig is a loop with an upstream, and a proxy written here in front of it.
func rig(t *testing.T, handler http.HandlerFunc) (l *loop, s *subject, address string) {
	t.Helper()
	l, err := newLoop()
	check(t, err)
	t.Cleanup(l.close)
	u, err := newUpstream(l, "127.0.0.1:0", 10)
	check(t, err)
	proxy := httptest.NewUnstartedServer(handler)
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	proxy.Config.Protocols = &protocols
	proxy.Start()
	t.Cleanup(proxy.Close)
	address = proxy.Listener.Addr().String()
	s = &subject{name: "a proxy", process: &process{pid: os.Getpid()}, reaches: u,
		dial: func(ld *load) error {
			return dialHTTP(l, ld, address, request(address, "http://"+u.address, "a=b"), expected{"200", 10}, 4)
		}}
	return l, s, address
}

// ask does what a proxy does.
func ask(w http.ResponseWriter, r *http.Request) {
	res, err := http.Get(r.URL.String())
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.Copy(w, res.Body)
}

func TestAProxyThatIsRightIsMeasured(t *testing.T) {
	for _, rate := range []float64{0, 500} {
		l, s, _ := rig(t, ask)
		r, err := measure(l, s, 100*time.Millisecond, rate)
		if err != nil || r.rate <= 0 || r.p50 <= 0 || r.p99 < r.p50 {
			t.Errorf("at a rate of %v: %+v, %v", rate, r, err)
		}
	}
}

// What a proxy saves itself by a fault must not look like speed.
func TestAnAnswerThatIsWrongFailsTheRun(t *testing.T) {
	n := 0
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		fault   string
	}{
		"another status": {func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", http.StatusForbidden) }, "403"},
		"another length": {func(w http.ResponseWriter, r *http.Request) { ask(w, r); _, _ = io.WriteString(w, "!") },
			"11 bytes instead of 10"},
		"no length": {func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			ask(w, r)
		}, "no Content-Length"},
		"a break": {func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_ = conn.Close()
			}
		}, "a connection was closed"},
		"one of many": {func(w http.ResponseWriter, r *http.Request) {
			if n++; n == 60 {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			ask(w, r)
		}, "502"},
		"an answer of its own": {func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "0123456789") },
			"the upstream was asked 0 times"},
		"asked twice": {func(w http.ResponseWriter, r *http.Request) {
			ask(httptest.NewRecorder(), r)
			ask(w, r)
		}, "the upstream was asked"},
	} {
		t.Run(name, func(t *testing.T) {
			l, s, _ := rig(t, c.handler)
			if name == "one of many" {
				one := s.dial
				s.dial = func(ld *load) error { err := one(ld); ld.talkers = ld.talkers[:1]; return err }
			}
			r, err := measure(l, s, 200*time.Millisecond, 0)
			if err == nil || !strings.Contains(err.Error(), c.fault) {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
	t.Run("not told who asks", func(t *testing.T) {
		l, s, _ := rig(t, ask)
		s.sends = "X-Forwarded-User: sso:ann\r\n"
		if _, err := measure(l, s, 50*time.Millisecond, 0); err == nil || !strings.Contains(err.Error(), "was not sent") {
			t.Errorf("%v", err)
		}
	})
}

func TestACheckThatIsAnsweredWrongFailsTheRun(t *testing.T) {
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		judge   func([]byte) error
		fault   string
	}{
		"no verdict":    {answerEmpty, passes, "the check was answered"},
		"no gRPC":       {func(w http.ResponseWriter, r *http.Request) {}, passes, "a call failed"},
		"an error page": {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(404) }, passes, "a call failed"},
		"right":         {answerEmpty, func([]byte) error { return nil }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			l, s, address := rig(t, c.handler)
			s.reaches = nil
			s.dial = func(ld *load) error { return dialGRPC(l, ld, address, []byte("?"), c.judge, 2, 2) }
			_, err := measure(l, s, 50*time.Millisecond, 0)
			if c.fault == "" && err != nil || c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestHistogramKnowsItsQuantiles(t *testing.T) {
	var h histogram
	for i := range 1000 {
		h.add(int64(i+1) * 1000)
	}
	h.add(-5)
	for q, want := range map[float64]float64{0.5: 500e3, 0.99: 990e3, 1: 1000e3} {
		if got := float64(h.quantile(q)); got < want || got > want*1.02 {
			t.Errorf("%v: %v instead of %v", q, got, want)
		}
	}
	for _, v := range []uint64{0, 1, 127, 128, 129, 1e6, 1e9, 6e10} {
		if c := class(v); lowest(c) > v || lowest(c+1) <= v {
			t.Errorf("%d is in the class from %d to %d", v, lowest(c), lowest(c+1))
		}
	}
}

func TestSpreadIsOfRounds(t *testing.T) {
	a := &subject{results: []result{{cpu: 10}, {cpu: 30}, {cpu: 20}}}
	b := &subject{results: []result{{cpu: 10}, {cpu: 10}, {cpu: 10}}}
	if got := a.ratio(b); got != (spread{2, 1, 3}) {
		t.Errorf("%v", got)
	}
	if got := a.ratio(b).text("%.1f"); got != "2.0 (1.0–3.0)" {
		t.Error(got)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What other programs do on the cores is told, and what is measured is none of it.
func TestOthersAreNoticed(t *testing.T) {
	self := &process{pid: os.Getpid()}
	during := func(work func()) (o others, ours time.Duration) {
		note, err := o.watch(self)
		check(t, err)
		work()
		ours, err = note()
		check(t, err)
		return o, ours
	}
	// Whoever else is at work has what is left, so both together are never more than there is.
	o, ours := during(func() {
		var all sync.WaitGroup
		end := time.Now().Add(time.Second)
		for range runtime.GOMAXPROCS(0) {
			all.Go(func() {
				for time.Now().Before(end) {
				}
			})
		}
		all.Wait()
	})
	if o.taken+ours > o.whole*11/10 {
		t.Errorf("of %v others took %v, and this process %v", o.whole, o.taken, ours)
	}
	// The shell ends at once, and what it leaves behind is no child of this process.
	o, _ = during(func() {
		check(t, exec.Command("sh", "-c", "timeout 1 sh -c 'while :; do :; done' &").Run())
		time.Sleep(time.Second)
	})
	if o.taken < 300*time.Millisecond {
		t.Errorf("others took %v of %v, where one was never idle", o.taken, o.whole)
	}
}

func TestOthersAreTold(t *testing.T) {
	var o others
	if got := o.text(); got != "" {
		t.Errorf("%q, and nothing was measured", got)
	}
	o.add(10*time.Second, -time.Millisecond) // the clock of a core is behind
	o.add(10*time.Second, 240*time.Millisecond)
	const little = " Other programs took 1.2% of these cores meanwhile, and 2.4% in the worst measurement."
	if got := o.text(); got != little {
		t.Error(got)
	}
	o.add(10*time.Second, 5*time.Second)
	const much = " **Other programs took 17% of these cores meanwhile**, so times and requests a second tell little, " +
		"and ratios are rough."
	if got := o.text(); got != much {
		t.Error(got)
	}
}

// Curves can be measured one by one.
func TestOneCurveIsReplacedAndTheOthersStay(t *testing.T) {
	const head, first, second = "On a machine. **It was busy.**\n", "\n**Routes.** old\n\n| 1 |\n", "\n**Groups.** old\n"
	for part, want := range map[string]string{
		"\n**Routes.** new\n": head + "\n**Routes.** new\n" + second,
		"\n**Groups.** new\n": head + first + "\n**Groups.** new\n",
		"\n**Bytes.** new\n":  head + first + second + "\n**Bytes.** new\n",
	} {
		if got := replaceCurve(head+first+second, part); got != want {
			t.Errorf("%q became %q", part, got)
		}
	}
}
