package extauthz

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// putX is a CheckRequest about PUT https://app.example.com/x?a,b, changed by edit.
func putX(edit func(*authv3.CheckRequest, *authv3.AttributeContext_HttpRequest)) *authv3.CheckRequest {
	asked := &authv3.AttributeContext_HttpRequest{Method: "PUT", Scheme: "https", Host: "app.example.com",
		Path: "/x?a,b",
		Headers: map[string]string{":method": "PUT", ":path": "/x?a,b", ":authority": "app.example.com",
			":scheme": "https",
			"accept":  "text/html", "cookie": "a=1"}}
	check := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source:  &authv3.AttributeContext_Peer{Address: socketAddress("192.0.2.9")},
		Request: &authv3.AttributeContext_Request{Http: asked}}}
	edit(check, asked)
	return check
}

func socketAddress(v string) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{Address: v}}}
}

// rawLines turns the map into lines, as encode_raw_headers does.
func rawLines(asked *authv3.AttributeContext_HttpRequest) {
	asked.HeaderMap = &corev3.HeaderMap{}
	for name, value := range asked.Headers {
		asked.HeaderMap.Headers = append(asked.HeaderMap.Headers,
			&corev3.HeaderValue{Key: name, RawValue: []byte(value)})
	}
	asked.Headers = nil
}

func addRaw(asked *authv3.AttributeContext_HttpRequest, name, value string) {
	rawLines(asked)
	asked.HeaderMap.Headers = append(asked.HeaderMap.Headers, &corev3.HeaderValue{Key: name, RawValue: []byte(value)})
}

func readForTest(tb testing.TB, check *authv3.CheckRequest) (question, error) {
	tb.Helper()
	message, err := proto.Marshal(check)
	testenv.Check(tb, err)
	return reader(tb).readCheck(message)
}

// Nothing counts but the request itself, and the address that Envoy says it is from: not
// what an operator or another filter adds, and not what a client can say of itself.
func TestP04_OfACheckOnlyItsRequestCounts(t *testing.T) {
	for name, edit := range map[string]func(*authv3.CheckRequest, *authv3.AttributeContext_HttpRequest){
		"as a map": func(*authv3.CheckRequest, *authv3.AttributeContext_HttpRequest) {},
		"as lines": func(_ *authv3.CheckRequest, asked *authv3.AttributeContext_HttpRequest) { rawLines(asked) },
		"wss": func(_ *authv3.CheckRequest, asked *authv3.AttributeContext_HttpRequest) {
			asked.Headers["x-forwarded-proto"] = "wss"
		},
		"Host again": func(_ *authv3.CheckRequest, asked *authv3.AttributeContext_HttpRequest) {
			asked.Headers["host"] = "app.example.com"
		},
		"the client's scheme": func(_ *authv3.CheckRequest, asked *authv3.AttributeContext_HttpRequest) {
			asked.Scheme, asked.Headers[":scheme"], asked.Headers["x-forwarded-proto"] = "http", "http", "https"
		},
		"everything else": func(c *authv3.CheckRequest, asked *authv3.AttributeContext_HttpRequest) {
			asked.Query, asked.Fragment, asked.Body, asked.RawBody = "x=/open", "y", "z", []byte("z")
			asked.Headers["x-original-url"], asked.Headers["x-forwarded-uri"] = "https://evil.example/open", "/open"
			asked.Headers["x-forwarded-host"], asked.Headers["x-forwarded-for"] = "evil.example", "192.0.2.9"
			asked.Headers["x-envoy-external-address"], asked.Headers["x-forwarded-method"] = "10.0.0.1", "OPTIONS"
			a := c.Attributes
			a.ContextExtensions = map[string]string{"path": "/open", "user": "root"}
			a.Source.Principal, a.Source.Certificate, a.Source.Service = "spiffe://root", "pem", "root"
			a.Destination = &authv3.AttributeContext_Peer{Address: socketAddress("10.0.0.1"), Principal: "root"}
			a.MetadataContext = &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{"envoy.filters.http.jwt_authn": {
				Fields: map[string]*structpb.Value{"sub": structpb.NewStringValue("root")}}}}
			a.TlsSession = &authv3.AttributeContext_TLSSession{Sni: "evil.example"}
		},
	} {
		q, err := readForTest(t, putX(edit))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		f := q.facts
		if q.method != "PUT" || f.Host != "app.example.com" || f.Path != "/x" || f.RawQuery != "a,b" ||
			f.Scheme != "https" ||
			q.client != netip.MustParseAddr("192.0.2.9") || f.Client != q.client || len(q.header) != 2 ||
			q.header.Get("Cookie") != "a=1" {
			t.Errorf("%s: %+v", name, q)
		}
	}
}

