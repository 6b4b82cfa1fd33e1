package command

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
)

// operate runs a command of grants beside the program, with none of its environment.
func (s *lendingStory) operate(config string, args ...string) (code int, out, errs string) {
	s.t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(append([]string{"grants"}, append(args, "-c", config)...), &console{stdout: &stdout, stderr: &stderr,
		env: func(string) (string, bool) { return "", false }})
	if text := stdout.String() + stderr.String(); strings.Contains(text, "c4nary") {
		s.t.Errorf("%q prints something secret: %s", args, text)
	}
	return code, stdout.String(), stderr.String()
}

func (s *lendingStory) operated(config string, args ...string) (out string) {
	s.t.Helper()
	code, out, errs := s.operate(config, args...)
	if code != exitOK || errs != "" {
		s.t.Fatalf("%q: exit code %d\n%s%s", args, code, out, errs)
	}
	return out
}

func (s *lendingStory) listed() (list []listedGrant) {
	s.t.Helper()
	var l struct{ Grants []listedGrant }
	if err := json.Unmarshal([]byte(s.operated(s.config, "list", "--format", "json")), &l); err != nil {
		s.t.Fatal(err)
	}
	return l.Grants
}

// An operator sees what somebody lends while the program runs, replaces the key that seals it
// without anybody noticing, and ends it, here and at the third party.
func TestP12_AnOperatorEndsAGrantBesideARunningProcess(t *testing.T) {
	eachSharedStore(t, func(t *testing.T, address string) {
		s := startLending(t, address)
		if l := s.listed(); len(l) != 0 {
			t.Fatalf("before anybody lent anything: %+v", l)
		}
		s.connect()
		s.works("after connecting")
		testenv.Eventually(t, "its use is noted", func() bool {
			l := s.listed()
			return len(l) == 1 && l[0].UsedAt != ""
		})
		list := s.listed()
		if len(list) != 1 || list[0].Connector != "jira" || !strings.HasPrefix(list[0].Person, "sso:") ||
			list[0].Status != "active" || len(list[0].Apps) != 1 || list[0].Apps[0].App != "planner" {
			t.Fatalf("%+v", list)
		}
		id := list[0].ID
		if text := s.operated(s.config, "show", id); !strings.Contains(text, list[0].Person) ||
			!strings.Contains(text, "app planner") {
			t.Errorf("show: %s", text)
		}
		if out := s.operated(s.config, "rekey"); !strings.HasPrefix(out, "grants sealed anew: 0; left: 0\n") {
			t.Errorf("rekey: %s", out)
		}

		out := s.operated(s.config, "revoke", id)
		if !strings.Contains(out, "It was ended at jira too.") {
			t.Errorf("revoke: %s", out)
		}
		s.missing() // the program that serves knows
		s.there.mu.Lock()
		revoked := strings.Join(s.there.revoked, " ")
		s.there.mu.Unlock()
		if revoked != "c4nary-refresh-1000" {
			t.Errorf("the third party was asked to end %q", revoked)
		}
		if l := s.listed(); len(l) != 0 {
			t.Errorf("the list still has %+v", l)
		}
		if code, _, errs := s.operate(s.config, "revoke", id); code != exitFailed || !strings.Contains(errs, id) {
			t.Errorf("ended twice: exit code %d, %s", code, errs)
		}
		audit := read(t, filepath.Join(s.dir, "audit"))
		if n := strings.Count(audit, `"event":"grant_disconnected"`); n != 1 ||
			!strings.Contains(audit, `"client":"`+operator(os.LookupEnv)) || strings.Contains(audit, "c4nary") {
			t.Errorf("%d lines of the end:\n%s", n, audit)
		}
		s.stop(t)
	})
}

func (s *lendingStory) works(when string) {
	s.t.Helper()
	if status, body := s.use("GET", "/gateway/jira/issues"); status != http.StatusOK {
		s.t.Fatalf("%s: %d %s", when, status, body)
	}
}

