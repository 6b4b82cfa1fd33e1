package extauthz

import (
	"errors"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpc "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// reads is what Envoy's own definitions say of a message.
func reads(check *authv3.CheckRequest) *checkRequest {
	asked := check.GetAttributes().GetRequest().GetHttp()
	c := &checkRequest{http: asked != nil, method: asked.GetMethod(), scheme: asked.GetScheme(), host: asked.GetHost(),
		path:   asked.GetPath(),
		client: check.GetAttributes().GetSource().GetAddress().GetSocketAddress().GetAddress()}
	for _, name := range slices.Sorted(maps.Keys(asked.GetHeaders())) {
		c.headers = append(c.headers, headerLine{name: name, value: asked.GetHeaders()[name]})
	}
	for _, h := range asked.GetHeaderMap().GetHeaders() {
		c.lines = append(c.lines, headerLine{h.GetKey(), h.GetValue(), string(h.GetRawValue())})
	}
	return c
}

// agree holds our reading of a message beside that of Envoy's definitions. What we refuse
// they must refuse too, unless something is said twice.
func agree(t *testing.T, message []byte) {
	t.Helper()
	var check authv3.CheckRequest
	theirs := proto.Unmarshal(message, &check)
	ours, err := parseCheckRequest(message)
	switch {
	case err != nil && theirs == nil && !errors.Is(err, errTwice):
		t.Errorf("% x is refused: %v", message, err)
	case err != nil || theirs != nil: // they look at what is not read, too
	default:
		byName := map[string]headerLine{} // the last counts; checkHeader refuses two
		for _, h := range ours.headers {
			byName[h.name] = h
		}
		ours.headers = nil
		for _, name := range slices.Sorted(maps.Keys(byName)) {
			ours.headers = append(ours.headers, byName[name])
		}
		if want := reads(&check); !reflect.DeepEqual(ours, want) {
			t.Errorf("% x is read as\n%+v, not\n%+v", message, *ours, *want)
		}
	}
}

// FuzzCheckMessages: whatever the bytes are, they mean the same to us as to Envoy.
func FuzzCheckMessages(f *testing.F) {
	for _, edit := range []func(*authv3.CheckRequest, *authv3.AttributeContext_HttpRequest){
		func(*authv3.CheckRequest, *authv3.AttributeContext_HttpRequest) {},
		func(_ *authv3.CheckRequest, a *authv3.AttributeContext_HttpRequest) { rawLines(a) },
		func(_ *authv3.CheckRequest, a *authv3.AttributeContext_HttpRequest) { addRaw(a, "x-a", "\xff") },
		func(c *authv3.CheckRequest, a *authv3.AttributeContext_HttpRequest) {
			c.Attributes.ContextExtensions = map[string]string{"a": "b"}
			c.Attributes.Destination = &authv3.AttributeContext_Peer{Address: socketAddress("192.0.2.1")}
			a.Id, a.Query, a.Size, a.Protocol, a.Body = "1", "a=b", 3, "HTTP/2", "abc"
		},
		func(c *authv3.CheckRequest, _ *authv3.AttributeContext_HttpRequest) {
			c.Attributes.Source.Address = &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: "/s"}}}
		},
		func(c *authv3.CheckRequest, _ *authv3.AttributeContext_HttpRequest) { c.Attributes.Request = nil },
	} {
		message, err := proto.Marshal(putX(edit))
		testenv.Check(f, err)
		f.Add(message)
		f.Add(append(message, message...))
	}
	f.Add(protowire.AppendGroup(protowire.AppendTag(nil, 9, protowire.StartGroupType), 9, []byte{8, 1}))
	f.Add(protowire.AppendVarint(protowire.AppendTag(nil, checkAttributes, protowire.VarintType), 7))
	f.Fuzz(func(t *testing.T, message []byte) { agree(t, message) })
}

// A message in which one thing is said twice is read by some as the first, by others as the
// last, or both joined: it is refused at every place.
func TestP04_ACheckThatSaysOneThingTwiceIsRefused(t *testing.T) {
	field := func(n protowire.Number, inner ...[]byte) []byte {
		return appendMessage(nil, n, slices.Concat(inner...))
	}
	text := func(n protowire.Number, v string) []byte { return appendText(nil, n, v) }
	request := func(fields ...[]byte) []byte {
		return field(checkAttributes, field(attributesRequest, field(requestHTTP, fields...)))
	}
	source := func(address ...[]byte) []byte {
		return field(checkAttributes, field(attributesSource, field(peerAddress, address...)))
	}
	header := func(n protowire.Number, fields ...[]byte) []byte { return field(n, fields...) }
	for name, message := range map[string][]byte{
		"attributes":          slices.Concat(request(text(httpPath, "/a")), source()),
		"request":             field(checkAttributes, field(attributesRequest), field(attributesRequest)),
		"http":                field(checkAttributes, field(attributesRequest, field(requestHTTP), field(requestHTTP))),
		"source":              field(checkAttributes, field(attributesSource), field(attributesSource)),
		"address":             field(checkAttributes, field(attributesSource, field(peerAddress), field(peerAddress))),
		"a socket and a pipe": source(field(addressSocket, text(socketIP, "192.0.2.1")), field(2, text(1, "/s"))),
		"two sockets":         source(field(addressSocket, text(socketIP, "192.0.2.1")), field(addressSocket)),
		"the client":          source(field(addressSocket, text(socketIP, "192.0.2.1"), text(socketIP, "192.0.2.2"))),
		"method":              request(text(httpMethod, "GET"), text(httpMethod, "GET")),
		"scheme":              request(text(httpScheme, "http"), text(httpScheme, "https")),
		"host":                request(text(httpHost, "a"), text(httpHost, "b")),
		"path":                request(text(httpPath, "/a"), text(httpPath, "/b")),
		"header_map":          request(field(httpHeaderMap), field(httpHeaderMap)),
		"a name":              request(header(httpHeaders, text(entryKey, "a"), text(entryKey, "b"))),
		"a value":             request(header(httpHeaders, text(entryValue, "a"), text(entryValue, "b"))),
		"a raw value": request(field(httpHeaderMap, header(mapHeaders, text(headerRaw, "a"),
			text(headerRaw, "b")))),
	} {
		if c, err := parseCheckRequest(message); !errors.Is(err, errTwice) {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
		agree(t, message)
	}
	good := request(text(httpMethod, "GET"), text(httpScheme, "http"), text(httpHost, "app.example.com"),
		text(httpPath, "/"), header(httpHeaders, text(entryKey, "a"), text(entryValue, "1")),
		header(httpHeaders, text(entryKey, "a"), text(entryValue, "1")))
	if q, err := reader(t).readCheck(good); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("a header twice: %+v, %v", q, err)
	}
}