// Of whom Envoy has a connection is the client only if nobody stands behind them. Behind a
// balancer, all of the internet would be from its network.
func TestP04_ABalancerBeforeEnvoyIsNotTheClient(t *testing.T) {
	for forwarded, known := range map[string]bool{"192.0.2.9": true, "::ffff:192.0.2.9": true, "": false,
		"198.51.100.7": false, "198.51.100.7,192.0.2.9": false, "192.0.2.9, 192.0.2.9": false, "unknown": false} {
		for _, raw := range []bool{false, true} {
			q, err := readForTest(t, putX(func(_ *authv3.CheckRequest, a *authv3.AttributeContext_HttpRequest) {
				a.Headers["x-forwarded-for"] = forwarded
				if raw {
					rawLines(a)
				}
			}))
			if err != nil || q.facts.Client.IsValid() != known || q.client.String() != "192.0.2.9" {
				t.Errorf("X-Forwarded-For: %s: the client is %s, and for rules %s, %v", forwarded, q.client,
					q.facts.Client, err)
			}
		}
	}
	q, err := readForTest(t, putX(func(_ *authv3.CheckRequest, a *authv3.AttributeContext_HttpRequest) {
		a.Headers["x-forwarded-for"] = "192.0.2.9"
		addRaw(a, "x-forwarded-for", "198.51.100.7")
	}))
	if err != nil || q.facts.Client.IsValid() {
		t.Errorf("two lines: %s, %v", q.facts.Client, err)
	}
}

// Over HTTP Envoy writes X-Envoy-External-Address for those only whom it does not count as
// internal. The others can write it themselves.
func TestP04_WhomEnvoyCountsAsInternalChoosesNoAddress(t *testing.T) {
	if q, err := asked(t, "/envoy/x", append([]string{"X-Envoy-Internal: true"}, envoyLines...)...); err != nil ||
		q.client.IsValid() {
		t.Errorf("%s, %v", q.client, err)
	}
}

