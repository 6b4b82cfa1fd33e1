//go:build unix

package server

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// The test binary is also another process: one that serves a socket until it is killed, and
// one that asks as another user.
const (
	serveVariable = "SALLYPORT_TEST_SERVE_SOCKET"
	askVariable   = "SALLYPORT_TEST_ASK_SOCKET"
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(serveVariable) != "":
		l, err := (&Socket{Path: os.Getenv(serveVariable), UIDs: []int{os.Geteuid()}}).listen(context.Background(),
			"x", slog.New(slog.DiscardHandler))
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("serving")
		for {
			c, err := l.Accept()
			if err != nil {
				os.Exit(1)
			}
			_ = c.Close()
		}
	case os.Getenv(askVariable) != "":
		fmt.Println(askSocket(os.Getenv(askVariable)))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// askSocket is what a client of a socket gets: the answer, or why there is none.
func askSocket(path string) string {
	c, err := net.Dial("unix", path)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); err != nil {
		return err.Error()
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err.Error()
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return err.Error()
	}
	return string(body)
}

// asUser runs the test binary as another user. Only root can.
func asUser(t *testing.T, uid uint32, variable, value string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	binary := filepath.Join(openDirectory(t), "child")
	own, err := os.Executable()
	testenv.Check(t, err)
	text, err := os.ReadFile(own)
	testenv.Check(t, err)
	testenv.Check(t, os.WriteFile(binary, text, 0o755))
	cmd := exec.Command(binary)
	cmd.Dir, cmd.Env = "/", []string{variable + "=" + value}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.Output()
	testenv.Check(t, err)
	return strings.TrimSpace(string(out))
}

// openDirectory is one that every user can reach.
func openDirectory(t *testing.T) string {
	t.Helper()
	d := t.TempDir()
	testenv.Check(t, os.Chmod(d, 0o755))
	testenv.Check(t, os.Chmod(filepath.Dir(d), 0o755))
	return d
}

// ownUser lets the user that runs the test connect, root too.
func ownUser(path string) Socket { return Socket{Path: path, UIDs: []int{os.Geteuid()}} }

type appKey struct{}

// runGrants serves sockets, by app. What it answers is the app of the connection.
func runGrants(t *testing.T, log *slog.Logger, served *atomic.Int64, sockets map[string]Socket) *stoppable {
	t.Helper()
	g := Grants{Key: "listen.grants", KeepAlive: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			served.Add(1)
			_, _ = fmt.Fprint(w, r.Context().Value(appKey{}))
		}),
		OnSocket: func(ctx context.Context, app string) context.Context {
			return context.WithValue(ctx, appKey{}, app)
		}}
	for app, socket := range sockets {
		g.Sockets = append(g.Sockets, AppSocket{Key: "grants.apps." + app + ".socket", App: app, Socket: socket})
	}
	s := &stoppable{echo: &echo{}, ended: make(chan error, 1)}
	s.server = &Server{Listeners: g.Listeners(log), Front: s.echo, StopTimeout: 20 * time.Second, Log: log,
		Ready: &atomic.Bool{}}
	testenv.Check(t, s.server.Open(t.Context()))
	ctx, stop := context.WithCancel(t.Context())
	s.stop = stop
	go func() { s.ended <- s.server.Run(ctx) }()
	t.Cleanup(stop)
	return s
}

func TestEachAppIsKnownByItsSocket(t *testing.T) {
	d := t.TempDir()
	one, two := filepath.Join(d, "one"), filepath.Join(d, "two")
	served := &atomic.Int64{}
	s := runGrants(t, noLog(), served, map[string]Socket{"one": ownUser(one), "two": ownUser(two)})
	for path, app := range map[string]string{one: "one", two: "two"} {
		if got := askSocket(path); got != app {
			t.Errorf("%s: %q", path, got)
		}
		is, err := os.Lstat(path)
		testenv.Check(t, err)
		if is.Mode().Perm() != 0o600 {
			t.Errorf("its mode is %v", is.Mode())
		}
	}
	s.stop()
	s.wait(t)
	for _, path := range []string{one, two} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left behind: %v", path, err)
		}
	}
}

