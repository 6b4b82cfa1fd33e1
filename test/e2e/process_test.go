package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patience is how long anything may take that is waited for. Sallyport asks for a
// provider's keys once in 30 s at most, and a busy machine once took 45 s to start the
// provider, so it is longer than both.
const patience = 2 * time.Minute

// process is a program we started, and only that: stop ends it and no other.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer // programs that would linger end with it
	out   *output
	done  chan struct{} // closed when it has ended
}

func start(dir, name string, args ...string) (*process, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	return startCommand(cmd)
}

func startCommand(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, out: &output{changed: make(chan struct{})}, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.WaitDelay = 5 * time.Second // children that live on must not hold its output open
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	p.stdin = stdin
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait() // how it ended shows in its output
		close(p.done)
	}()
	return p, nil
}

func (p *process) stop() {
	_ = p.stdin.Close()
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // what it has left behind, as Apache may its cgid
}

// A program that ends before its children, as Apache sometimes does before its cgid, takes
// them with it.
func TestWhatAProgramLeavesBehindEndsWithIt(t *testing.T) {
	t.Parallel()
	p, err := start(t.TempDir(), "sh", "-c", "(trap '' TERM; sleep 1000) & echo child $!; exec sleep 1000")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	m, err := p.says(regexp.MustCompile(`child (\d+)\n`))
	if err != nil {
		t.Fatal(err)
	}
	p.stop()
	eventually(t, "the child to end", func() bool {
		stat, err := os.ReadFile("/proc/" + m[1] + "/stat") // proc_pid_stat(5): pid, name in (), state
		_, state, _ := strings.Cut(string(stat), ") ")
		return err != nil || state[0] == 'Z'
	})
}

// ended reports whether the program has.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// listens waits until the program listens at an address. One that ends instead fails the test.
func (p *process) listens(t *testing.T, address string) {
	t.Helper()
	eventually(t, p.cmd.Path+" to listen", func() bool {
		if text, _ := p.out.now(); p.ended() {
			t.Fatalf("%s ended:\n%s", p.cmd.Path, text)
		}
		return dialed(address)
	})
}

// dialed reports whether somebody listens at an address.
func dialed(address string) bool {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// says waits until the program has written something that matches.
func (p *process) says(re *regexp.Regexp) ([]string, error) {
	deadline := time.After(patience)
	for {
		text, changed := p.out.now()
		if m := re.FindStringSubmatch(text); m != nil {
			return m, nil
		}
		select {
		case <-changed:
		case <-p.done:
			text, _ := p.out.now()
			if m := re.FindStringSubmatch(text); m != nil {
				return m, nil
			}
			return nil, fmt.Errorf("%s ended:\n%s", p.cmd.Path, text)
		case <-deadline:
			return nil, fmt.Errorf("%s did not say %q:\n%s", p.cmd.Path, re, text)
		}
	}
}

// showIfFailed logs what the program wrote when t has failed.
func (p *process) showIfFailed(t *testing.T) {
	t.Cleanup(func() {
		if text, _ := p.out.now(); t.Failed() {
			t.Logf("%s wrote, at the end:\n%s", p.cmd.Path, text[max(0, len(text)-6000):])
		}
	})
}

// output is what a program writes, to be read while it still does.
type output struct {
	mu      sync.Mutex // guards text and changed
	text    bytes.Buffer
	changed chan struct{} // closed at the next write
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
	return o.text.Write(b)
}

func (o *output) now() (string, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String(), o.changed
}

// freeAddress is a loopback address that nobody listens on at the moment. It is below the
// ports that kernels give to outgoing connections, of which tests make thousands: one of
// those could take the port before a program listens there. No two calls return the same.
func freeAddress() (string, error) {
	const first, ports = 12000, 20000
	portsBegin.Do(func() { nextPort.Store(rand.Int32N(ports)) }) // other runs on this machine have theirs
	for range ports {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+nextPort.Add(1)%ports))
		if err != nil {
			continue
		}
		defer l.Close()
		return l.Addr().String(), nil
	}
	return "", errors.New("no port is free")
}

var (
	portsBegin sync.Once
	nextPort   atomic.Int32
)