// What says two things, or nothing that a client could have sent, is refused.
func TestP04_ACheckThatContradictsItselfIsRefused(t *testing.T) {
	type asked = authv3.AttributeContext_HttpRequest
	for name, edit := range map[string]func(*authv3.CheckRequest, *asked){
		"no request":    func(c *authv3.CheckRequest, _ *asked) { c.Attributes.Request = nil },
		"no attributes": func(c *authv3.CheckRequest, _ *asked) { c.Attributes = nil },
		"no method":     func(_ *authv3.CheckRequest, a *asked) { a.Method, a.Headers[":method"] = "", "" },
		"no host":       func(_ *authv3.CheckRequest, a *asked) { a.Host, a.Headers[":authority"] = "", "" },
		"no path":       func(_ *authv3.CheckRequest, a *asked) { a.Path, a.Headers[":path"] = "", "" },
		"no scheme":     func(_ *authv3.CheckRequest, a *asked) { a.Scheme, a.Headers[":scheme"] = "", "" },
		"two methods": func(_ *authv3.CheckRequest, a *asked) {
			a.Method, a.Headers[":method"] = "GET,PUT", "GET,PUT"
		},
		"two hosts": func(_ *authv3.CheckRequest, a *asked) {
			a.Host, a.Headers[":authority"] = "a.example,b.example", "a.example,b.example"
		},
		"two schemes":    func(_ *authv3.CheckRequest, a *asked) { a.Headers["x-forwarded-proto"] = "https,http" },
		"an empty proto": func(_ *authv3.CheckRequest, a *asked) { a.Headers["x-forwarded-proto"] = "" },
		"two protos, raw": func(_ *authv3.CheckRequest, a *asked) {
			a.Headers["x-forwarded-proto"] = "https"
			addRaw(a, "x-forwarded-proto", "https")
		},
		"another :path":      func(_ *authv3.CheckRequest, a *asked) { a.Headers[":path"] = "/open" },
		"another :method":    func(_ *authv3.CheckRequest, a *asked) { a.Headers[":method"] = "OPTIONS" },
		"another :authority": func(_ *authv3.CheckRequest, a *asked) { a.Headers[":authority"] = "static.example.com" },
		"another host":       func(_ *authv3.CheckRequest, a *asked) { a.Headers["host"] = "static.example.com" },
		"another :scheme":    func(_ *authv3.CheckRequest, a *asked) { a.Headers[":scheme"] = "http" },
		"another :path, raw": func(_ *authv3.CheckRequest, a *asked) { addRaw(a, ":path", "/open") },
		"a path that Envoy had to change": func(_ *authv3.CheckRequest, a *asked) {
			a.Path = "/x!"
			delete(a.Headers, ":path")
			addRaw(a, ":path", "/x\xff")
		},
		"an unknown pseudo header": func(_ *authv3.CheckRequest, a *asked) { a.Headers[":status"] = "200" },
		"two :protocol": func(_ *authv3.CheckRequest, a *asked) {
			a.Headers[":protocol"] = "a"
			addRaw(a, ":protocol", "b")
		},
		"upper case":          func(_ *authv3.CheckRequest, a *asked) { a.Headers["Cookie"] = "b=2" },
		"a name that is none": func(_ *authv3.CheckRequest, a *asked) { a.Headers["x y"] = "" },
		"an empty name":       func(_ *authv3.CheckRequest, a *asked) { a.Headers[""] = "" },
		"NUL in a name":       func(_ *authv3.CheckRequest, a *asked) { a.Headers["x\x00y"] = "" },
		"NUL":                 func(_ *authv3.CheckRequest, a *asked) { a.Headers["x-a"] = "b\x00c" },
		"NUL, raw":            func(_ *authv3.CheckRequest, a *asked) { addRaw(a, "x-a", "b\x00c") },
		"a line in a value": func(_ *authv3.CheckRequest, a *asked) {
			addRaw(a, "x-a", "b\r\nx-forwarded-user: root")
		},
		"both forms": func(_ *authv3.CheckRequest, a *asked) { h := a.Headers; rawLines(a); a.Headers = h },
		"value and raw_value": func(_ *authv3.CheckRequest, a *asked) {
			addRaw(a, "x-a", "b")
			a.HeaderMap.Headers[0].Value = "c"
		},
		"two tokens": func(_ *authv3.CheckRequest, a *asked) {
			a.Headers["authorization"] = "Bearer a"
			addRaw(a, "authorization", "Bearer b")
		},
		"CONNECT": func(_ *authv3.CheckRequest, a *asked) {
			a.Method, a.Headers[":method"] = "CONNECT", "CONNECT"
		},
		"a large header": func(_ *authv3.CheckRequest, a *asked) { a.Headers["x-a"] = strings.Repeat("b", 2000) },
		"two destinations, joined": func(_ *authv3.CheckRequest, a *authv3.AttributeContext_HttpRequest) {
			a.Method, a.Headers[":method"], a.Headers["destination"] = "COPY", "COPY", "/a,/b"
		},
		"a fragment": func(_ *authv3.CheckRequest, a *asked) {
			a.Path, a.Headers[":path"] = "/x#/open", "/x#/open"
		},
		"an absolute path": func(_ *authv3.CheckRequest, a *asked) {
			a.Path, a.Headers[":path"] = "http://b/", "http://b/"
		},
		"*":       func(_ *authv3.CheckRequest, a *asked) { a.Path, a.Headers[":path"] = "*", "*" },
		"a blank": func(_ *authv3.CheckRequest, a *asked) { a.Path, a.Headers[":path"] = "/x y", "/x y" },
	} {
		if q, err := readForTest(t, putX(edit)); err == nil {
			t.Errorf("%s: %+v", name, q)
		}
	}
}

