package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// report writes tables and charts of `make bench`.
func report(o *options, c cores, meanwhile others, subjects []*subject, half []added, resting []idle) error {
	by := map[string]*subject{}
	for _, s := range subjects {
		by[s.key] = s
	}
	var proxies, checks []*subject
	for _, s := range subjects {
		if s.beside == "bare" {
			proxies = append(proxies, s)
		} else {
			checks = append(checks, s)
		}
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s\n\nEach figure is the median of %d rounds of %v with %d connections and answers of %d "+
		"bytes; in brackets the least and the most.\n\n", machine(o, c, meanwhile), o.rounds, o.round, o.connections,
		o.size)
	text.WriteString("![CPU per request of each proxy](performance/requests.svg)\n\n")
	neighbours := []neighbour{{"bare `ReverseProxy`", func(*subject) *subject { return by["bare"] }}}
	if by["nginx"] != nil {
		neighbours = append(neighbours, neighbour{"nginx", func(*subject) *subject { return by["nginx"] }})
	}
	table(&text, "passing requests on", proxies, neighbours)
	text.WriteString("\n![CPU per check](performance/checks.svg)\n\n")
	table(&text, "answering another proxy", checks,
		[]neighbour{{"the bare handler", func(s *subject) *subject { return by[s.beside] }}})
	text.WriteString("\nHow much longer an answer takes than from the upstream itself, at half load:\n\n" +
		"| passing requests on | requests/s | p50 added, µs | p99 added, µs |\n|---|---|---|---|\n")
	for _, a := range half {
		fmt.Fprintf(&text, "| %s | %.0f | %s | %s |\n", a.subject.name, a.rate, a.p50.text("%.0f"), a.p99.text("%.0f"))
	}
	text.WriteString(restTable(resting))
	if err := writeChart(o, "requests.svg", barChart("CPU per request, µs", bars(proxies))); err != nil {
		return err
	}
	if err := writeChart(o, "checks.svg", barChart("CPU per check, µs", bars(checks))); err != nil {
		return err
	}
	return writeBetween(o.document, roundsName, text.String())
}

// roundsName is what writes the tables.
const roundsName = "make bench"

// restBegins is what the last of the tables begins with.
const restBegins = "\nMemory of processes that have started and were asked for nothing yet"

func restTable(resting []idle) string {
	var text strings.Builder
	text.WriteString(restBegins + ":\n\n| at rest | RSS, MiB | without the program's own file, MiB |\n|---|---|---|\n")
	for _, m := range resting {
		fmt.Fprintf(&text, "| %s | %s | %s |\n", m.name, mebibytes(m.resident), mebibytes(m.own))
	}
	return text.String()
}

// reportRest writes the last table, and leaves the others as they are.
func reportRest(o *options, c cores, resting []idle) error {
	text, err := readBetween(o.document, roundsName)
	if err != nil {
		return err
	}
	before, _, _ := strings.Cut(text, restBegins)
	return writeBetween(o.document, roundsName, before+restTable(resting)+
		"\nThis table was measured apart from the others. "+machine(o, c, others{})+"\n")
}

// neighbour is what rows are compared with, in a column.
type neighbour struct {
	name string
	of   func(s *subject) *subject
}

