package gateway

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
)

type panics struct{ Broker }

func (panics) List(context.Context, string, grant.Party) ([]grant.Line, error) { panic("a bug") }

func TestP15_AFaultOfOursIsAProblem(t *testing.T) {
	app := &App{ID: "planner", Offline: true}
	g := &Gateway{Process: NewProcess(ProcessOptions{}), o: Options{Broker: panics{}},
		apps: map[string]*App{app.ID: app}, room: map[string]chan struct{}{app.ID: make(chan struct{}, 1)}}
	for range 2 { // the second has room only if the first left
		r := httptest.NewRequestWithContext(WithSocket(t.Context(), app.ID), http.MethodGet, "/v1/grants", nil)
		r.Header.Set(personHeader, "google:ann")
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		if w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), problemBase+ourFault) ||
			strings.Contains(w.Body.String(), "bug") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
}

func TestP12_AStreamEndsWithTheSessionOfItsAssertion(t *testing.T) {
	keys, err := session.NewKeyring([]session.Key{session.NewKey(time.Now().Add(-time.Hour))})
	testenv.Check(t, err)
	sessions, err := session.New(session.Options{Keys: keys, Secure: true, AbsoluteTimeout: 12 * time.Hour,
		IdleTimeout: time.Hour})
	testenv.Check(t, err)
	who := identity.Identity{Provider: "google", Subject: "ann"}
	s, now := sessions.Start(who), time.Now()
	c := &caller{party: grant.Party{Session: &who}, end: now.Add(time.Minute),
		asserted: session.Asserted{Person: who.ID(), SID: s.SID(), IssuedAt: now}}
	g := &Gateway{Process: NewProcess(ProcessOptions{Now: func() time.Time { return now }}),
		o: Options{Sessions: sessions}}
	if err := g.over(c); err != nil {
		t.Errorf("while the session lasts: %v", err)
	}
	if now = c.end; g.over(c) == nil {
		t.Error("it goes on after the session's end")
	}
}

func TestP08_ANewCredentialDoesNotUncoverTheOneBefore(t *testing.T) {
	before := secrets(nil).add("a/b")
	_ = before.add("longer-than-any-of-those")
	for _, spelling := range []string{"a/b", `a\/b`, "a%2Fb"} {
		if !before.in(spelling) {
			t.Errorf("%s is not known any more", spelling)
		}
	}
}

func TestTheDocumentDescribesEveryAddress(t *testing.T) {
	var d struct {
		OpenAPI    string                    `json:"openapi"`
		Paths      map[string]map[string]any `json:"paths"`
		Components struct {
			Schemas map[string]struct {
				Properties map[string]struct {
					Enum []string `json:"enum"`
				} `json:"properties"`
			} `json:"schemas"`
		} `json:"components"`
	}
	guide, err := os.ReadFile(filepath.Join("..", "docs", "grants.md"))
	testenv.Check(t, err)
	if err := json.Unmarshal(document, &d); err != nil || !strings.HasPrefix(d.OpenAPI, "3.1.") {
		t.Fatalf("%q, %v", d.OpenAPI, err)
	}
	for path, e := range endpoints {
		if d.Paths[path][strings.ToLower(e.method)] == nil {
			t.Errorf("%s %s is not in it", e.method, path)
		}
	}
	for path := range d.Paths {
		if _, ok := endpoints[path]; !ok && !strings.HasPrefix(path, gatewayPrefix) {
			t.Errorf("%s is in it, and nowhere else", path)
		}
	}
	for _, method := range []string{"get", "post", "put", "patch", "delete"} { // what rules of connectors let through
		if d.Paths[gatewayPrefix+"{connector}/{path}"][method] == nil {
			t.Errorf("%s of an API is not in it", method)
		}
	}
	for _, status := range d.Components.Schemas["grant"].Properties["status"].Enum {
		if !strings.Contains(string(guide), "\n| `"+status+"` |") {
			t.Errorf("docs/grants.md does not say what %s is", status)
		}
	}
	types := map[string]bool{}
	for _, name := range d.Components.Schemas["problem"].Properties["type"].Enum {
		types[name] = true
	}
	for _, name := range problemNames {
		if !types[problemBase+name] {
			t.Errorf("the problem %s is not in it", name)
		}
		delete(types, problemBase+name)
	}
	if len(types) > 0 {
		t.Errorf("it has %v, which nothing answers", types)
	}
}

// What is judged is what is sent: net/http writes the same bytes.
func FuzzTarget(f *testing.F) {
	for _, seed := range []string{"/gateway/c/a/b", "/gateway/c/%2e%2e/x", "/gateway/c/a%2Fb?x=1;token=2",
		"/gateway/c/", "/gateway/c/a%25%32%65", "/gateway/c//", "/gateway/c/..;x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got, err := parseTarget(raw)
		if err != nil {
			return
		}
		w := forward{target: got, origin: &url.URL{Scheme: "https", Host: "h.test", Path: "/v3"}}
		u, err := w.url()
		if err != nil || u.EscapedPath() != "/v3"+got.path {
			t.Fatalf("%q: %q, %v", raw, u.EscapedPath(), err)
		}
		decoded, err := url.PathUnescape(got.path)
		for i := 0; err == nil && i < 2; i++ {
			for segment := range strings.FieldsFuncSeq(decoded, func(r rune) bool { return r == '/' || r == '\\' }) {
				if segment == "." || segment == ".." {
					t.Fatalf("%q has a dot segment", raw)
				}
			}
			decoded, err = url.PathUnescape(decoded)
		}
	})
}

func FuzzQuery(f *testing.F) {
	for _, seed := range []string{"a=b", "access_token=x", "a;token=1", "%74oken=1", "TOKEN", "token[]=1", "a=%"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		if judgeQuery(query, []string{"token"}) != nil {
			return
		}
		values, err := url.ParseQuery(strings.ReplaceAll(query, ";", "&"))
		testenv.Check(t, err)
		for name := range values {
			if strings.EqualFold(name, "token") {
				t.Fatalf("%q names a token", query)
			}
		}
	})
}