// Names that an app could take for ours are to be removed as they are spelt, and so are
// headers that name another method.
func TestP02_OtherSpellingsAreSeenForWhatTheyAre(t *testing.T) {
	q, err := readForTest(t, putX(func(_ *authv3.CheckRequest, a *authv3.AttributeContext_HttpRequest) {
		for _, name := range []string{"x_forwarded_user", "x.sallyport_assertion", "x_original-url",
			"x-http-method-override",
			"x_method.override", "x-other", "x_other", "x-forwarded-user"} {
			a.Headers[name] = "evil"
		}
	}))
	testenv.Check(t, err)
	slices.Sort(q.toRemove)
	slices.Sort(q.overrides)
	if got := strings.Join(q.toRemove, " "); got != "x.sallyport_assertion x_forwarded_user x_original-url" {
		t.Error(got)
	}
	if got := strings.Join(q.overrides, " "); got != "x-http-method-override x_method.override" {
		t.Error(got)
	}
}

// A WebSocket that begins over HTTP/2 is one (RFC 8441).
func TestAWebSocketOverHTTP2IsRecognised(t *testing.T) {
	q, err := readForTest(t, putX(func(_ *authv3.CheckRequest, a *authv3.AttributeContext_HttpRequest) {
		a.Headers[":protocol"], a.Headers["origin"] = "websocket", "https://a.example"
	}))
	if err != nil || !q.facts.WebSocket || q.facts.Origin != "https://a.example" {
		t.Errorf("%+v, %v", q, err)
	}
}

// call is a call of a peer, and what is answered.
func call(d *Door, method string, frame []byte, edit func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", method, bytes.NewReader(frame))
	r.ProtoMajor, r.ProtoMinor, r.RemoteAddr = 2, 0, "127.0.0.1:1"
	r.Header.Set("Content-Type", "application/grpc")
	edit(r)
	w := httptest.NewRecorder()
	d.ServeGRPC(w, r)
	return w
}

func asIs(*http.Request) {}

// framed is a message with its prefix.
func framed(tb testing.TB, m proto.Message) []byte {
	tb.Helper()
	message, err := proto.Marshal(m)
	testenv.Check(tb, err)
	return prefixed(0, uint32(len(message)), message)
}

func prefixed(flag byte, length uint32, message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{flag}, length), message...)
}

// statusOf is that of a call, in the trailer or instead of an answer.
func statusOf(w *httptest.ResponseRecorder) string {
	if s := w.Header().Get("Grpc-Status"); w.Body.Len() == 0 {
		return s
	}
	return w.Result().Trailer.Get("Grpc-Status")
}

// brokenDoor has no Admission: to ask it is a bug.
func brokenDoor(tb testing.TB) *Door {
	d := reader(tb)
	d.Process = NewProcess(ProcessOptions{Registerer: prometheus.NewRegistry()})
	d.peers = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	return d
}

// Whatever is in a message, the call succeeds and the request is denied: a call that fails
// would let it pass where failure_mode_allow is on. So does a bug of ours.
func TestP01_WhatCannotBeReadIsDenied(t *testing.T) {
	d := brokenDoor(t)
	badPath, err := proto.Marshal(putX(func(_ *authv3.CheckRequest, a *authv3.AttributeContext_HttpRequest) {
		a.Path = "/AAAA"
	}))
	testenv.Check(t, err)
	badPath = bytes.ReplaceAll(badPath, []byte("/AAAA"), []byte("/A\xff\xfeA"))
	whole := framed(t, putX(func(*authv3.CheckRequest, *authv3.AttributeContext_HttpRequest) {}))
	for name, frame := range map[string][]byte{
		"nothing": nil, "half a prefix": {0, 0}, "no message": prefixed(0, 5, nil),
		"an empty message": prefixed(0, 0, nil),
		"half a message":   whole[:len(whole)-3], "no protobuf": prefixed(0, 3, []byte{0xff, 0xff, 0xff}),
		"compressed": prefixed(1, uint32(len(whole)-5), whole[5:]), "an unknown flag": prefixed(7, 0, nil),
		"a path that is no UTF-8": prefixed(0, uint32(len(badPath)), badPath),
		"too long":                prefixed(0, maxMessage+1, bytes.Repeat([]byte{0}, maxMessage+1)),
		"4 GiB":                   prefixed(0, 0xffffffff, nil),
		"100,000 headers": framed(t, putX(func(_ *authv3.CheckRequest, a *authv3.AttributeContext_HttpRequest) {
			rawLines(a)
			for range 100_000 {
				a.HeaderMap.Headers = append(a.HeaderMap.Headers, &corev3.HeaderValue{})
			}
		})),
		"a bug of ours": whole,
	} {
		w := call(d, authv3.Authorization_Check_FullMethodName, frame, asIs)
		var answer authv3.CheckResponse
		if statusOf(w) != "0" || proto.Unmarshal(w.Body.Bytes()[5:], &answer) != nil ||
			answer.GetStatus().GetCode() != int32(codes.PermissionDenied) ||
			answer.GetDeniedResponse().GetStatus().GetCode() != http.StatusForbidden {
			t.Errorf("%s: %d %v %q", name, w.Code, w.Header(), w.Body)
		}
	}
}

