package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// cores says where what is measured runs, and where all else does.
type cores struct {
	measured, load unix.CPUSet
	apart          bool // they are two
}

// findCores takes the first core that this process may use for what is measured, and the second
// for load and upstream.
func findCores() (cores, error) {
	var c cores
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return c, fmt.Errorf("which cores may be used: %w", err)
	}
	for i := 0; i < 1024 && c.load.Count() == 0; i++ {
		switch {
		case !all.IsSet(i):
		case c.measured.Count() == 0:
			c.measured.Set(i)
		default:
			c.load.Set(i)
		}
	}
	c.apart = c.load.Count() > 0
	if !c.apart {
		c.load = c.measured
	}
	return c, nil
}

// coresVariable has the cores once this process has been moved to that of the load.
const coresVariable = "SALLYPORT_BENCH_CORES"

// moveToLoad starts this program once more, on the core of the load alone, so that its runtime
// counts one core. It returns in the process that is there already.
func moveToLoad() (cores, error) {
	if text := os.Getenv(coresVariable); text != "" {
		var c cores
		var measured, load int
		if _, err := fmt.Sscanf(text, "%d,%d", &measured, &load); err != nil {
			return c, fmt.Errorf("%s=%s: %w", coresVariable, text, err)
		}
		c.measured.Set(measured)
		c.load.Set(load)
		c.apart = measured != load
		return c, nil
	}
	c, err := findCores()
	if err != nil {
		return c, err
	}
	runtime.LockOSThread()
	if err := unix.SchedSetaffinity(0, &c.load); err != nil {
		return c, fmt.Errorf("move to a core: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return c, err
	}
	env := append(os.Environ(), fmt.Sprintf("%s=%d,%d", coresVariable, first(c.measured), first(c.load)))
	return c, syscall.Exec(self, os.Args, env)
}

func first(set unix.CPUSet) int {
	for i := range 1024 {
		if set.IsSet(i) {
			return i
		}
	}
	return 0
}

// start starts a program on the core of what is measured: what a thread starts is where it is.
func (c cores) start(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.SchedSetaffinity(0, &c.measured); err != nil {
		return fmt.Errorf("move to a core: %w", err)
	}
	err := cmd.Start()
	if back := unix.SchedSetaffinity(0, &c.load); back != nil {
		return fmt.Errorf("move back to a core: %w", back)
	}
	return err
}

// pin moves all threads of a process that somebody else has started.
func (c cores) pin(pid int) error {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(id, &c.measured); err != nil {
			return fmt.Errorf("move process %d to a core: %w", pid, err)
		}
	}
	return nil
}
