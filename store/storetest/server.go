package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Server is a PostgreSQL of a test's own: a folder, a port of this machine, and gone
// with the test, however that ends. To make its files takes seconds, so that there is
// one for all tests of a package.
type Server struct {
	Address string // host and port

	bin, dir  string
	missing   error // why there is none
	cmd       *exec.Cmd
	exited    chan struct{}
	databases atomic.Int32
}

var server = sync.OnceValue(newServer)

// needed: a test has asked for it.
var needed atomic.Bool

// Main is the TestMain of a package that uses PostgreSQL.
func Main(m *testing.M) {
	code := m.Run()
	Stop()
	os.Exit(code)
}

// Stop ends the server, if a test has asked for it. It is for a TestMain of one's own.
func Stop() {
	if !needed.Load() {
		return
	}
	if s := server(); s.missing == nil {
		s.stop(syscall.SIGINT)
		_ = os.RemoveAll(s.dir)
	}
}

// NeedServer skips a test where PostgreSQL is not installed. SALLYPORT_REQUIRE=1 says
// that it has to be there.
func NeedServer(t *testing.T) *Server {
	t.Helper()
	needed.Store(true)
	s := server()
	switch {
	case errors.Is(s.missing, exec.ErrNotFound) && os.Getenv("SALLYPORT_REQUIRE") != "1":
		t.Skip("no PostgreSQL here (Debian: postgresql):", s.missing)
	case s.missing != nil:
		t.Fatal(s.missing)
	}
	return s
}

func newServer() *Server {
	s := &Server{}
	s.missing = s.create()
	return s
}

func (s *Server) create() (err error) {
	if s.bin, err = folder(); err != nil {
		return err
	}
	if s.dir, err = os.MkdirTemp("", "sallyport-postgres-"); err != nil {
		return err
	}
	if err := handOver(s.dir); err != nil {
		return err
	}
	data := filepath.Join(s.dir, "data")
	initdb := exec.Command(filepath.Join(s.bin, "initdb"), "-D", data, "-A", "trust", "-U", "sallyport", "-E", "UTF8",
		"--locale=C", "--no-sync")
	initdb.SysProcAttr, initdb.Dir = asServer(), s.dir
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.Address = l.Addr().String()
	if err := l.Close(); err != nil {
		return err
	}
	return s.run()
}

// folder is where the programs are: Debian keeps them off the PATH.
func folder() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) > 0 {
		return filepath.Dir(found[len(found)-1]), nil
	}
	path, err := exec.LookPath("initdb")
	if err != nil {
		return "", err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", err
	}
	return filepath.Dir(path), nil
}

// run starts the server and waits until it answers. Tests kill the server and never the
// machine, so nothing has to reach the disk; with fsync a server that was killed would go
// through the files of all databases of all tests before it answers again.
func (s *Server) run() error {
	_, port, _ := strings.Cut(s.Address, ":")
	var log bytes.Buffer
	cmd := exec.Command(filepath.Join(s.bin, "postgres"), "-D", filepath.Join(s.dir, "data"), "-h", "127.0.0.1", "-p",
		port, "-k", s.dir, "-c", "fsync=off", "-c", "max_connections=60", "-c", "shared_buffers=16MB",
		"-c", "log_min_messages=fatal")
	cmd.SysProcAttr, cmd.Dir, cmd.Stderr, cmd.Stdout = asServer(), s.dir, &log, &log
	started, exited := make(chan error), make(chan struct{})
	go func() { // its thread stays: the server ends with it
		defer close(exited)
		lockThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	s.cmd, s.exited = cmd, exited
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		err := s.exec(`select 1`)
		if err == nil {
			return nil
		}
		select {
		case <-exited:
			return fmt.Errorf("postgres ended: %s", log.String())
		default:
		}
		if time.Since(began) > 30*time.Second {
			s.stop(syscall.SIGKILL)
			return fmt.Errorf("postgres does not answer: %w", err)
		}
	}
}

func (s *Server) stop(sig syscall.Signal) {
	_ = s.cmd.Process.Signal(sig)
	select {
	case <-s.exited:
	case <-time.After(20 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.exited
	}
}

// Kill ends it as a crash does: without a word to anybody, or to the disk.
func (s *Server) Kill(t *testing.T) {
	t.Helper()
	s.stop(syscall.SIGQUIT)
}

// Start starts it again.
func (s *Server) Start(t *testing.T) {
	t.Helper()
	if err := s.run(); err != nil {
		t.Fatal(err)
	}
}

func (s *Server) exec(statement string) error {
	host, port, _ := strings.Cut(s.Address, ":")
	cmd := exec.Command(filepath.Join(s.bin, "psql"), "-X", "-q", "-h", host, "-p", port, "-U", "sallyport", "-d",
		"postgres",
		"-c", statement)
	cmd.Env = append(os.Environ(), "PGCONNECT_TIMEOUT=2")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("psql: %w: %s", err, out)
	}
	return nil
}

// Database makes an empty one and returns its URL.
func (s *Server) Database(t *testing.T) string {
	t.Helper()
	name := fmt.Sprint("db", s.databases.Add(1))
	if err := s.exec(`create database ` + name); err != nil {
		t.Fatal(err)
	}
	return "postgres://sallyport@" + s.Address + "/" + name + "?sslmode=disable"
}

// Standby is another server, with a database of the same name as that at a URL of s, which fill
// is told to fill. Then it is a standby whose primary is out of reach: it can be read, and
// learns of nothing. It returns its host and port.
func (s *Server) Standby(t *testing.T, url string, fill func(url string)) (address string) {
	t.Helper()
	other := &Server{}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(other.create())
	t.Cleanup(func() {
		other.stop(syscall.SIGINT)
		_ = os.RemoveAll(other.dir)
	})
	_, name, _ := strings.Cut(strings.TrimPrefix(url, "postgres://"), "/")
	name, _, _ = strings.Cut(name, "?")
	check(other.exec(`create database ` + name))
	fill(strings.Replace(url, s.Address, other.Address, 1))
	other.stop(syscall.SIGINT)
	mark := filepath.Join(other.dir, "data", "standby.signal")
	check(os.WriteFile(mark, nil, 0o600))
	check(handOver(mark))
	check(other.run())
	return other.Address
}

// Dump is what a backup of the database at a URL holds, as pg_dump writes it.
func (s *Server) Dump(t *testing.T, url string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(s.bin, "pg_dump"), "--dbname", url)
	var dump, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &dump, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("pg_dump: %v: %s", err, errs.String())
	}
	return dump.String()
}