// answerOf is an answer in Envoy's definitions.
func answerOf(d *Door, a *answer) *authv3.CheckResponse {
	options := func(name string, lines []string) (all []*corev3.HeaderValueOption) {
		for i, value := range lines {
			action := corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
			if name == "Vary" || i > 0 {
				action = corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
			}
			all = append(all, &corev3.HeaderValueOption{AppendAction: action, Header: &corev3.HeaderValue{
				Key: strings.ToLower(name), Value: strings.ToValidUTF8(value, "!")}})
		}
		return all
	}
	if a.status != http.StatusOK {
		denied := &authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: typev3.StatusCode(a.status)},
			Body: strings.ToValidUTF8(a.body.String(), "!")}
		for _, name := range slices.Sorted(maps.Keys(a.header)) {
			denied.Headers = append(denied.Headers, options(name, a.header[name])...)
		}
		return &authv3.CheckResponse{Status: &rpc.Status{Code: int32(deniedCode(a.status))},
			HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: denied}}
	}
	ok := &authv3.OkHttpResponse{HeadersToRemove: a.remove}
	for _, name := range d.set.names {
		if a.header[name][0] != "" {
			ok.Headers = append(ok.Headers, options(name, a.header[name])...)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.header)) {
		if name == "Vary" || strings.HasPrefix(name, "Access-Control-") {
			ok.ResponseHeadersToAdd = append(ok.ResponseHeadersToAdd, options(name, a.header[name])...)
		}
	}
	return &authv3.CheckResponse{Status: &rpc.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: ok}}
}

// What we write is what Envoy's definitions read, with nothing besides.
func TestAnAnswerIsWrittenAsEnvoyDefinesIt(t *testing.T) {
	d := reader(t)
	d.set = newHeaderSet(identity.NewHeaders(), false)
	for _, status := range []int{200, 302, 401, 403, 503} {
		for name, edit := range map[string]func(*answer){
			"nothing": func(*answer) {},
			"a person": func(a *answer) {
				d.set.write(a.header, http.Header{"X-Forwarded-User": {"sso:ann"}, "X-Forwarded-Email": {"ann@acme.example"}})
			},
			"much": func(a *answer) {
				d.set.write(a.header, http.Header{"X-Forwarded-User": {strings.Repeat("u", 200)},
					"X-Forwarded-Groups": {strings.Repeat("g,", 20000)}})
			},
			"names to remove": func(a *answer) { a.remove = []string{"x_forwarded_user", "x-other"} },
			"for other pages": func(a *answer) {
				a.header["Vary"], a.header["Access-Control-Allow-Origin"] = []string{"Origin", "Cookie"}, []string{"*"}
			},
			"cookies":  func(a *answer) { a.header["Set-Cookie"] = []string{"a=1", "b=2", ""} },
			"no UTF-8": func(a *answer) { a.header["Vary"] = []string{"\xff"}; a.body.WriteString("\xff") },
			"a page":   func(a *answer) { a.body.WriteString(strings.Repeat("page ", 5000)) },
		} {
			a := newAnswer(status, &event{header: http.Header{}})
			d.set.write(a.header, http.Header{})
			edit(a)
			var got authv3.CheckResponse
			testenv.Check(t, proto.Unmarshal(d.appendCheckResponse(nil, a), &got))
			if want := answerOf(d, a); !proto.Equal(&got, want) {
				t.Errorf("%s with %d: %v, not %v", name, status, &got, want)
			}
		}
	}
}

// Numbers and names are Envoy's and gRPC's own.
func TestWhatIsServedHasTheNamesOfItsDefinitions(t *testing.T) {
	if methodCheck != authv3.Authorization_Check_FullMethodName || methodHealth != grpc_health_v1.Health_Check_FullMethodName ||
		checkService != authv3.Authorization_ServiceDesc.ServiceName {
		t.Errorf("%s, %s, %s", methodCheck, methodHealth, checkService)
	}
	for of, want := range map[int32]grpc_health_v1.HealthCheckResponse_ServingStatus{
		healthServing:    grpc_health_v1.HealthCheckResponse_SERVING,
		healthNotServing: grpc_health_v1.HealthCheckResponse_NOT_SERVING,
	} {
		if of != int32(want) {
			t.Errorf("%v is %d", want, of)
		}
	}
}