// TestP12_OnlyListedUsersMayUseAnAppsSocket: the mode lets everybody connect, and the kernel says
// who they are. Root is a user like others.
func TestP12_OnlyListedUsersMayUseAnAppsSocket(t *testing.T) {
	if !peersAreKnown {
		t.Skip("this system does not say who connects")
	}
	const app, stranger = 12345, 23456
	path := filepath.Join(openDirectory(t), "socket")
	served, text := &atomic.Int64{}, &syncBuffer{}
	runGrants(t, slog.New(slog.NewTextHandler(text, nil)), served, map[string]Socket{"a": {Path: path, UIDs: []int{app}}})
	if got := asUser(t, app, askVariable, path); got != "a" {
		t.Fatalf("the app got %q", got)
	}
	if got := asUser(t, stranger, askVariable, path); got == "a" {
		t.Errorf("another user got %q", got)
	}
	if got := askSocket(path); got == "a" {
		t.Errorf("root, which is not listed, got %q", got)
	}
	if n := served.Load(); n != 1 {
		t.Errorf("%d requests came through, want 1", n)
	}
	testenv.Eventually(t, "the log to name the user, once", func() bool {
		return strings.Count(text.String(), "uid=23456") == 1 && !strings.Contains(text.String(), "uid=0")
	})
}

// A socket with mode 0600 is closed to other users by the file system alone.
func TestP12_TheModeOfASocketKeepsOtherUsersOut(t *testing.T) {
	path := filepath.Join(openDirectory(t), "socket")
	served := &atomic.Int64{}
	runGrants(t, noLog(), served, map[string]Socket{"a": {Path: path, Mode: 0o600, UIDs: []int{os.Geteuid(), 12345}}})
	if got := asUser(t, 12345, askVariable, path); !strings.Contains(got, "permission denied") {
		t.Errorf("another user got %q", got)
	}
	if served.Load() != 0 {
		t.Error("it was served")
	}
}

// A file has its mode from the moment it is there, whatever umask is.
func TestASocketIsNeverOpenToMore(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux takes the mode beforehand")
	}
	defer syscall.Umask(syscall.Umask(0))
	path := filepath.Join(t.TempDir(), "socket")
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return presetMode(c, 0o600) }}
	l, err := lc.Listen(t.Context(), "unix", path)
	testenv.Check(t, err)
	defer l.Close()
	is, err := os.Lstat(path)
	testenv.Check(t, err)
	if is.Mode().Perm() != 0o600 {
		t.Errorf("it begins with mode %v", is.Mode())
	}
}

// serveElsewhere is another process that serves a socket, and how to kill it.
func serveElsewhere(t *testing.T, path string) (kill func()) {
	t.Helper()
	own, err := os.Executable()
	testenv.Check(t, err)
	cmd := exec.Command(own)
	cmd.Env = []string{serveVariable + "=" + path}
	out, err := cmd.StdoutPipe()
	testenv.Check(t, err)
	testenv.Check(t, cmd.Start())
	var once sync.Once
	kill = func() {
		once.Do(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // it was killed
		})
	}
	t.Cleanup(kill)
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "serving\n" {
		t.Fatalf("the other process says %q", line)
	}
	return kill
}

func TestASocketThatIsServedIsRefusedAndTheLeftoverOfAKilledProcessIsNot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	kill := serveElsewhere(t, path)
	socket := ownUser(path)
	for range 2 {
		_, err := socket.listen(t.Context(), "grants.apps.a.socket", noLog())
		if err == nil || !strings.Contains(err.Error(), "another program serves it") ||
			!strings.Contains(err.Error(), "grants.apps.a.socket") || !strings.Contains(err.Error(), path) {
			t.Fatalf("while it is served: %v", err)
		}
	}
	kill()
	if _, err := os.Lstat(path); err != nil {
		t.Fatalf("nothing was left behind, so this proves nothing: %v", err)
	}
	served := &atomic.Int64{}
	runGrants(t, noLog(), served, map[string]Socket{"a": socket})
	if got := askSocket(path); got != "a" {
		t.Errorf("after it was killed: %q", got)
	}
}

// Of many that begin at once and find the leftover of one that is gone, one has the socket
// then, and it is the one that is there: nobody has removed it as a leftover.
func TestOfThoseThatBeginAtOnceOneServes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	for range 30 {
		leftover, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		testenv.Check(t, err)
		leftover.SetUnlinkOnClose(false)
		testenv.Check(t, leftover.Close())
		var all sync.WaitGroup
		winners := make(chan *socketListener, 32)
		for range cap(winners) {
			all.Go(func() {
				socket := ownUser(path)
				if l, err := socket.listen(t.Context(), "x", noLog()); err == nil {
					winners <- l
				}
			})
		}
		all.Wait()
		if len(winners) != 1 {
			t.Fatalf("%d serve it", len(winners))
		}
		winner := <-winners
		if is, err := os.Lstat(path); err != nil || !os.SameFile(is, winner.made) {
			t.Fatalf("what is there is not what is served: %v", err)
		}
		testenv.Check(t, winner.Close())
	}
}

