package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// others is what other programs have taken of the cores while something was measured there.
type others struct {
	whole, taken time.Duration // of all cores together
	most         float64       // the largest share of one measurement
}

// tooMuch is the share from which on the times that were measured say more about others.
const tooMuch = 0.05

// watch returns what notes, afterwards, how much others have taken of the cores of a process and
// of this one, and tells the CPU time that the process has had. The kernel counts what a core did
// by looking at it some hundred times a second (proc_stat(5)), so a single measurement is rough.
func (o *others) watch(p *process) (note func() (cpu time.Duration, err error), err error) {
	var at unix.CPUSet
	for _, pid := range []int{p.pid, os.Getpid()} {
		var one unix.CPUSet
		if err := unix.SchedGetaffinity(pid, &one); err != nil {
			return nil, fmt.Errorf("which cores process %d may use: %w", pid, err)
		}
		for i := range one {
			at[i] |= one[i]
		}
	}
	look := func() (cpu, rest time.Duration, err error) {
		busy, err := busyTime(at)
		if err != nil {
			return 0, 0, err
		}
		if cpu, err = p.cpu(); err != nil || p.pid == os.Getpid() {
			return cpu, busy - cpu, err
		}
		var used unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
			return 0, 0, fmt.Errorf("what this process used: %w", err)
		}
		return cpu, busy - cpu - time.Duration(used.Utime.Nano()+used.Stime.Nano()), nil
	}
	begun := time.Now()
	before, rest, err := look()
	return func() (time.Duration, error) {
		after, restNow, err := look()
		if err != nil {
			return 0, err
		}
		o.add(time.Duration(at.Count())*time.Since(begun), restNow-rest)
		return after - before, nil
	}, err
}

func (o *others) add(whole, taken time.Duration) {
	taken = max(taken, 0) // the clocks of a core and of a process are not the same
	o.whole += whole
	o.taken += taken
	o.most = max(o.most, float64(taken)/float64(whole))
}

// text says so in a sentence, if anything was measured.
func (o *others) text() string {
	if o.whole == 0 {
		return ""
	}
	share := float64(o.taken) / float64(o.whole)
	if share >= tooMuch {
		return fmt.Sprintf(" **Other programs took %.0f%% of these cores meanwhile**, so times and requests a second "+
			"tell little, and ratios are rough.", 100*share)
	}
	return fmt.Sprintf(" Other programs took %.1f%% of these cores meanwhile, and %.1f%% in the worst measurement.",
		100*share, 100*o.most)
}

// busyTime is how long some cores have not been idle since the machine started: the fields of
// proc_stat(5) but idle, iowait, and what guests had, which user time contains.
func busyTime(at unix.CPUSet) (sum time.Duration, err error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 9 {
			continue
		}
		core, err := strconv.Atoi(strings.TrimPrefix(fields[0], "cpu"))
		if err != nil || !at.IsSet(core) {
			continue
		}
		for _, i := range []int{1, 2, 3, 6, 7, 8} {
			ticks, err := strconv.Atoi(fields[i])
			if err != nil {
				return 0, fmt.Errorf("read /proc/stat: %w", err)
			}
			sum += time.Duration(ticks) * tick
		}
	}
	return sum, nil
}
