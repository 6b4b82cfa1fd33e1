package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a program whose CPU time, memory and allocations are read.
type process struct {
	name    string
	pid     int
	metrics string // the URL of its own, if it is written in Go and has one
	cmd     *exec.Cmd
	ended   chan struct{}
}

// launch starts a program, whose log goes nowhere, and waits until it listens at addresses.
func launch(c cores, name string, cmd *exec.Cmd, listens ...string) (*process, error) {
	// The end of the process that started it ends it too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := c.start(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, pid: cmd.Process.Pid, cmd: cmd, ended: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // that it ended too early shows below
		close(p.ended)
	}()
	for _, address := range listens {
		err := eventually(name+" to listen on "+address, func() bool {
			conn, err := net.DialTimeout("tcp", address, time.Second)
			if err == nil {
				_ = conn.Close()
			}
			return err == nil || p.hasEnded()
		})
		if err != nil || p.hasEnded() {
			p.stop()
			return nil, errors.Join(err, fmt.Errorf("%s does not listen on %s", name, address))
		}
	}
	return p, nil
}

func (p *process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

func (p *process) stop() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-p.ended:
	case <-time.After(3 * time.Second):
		_ = syscall.Kill(-p.pid, syscall.SIGKILL)
		<-p.ended
	}
}

// family is the process and those that it has started.
func (p *process) family() []int {
	all := []int{p.pid}
	for i := 0; i < len(all); i++ {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", all[i])) // it may have ended
		for field := range strings.FieldsSeq(string(text)) {
			if child, err := strconv.Atoi(field); err == nil {
				all = append(all, child)
			}
		}
	}
	return all
}

// cpu is the time that the process and its children have had, as user and as system: fields 14
// and 15 of proc_pid_stat(5), in ticks.
func (p *process) cpu() (time.Duration, error) {
	var ticks int
	for _, pid := range p.family() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		fields := strings.Fields(rest)
		for _, field := range fields[11:13] {
			n, err := strconv.Atoi(field)
			if err != nil {
				return 0, fmt.Errorf("read stat of %d: %w", pid, err)
			}
			ticks += n
		}
	}
	return time.Duration(ticks) * tick, nil
}

// tick is the unit of times in /proc: sysconf(_SC_CLK_TCK) is 100 on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// resident is the memory that the process and its children have, in bytes.
func (p *process) resident() (int, error) { return p.memory("VmRSS:") }

// memory is a line of proc_pid_status(5), in bytes.
func (p *process) memory(name string) (total int, err error) {
	for _, pid := range p.family() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return 0, err
		}
		_, rest, _ := strings.Cut(string(text), name)
		kilobytes, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		n, err := strconv.Atoi(kilobytes)
		if err != nil {
			return 0, fmt.Errorf("read status of %d: %w", pid, err)
		}
		total += n << 10
	}
	return total, nil
}

// allocated is what a process of Go says it has allocated since its start.
type allocated struct{ objects, bytes float64 }

func (a allocated) minus(b allocated) allocated {
	return allocated{a.objects - b.objects, a.bytes - b.bytes}
}

// allocations asks the process; to ask allocates too.
func (p *process) allocations() (a allocated, err error) {
	res, err := http.Get(p.metrics)
	if err != nil {
		return a, err
	}
	defer func() { _ = res.Body.Close() }()
	found := 0
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		var into *float64
		switch name {
		case "go_memstats_mallocs_total":
			into = &a.objects
		case "go_memstats_alloc_bytes_total":
			into = &a.bytes
		default:
			continue
		}
		if *into, err = strconv.ParseFloat(value, 64); err != nil {
			return a, fmt.Errorf("%s of %s: %w", name, p.name, err)
		}
		found++
	}
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return a, err
	}
	if found != 2 {
		return a, fmt.Errorf("%s does not tell what it allocates", p.name)
	}
	return a, nil
}

// freeAddress is a loopback address at which nobody listens.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String(), nil
}

// freeAddresses are n of them.
func freeAddresses(n int) ([]string, error) {
	var all []string
	for range n {
		address, err := freeAddress()
		if err != nil {
			return nil, err
		}
		all = append(all, address)
	}
	return all, nil
}