// The key that seals grants is replaced: the new one is added, everything is sealed with it,
// and the old one is taken away. The program goes on lending at every step.
func TestP13_AGrantKeyIsReplacedBesideARunningProcess(t *testing.T) {
	s := startLending(t, "sqlite:"+filepath.Join(t.TempDir(), "sallyport.db"))
	s.connect()
	before := read(t, s.config)
	_, rest, _ := strings.Cut(before, `encryption_keys: ["literal:`)
	old, _, _ := strings.Cut(rest, `"`)
	was, err := session.ParseKey(old)
	testenv.Check(t, err)
	next := session.NewKey(was.Created().Add(30 * time.Minute)).Text() // half an hour ago: it seals now
	with := func(keys ...string) {
		t.Helper()
		text := strings.Replace(before, `encryption_keys: ["literal:`+old+`"]`,
			`encryption_keys: ["literal:`+strings.Join(keys, `", "literal:`)+`"]`, 1)
		s.stop(t)
		write(t, s.config, text)
		s.binary.run(t, t.TempDir(), s.config)
	}
	with(old, next)
	s.works("with both keys")
	out := s.operated(s.config, "rekey")
	if !strings.HasPrefix(out, "grants sealed anew: 1; left: 0\n") || !strings.Contains(out, "it can be removed") {
		t.Fatalf("rekey: %s", out)
	}
	s.works("sealed anew, under a program that runs")
	if out := s.operated(s.config, "rekey"); !strings.HasPrefix(out, "grants sealed anew: 0; left: 0\n") {
		t.Errorf("rekey again: %s", out)
	}
	with(next)
	s.works("without the old key")
	with(old)
	code, out, errs := s.operate(s.config, "rekey")
	if code != exitFailed || !strings.Contains(out, "left: 1") || !strings.Contains(errs, "keep another key") {
		t.Errorf("rekey without the key that is needed: exit code %d, %s%s", code, out, errs)
	}
	s.stop(t)
}

// The table of permissions says what the program that runs asks for: the scopes that the
// browser takes to the third party are those of the table, and the account page of who runs
// the site has them too.
func TestThePermissionTableSaysWhatTheThirdPartyIsAskedFor(t *testing.T) {
	s := startLending(t, "sqlite:"+filepath.Join(t.TempDir(), "sallyport.db"))
	s.connect()
	var out, errs bytes.Buffer
	if code := run([]string{"permissions", "-c", s.config, "--format", "json"}, &console{stdout: &out, stderr: &errs,
		env: func(string) (string, bool) { return "", false }}); code != exitOK {
		t.Fatalf("exit code %d: %s", code, errs.String())
	}
	var rows []struct {
		Action, Provider, Connector, Note string
		Scopes                            []struct{ Name, Means string }
		Offline                           bool
	}
	if err := json.Unmarshal(out.Bytes(), &rows); err != nil || len(rows) != 2 {
		t.Fatalf("%v, %d rows:\n%s", err, len(rows), out.String())
	}
	if r := rows[0]; r.Action != "sign in" || r.Provider != "sso" || r.Offline || len(r.Scopes) == 0 || r.Note == "" {
		t.Errorf("%+v", r)
	}
	r := rows[1]
	if r.Action != "connect" || r.Connector != "jira" || !r.Offline || len(r.Scopes) != 1 || r.Scopes[0].Means == "" {
		t.Fatalf("%+v", r)
	}
	s.there.mu.Lock()
	asked := s.there.scopes
	s.there.mu.Unlock()
	if r.Scopes[0].Name != asked {
		t.Errorf("the table has %q, and the third party was asked for %q", r.Scopes[0].Name, asked)
	}
	page := s.browser.Open("http://" + s.public + "/.sallyport/account").Body
	for _, text := range []string{"<code>" + asked + "</code>: " + r.Scopes[0].Means, "to connect", r.Note} {
		if !strings.Contains(page, text) {
			t.Errorf("the account page lacks %q", text)
		}
	}
	s.stop(t)
}

// What became of a grant is told of the third party by its name, or without one where the
// configuration has its connector no more.
func TestWhereAGrantMayGoOnIsSaidByName(t *testing.T) {
	for _, row := range []struct {
		was  grant.Ended
		want string
	}{
		{grant.Ended{Name: "Slack", There: grant.Revoked}, "It was ended at Slack too."},
		{grant.Ended{Name: "Slack\x1b", There: grant.NotSupported},
			"Slack? cannot be asked to end it. It may go on at Slack?: it has to be ended there by hand."},
		{grant.Ended{Name: "Slack", There: grant.RevokeFailed, FinishURL: "https://slack.test/apps"},
			"Slack could not be asked. It may go on at Slack: end it there, at https://slack.test/apps"},
		{grant.Ended{There: grant.NotAsked},
			"The third party was not asked. It may go on at the third party: it has to be ended there by hand."},
	} {
		if got := outcomeThere(row.was); got != row.want {
			t.Errorf("%q, not %q", got, row.want)
		}
	}
}
