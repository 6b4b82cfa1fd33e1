package testenv

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

// talk sends raw bytes and returns what comes back until the connection ends
// or want answers were read.
func talk(t *testing.T, u *RawUpstream, raw string, want int) []string {
	t.Helper()
	conn, err := net.Dial("tcp", u.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, raw); err != nil {
		t.Fatal(err)
	}
	var out []string
	in := bufio.NewReader(conn)
	for range want {
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			break
		}
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		out = append(out, res.Status+" "+string(body))
	}
	return out
}

func TestRawUpstreamSeesTheBytes(t *testing.T) {
	u := NewRawUpstream(t)
	raw := "GET /a%2Fb//c?x;y HTTP/1.1\r\nHost: app\r\nx-user: one\r\nX-USER:two\r\nX_User:  three \r\n\r\n"
	if got := talk(t, u, raw, 1); !reflect.DeepEqual(got, []string{"200 OK ok"}) {
		t.Fatalf("answered %q", got)
	}
	req := u.Last(t)
	if string(req) != raw {
		t.Errorf("saw %q", req)
	}
	if got := HeaderNames(req); !reflect.DeepEqual(got, []string{"Host", "x-user", "X-USER", "X_User"}) {
		t.Errorf("names %q", got)
	}
	if got := HeaderLines(req, "X-USER"); !reflect.DeepEqual(got, []string{"two"}) {
		t.Errorf("X-USER is %q", got)
	}
	if HeaderLines(req, "X-User") != nil {
		t.Error("finds a name that is spelled differently")
	}
	if Target(req) != "/a%2Fb//c?x;y" || RequestLine(req) != "GET /a%2Fb//c?x;y HTTP/1.1" {
		t.Errorf("target %q in %q", Target(req), RequestLine(req))
	}
}

func TestRawUpstreamFindsTheEndOfEachRequest(t *testing.T) {
	u := NewRawUpstream(t)
	parts := []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /len HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nGET / \r\n\r\nx",
		"POST /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: " +
			"chunked\r\n\r\n4;ext=1\r\n\r\n\r\n\r\nA\r\n0123456789\r\n0\r\nX-Trailer: v\r\n\r\n",
		"POST /empty HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"GET /long HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 100<<10) + "\r\n\r\n",
	}
	if got := talk(t, u, strings.Join(parts, ""), len(parts)); len(got) != len(parts) {
		t.Fatalf("answered %d of %d; broke with %v", len(got), len(parts), u.Faults())
	}
	for i, req := range u.Requests() {
		if string(req) != parts[i] {
			t.Errorf("request %d is %q, want %q", i, req, parts[i])
		}
	}
	if got := Body(u.Requests()[1]); string(got) != "GET / \r\n\r\nx" {
		t.Errorf("body %q", got)
	}
	if u.Connections() != 1 {
		t.Errorf("%d connections", u.Connections())
	}
}

func TestRawUpstreamReportsWhatHasNoEnd(t *testing.T) {
	for name, raw := range map[string]string{
		"two lengths":       "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
		"length and chunks": "POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"other encoding":    "POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
		"bad length":        "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
		"bad chunk":         "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			u := NewRawUpstream(t)
			if got := talk(t, u, raw, 1); len(got) != 0 {
				t.Errorf("answered %q", got)
			}
			if len(u.Requests()) != 0 || len(u.Faults()) != 1 {
				t.Errorf("requests %q, faults %v", u.Requests(), u.Faults())
			}
		})
	}
}

func TestRawUpstreamAnswersAsTold(t *testing.T) {
	u := NewRawUpstream(t)
	u.Respond(func(req []byte) []byte {
		if Target(req) == "/break" {
			return nil
		}
		return []byte("HTTP/1.1 404 Gone Fishing\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
	})
	get := "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	if got := talk(t, u, get+get, 2); !reflect.DeepEqual(got, []string{"404 Gone Fishing "}) {
		t.Errorf("answered %q", got)
	}
	if got := talk(t, u, "GET /break HTTP/1.1\r\nHost: a\r\n\r\n", 1); len(got) != 0 {
		t.Errorf("answered %q", got)
	}
}

func TestRawUpstreamServesGoClients(t *testing.T) {
	u := NewRawUpstream(t)
	for range 3 {
		res, err := http.Post(u.URL()+"/x", "text/plain", io.MultiReader(strings.NewReader("hello")))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || string(body) != "ok" {
			t.Fatalf("%q %v", body, err)
		}
	}
	if got := Body(u.Last(t)); string(got) != "5\r\nhello\r\n0\r\n\r\n" || u.Connections() != 1 {
		t.Errorf("body %q over %d connections", got, u.Connections())
	}
}

func FuzzReadRequest(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
	f.Add([]byte("POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nok"))
	f.Add([]byte("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > 1<<16 {
			t.Skip()
		}
		in := bufio.NewReader(bytes.NewReader(raw))
		var seen []byte
		for {
			got, err := readRequest(in)
			seen = append(seen, got...)
			if err != nil {
				break
			}
			_, _, _ = HeaderNames(got), Target(got), Body(got)
		}
		if !bytes.HasPrefix(raw, seen) {
			t.Errorf("recorded %q of %q", seen, raw)
		}
	})
}
