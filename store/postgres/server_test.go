package postgres

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// pgServer is a PostgreSQL of this test's own: a folder, a port of this machine, and
// gone with the test, however that ends.
type pgServer struct {
	bin, dir, address string
	missing           error // why there is none
	cmd               *exec.Cmd
	exited            chan struct{}
	databases         int
}

// server is the one of all tests of this package: to make its files takes seconds.
var server = sync.OnceValue(newServer)

func TestMain(m *testing.M) {
	code := m.Run()
	if s := server(); s.missing == nil {
		s.stop(syscall.SIGINT)
		_ = os.RemoveAll(s.dir)
	}
	os.Exit(code)
}

// needServer skips a test where PostgreSQL is not installed. SALLYPORT_REQUIRE=1 says
// that it has to be there.
func needServer(t *testing.T) *pgServer {
	t.Helper()
	s := server()
	switch {
	case errors.Is(s.missing, exec.ErrNotFound) && os.Getenv("SALLYPORT_REQUIRE") != "1":
		t.Skip("no PostgreSQL here (Debian: postgresql):", s.missing)
	case s.missing != nil:
		t.Fatal(s.missing)
	}
	return s
}

func newServer() *pgServer {
	s := &pgServer{}
	s.missing = s.create()
	return s
}

func (s *pgServer) create() (err error) {
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
	initdb := exec.Command(filepath.Join(s.bin, "initdb"), "-D", data, "-A", "trust", "-U", "sallyport", "-E", "UTF8", "--locale=C", "--no-sync")
	initdb.SysProcAttr, initdb.Dir = asServer(), s.dir
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.address = "host=" + strings.Replace(l.Addr().String(), ":", " port=", 1)
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

// run starts the server and waits until it answers.
func (s *pgServer) run() error {
	_, port, _ := strings.Cut(s.address, " port=")
	var log bytes.Buffer
	cmd := exec.Command(filepath.Join(s.bin, "postgres"), "-D", filepath.Join(s.dir, "data"), "-h", "127.0.0.1", "-p", port,
		"-k", s.dir, "-c", "max_connections=60", "-c", "shared_buffers=16MB", "-c", "log_min_messages=fatal")
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

func (s *pgServer) stop(sig syscall.Signal) {
	_ = s.cmd.Process.Signal(sig)
	select {
	case <-s.exited:
	case <-time.After(20 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.exited
	}
}

// kill ends it as a crash does: without a word to anybody, or to the disk.
func (s *pgServer) kill(t *testing.T) {
	t.Helper()
	s.stop(syscall.SIGQUIT)
}

func (s *pgServer) start(t *testing.T) {
	t.Helper()
	if err := s.run(); err != nil {
		t.Fatal(err)
	}
}

func (s *pgServer) exec(statement string) error {
	db, err := sql.Open("pgx", s.address+" user=sallyport sslmode=disable dbname=postgres connect_timeout=2")
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.Exec(statement)
	return err
}

// database makes an empty one and returns its address.
func (s *pgServer) database(t *testing.T) string {
	t.Helper()
	s.databases++
	name := fmt.Sprint("db", s.databases)
	if err := s.exec(`create database ` + name); err != nil {
		t.Fatal(err)
	}
	return s.address + " user=sallyport sslmode=disable dbname=" + name
}
