package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport-proxy/sallyport/session"
)

// curve is one of docs/performance.md: how a figure follows from a size.
type curve struct {
	name    string // of its chart, too
	title   string // of its chart
	explain string // one sentence or two
	unit    string // of the sizes
	sizes   []int
	measure func(s *scaler, sizes []int) ([]finding, error)
}

// finding is a row of the table below a chart: the first cell is the size.
type finding struct {
	label string
	value float64 // in the chart
	cells []string
}

// columns are the heads of the cells of each curve that is measured by requests.
const columns = "CPU, µs | requests/s | allocations, bytes | RSS, MiB"

// scaler is what the curves are measured with.
type scaler struct {
	cores cores
	o     *options
	loop  *loop
	app   *upstream
}

// scaling is `make bench-scaling`.
func scaling(c cores, o *options) error {
	end, err := o.prepare()
	if err != nil {
		return err
	}
	defer end()
	l, err := newLoop()
	if err != nil {
		return err
	}
	defer l.close()
	s := &scaler{cores: c, o: o, loop: l}
	if s.app, err = newUpstream(l, o.upstream, o.size); err != nil {
		return err
	}
	var text string
	if o.only != "" { // the others stay as they are
		if text, err = readBetween(o.document, scalingName); err != nil {
			return err
		}
	}
	for _, cv := range curves() {
		if o.only != "" && !slices.Contains(strings.Split(o.only, ","), cv.name) {
			continue
		}
		sizes := cv.sizes
		if o.points > 0 {
			sizes = sizes[:min(o.points, len(sizes))]
		}
		findings, err := cv.measure(s, sizes)
		if err != nil {
			return fmt.Errorf("%s: %w", cv.name, err)
		}
		if err := writeChart(o, cv.name+".svg", lineChart(cv.title, findings)); err != nil {
			return err
		}
		part := cv.text(findings)
		if o.only != "" {
			part += "\nThese were measured apart from the others. " + machine(o, c, l.others) + "\n"
			l.others = others{}
		}
		text = replaceCurve(text, part)
		_, _ = fmt.Fprintf(o.progress, "%s: %v\n", cv.name, findings)
	}
	if o.only == "" {
		text = fmt.Sprintf("%s\n\nRequests are those of somebody who is signed in. Each figure is the median of %d "+
			"rounds of %v, with %d connections unless said otherwise.\n", machine(o, c, l.others), o.rounds, o.round,
			o.connections) + text
	}
	return writeBetween(o.document, scalingName, text)
}

// scalingName is what writes the curves.
const scalingName = "make bench-scaling"

// curveBegins is what the text of each curve begins with; nothing else does.
const curveBegins = "\n**"

// replaceCurve puts the text of a curve in the place of what is there of it, or at the end.
func replaceCurve(text, part string) string {
	head, _, _ := strings.Cut(part, ".** ")
	begin := strings.Index(text, head+".** ")
	if begin < 0 {
		return text + part
	}
	end := len(text)
	if next := strings.Index(text[begin+1:], curveBegins); next >= 0 {
		end = begin + 1 + next
	}
	return text[:begin] + part + text[end:]
}

func (cv *curve) text(findings []finding) string {
	var text strings.Builder
	heads := columns
	switch cv.name {
	case "sockets":
		heads = "RSS, MiB | of one, KiB"
	case "bytes":
		heads = "CPU, µs | CPU for each MB, µs | MB/s | RSS, MiB"
	case "replicas":
		heads = "CPU, µs | CPU of all in a second without requests, ms | RSS of all, MiB"
	}
	fmt.Fprintf(&text, curveBegins+"%s.** %s\n\n![%s](performance/%s.svg)\n\n| %s | %s |\n|---|%s\n",
		strings.ToUpper(cv.unit[:1])+cv.unit[1:], cv.explain, cv.title, cv.name, cv.unit, heads,
		strings.Repeat("---|", strings.Count(heads, "|")+1))
	for _, f := range findings {
		fmt.Fprintf(&text, "| %s | %s |\n", f.label, strings.Join(f.cells, " | "))
	}
	return text.String()
}