func table(text *strings.Builder, title string, rows []*subject, neighbours []neighbour) {
	head, line := "| "+title+" | requests/s | p50, ms | p99, ms | CPU, µs |", "|---|---|---|---|---|"
	for _, n := range neighbours {
		head += " ÷ " + n.name + " |"
		line += "---|"
	}
	text.WriteString(head + " allocations, bytes |\n" + line + "---|\n")
	for _, s := range rows {
		name := s.name
		if s.key == "signed-in" || s.key == "verify" || s.key == "grpc" {
			name = "**" + name + "**"
		}
		fmt.Fprintf(text, "| %s | %.0f | %.2f | %.2f | %s |", name,
			median(s.each(func(r result) float64 { return r.rate })),
			median(s.each(func(r result) float64 { return r.p50.Seconds() * 1e3 })),
			median(s.each(func(r result) float64 { return r.p99.Seconds() * 1e3 })),
			spreadOf(s.each(func(r result) float64 { return r.cpu })).text("%.1f"))
		for _, n := range neighbours {
			if with := n.of(s); with == s {
				text.WriteString(" 1 |")
			} else {
				fmt.Fprintf(text, " %s |", s.ratio(with).text("%.2f"))
			}
		}
		if s.process.metrics != "" {
			fmt.Fprintf(text, " %.0f, %.0f", median(s.each(func(r result) float64 { return r.objects })),
				median(s.each(func(r result) float64 { return r.bytes })))
		}
		text.WriteString(" |\n")
	}
}

func (s spread) text(format string) string {
	if s.least == s.most {
		return fmt.Sprintf(format, s.median)
	}
	return fmt.Sprintf(format+" ("+format+"–"+format+")", s.median, s.least, s.most)
}

// machine says what this ran on, and what else ran there.
func machine(o *options, c cores, meanwhile others) string {
	processor := "an unknown processor"
	info, _ := os.ReadFile("/proc/cpuinfo")
	if _, rest, ok := strings.Cut(string(info), "model name"); ok {
		line, _, _ := strings.Cut(rest, "\n")
		processor = strings.TrimSpace(strings.TrimLeft(line, "\t :"))
	}
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	kernel, _, _ := strings.Cut(strings.TrimSpace(string(release)), "-")
	where := "all on one core, so nothing of this is comparable"
	if c.apart {
		where = "what is measured on one core, load and upstream on another"
	}
	text := fmt.Sprintf("On %s with %d cores, Linux %s: %s. %s", processor,
		strings.Count("\n"+string(info), "\nprocessor"),
		kernel, where, runtime.Version())
	for _, other := range []struct{ name, flag string }{{"nginx", "-v"}, {"haproxy", "-v"}} {
		if binary, ok := program(other.name); ok {
			out, _ := exec.Command(binary, other.flag).CombinedOutput()
			line, _, _ := strings.Cut(string(out), "\n")
			text += ", " + shortVersion(line)
		}
	}
	commit := exec.Command("git", "rev-parse", "--short", "HEAD")
	commit.Dir = o.module
	if out, err := commit.Output(); err == nil {
		text += ", Sallyport at " + strings.TrimSpace(string(out))
	}
	return text + time.Now().UTC().Format(", 2006-01-02.") + meanwhile.text()
}

// shortVersion is a line such as `nginx version: nginx/1.22.1` without what nobody asks for.
func shortVersion(line string) string {
	line = strings.TrimPrefix(line, "nginx version: ")
	fields := strings.Fields(strings.ReplaceAll(line, " version", ""))
	return strings.Join(fields[:min(2, len(fields))], " ")
}

// writeBetween replaces what a document has between the markers of a command.
func writeBetween(document, name, text string) error {
	before, _, after, err := cutBetween(document, name)
	if err != nil {
		return err
	}
	return os.WriteFile(document, []byte(before+text+after), 0o644)
}

// readBetween is what a document has there.
func readBetween(document, name string) (string, error) {
	_, text, _, err := cutBetween(document, name)
	return text, err
}

func cutBetween(document, name string) (before, text, after string, err error) {
	all, err := os.ReadFile(document)
	if err != nil {
		return "", "", "", err
	}
	begin, end := "<!-- begin: "+name+" -->\n", "<!-- end: "+name+" -->"
	before, rest, ok := strings.Cut(string(all), begin)
	text, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		return "", "", "", fmt.Errorf("%s has no lines %q and %q", document, strings.TrimSpace(begin), end)
	}
	return before + begin, text, end + after, nil
}

func writeChart(o *options, name, svg string) error {
	if err := os.MkdirAll(o.charts, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(o.charts, name), []byte(svg), 0o644)
}