func TestASocketSaysWhatIsInTheWay(t *testing.T) {
	d := t.TempDir()
	file, folder, link := filepath.Join(d, "file"), filepath.Join(d, "folder"), filepath.Join(d, "link")
	testenv.Check(t, os.WriteFile(file, []byte("precious"), 0o600))
	testenv.Check(t, os.Mkdir(folder, 0o700))
	testenv.Check(t, os.Symlink(file, link))
	for path, want := range map[string]string{
		file: "no socket; it is left alone", folder: "no socket; it is left alone", link: "no socket; it is left alone",
		filepath.Join(d, "none", "socket"): "its directory: open",
		"relative":                         "has to be absolute",
		"@abstract":                        "has to be absolute",
		filepath.Join(d, strings.Repeat("x", 110)): "too long",
	} {
		socket := ownUser(path)
		if _, err := socket.listen(t.Context(), "key", noLog()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", path, err, want)
		}
	}
	if text, _ := os.ReadFile(file); string(text) != "precious" {
		t.Errorf("the file is now %q", text)
	}
	if os.Geteuid() == 0 && peersAreKnown {
		_, err := (&Socket{Path: filepath.Join(d, "s")}).listen(t.Context(), "key", noLog())
		if err == nil || !strings.Contains(err.Error(), "list the uid of the app") {
			t.Errorf("root without a list: %v", err)
		}
	}
}

// What a successor has put in the place of a socket stays.
func TestASocketOfASuccessorIsNotRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	socket := ownUser(path)
	l, err := socket.listen(t.Context(), "x", noLog())
	testenv.Check(t, err)
	testenv.Check(t, os.Remove(path))
	successor, err := socket.listen(t.Context(), "x", noLog())
	testenv.Check(t, err)
	defer successor.Close()
	testenv.Check(t, l.Close())
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("it is gone: %v", err)
	}
}

// If one listener cannot be opened, no socket stays behind.
func TestNoSocketIsLeftWhereAnotherAddressIsTaken(t *testing.T) {
	taken := listenForTest(t)
	defer taken.Close()
	path := filepath.Join(t.TempDir(), "socket")
	socket := ownUser(path)
	s := &Server{Listeners: []*Listener{{Key: "x", Socket: &socket}, {Key: "y", Address: taken.Addr().String()}},
		Log: noLog()}
	if err := s.Open(t.Context()); err == nil || !strings.Contains(err.Error(), "another program has it") {
		t.Errorf("%v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is left behind: %v", err)
	}
}

// TestP16_WhatWaitsAtASocketIsServed, as over TCP, and who comes later finds none.
func TestP16_WhatWaitsAtASocketIsServed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	socket := ownUser(path)
	l, err := socket.listen(t.Context(), "x", noLog())
	testenv.Check(t, err)
	dial := func(string) (net.Conn, error) { return net.DialTimeout("unix", path, 5*time.Second) }
	var waiting []net.Conn
	for range 100 {
		c := open(t, dial, "")
		_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
		testenv.Check(t, err)
		waiting = append(waiting, c)
	}
	s := runForTest(t, l, nil, 0)
	s.stop() // before it has accepted anything
	for i, c := range waiting {
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("connection %d: %v, %v", i, res, err)
		}
	}
	s.wait(t)
	if _, err := dial(""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("who comes later: %v", err)
	}
}

// TestP16_UnderLoadNothingIsDroppedAtASocket: clients ask as fast as they can over it while
// it stops.
func TestP16_UnderLoadNothingIsDroppedAtASocket(t *testing.T) {
	for name, client := range map[string]func(dialFunc) func(string) func(string) error{"keep-alive": keepAlive,
		"a connection per request": once} {
		path := filepath.Join(t.TempDir(), "socket")
		socket := ownUser(path)
		l, err := socket.listen(t.Context(), "x", noLog())
		testenv.Check(t, err)
		s := runForTest(t, l, nil, 0)
		var asked atomic.Int64
		var clients sync.WaitGroup
		for range 4 {
			clients.Go(func() {
				ask := client(func(string) (net.Conn, error) { return net.DialTimeout("unix", path, 5*time.Second) })("")
				for {
					err := ask("hi")
					if errors.Is(err, os.ErrNotExist) {
						return
					}
					if err != nil {
						t.Errorf("%s: %v", name, err)
						return
					}
					asked.Add(1)
				}
			})
		}
		testenv.Eventually(t, "load", func() bool { return asked.Load() > 200 })
		s.stop()
		s.wait(t)
		clients.Wait()
		if got, want := s.answered.Load(), asked.Load(); got != want {
			t.Errorf("%s: %d requests were answered, %d answers arrived", name, got, want)
		}
	}
}

// syncBuffer is a log that can be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