func curves() []curve {
	const perRequest = "CPU per request, µs"
	return []curve{
		{name: "routes", title: perRequest, unit: "routes", sizes: []int{1, 10, 100, 1000, 5000},
			explain: "Each has a path of its own; what is asked for belongs to the last.", measure: (*scaler).routes},
		{name: "groups", title: perRequest, unit: "groups of a person", sizes: []int{0, 10, 50, 100, 200},
			explain: "They are in the cookie, in a header of the request to the app, and in the assertion.",
			measure: (*scaler).groups},
		{name: "cookies", title: perRequest, unit: "other cookies", sizes: []int{0, 5, 20, 50},
			explain: "Cookies of the app, of 40 bytes each, before ours.", measure: (*scaler).cookies},
		{name: "ended", title: perRequest, unit: "ended sessions", sizes: []int{0, 1000, 10_000, 100_000, 1_000_000},
			explain: "Sign-ins of others that have ended and are kept in the store until they would be over anyway.",
			measure: (*scaler).ended},
		{name: "sockets", title: "RSS, MiB", unit: "idle WebSockets", sizes: []int{0, 100, 1000, 5000, 10_000},
			explain: "Each is a connection of a client and one to the app, as many as the limit of open files lets be.",
			measure: (*scaler).sockets},
		{name: "bytes", title: "MB for each second of CPU", unit: "length of an answer",
			sizes:   []int{1 << 10, 10 << 10, 100 << 10, 1 << 20, 10 << 20, 100 << 20, 1 << 30},
			explain: "Over eight connections, and over one where it is longer than 10 MiB.",
			measure: (*scaler).bytes},
		{name: "replicas", title: "CPU of all in a second without requests, ms", unit: "replicas on one store",
			sizes: []int{1, 2, 4, 8}, explain: "Processes that share a file of SQLite. One of them is asked.",
			measure: (*scaler).replicas},
	}
}

// each measures the requests of one subject for each size, in turn.
func (s *scaler) each(sizes []int, start func(n int) (*sallyport, []byte, string, error)) ([]finding, error) {
	var subjects []*subject
	for _, n := range sizes {
		sp, request, sends, err := start(n)
		if err != nil {
			return nil, fmt.Errorf("%d: %w", n, err)
		}
		defer sp.stop()
		subjects = append(subjects, s.subject(fmt.Sprint(n), sp, request, sends, s.o.size, s.o.connections))
	}
	if err := runRounds(s.loop, subjects, s.o.rounds, s.o.round, s.o.progress); err != nil {
		return nil, err
	}
	var findings []finding
	for i, sub := range subjects {
		f, err := sub.finding(grouped(sizes[i]))
		if err != nil {
			return nil, err
		}
		findings = append(findings, f)
	}
	return findings, nil
}

func (s *scaler) subject(name string, sp *sallyport, request []byte, sends string, size, connections int) *subject {
	return &subject{name: name, process: sp.process, reaches: s.app, sends: sends, dial: func(ld *load) error {
		return dialHTTP(s.loop, ld, sp.public, request, expected{"200", size}, connections)
	}}
}

// finding is the row of a subject.
func (s *subject) finding(label string) (finding, error) {
	cpu := spreadOf(s.each(func(r result) float64 { return r.cpu }))
	resident, err := s.process.resident()
	return finding{label, cpu.median, []string{cpu.text("%.1f"),
		fmt.Sprintf("%.0f", median(s.each(func(r result) float64 { return r.rate }))),
		fmt.Sprintf("%.0f, %.0f", median(s.each(func(r result) float64 { return r.objects })),
			median(s.each(func(r result) float64 { return r.bytes }))), mebibytes(resident)}}, err
}

func mebibytes(n int) string { return fmt.Sprintf("%.1f", float64(n)/(1<<20)) }

// grouped is a number as people write it.
func grouped(n int) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

