package assemble

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sallyport-proxy/sallyport/identity"
)

// envoyLine is a line of a request's header as Envoy has it: in lower case.
type envoyLine struct{ name, value string }

// envoyHeader is what Envoy has of a request when it asks: it writes the headers that are
// its own to write, and drops those of the connection.
func envoyHeader(r *http.Request) []envoyLine {
	lines := []envoyLine{{":authority", r.Host}, {":method", r.Method}, {":path", r.RequestURI}, {":scheme", "https"},
		{"x-forwarded-proto", "https"}, {"x-forwarded-for", "127.0.0.1"}, {"x-request-id", "1"}}
	for name, values := range r.Header {
		name = strings.ToLower(name)
		if slices.ContainsFunc(lines, func(l envoyLine) bool { return l.name == name }) || name == "connection" {
			continue
		}
		for _, v := range values {
			lines = append(lines, envoyLine{name, v})
		}
	}
	return lines
}

// checkOf is the CheckRequest for a request with these lines (Envoy's
// check_request_utils.cc). raw is encode_raw_headers.
func checkOf(lines []envoyLine, raw bool) *authv3.CheckRequest {
	asked := &authv3.AttributeContext_HttpRequest{Id: "1", Size: -1, Protocol: "HTTP/1.1"}
	if raw {
		asked.HeaderMap = &corev3.HeaderMap{}
	} else {
		asked.Headers = map[string]string{}
	}
	for _, l := range lines {
		clean := strings.ToValidUTF8(l.value, "!")
		switch l.name {
		case ":authority":
			asked.Host = clean
		case ":method":
			asked.Method = clean
		case ":path":
			asked.Path = clean
		case ":scheme":
			asked.Scheme = clean
		}
		if raw {
			asked.HeaderMap.Headers = append(asked.HeaderMap.Headers,
				&corev3.HeaderValue{Key: l.name, RawValue: []byte(l.value)})
			continue
		}
		if before, there := asked.Headers[l.name]; there {
			clean = before + "," + clean
		}
		asked.Headers[l.name] = clean
	}
	address := &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: "127.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 5}}}}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source:  &authv3.AttributeContext_Peer{Address: address},
		Request: &authv3.AttributeContext_Request{Http: asked}}}
}

// call sends a Check as bytes, and returns what is answered; nil with the status of the
// call, if that is another than OK.
func (d *doors) call(raw []byte) (*authv3.CheckResponse, string) {
	r := httptest.NewRequest("POST", authv3.Authorization_Check_FullMethodName, bytes.NewReader(raw))
	r.ProtoMajor, r.ProtoMinor, r.RemoteAddr = 2, 0, "127.0.0.1:5"
	r.Header.Set("Content-Type", "application/grpc")
	w := httptest.NewRecorder()
	d.process.ServeExternalAuthGRPC(w, r)
	status := w.Result().Trailer.Get("Grpc-Status")
	if status != "0" {
		return nil, w.Header().Get("Grpc-Status")
	}
	var out authv3.CheckResponse
	if b := w.Body.Bytes(); len(b) < 5 || proto.Unmarshal(b[5:], &out) != nil {
		return nil, "unreadable"
	}
	return &out, ""
}

// applyCheck is what Envoy does with a CheckResponse (external_auth.proto and base.proto of
// its API, version 3): it sets and adds headers in the order in which they stand there, then
// removes; it never removes Host and pseudo headers, and it reads value, not raw_value.
// app is nil if the request does not pass; the answer is then in local.
func applyCheck(lines []envoyLine, answer *authv3.CheckResponse) (app []envoyLine, local *httptest.ResponseRecorder) {
	if answer.GetStatus().GetCode() != 0 {
		local = httptest.NewRecorder()
		denied := answer.GetDeniedResponse()
		mutated := mutate(nil, denied.GetHeaders())
		for _, l := range mutated {
			local.Header().Add(l.name, l.value)
		}
		local.Code = int(denied.GetStatus().GetCode())
		local.Body.WriteString(denied.GetBody())
		return nil, local
	}
	ok := answer.GetOkResponse()
	app = mutate(lines, ok.GetHeaders())
	for _, name := range ok.GetHeadersToRemove() {
		if !strings.HasPrefix(name, ":") && name != "host" {
			app = slices.DeleteFunc(app, func(l envoyLine) bool { return l.name == name })
		}
	}
	return app, nil
}

