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
// of this one. The kernel counts what a core did by looking at it some hundred times a second
// (proc_stat(5)), so a single measurement is rough.
func (o *others) watch(p *process) (note func() error, err error) {
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
	look := func() (begun time.Time, all time.Duration, err error) {
		busy, err := busyTime(at)
		if err != nil {
			return begun, 0, err
		}
		ours, err := p.cpu()
		if err != nil {
			return begun, 0, err
		}
		if p.pid != os.Getpid() {
			var used unix.Rusage
			if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
				return begun, 0, fmt.Errorf("what this process used: %w", err)
			}
			ours += time.Duration(used.Utime.Nano() + used.Stime.Nano())
		}
		return time.Now(), busy - ours, nil
	}
	begun, before, err := look()
	return func() error {
		ended, after, err := look()
		if err != nil {
			return err
		}
		o.add(time.Duration(at.Count())*ended.Sub(begun), after-before)
		return nil
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
