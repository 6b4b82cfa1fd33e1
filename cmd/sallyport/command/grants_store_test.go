package command

import (
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/store/storetest"
)

const pastedKey = "c4nary-pasted-key-0123456789"

// keyedAPI takes one key that people paste.
func keyedAPI(t *testing.T) *httptest.Server {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Api-Key") != pastedKey {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, "the status")
	}))
	t.Cleanup(api.Close)
	return api
}

// stored is all that a store keeps: the files of SQLite, or a dump of PostgreSQL.
func stored(t *testing.T, address string) string {
	t.Helper()
	path, ok := strings.CutPrefix(address, "sqlite:")
	if !ok {
		return storetest.NeedServer(t).Dump(t, address)
	}
	var all strings.Builder
	files, err := filepath.Glob(path + "*")
	testenv.Check(t, err)
	for _, name := range files {
		text, err := os.ReadFile(name)
		testenv.Check(t, err)
		all.Write(text)
	}
	return all.String()
}

// A copy of the store opens nothing: no token of a third party, no key that was pasted, no
// secret of ours or of an app, no lease, assertion or cookie is in the files of SQLite, the
// log that goes with them, or a dump of PostgreSQL, in any form, while the program runs and
// after what was lent has ended.
func TestP13_TheStoreHoldsNothingThatOpensSomething(t *testing.T) {
	eachSharedStore(t, func(t *testing.T, address string) {
		s := startLending(t, address,
			"  apps:", fmt.Sprintf("    - {id: status, type: api_key, base_url: %q, inject: {header: X-Api-Key, "+
				"format: \"%%s\"}, probe: GET /me, rules: {read: [GET /*]}}\n  apps:", keyedAPI(t).URL),
			"connectors: [jira]", "connectors: [jira, status], raw_tokens: true")
		secrets := &testenv.Secrets{}
		cookies := func() {
			for _, c := range s.browser.Cookies("http://" + s.public + "/.sallyport/account") {
				secrets.Add("a cookie", c.Value)
			}
		}
		assertion := func() {
			secrets.Add("an assertion", s.assertion)
			parts := strings.Split(s.assertion, ".")
			secrets.Add("the content of an assertion", parts[1])
			secrets.Add("the signature of an assertion", parts[2])
		}
		handedOut := func() {
			s.there.mu.Lock()
			defer s.there.mu.Unlock()
			secrets.Add("an access token", s.there.access)
			secrets.Add("a refresh token", s.there.refresh)
			secrets.Add("a code", fmt.Sprint("c4nary-code-", s.there.codes))
			if len(s.there.access) < 12 || len(s.there.refresh) < 12 {
				t.Errorf("%q and %q are too short to be looked for", s.there.access, s.there.refresh)
			}
		}
		key := func(text string) string { return text[strings.LastIndexByte(text, ' ')+1:] }
		secrets.Add("the session key", key(s.sessionKey))
		secrets.Add("the grant key", key(s.grantKey))
		secrets.Add("the client secret", canarySecret)
		secrets.Add("the app's token", lentToken)
		secrets.Add("the pasted key", pastedKey)
		hold := func(when string, want ...string) {
			t.Helper()
			text := stored(t, address)
			for _, plain := range want {
				if !strings.Contains(text, plain) {
					t.Errorf("%s: the search does not see %q", when, plain)
				}
			}
			if found := secrets.InAnyForm(text); found != nil {
				t.Errorf("%s: the store holds %q", when, found)
			}
		}

		s.connect()
		cookies()
		assertion()
		handedOut()
		page := s.browser.Open("http://" + s.public + "/.sallyport/connect/status?app=planner&return_to=%2Fpage")
		page = s.browser.Post(page, "", url.Values{"answer": {"yes"}, "offline": {"1"}, "days": {"90"},
			"form": {formSecret(page)}, "key": {pastedKey}})
		if page.Body != "the planner" {
			t.Fatalf("the key was pasted: %d\n%s", page.Status, page.Body)
		}
		for _, connector := range []string{"jira/issues", "status/me"} {
			if status, body := s.use("GET", "/gateway/"+connector); status != http.StatusOK {
				t.Fatalf("%s: %d %s", connector, status, body)
			}
		}
		var lease struct{ Lease string }
		if _, body := s.use("POST", "/v1/leases"); json.Unmarshal([]byte(body), &lease) != nil || lease.Lease == "" {
			t.Fatalf("no lease: %s", body)
		}
		secrets.Add("a lease", lease.Lease)
		s.there.mu.Lock()
		refresh := s.there.refresh
		s.there.access = "" // so that it is refreshed
		s.there.mu.Unlock()
		if status, body := s.use("GET", "/gateway/jira/issues"); status != http.StatusOK {
			t.Fatalf("after a refresh: %d %s", status, body)
		}
		handedOut()
		hold("in use", "jira", "status", "planner", "sso:mira")

		// The third party says the refresh token in place of its error, and takes it no more.
		s.there.mu.Lock()
		s.there.access, s.there.echoes = "", true
		s.there.mu.Unlock()
		if status, body := s.use("GET", "/gateway/jira/issues"); status == http.StatusOK {
			t.Errorf("the refresh was refused: %d %s", status, body)
		}
		hold("refused", "jira", "sso:mira")
		s.there.mu.Lock()
		s.there.echoes = false
		s.there.mu.Unlock()

		// What is kept of this, too: grants sealed anew, and the end of a grant and of a session.
		s.command("grants", "rekey")
		hold("sealed anew", "jira", "sso:mira")
		s.disconnect()
		s.command("sessions", "end", "--person", "sso:mira")
		hold("ended", "status")

		plant(t, address, secrets, refresh, lease.Lease, s.grantKey)
		log := s.stop(t)
		if found := secrets.In(log); found != nil {
			t.Errorf("the log holds %q", found)
		}
	})
}