const toldAnn = "X-Forwarded-User: sso:ann\r\n"

func (s *scaler) routes(sizes []int) ([]finding, error) {
	return s.each(sizes, func(n int) (*sallyport, []byte, string, error) {
		var routes strings.Builder
		for i := range n - 1 {
			fmt.Fprintf(&routes, "  - {name: r%d, path: /sites/%[1]d, upstream: \"http://%s\", "+
				"allow: [{groups: [staff]}]}\n", i+1, s.app.address)
		}
		sp, err := startSallyport(s.cores, s.o.binary, s.o.dir, site{upstream: s.app.address, routes: routes.String()})
		if err != nil {
			return nil, nil, "", err
		}
		return sp, request(sp.public, fmt.Sprintf("/sites/%d%s", n-1, reports), "theme=dark; "+sp.cookie), toldAnn, nil
	})
}

func (s *scaler) groups(sizes []int) ([]finding, error) {
	return s.each(sizes, func(n int) (*sallyport, []byte, string, error) {
		who := ann()
		who.Groups = nil
		for i := range n {
			who.Groups = append(who.Groups, fmt.Sprintf("team-%03d", i))
		}
		sp, err := startSallyport(s.cores, s.o.binary, s.o.dir, site{upstream: s.app.address, allow: "authenticated",
			person: who})
		if err != nil {
			return nil, nil, "", err
		}
		sends := toldAnn
		if n > 0 {
			sends = "X-Forwarded-Groups: " + strings.Join(who.Groups, ",") + "\r\n"
		}
		return sp, sp.signedIn(), sends, nil
	})
}

func (s *scaler) cookies(sizes []int) ([]finding, error) {
	return s.each(sizes, func(n int) (*sallyport, []byte, string, error) {
		sp, err := startSallyport(s.cores, s.o.binary, s.o.dir, site{upstream: s.app.address})
		if err != nil {
			return nil, nil, "", err
		}
		var cookies strings.Builder
		for i := range n {
			fmt.Fprintf(&cookies, "app-setting-%02d=%s; ", i, strings.Repeat("v", 24))
		}
		return sp, request(sp.public, reports, cookies.String()+sp.cookie), toldAnn, nil
	})
}

func (s *scaler) ended(sizes []int) ([]finding, error) {
	return s.each(sizes, func(n int) (*sallyport, []byte, string, error) {
		file := filepath.Join(s.o.dir, fmt.Sprintf("ended-%d.db", n))
		if err := fillStore(file, n); err != nil {
			return nil, nil, "", err
		}
		sp, err := startSallyport(s.cores, s.o.binary, s.o.dir, site{upstream: s.app.address, store: "sqlite:" + file})
		if err != nil {
			return nil, nil, "", err
		}
		return sp, sp.signedIn(), toldAnn, nil
	})
}

func (s *scaler) sockets(sizes []int) ([]finding, error) {
	sp, err := startSallyport(s.cores, s.o.binary, s.o.dir, site{upstream: s.app.address})
	if err != nil {
		return nil, err
	}
	defer sp.stop()
	time.Sleep(time.Second) // it has just started
	empty := 0
	open := &webSockets{loop: s.loop, address: sp.public, cookie: sp.cookie}
	defer open.close()
	var findings []finding
	for _, n := range sizes {
		n = min(n, mostSockets())
		if err := open.grow(n); err != nil {
			return nil, fmt.Errorf("%d of %d are open: %w", len(open.conns), n, err)
		}
		time.Sleep(time.Second)
		if lost := open.lost(); lost > 0 {
			return nil, fmt.Errorf("%d of %d did not stay open", lost, n)
		}
		resident, err := sp.resident()
		if err != nil {
			return nil, err
		}
		each := "–"
		if n == 0 {
			empty = resident
		} else {
			each = fmt.Sprintf("%.1f", float64(resident-empty)/float64(n)/1024)
		}
		findings = append(findings, finding{grouped(n), float64(resident) / (1 << 20),
			[]string{mebibytes(resident), each}})
	}
	return findings, nil
}