// Who is not on the list learns nothing, not even whether somebody is there.
func TestP04_OnlyPeersMayAskOverGRPC(t *testing.T) {
	d := brokenDoor(t)
	for _, method := range []string{authv3.Authorization_Check_FullMethodName, "/grpc.health.v1.Health/Check", "/"} {
		for remote, want := range map[string]string{"192.0.2.1:1": "7", "": "7", "[::ffff:127.0.0.1]:1": ""} {
			w := call(d, method, nil, func(r *http.Request) { r.RemoteAddr = remote })
			got := w.Header().Get("Grpc-Status")
			if want != "" && (got != want || w.Body.Len() > 0) || want == "" && got == "7" {
				t.Errorf("%s from %q: %s", method, remote, got)
			}
		}
	}
}

// Nothing is offered besides, and no stream.
func TestNothingButCheckAndHealthIsOffered(t *testing.T) {
	d := brokenDoor(t)
	for _, method := range []string{"/", "/envoy.service.auth.v2.Authorization/Check", "/grpc.health.v1.Health/Watch",
		"/grpc.health.v1.Health/List", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
		"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "/envoy.service.auth.v3.Authorization/check",
		"/envoy.service.auth.v3.Authorization/Check/"} {
		if w := call(d, method, nil, asIs); statusOf(w) != "12" {
			t.Errorf("%s: %v", method, w.Header())
		}
	}
	for name, edit := range map[string]func(*http.Request){"GET": func(r *http.Request) { r.Method = "GET" },
		"HTTP/1.1": func(r *http.Request) { r.ProtoMajor = 1 },
		"JSON":     func(r *http.Request) { r.Header.Set("Content-Type", "application/grpc+json") }} {
		w := call(d, authv3.Authorization_Check_FullMethodName, nil, edit)
		if w.Code != http.StatusUnsupportedMediaType {
			t.Errorf("%s: %d", name, w.Code)
		}
	}
	for _, timeout := range []string{"x", "1", "S", "-1S", "123456789S", "1s", "1.5S"} {
		w := call(d, authv3.Authorization_Check_FullMethodName, nil, func(r *http.Request) {
			r.Header.Set("Grpc-Timeout", timeout)
		})
		if statusOf(w) != "13" {
			t.Errorf("%q: %v", timeout, w.Header())
		}
	}
	for v, want := range map[string]time.Duration{"1H": time.Hour, "2M": 2 * time.Minute, "3S": 3 * time.Second,
		"4m": 4 * time.Millisecond, "5u": 5 * time.Microsecond, "6n": 6, "99999999H": 24 * time.Hour, "0S": 0} {
		if got, err := parseTimeout(v); got != want || err != nil {
			t.Errorf("%s: %s, %v", v, got, err)
		}
	}
}

// The proxy, and who looks after Sallyport, can ask whether it answers.
func TestHealthSaysWhetherQuestionsAreAnswered(t *testing.T) {
	waits := "the store has not been read yet"
	d := brokenDoor(t)
	d.waits = func() string { return waits }
	ask := func(service string) string {
		w := call(d, grpc_health_v1.Health_Check_FullMethodName,
			framed(t, &grpc_health_v1.HealthCheckRequest{Service: service}), asIs)
		var answer grpc_health_v1.HealthCheckResponse
		if b := w.Body.Bytes(); len(b) < 5 || proto.Unmarshal(b[5:], &answer) != nil {
			return statusOf(w)
		}
		return answer.GetStatus().String()
	}
	want := func(of string) {
		t.Helper()
		for _, service := range []string{"", "envoy.service.auth.v3.Authorization"} {
			if got := ask(service); got != of {
				t.Errorf("%q is %s, want %s", service, got, of)
			}
		}
	}
	want("NOT_SERVING")
	waits = ""
	want("SERVING")
	if got := ask("other"); got != "5" {
		t.Errorf("another service: %s", got)
	}
	if w := call(d, grpc_health_v1.Health_Check_FullMethodName, []byte{1, 2}, asIs); statusOf(w) != "3" {
		t.Errorf("half a message: %v", w.Header())
	}
	d.Drain()
	want("NOT_SERVING")
	if w := call(d, "/", nil, asIs); w.Header().Get("Connection") != "close" {
		t.Error("a client is not asked to leave")
	}
}

