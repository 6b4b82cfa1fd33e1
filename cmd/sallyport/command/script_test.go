package command

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/assemble"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/internal/useragent"
	"github.com/sallyport-proxy/sallyport/session"
	"github.com/sallyport-proxy/sallyport/store"
	"github.com/sallyport-proxy/sallyport/store/sqlite"
	"github.com/sallyport-proxy/sallyport/store/storetest"
)

func TestMain(m *testing.M) {
	runBare()
	if os.Getenv(mainVariable) != "" {
		os.Exit(Main())
	}
	testscript.Main(withServer{m}, map[string]func(){"sallyport": func() { os.Exit(Main()) }})
}

// withServer are the tests, and the end of the database that some of them share.
type withServer struct{ *testing.M }

func (w withServer) Run() int {
	defer storetest.Stop()
	return w.M.Run()
}

// TestScripts runs the whole program: each story is a file of commands, what
// they print, and the files they need. $PUBLIC and $ADMIN are free addresses,
// $PORT is the port of the first.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(env *testscript.Env) error {
			for _, name := range []string{"PUBLIC", "ADMIN"} {
				address, err := testenv.UnusedAddress()
				if err != nil {
					return err
				}
				env.Setenv(name, address)
			}
			_, port, err := net.SplitHostPort(env.Getenv("PUBLIC"))
			if err != nil {
				return err
			}
			env.Setenv("PORT", port)
			env.Setenv("GORACE", os.Getenv("GORACE")) // how long a program waits when it ends
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"expand": expandFile, "get": getURL, "put": putText, "metric": awaitMetric, "append": appendLine,
			"hup":      hangUp,
			"signedin": signedIn, "lent": lent, "exit": exitsWith, "send": sendRaw,
		},
	})
}

// expandFile puts the values of variables into a file.
func expandFile(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		text := os.Expand(ts.ReadFile(name), ts.Getenv)
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o600))
	}
}

// getURL opens a page as a browser does and prints status, headers and body. It
// asks again until somebody listens.
func getURL(ts *testscript.TestScript, neg bool, args []string) {
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	var res *http.Response
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-time.After(20 * time.Millisecond) {
		req, reqErr := http.NewRequest(http.MethodGet, args[0], nil)
		ts.Check(reqErr)
		req.Header.Set("Accept", "text/html")
		if res, err = client.Do(req); err == nil {
			break
		}
	}
	if neg {
		if err == nil {
			ts.Fatalf("%s answered", args[0])
		}
		return
	}
	ts.Check(err)
	defer res.Body.Close()
	_, err = io.WriteString(ts.Stdout(), res.Status+"\n")
	ts.Check(err)
	ts.Check(res.Header.Write(ts.Stdout()))
	_, err = io.Copy(ts.Stdout(), res.Body)
	ts.Check(err)
}

// signedIn has a process that shares a file of SQLite note a sign-in: whose, and where
// they are a member, which is the active organization.
func signedIn(ts *testscript.TestScript, _ bool, args []string) {
	s, err := sqlite.Open(context.Background(), ts.MkAbs(args[0]), store.Options{Absolute: time.Hour})
	ts.Check(err)
	provider, subject, _ := strings.Cut(args[1], ":")
	now := time.Now().Truncate(time.Millisecond)
	of := session.Session{Root: args[1], SignedIn: now, Expires: now.Add(time.Hour),
		Identity: identity.Identity{Provider: provider, Subject: subject, ProviderSID: "there",
			Org: identity.Org{ID: args[2]}}}
	s.NoteSignIn(of.Entry("192.0.2.1", useragent.Words("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 "+
		"Firefox/140.0")))
	ts.Check(s.Close()) // with what waited
	ts.Setenv("SID", of.SID())
}

