package command

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

const module = "github.com/sallyport-proxy/sallyport/"

// goPackage is what `go list` tells that matters here.
type goPackage struct {
	ImportPath   string
	Standard     bool
	Imports      []string // of the product code
	TestImports  []string
	XTestImports []string
	Deps         []string // all of them, down to the ground
}

// listPackages asks the go command, not the text of the files: what counts is
// what the compiler links.
func listPackages(t *testing.T) map[string]goPackage {
	t.Helper()
	touchSources(t)
	cmd := exec.Command("go", "list", "-json=ImportPath,Standard,Imports,TestImports,XTestImports,Deps", "-deps",
		"-test=false", module+"...")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %s", exit.Stderr)
		}
		t.Fatalf("go list: %v", err)
	}
	packages := map[string]goPackage{}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages[p.ImportPath] = p
	}
}

// touchSources opens every Go file: the go command caches a test's result until
// a file that the test opened changes, and does not see what `go list` reads.
func touchSources(t *testing.T) { eachSource(t, func(string, string) {}) }

// eachSource shows every Go file of the repository and what is in it.
func eachSource(t *testing.T, show func(path, text string)) {
	t.Helper()
	root := os.DirFS("../../..")
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git") {
			return fs.SkipDir
		}
		if err != nil || !strings.HasSuffix(path, ".go") {
			return err
		}
		text, err := fs.ReadFile(root, path)
		show(path, string(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestLinesAreNotTooLong: two files stand beside each other on a screen where a line has
// 120 columns and a tab has four. A line with a struct tag cannot be broken; lines of tests
// may be as long as the text that they quote.
func TestLinesAreNotTooLong(t *testing.T) {
	eachSource(t, func(path, text string) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		for i, line := range strings.Split(text, "\n") {
			columns := utf8.RuneCountInString(line) + 3*strings.Count(line, "\t")
			if columns > 120 && !strings.Contains(line, "`json:\"") {
				t.Errorf("%s:%d has %d columns", path, i+1, columns)
			}
		}
	})
}

// floor is where each room is. An arrow may only point down, so neighbours on a
// floor do not know each other. internal/demo plays the outside and knows
// nothing of us but the names of headers, so it stands on floor 1. A room that is
// not here has no place in the house yet: give it one, in ARCHITECTURE.md too.
var floor = map[string]int{
	"identity": 0, "internal/hostname": 0, "internal/recent": 0, "internal/useragent": 0,
	"internal/attempt": 0, "internal/lean": 0, "internal/lane": 0, "internal/observe": 0, "internal/egress": 0,
	"internal/fileowner": 0,
	"session":            1, "authz": 1, "upstream": 1, "assertion": 1, "oauth": 1, "internal/demo": 1, "grant": 1,
	"login": 2, "admission": 2, "relay": 2, "proxy/pages": 2, "store": 2,
	"connector": 2, "grant/granttest": 2,
	"connector/oauth2": 3, "connector/apikey": 3, "connector/google": 3,
	"connector/outlook": 3, "connector/ics": 3, "connector/caldav": 3,
	"connector/slack": 3, "connector/pagerdutykey": 3, "connector/pagerduty": 3, "connector/pagerdutyapi": 2,
	"gateway/gatewaytest": 4,
	"proxy":               3, "extauthz": 3, "gateway": 3, "store/sqlite": 3, "store/postgres": 3, "store/storetest": 3,
	"cmd/sallyport/internal/asynclog": 4, "cmd/sallyport/internal/server": 4,
	"cmd/sallyport/internal/yamltable": 4, "cmd/sallyport/internal/auditfile": 4,
	"cmd/sallyport/internal/watch": 4, "cmd/sallyport/internal/systemd": 4,
	"cmd/sallyport/internal/selftest": 4,
	"cmd/sallyport/internal/config":   5, "cmd/sallyport/internal/assemble": 6, "cmd/sallyport/internal/reload": 7,
	"cmd/sallyport/internal/importer": 7,
	"cmd/sallyport/command":           8,
	"cmd/sallyport":                   9,
}

// oneDoor lists who may import what nobody else may, and why.
var oneDoor = []struct {
	dependency string
	doors      []string
	why        string
}{
	{"github.com/coreos/go-oidc", []string{"login"}, "tokens are checked in one place"},
	{"github.com/gorilla/securecookie", []string{"session"}, "cookies are sealed in one place"},
	{"github.com/go-jose/go-jose", []string{"assertion", "connector", "login", "oauth", "internal/demo", "internal/testenv"},
		"signatures are made and read in few places"},
	{"google.golang.org/protobuf", []string{"extauthz"}, "gRPC is spoken with proxies that ask, and with nobody else"},
	{"golang.org/x/oauth2", []string{"oauth", "login"}, "it is only for packages that talk to providers"},
	{"golang.org/x/net/publicsuffix", []string{"cmd/sallyport/internal/config", "connector/caldav"},
		"only the file is judged by it, and how far a calendar server may send a password"},
	{"go.yaml.in/yaml", []string{"cmd/sallyport/internal/yamltable", "cmd/sallyport/internal/importer"},
		"our YAML is read strictly, by one table; that of others as they write it"},
	{"github.com/pelletier/go-toml", []string{"cmd/sallyport/internal/importer"}, "only oauth2-proxy's file is TOML"},
	{"database/sql", []string{"store", "store/sqlite", "store/postgres", "store/storetest"},
		"what is kept is kept in one place"},
	{"modernc.org/sqlite", []string{"store/sqlite"}, "a driver belongs to the database that it opens"},
	{"github.com/jackc/pgx", []string{"store/postgres"}, "a driver belongs to the database that it opens"},
	{"github.com/fsnotify/fsnotify", []string{"cmd/sallyport/internal/watch"}, "files are watched in one place"},
	{"github.com/pires/go-proxyproto", []string{"cmd/sallyport/internal/server"}, "who a client is by a PROXY header " +
		"is read in one place"},
	{"github.com/KimMachineGun/automemlimit", []string{"cmd/sallyport/command"}, "only a process that serves has a limit"},
	{"github.com/spf13/cobra", []string{"cmd/sallyport/command"}, "commands are the roof's"},
}

// neverReach lists rooms that must not be linked from a room, even through others.
var neverReach = []struct{ from, to, why string }{
	{"identity", "", "the ground floor stands on the standard library alone"},
	{"internal/hostname", "", "the ground floor stands on the standard library alone"},
	{"internal/recent", "", "the ground floor stands on the standard library alone"},
	{"internal/useragent", "", "the ground floor stands on the standard library alone"},
	{"internal/observe", "", "the ground floor stands on the standard library alone"},
	{"internal/attempt", "", "the ground floor stands on the standard library alone"},
	{"internal/lean", "", "the ground floor stands on the standard library alone"},
	{"internal/lane", "", "the ground floor stands on the standard library alone"},
	{"extauthz", "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3", "Envoy's messages are read as they " +
		"are written; what is made of their definitions is for tests, and takes memory"},
	{"extauthz", "google.golang.org/grpc", "calls are answered by net/http; this is for tests"},
	{"admission", "login", "the front doors must have no way to a provider's tokens; login arrives as an interface"},
	{"admission", "oauth", "the front doors must have no way to a provider's tokens; login arrives as an interface"},
	{"proxy", "login", "the front door must have no way to a provider's tokens; login arrives as an interface"},
	{"proxy", "oauth", "the front door must have no way to a provider's tokens; login arrives as an interface"},
	{"proxy/pages", "session", "pages show what they are given; they know no sessions, rules or providers"},
	{"proxy/pages", "authz", "pages show what they are given; they know no sessions, rules or providers"},
	{"extauthz", "login", "the front doors must have no way to a provider's tokens; login arrives as an interface"},
	{"extauthz", "oauth", "the front doors must have no way to a provider's tokens; login arrives as an interface"},
	{"extauthz", "relay", "it answers questions; the proxy that asks moves the bytes"},
	{"relay", "session", "what moves bytes knows no people, no rules and no pages"},
	{"relay", "authz", "what moves bytes knows no people, no rules and no pages"},
	{"relay", "identity", "what moves bytes knows no people, no rules and no pages"},
	{"session", "database/sql", "what ends a session is an interface; where it is kept is chosen at the roof"},
	{"proxy", "store", "the front door asks session.Ended; where that is kept is chosen at the roof"},
	{"cmd/sallyport", "store/storetest", "test tools are never linked into the product"},
	{"cmd/sallyport", "gateway/gatewaytest", "test tools are never linked into the product"},
	{"cmd/sallyport", "grant/granttest", "test tools are never linked into the product"},
	{"cmd/sallyport", "internal/testenv", "test tools are never linked into the product"},
	{"cmd/sallyport", "testing", "test tools are never linked into the product"},
	{"cmd/sallyport", "net/http/httptest", "test tools are never linked into the product"},
	{"cmd/sallyport/internal/server", "session", "what listens and stops knows no people; the front door is a handler"},
	{"cmd/sallyport/internal/server", "cmd/sallyport/internal/config", "serve hands it plain values"},
	{"cmd/sallyport/internal/asynclog", "cmd/sallyport/internal/config", "what is logged is not its business"},
	{"cmd/sallyport/internal/selftest", "", "it sees Sallyport from outside, and must not agree with it by sharing code"},
}

func TestFloors(t *testing.T) {
	packages := listPackages(t)
	t.Run("an arrow points down", func(t *testing.T) {
		for path, p := range packages {
			from, ours := strings.CutPrefix(path, module)
			if !ours || from == "internal/testenv" {
				continue
			}
			level, known := floor[from]
			if !known {
				t.Errorf("%s is on no floor; add it to the table and to ARCHITECTURE.md", from)
			}
			for _, imp := range p.Imports {
				to, ours := strings.CutPrefix(imp, module)
				tool := from == "store/storetest" || from == "grant/granttest" || from == "gateway/gatewaytest"
				if !ours || tool && to == "internal/testenv" { // one test tool uses another
					continue
				}
				if _, known := floor[to]; !known || floor[to] >= level {
					t.Errorf("%s (floor %d) imports %s (floor %d)", from, level, to, floor[to])
				}
			}
		}
	})
	t.Run("each dependency has one door", func(t *testing.T) {
		for path, p := range packages {
			from, ours := strings.CutPrefix(path, module)
			if !ours {
				continue
			}
			for _, row := range oneDoor {
				inside := func(imp string) bool {
					return imp == row.dependency ||
						strings.HasPrefix(imp, row.dependency+"/")
				}
				if slices.ContainsFunc(p.Imports, inside) && !slices.Contains(row.doors, from) {
					t.Errorf("%s imports %s: %s; the doors are %v", from, row.dependency, row.why, row.doors)
				}
			}
		}
	})
	t.Run("what must stay out of reach is not linked at all", func(t *testing.T) {
		for _, row := range neverReach {
			from, ok := packages[module+row.from]
			if !ok {
				t.Errorf("there is no %s", row.from)
			}
			for _, dep := range from.Deps {
				forbidden := dep == row.to || dep == module+row.to
				if row.to == "" {
					forbidden = !packages[dep].Standard
				}
				if forbidden {
					t.Errorf("%s reaches %s: %s", row.from, dep, row.why)
				}
			}
		}
	})
	t.Run("every row is about something that exists", func(t *testing.T) {
		for room := range floor {
			if _, ok := packages[module+room]; !ok {
				t.Errorf("the table names %s, which does not exist", room)
			}
		}
		for _, row := range oneDoor {
			used := slices.ContainsFunc(row.doors, func(door string) bool {
				return slices.ContainsFunc(packages[module+door].Imports,
					func(imp string) bool { return strings.HasPrefix(imp, row.dependency) })
			})
			if !used {
				t.Errorf("no door of %s uses it", row.dependency)
			}
		}
	})
}