// A peer that announces a long message and sends none takes no memory for it.
func TestP17_AnAnnouncedMessageTakesNoMemory(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 1000 {
		if _, err := readMessage(bytes.NewReader(prefixed(0, maxMessage, nil))); err == nil {
			t.Fatal("there was no message")
		}
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / 1000; each > 8<<10 {
		t.Errorf("%d bytes for nothing", each)
	}
	inTwo := io.MultiReader(bytes.NewReader([]byte{0, 0, 0}), bytes.NewReader([]byte{0, 1, 'x', 'y'}))
	if m, err := readMessage(inTwo); string(m) != "x" {
		t.Errorf("%q, %v", m, err)
	}
}

// A header of the app's own language passes: what Envoy cannot take as it is, it changes
// in what it tells of a request, and so do we in what we tell of an answer.
func TestWhatIsNoUTF8IsWrittenAsEnvoyWritesIt(t *testing.T) {
	d := reader(t)
	d.set = newHeaderSet(identity.NewHeaders(), false)
	a := newAnswer(http.StatusOK, &event{header: http.Header{}})
	told := http.Header{"Cookie": {"a=\xff"}}
	d.set.write(a.header, told)
	var answer authv3.CheckResponse
	testenv.Check(t, proto.Unmarshal(d.appendCheckResponse(nil, a), &answer))
	if h := answer.GetOkResponse().GetHeaders(); len(h) != 1 || h[0].GetHeader().GetValue() != "a=!" {
		t.Errorf("%v", h)
	}
	a = newAnswer(http.StatusForbidden, &event{header: http.Header{}})
	a.body.WriteString("\xff")
	testenv.Check(t, proto.Unmarshal(d.appendCheckResponse(nil, a), &answer))
}

// Nothing that a peer can send makes the reader panic, and what it reads of the request
// line is what a client could have sent.
func FuzzCheckRequest(f *testing.F) {
	for _, edit := range []func(*authv3.CheckRequest, *authv3.AttributeContext_HttpRequest){
		func(*authv3.CheckRequest, *authv3.AttributeContext_HttpRequest) {},
		func(_ *authv3.CheckRequest, a *authv3.AttributeContext_HttpRequest) { rawLines(a) },
		func(_ *authv3.CheckRequest, a *authv3.AttributeContext_HttpRequest) {
			addRaw(a, "x_forwarded_user", "root")
		},
		func(_ *authv3.CheckRequest, a *authv3.AttributeContext_HttpRequest) {
			a.Headers[":protocol"] = "websocket"
		},
	} {
		message, err := proto.Marshal(putX(edit))
		testenv.Check(f, err)
		f.Add(message)
	}
	d := reader(f)
	f.Fuzz(func(t *testing.T, message []byte) {
		q, err := d.readCheck(message)
		if err != nil {
			return
		}
		again, err := authz.NewFacts(q.method, q.facts.Scheme, q.facts.Authority, q.facts.Target())
		again.WebSocket, again.Origin, again.Client = q.facts.WebSocket, q.facts.Origin, q.facts.Client
		if err != nil || again != q.facts {
			t.Errorf("%+v is read again as %+v, %v", q.facts, again, err)
		}
		if strings.ContainsAny(q.facts.Path+q.facts.RawQuery, " \t\r\n#") || !identity.IsToken(q.method) {
			t.Errorf("passes as %+v", q)
		}
		for name, lines := range q.header {
			if !isRead(name) || strings.ContainsAny(strings.Join(lines, ""), "\x00\r\n") {
				t.Errorf("%q: %q", name, lines)
			}
		}
		for _, name := range append(q.toRemove, q.overrides...) {
			if name != strings.ToLower(name) || !identity.IsToken(name) {
				t.Errorf("to be removed: %q", name)
			}
		}
	})
}