// lent has a process that shares the store and the keys of a configuration keep a grant: of
// which connector, and whose, as apps name people and organizations. $GRANT is its id.
func lent(ts *testscript.TestScript, _ bool, args []string) {
	cfg, _, err := loadConfig(ts.MkAbs(args[0]))
	ts.Check(err)
	keys, err := assemble.ResolveGrants(cfg, func(name string) (string, bool) { return ts.Getenv(name), true }, false)
	ts.Check(err)
	s, err := assemble.OpenStore(context.Background(), cfg, store.Options{Brief: true})
	ts.Check(err)
	r := grant.Record{Key: grant.Key{Connector: args[1], Owner: grant.Owner{Kind: grant.OwnedByUser, ID: args[2]}},
		Account: grant.Account{ID: "7", Name: "ann\x1b[2J@jira.test"}, ClientID: "jira-client", Access: []string{"read"},
		Requested: []string{"read:issues"}, Scopes: []string{"read:issues"}, Offline: true, Status: grant.Active,
		ConnectedBy: "sso:ann", ConnectedAt: time.Now(), RefreshedAt: time.Now()}
	if id, ok := strings.CutPrefix(args[2], "org:"); ok {
		r.Owner = grant.Owner{Kind: grant.OwnedByOrg, ID: id}
	}
	until := time.Now().Add(grant.OfflineTime)
	r, err = s.Grants().Connect(context.Background(), r, grant.Consent{App: "planner", Access: []string{"read"},
		Offline: true, Until: until, Lapses: until, By: "sso:ann", At: time.Now()}, 0,
		func(r grant.Record) (grant.Record, error) {
			return keys.Seal(r, grant.Tokens{Access: "canary-access", Refresh: "canary-refresh"})
		})
	ts.Check(err)
	ts.Check(s.Close())
	ts.Setenv("GRANT", r.ID)
}

// putText sends a text to an address and prints status and body. What follows
// the text are headers.
func putText(ts *testscript.TestScript, _ bool, args []string) {
	req, err := http.NewRequest(http.MethodPut, args[0], strings.NewReader(args[1]))
	ts.Check(err)
	for _, header := range args[2:] {
		name, value, _ := strings.Cut(header, ": ")
		req.Header.Set(name, value)
	}
	res, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer res.Body.Close()
	_, err = io.WriteString(ts.Stdout(), res.Status+"\n")
	ts.Check(err)
	_, err = io.Copy(ts.Stdout(), res.Body)
	ts.Check(err)
}

// awaitMetric waits until a metric has a value; so a script knows that a signal was
// heard.
func awaitMetric(ts *testscript.TestScript, neg bool, args []string) {
	want := "\n" + args[0] + " " + args[1] + "\n"
	var text string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-time.After(20 * time.Millisecond) {
		if text = testenv.BodyOf("http://" + ts.Getenv("ADMIN") + "/metrics"); strings.Contains(text, want) {
			return
		}
	}
	ts.Fatalf("no %q in\n%s", want, text)
}

// appendLine adds a line to a file.
func appendLine(ts *testscript.TestScript, _ bool, args []string) {
	text := ts.ReadFile(args[0]) + os.Expand(args[1], ts.Getenv) + "\n"
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}

// hangUp sends SIGHUP to what runs in the background.
func hangUp(ts *testscript.TestScript, _ bool, _ []string) {
	for _, cmd := range ts.BackgroundCmds() {
		ts.Check(cmd.Process.Signal(syscall.SIGHUP))
	}
}

// exitsWith runs a command that must end with this code.
func exitsWith(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || strconv.Itoa(exit.ExitCode()) != args[0] {
		ts.Fatalf("%v: %v, want exit code %s", args[1:], err, args[0])
	}
}

// sendRaw sends a text to an address, with \r and \n for what they stand for, and
// prints what comes back.
func sendRaw(ts *testscript.TestScript, _ bool, args []string) {
	c, err := net.Dial("tcp", args[0])
	ts.Check(err)
	defer c.Close()
	_, err = io.WriteString(c, strings.NewReplacer(`\r`, "\r", `\n`, "\n").Replace(args[1]))
	ts.Check(err)
	ts.Check(c.SetReadDeadline(time.Now().Add(20 * time.Second)))
	// What is closed before all of it was read is reset: that is an end as well.
	if _, err = io.Copy(ts.Stdout(), c); !errors.Is(err, syscall.ECONNRESET) {
		ts.Check(err)
	}
}
