package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// shared is what all tests use and none owns: the binary, the browser, a
// certificate that the browser trusts, and sites that nobody breaks.
type shared struct {
	dir, binary      string
	cert             func() (certificate, error)
	browser          func() (*browser, error)
	demo             func() (*site, error)
	corp, secureCorp func() (*corp, error)
	upstreams        func() (*upstreams, error)
	front            func() (*corp, error)
	plainFront       func() (*corp, error)
	h2spec           func() (string, error)
	caddy            func() (string, error) // the current one
	traefik          func() (string, error)
	oauth2proxy      func() (string, error)

	mu    sync.Mutex // guards ended
	ended []func()   // in reverse order, after all tests
}

func (s *shared) atEnd(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = append(s.ended, f)
}

// world is set once, before any test runs.
var world *shared

func TestMain(m *testing.M) {
	if calls := os.Getenv(callsVariable); calls != "" { // one of our tests wants a client that may exit
		callInterop(calls)
		return
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "sallyport-e2e-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	world = &shared{dir: dir, binary: filepath.Join(dir, "sallyport")}
	world.cert = sync.OnceValues(func() (certificate, error) { return newCertificate(dir) })
	world.browser = sync.OnceValues(world.startBrowser)
	world.demo = sync.OnceValues(world.startDemo)
	world.corp = sync.OnceValues(world.startCorp(overHTTP))
	world.secureCorp = sync.OnceValues(world.startCorp(overTLS))
	world.upstreams = sync.OnceValues(world.startUpstreams)
	world.front = sync.OnceValues(world.startFront(overTLS, "h2c"))
	world.plainFront = sync.OnceValues(world.startFront(overH2C, "https"))
	world.h2spec = sync.OnceValues(world.buildH2spec)
	world.caddy = sync.OnceValues(world.buildCaddy)
	world.traefik = sync.OnceValues(world.buildTraefik)
	world.oauth2proxy = sync.OnceValues(world.buildOAuth2Proxy)
	defer world.end()
	if err := world.build(); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// build makes the binary, unless SALLYPORT_BINARY names one to test.
func (s *shared) build() error {
	if name := os.Getenv("SALLYPORT_BINARY"); name != "" {
		s.binary = name
		return nil
	}
	build := exec.Command("go", "build", "-o", s.binary, "./cmd/sallyport")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build sallyport: %w\n%s", err, out)
	}
	return nil
}

func (s *shared) end() {
	for i := len(s.ended) - 1; i >= 0; i-- {
		s.ended[i]()
	}
}

// errMissing wraps what a machine lacks, as opposed to what broke.
var errMissing = errors.New("not installed")

// program finds the first of names that is installed. Debian has it in packages.
func program(packages string, names ...string) func() (string, error) {
	return func() (string, error) {
		for _, name := range names {
			if found, err := exec.LookPath(name); err == nil {
				return found, nil
			}
		}
		return "", fmt.Errorf("%s is %w (Debian: apt-get install %s)", names[0], errMissing, packages)
	}
}

// need returns what get finds. What is not installed skips the test, unless
// SALLYPORT_REQUIRE=1 says that it has to be there.
func need[T any](t testing.TB, get func() (T, error)) T {
	t.Helper()
	v, err := get()
	switch {
	case err == nil:
	case errors.Is(err, errMissing) && os.Getenv("SALLYPORT_REQUIRE") != "1":
		t.Skip(err)
	default:
		t.Fatal(err)
	}
	return v
}