// plant puts secrets into tables of the store, each in another form, and sees the search find
// them and nothing else.
func plant(t *testing.T, address string, secrets *testenv.Secrets, refresh, lease, grantKey string) {
	t.Helper()
	driver, path := "pgx", address
	if file, ok := strings.CutPrefix(address, "sqlite:"); ok {
		driver, path = "sqlite", "file:"+file+"?_pragma=busy_timeout(20000)"
	}
	db, err := sql.Open(driver, path)
	testenv.Check(t, err)
	defer db.Close()
	sealing, err := base64.RawURLEncoding.DecodeString(grantKey[strings.LastIndexByte(grantKey, ' ')+1:])
	testenv.Check(t, err)
	begin := time.Now().UnixMilli()
	once := func(value []byte) {
		t.Helper()
		_, err := db.ExecContext(t.Context(), `insert into sallyport_once (value, until_ms) values ($1, $2)`, value,
			begin+1e6)
		testenv.Check(t, err)
	}
	named := func(name string) {
		t.Helper()
		_, err := db.ExecContext(t.Context(), `insert into sallyport_replicas (id, version, absolute_s, seen_ms)
			values ($1, $2, 1, $3)`, fmt.Sprint("r", len(name)), name, begin)
		testenv.Check(t, err)
	}
	once([]byte("before " + canarySecret))
	once([]byte("1 " + base64.StdEncoding.EncodeToString([]byte("a"+pastedKey))))
	once(sealing)
	named(refresh)
	named("hex " + hex.EncodeToString([]byte(lentToken)))
	named(lease)
	for _, name := range []string{"a cookie", "a code", "an access token", "an assertion", "the content of an assertion",
		"the signature of an assertion", "the session key"} {
		if !secrets.Has(name) {
			t.Errorf("%s is not looked for", name)
		}
	}
	want := []string{"a lease", "a refresh token", "the app's token", "the client secret", "the grant key",
		"the pasted key"}
	if found := secrets.InAnyForm(stored(t, address)); !slices.Equal(found, want) {
		t.Errorf("of what was planted the search found %q", found)
	}
}