// mostSockets is how many WebSockets the limit of open files lets through: two sockets for each,
// there as here.
func mostSockets() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return int(limit.Max/2) - 100
}

func (s *scaler) bytes(sizes []int) ([]finding, error) {
	var findings []finding
	sp, err := startSallyport(s.cores, s.o.binary, s.o.dir, site{upstream: s.app.address})
	if err != nil {
		return nil, err
	}
	defer sp.stop()
	var subjects []*subject
	for _, n := range sizes {
		connections := 8
		if n > 10<<20 {
			connections = 1
		}
		subjects = append(subjects, s.subject(sizeName(n), sp,
			request(sp.public, fmt.Sprintf("/bytes/%d", n), "theme=dark; "+sp.cookie), toldAnn, n, connections))
	}
	for i, sub := range subjects {
		if err := runRounds(s.loop, subjects[i:i+1], s.o.rounds, s.o.round, s.o.progress); err != nil {
			return nil, err
		}
		resident, err := sp.resident() // before the next, longer one
		if err != nil {
			return nil, err
		}
		cpu := spreadOf(sub.each(func(r result) float64 { return r.cpu }))
		rate := median(sub.each(func(r result) float64 { return r.rate }))
		mb := float64(sizes[i]) / 1e6
		findings = append(findings, finding{sub.name, mb / max(cpu.median, 1) * 1e6, []string{cpu.text("%.0f"),
			number(cpu.median / mb), fmt.Sprintf("%.0f", rate*mb), mebibytes(resident)}})
	}
	return findings, nil
}

func sizeName(n int) string {
	for _, u := range []struct {
		name string
		size int
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.size {
			return fmt.Sprint(n/u.size, " ", u.name)
		}
	}
	return fmt.Sprint(n, " bytes")
}

func (s *scaler) replicas(sizes []int) ([]finding, error) {
	key := session.NewKey(time.Now().Add(-time.Hour))
	file := filepath.Join(s.o.dir, "replicas.db")
	var all []*sallyport
	defer func() {
		for _, sp := range all {
			sp.stop()
		}
	}()
	var findings []finding
	for _, n := range sizes {
		for len(all) < n {
			sp, err := startSallyport(s.cores, s.o.binary, s.o.dir, site{upstream: s.app.address, key: key,
				store: "sqlite:" + file})
			if err != nil {
				return nil, err
			}
			all = append(all, sp)
		}
		sub := s.subject(fmt.Sprint(n, " replicas"), all[0], all[0].signedIn(), toldAnn, s.o.size, s.o.connections)
		if err := runRounds(s.loop, []*subject{sub}, s.o.rounds, s.o.round, s.o.progress); err != nil {
			return nil, err
		}
		idle, resident, err := idleCost(all, 10*s.o.round)
		if err != nil {
			return nil, err
		}
		cpu := spreadOf(sub.each(func(r result) float64 { return r.cpu }))
		findings = append(findings, finding{grouped(n), idle,
			[]string{cpu.text("%.1f"), fmt.Sprintf("%.1f", idle), mebibytes(resident)}})
	}
	return findings, nil
}

// idleCost is the CPU that all take in a second in which nobody asks, in milliseconds, and
// their memory.
func idleCost(all []*sallyport, d time.Duration) (cpu float64, resident int, err error) {
	total := func() (sum time.Duration, err error) {
		for _, sp := range all {
			one, err := sp.cpu()
			if err != nil {
				return 0, err
			}
			sum += one
		}
		return sum, nil
	}
	before, err := total()
	if err != nil {
		return 0, 0, err
	}
	time.Sleep(d)
	after, err := total()
	if err != nil {
		return 0, 0, err
	}
	for _, sp := range all {
		one, err := sp.resident()
		if err != nil {
			return 0, 0, err
		}
		resident += one
	}
	return float64(after-before) / float64(d) * 1000, resident, nil
}