func mutate(lines []envoyLine, by []*corev3.HeaderValueOption) []envoyLine {
	lines = slices.Clone(lines)
	for _, o := range by {
		l := envoyLine{strings.ToLower(o.GetHeader().GetKey()), o.GetHeader().GetValue()}
		same := func(other envoyLine) bool { return other.name == l.name }
		there := slices.ContainsFunc(lines, same)
		switch o.GetAppendAction() {
		case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD:
			lines = append(slices.DeleteFunc(lines, same), l)
		case corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD:
			lines = append(lines, l)
		case corev3.HeaderValueOption_ADD_IF_ABSENT:
			if !there {
				lines = append(lines, l)
			}
		case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS:
			if there {
				lines = append(slices.DeleteFunc(lines, same), l)
			}
		}
	}
	return lines
}

// wellFormed is what Envoy demands with validate_mutations, and what makes an answer mean
// the same to all its versions: no append, nothing empty, nothing twice.
func wellFormed(answer *authv3.CheckResponse) error {
	if err := answer.ValidateAll(); err != nil {
		return err
	}
	ok := answer.GetOkResponse()
	if has(ok, "dynamic_metadata") || answer.GetDynamicMetadata() != nil || ok.GetQueryParametersToSet() != nil ||
		ok.GetQueryParametersToRemove() != nil || answer.GetErrorResponse() != nil {
		return fmt.Errorf("more than headers: %v", answer)
	}
	seen := map[string]bool{}
	for _, o := range slices.Concat(ok.GetHeaders(), ok.GetResponseHeadersToAdd(),
		answer.GetDeniedResponse().GetHeaders()) {
		name, value := o.GetHeader().GetKey(), o.GetHeader().GetValue()
		if has(o, "append") || name != strings.ToLower(name) || !identity.IsToken(name) || value == "" ||
			o.GetHeader().GetRawValue() != nil ||
			strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' }) {
			return fmt.Errorf("header %v", o)
		}
		if seen[name] && o.GetAppendAction() == corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD {
			return fmt.Errorf("%s is overwritten twice", name)
		}
		seen[name] = true
	}
	for _, name := range ok.GetHeadersToRemove() {
		if seen[name] || name != strings.ToLower(name) || strings.HasPrefix(name, ":") {
			return fmt.Errorf("removed and set: %s", name)
		}
		seen[name] = true
	}
	return nil
}

// has reports whether a field is there that is deprecated, and so must not be.
func has(m proto.Message, field protoreflect.Name) bool {
	r := m.ProtoReflect()
	return r.Has(r.Descriptor().Fields().ByName(field))
}

// askGRPC is ask by a client that is Envoy. What the app is told stands in the header of
// the recorder, as an answer of the other dialects would tell it.
func (c doorCase) askGRPC(d *doors, raw bool) (verdict string, w *httptest.ResponseRecorder) {
	w = httptest.NewRecorder()
	r := parse(c.method, c.target, append([]string{"Host: " + c.host}, c.header(d)...)...)
	if r == nil {
		return "deny", w
	}
	r.Host, r.RequestURI = c.host, c.target // as it came
	lines := envoyHeader(r)
	message, err := proto.Marshal(checkOf(lines, raw))
	if err != nil {
		return "deny", w
	}
	prefixed := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	answer, status := d.call(prefixed)
	if answer == nil {
		return "status " + status, w
	}
	if err := wellFormed(answer); err != nil {
		return err.Error(), w
	}
	app, local := applyCheck(lines, answer)
	if local != nil {
		return asked(local), local
	}
	return "forward", asAnswered(d, app, answer)
}

// asAnswered turns what the app gets into an answer of another dialect that says the same.
func asAnswered(d *doors, app []envoyLine, answer *authv3.CheckResponse) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	for _, name := range d.names {
		name := http.CanonicalHeaderKey(name)
		w.Header()[name] = []string{""}
		var values []string
		for _, l := range app {
			if http.CanonicalHeaderKey(l.name) == name {
				values = append(values, l.value)
			}
		}
		if values != nil {
			w.Header()[name] = []string{strings.Join(values, " and ")} // two lines are not what anybody wants
		}
	}
	w.Header().Set("X-Sallyport-Names", strings.Join(d.names, ", "))
	for _, o := range answer.GetOkResponse().GetResponseHeadersToAdd() {
		w.Header().Add(o.GetHeader().GetKey(), o.GetHeader().GetValue())
	}
	for _, l := range app {
		if _, there := w.Header()[http.CanonicalHeaderKey(l.name)]; !there && !strings.HasPrefix(l.name, ":") {
			w.Header().Add("App-Has", l.name)
		}
	}
	return w
}
