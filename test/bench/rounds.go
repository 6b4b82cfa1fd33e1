package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"time"
)

// subject is a row of the table: something that answers requests.
type subject struct {
	key, name string
	process   *process
	dial      func(ld *load) error // opens the connections
	reaches   *upstream            // every answer is of one request there, and the newest was one like this:
	sends     string               // what the upstream has to have been sent
	beside    string               // the key of the subject that it is compared with

	results []result
}

// result is what a round has shown of a subject.
type result struct {
	rate     float64 // requests a second
	cpu      float64 // microseconds of CPU for each
	p50, p99 time.Duration
	objects  float64 // allocations for each; 0 where nobody tells
	bytes    float64
}

// measure lets a load run against a subject for a time, and sees to it that every answer was
// right. With a rate, so many requests a second are sent; without one as many as are answered.
func measure(l *loop, s *subject, d time.Duration, rate float64) (result, error) {
	ld := &load{}
	if err := s.dial(ld); err != nil {
		return result{}, err
	}
	defer ld.close(l)
	// What a connection costs is no part of it: every one was used before the clock starts.
	if _, err := ld.run(l, 50*time.Millisecond); err != nil {
		return result{}, fmt.Errorf("before the clock started: %w", err)
	}
	ld.rate = rate
	sent := s.watchUpstream(l)
	mallocs, err := s.watchAllocations()
	if err != nil {
		return result{}, err
	}
	note, err := l.others.watch(s.process)
	if err != nil {
		return result{}, err
	}
	took, err := ld.run(l, d)
	if err != nil {
		return result{}, err
	}
	cpu, err := note()
	if err != nil {
		return result{}, err
	}
	made, err := mallocs()
	if err != nil {
		return result{}, err
	}
	n := float64(ld.count)
	return result{rate: n / took.Seconds(), cpu: float64(cpu.Microseconds()) / n,
		p50: ld.times.quantile(0.5), p99: ld.times.quantile(0.99),
		objects: made.objects / n, bytes: made.bytes / n}, sent(ld.count)
}

// watchUpstream returns what says, afterwards, whether the upstream was asked once for each
// answer, and was told who asks.
func (s *subject) watchUpstream(l *loop) (check func(answers int) error) {
	u := s.reaches
	if u == nil {
		return func(int) error { return nil }
	}
	var before int
	l.do(func() { before, u.last, u.keep = u.requests, nil, true })
	return func(answers int) error {
		var asked, unread int
		var head []byte
		l.do(func() { asked, unread, head = u.requests-before, u.unread, bytes.Clone(u.last) })
		switch {
		case asked != answers || unread > 0:
			return fmt.Errorf("%d answers, but the upstream was asked %d times, and %d times for what is no request",
				answers, asked, unread)
		case s.sends != "" && !bytes.Contains(head, []byte("\r\n"+s.sends)):
			return fmt.Errorf("the upstream was not sent %q, but\n%s", s.sends, head)
		}
		return nil
	}
}

// watchAllocations returns what tells, afterwards, what was allocated meanwhile. To ask for it
// allocates too, and always as much.
func (s *subject) watchAllocations() (made func() (allocated, error), err error) {
	if s.process.metrics == "" {
		return func() (allocated, error) { return allocated{}, nil }, nil
	}
	first, err := s.process.allocations()
	if err != nil {
		return nil, err
	}
	before, err := s.process.allocations()
	asking := before.minus(first)
	return func() (allocated, error) {
		after, err := s.process.allocations()
		return after.minus(before).minus(asking), err
	}, err
}

// runRounds measures all subjects in turn, so that what else happens on the machine happens to
// all of them. Each round begins with another one.
func runRounds(l *loop, subjects []*subject, rounds int, d time.Duration, progress io.Writer) error {
	for round := range rounds {
		for i := range subjects {
			s := subjects[(i+round)%len(subjects)]
			r, err := measure(l, s, d, 0)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			s.results = append(s.results, r)
			_, _ = fmt.Fprintf(progress, "round %d of %d: %-42s %7.0f/s %7.1f µs\n",
				round+1, rounds, s.name, r.rate, r.cpu)
		}
	}
	return nil
}

// added is how much longer an answer takes through a subject than from the upstream itself,
// while as many are asked for as are half of what the subject can do.
type added struct {
	subject  *subject
	rate     float64
	p50, p99 spread // microseconds
}

// runHalfLoad measures that, with as many rounds.
func runHalfLoad(l *loop, through []*subject, direct *subject, rounds int, d time.Duration) ([]added, error) {
	var all []added
	for _, s := range through {
		a := added{subject: s, rate: median(s.each(func(r result) float64 { return r.rate })) / 2}
		var p50, p99 []float64
		for range rounds {
			there, err := measure(l, direct, d, a.rate)
			if err != nil {
				return nil, fmt.Errorf("%s, half load: %w", direct.name, err)
			}
			r, err := measure(l, s, d, a.rate)
			if err != nil {
				return nil, fmt.Errorf("%s, half load: %w", s.name, err)
			}
			p50 = append(p50, float64((r.p50-there.p50).Nanoseconds())/1e3)
			p99 = append(p99, float64((r.p99-there.p99).Nanoseconds())/1e3)
		}
		a.p50, a.p99 = spreadOf(p50), spreadOf(p99)
		all = append(all, a)
	}
	return all, nil
}

// idle is what a process takes that nobody has asked for anything yet, in bytes.
type idle struct {
	name          string
	resident, own int // own: without the pages of its file, which are those of all who run it
}

func idleMemory(subjects []*subject) (all []idle, err error) {
	for _, s := range subjects {
		one := idle{name: s.name}
		switch s.key {
		case "nginx", "haproxy", "bare":
		case "signed-in":
			one.name = "Sallyport"
		case "gateway":
			one.name = "Sallyport, with a store and grants"
		default:
			continue
		}
		if one.resident, err = s.process.resident(); err == nil {
			one.own, err = s.process.memory("RssAnon:")
		}
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

// spread is what several rounds have shown.
type spread struct{ median, least, most float64 }

func spreadOf(values []float64) spread {
	return spread{median(values), slices.Min(values), slices.Max(values)}
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[len(sorted)/2] + sorted[(len(sorted)-1)/2]) / 2
}

// each is one figure of each round.
func (s *subject) each(of func(result) float64) []float64 {
	var all []float64
	for _, r := range s.results {
		all = append(all, of(r))
	}
	return all
}

// ratio compares the CPU of each round with that of another subject in the same round.
func (s *subject) ratio(to *subject) spread {
	var all []float64
	for i, r := range s.results {
		all = append(all, r.cpu/cmp.Or(to.results[i].cpu, 1e-9))
	}
	return spreadOf(all)
}
