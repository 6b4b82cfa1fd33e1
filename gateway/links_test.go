package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

const graphOrigin, ourAddress = "https://graph.test", "https://gate.test:1/gateway/c"

func newLinks() *linkRewriter {
	return &linkRewriter{names: []string{"@odata.nextLink", "next"}, from: graphOrigin, to: ourAddress, connector: "c"}
}

// rewritten is what becomes of an answer that comes in pieces of a size.
func rewritten(answer []byte, size int) string {
	l, out := newLinks(), []byte(nil)
	for piece := range slices.Chunk(answer, size) {
		out = l.rewrite(out, piece)
	}
	return string(l.end(out))
}

func TestTheAddressOfTheNextPageIsTheGateways(t *testing.T) {
	for answer, want := range map[string]string{
		`{"next":"https://graph.test/v1/me?$skip=2&x=%2F"}`: `{"next":"https://gate.test:1/gateway/c/v1/me?$skip=2&x=%2F"}`,
		"{ \"value\" : [1, {\"next\":\"https://graph.test/a\"}],\n\"next\" :\t\"https://graph.test/a\" } ": "{ " +
			"\"value\" : [1, {\"next\":\"https://graph.test/a\"}],\n\"next\" :\t\"https://gate.test:1/gateway/c/a\" } ",
		`{"next":"https:\/\/graph.test\/a?b=1\u0026c=2"}`: `{"next":"https://gate.test:1/gateway/c\/a?b=1\u0026c=2"}`,
		`{"\u006eext":"\u0068ttps:/\u002Fgraph.test/a"}`:  `{"\u006eext":"https://gate.test:1/gateway/c/a"}`,
		`{"next":"https://graph.test/a","next":"https://graph.test/b"}`: `{"next":"https://gate.test:1/gateway/c/a",` +
			`"next":"https://gate.test:1/gateway/c/b"}`,
		`{"a":1.5e3,"b":null,"c":"}{\"","@odata.nextLink":"https://graph.test/a"}`: `{"a":1.5e3,"b":null,"c":"}{\"",` +
			`"@odata.nextLink":"https://gate.test:1/gateway/c/a"}`,
	} {
		for size := 1; size <= len(answer); size++ {
			if got := rewritten([]byte(answer), size); got != want {
				t.Fatalf("in pieces of %d: %s, want %s", size, got, want)
			}
		}
	}
}

func TestAnAnswerWithoutANextPageOfTheApiStaysAsItIs(t *testing.T) {
	const link = `"next":"https://graph.test/a"`
	for _, answer := range []string{
		"", " ", "[{" + link + "}]", `"next"`, "x{" + link + "}", "{}{" + link + "}", "\ufeff{" + link + "}",
		`{"value":{` + link + `}}`, `{"value":[{` + link + `}]}`, `{"Next":"https://graph.test/a"}`,
		`{"nextt":"https://graph.test/a"}`, `{"nex":"https://graph.test/a"}`, `{"next":["https://graph.test/a"]}`,
		`{"x":"next","https://graph.test/a":1}`,
		// Somewhere else, or nowhere.
		`{"next":"https://graph.test.elsewhere.test/a"}`, `{"next":"https://graph.test@elsewhere.test/a"}`,
		`{"next":"https://graph.test:443/a"}`, `{"next":"https://graph.test"}`, `{"next":"https://graph.test?a"}`,
		`{"next":"http://graph.test/a"}`, `{"next":"/v1.0/a"}`, `{"next":""}`, `{"next":"https://graph.tes`,
		`{"next":" https://graph.test/a"}`,
		// What we would not pass on, and a program that resolves dot segments would take elsewhere.
		`{"next":"https://graph.test/../../v1/token"}`, `{"next":"https://graph.test/a/%2e%2E/b"}`,
		`{"next":"https://graph.test/a\\..\\b"}`, `{"next":"https://graph.test//a"}`,
		`{"next":"https://graph.test/a#f"}`,
		`{"next":"https://graph.test/a\u0000"}`, `{"next":"https://graph.test/ü"}`,
		`{"next":"https://graph.test/` + strings.Repeat("a", maxTarget) + `"}`,
		// What is no JSON, and what broke off.
		`{"next":"https://graph.test/a`, `{"next":"https://graph.test/a\`, `{"next":"https://graph.test/a\x"}`,
		"{\"next\":\"https://graph.test/a\n\"}", `{next:"https://graph.test/a"}`, `{"a":1 2,` + link + "}",
		`{"a",` + link + `}`, `{"a"::1,` + link + `}`, `{,` + link + `}`, `{"a":1;` + link + `}`,
		`{"a":"\u00zz",` + link + `}`,
		`{"a":},` + link + `}`, `{"a":tr"ue",` + link + `}`, `{'next':'https://graph.test/a'}`,
	} {
		for _, size := range []int{1, 2, 3, 5, 1 << 20} {
			if got := rewritten([]byte(answer), size); got != answer {
				t.Errorf("in pieces of %d: %s became %s", size, answer, got)
			}
		}
	}
}

// What is kept of an answer does not grow with it: neither with long names and values, nor
// with depth.
func TestP17_AnAnswerIsNotKeptToFindAnAddressInIt(t *testing.T) {
	l := newLinks()
	long := strings.Repeat("a", 1<<20)
	answer := `{"` + long + `":"` + long + `","b":` + strings.Repeat("[", 1<<20) + strings.Repeat("]", 1<<20) +
		`,"next":"https://graph.test/` + long + `","next":"https://graph.test/b"}`
	var out []byte
	for piece := range slices.Chunk([]byte(answer), 4096) {
		out = l.rewrite(out, piece)
		if kept := cap(l.held) + cap(l.read) + cap(l.name); kept > 8*maxTarget {
			t.Fatalf("%d bytes are kept", kept)
		}
	}
	if want := strings.Replace(answer, "https://graph.test/b", ourAddress+"/b", 1); string(l.end(out)) != want {
		t.Error("the answer is another one")
	}
}

// FuzzLinks compares with what a reader of whole answers finds.
func FuzzLinks(f *testing.F) {
	for _, seed := range []string{`{"next":"https://graph.test/a"}`,
		`{"a":{"next":1},"next":"https:\/\/graph.test\/a\u0026"}`,
		`{"next":"https://graph.test/../a","next":"https://graph.test/a"}`, `[]`, `{"a":[{}],"b":-1.5e+7}`, `{"next":"`,
		`{"\u006eext" : "\u0068ttps://graph.test/x", "x": "\"\\"}`} {
		f.Add([]byte(seed), 3)
	}
	f.Fuzz(func(t *testing.T, answer []byte, size int) {
		if size <= 0 || size > len(answer) {
			size = 1
		}
		got := rewritten(answer, max(len(answer), 1))
		if other := rewritten(answer, size); other != got {
			t.Fatalf("%q in pieces of %d: %q, and at once %q", answer, size, other, got)
		}
		want := string(answer)
		if json.Valid(answer) {
			want = slowly(t, answer)
		} else if strings.Contains(got, ourAddress) {
			return // the beginning was JSON
		}
		if got != want {
			t.Fatalf("%q: %q, want %q", answer, got, want)
		}
	})
}

// slowly is what is to become of an answer that is JSON.
func slowly(t *testing.T, answer []byte) string {
	d := json.NewDecoder(bytes.NewReader(answer))
	if tok, _ := d.Token(); tok != json.Delim('{') {
		return string(answer)
	}
	var out strings.Builder
	done := 0
	for d.More() {
		name, err := d.Token()
		if err != nil {
			t.Fatal(err)
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			t.Fatal(err)
		}
		var value string
		if !slices.Contains(newLinks().names, name.(string)) || json.Unmarshal(raw, &value) != nil || raw[0] != '"' {
			continue
		}
		rest, ok := strings.CutPrefix(value, graphOrigin)
		if _, err := parseTarget("/gateway/c" + rest); !ok || !strings.HasPrefix(rest, "/") || err != nil {
			continue
		}
		begins, behind := int(d.InputOffset())-len(raw)+1, 1
		for before := ""; before != graphOrigin; behind++ {
			_ = json.Unmarshal([]byte(string(raw[:behind+1])+`"`), &before)
		}
		out.Write(answer[done:begins])
		out.WriteString(ourAddress)
		done = begins - 1 + behind
	}
	out.Write(answer[done:])
	return out.String()
}

// The address to which an app is led back is one that the connection proves. A Host header
// that somebody else wrote must not have the app send its token there.
func TestP12_AHostileHostIsNotWhereAnAppIsLedBack(t *testing.T) {
	tcp := func(s string) net.Addr {
		at, err := net.ResolveTCPAddr("tcp", s)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	loopback, far, unix := tcp("127.0.0.1:4184"), tcp("10.0.0.5:4184"), &net.UnixAddr{Name: "/run/planner.sock"}
	for name, c := range map[string]struct {
		at        net.Addr
		host, sni string
		want      string
	}{
		"as it is":              {loopback, "127.0.0.1:4184", "", "http://127.0.0.1:4184"},
		"by name":               {loopback, "localhost:4184", "", "http://localhost:4184"},
		"IPv6":                  {tcp("[::1]:4184"), "[::1]:4184", "", "http://[::1]:4184"},
		"another port":          {loopback, "localhost:99", "", "http://127.0.0.1:4184"},
		"no port":               {loopback, "localhost", "", "http://127.0.0.1:4184"},
		"another host":          {loopback, "evil.test", "", "http://127.0.0.1:4184"},
		"another address":       {loopback, "127.0.0.2:4184", "", "http://127.0.0.1:4184"},
		"below localhost":       {loopback, "evil.localhost:4184", "", "http://127.0.0.1:4184"},
		"none":                  {loopback, "", "", "http://127.0.0.1:4184"},
		"a quote":               {loopback, `a"b:4184`, "", "http://127.0.0.1:4184"},
		"TLS":                   {far, "gate.test:8443", "gate.test", "https://gate.test:8443"},
		"TLS, letters":          {far, "Gate.Test", "GATE.test", "https://gate.test"},
		"TLS, another host":     {far, "evil.test", "gate.test", "https://gate.test:4184"},
		"TLS, a host below":     {far, "evil.gate.test", "gate.test", "https://gate.test:4184"},
		"TLS, no name":          {far, "evil.test", "-", "https://10.0.0.5:4184"},
		"TLS, not a name":       {far, "a b", "a b", "https://10.0.0.5:4184"},
		"TLS, not a port":       {far, "gate.test:x", "gate.test", "https://gate.test"},
		"TLS, IPv4 in IPv6":     {tcp("[::ffff:10.0.0.5]:4184"), "x", "-", "https://10.0.0.5:4184"},
		"a socket":              {unix, "localhost", "", "http://localhost"},
		"a socket, with a port": {unix, "localhost:80", "", "http://localhost:80"},
		"a socket, hostile":     {unix, "evil.test", "", "http://localhost"},
		"not a connection":      {nil, "evil.test", "", ""},
	} {
		ctx := context.WithValue(t.Context(), http.LocalAddrContextKey, c.at)
		if c.at == unix {
			ctx = WithSocket(ctx, "planner")
		}
		r := httptest.NewRequestWithContext(ctx, "GET", "/gateway/c/a", nil)
		r.Host = c.host
		if c.sni != "" {
			r.TLS = &tls.ConnectionState{ServerName: strings.Trim(c.sni, "-")}
		}
		if got := reachedAt(r); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
