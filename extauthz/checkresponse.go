package extauthz

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpc "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
)

// checkResponse is an answer as Envoy reads it. The request passes if, and only if, the
// status in it is OK.
func (d *Door) checkResponse(a *answer) *authv3.CheckResponse {
	if a.status != http.StatusOK {
		denied := &authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: typev3.StatusCode(a.status)},
			Body: strings.ToValidUTF8(a.body.String(), "!")}
		for _, name := range slices.Sorted(maps.Keys(a.header)) {
			denied.Headers = appendHeader(denied.Headers, name, a.header[name])
		}
		return &authv3.CheckResponse{Status: &rpc.Status{Code: int32(deniedCode(a.status))},
			HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: denied}}
	}
	ok := &authv3.OkHttpResponse{HeadersToRemove: a.remove}
	for _, name := range d.set.names {
		if lines := a.header[name]; lines[0] != "" {
			ok.Headers = appendHeader(ok.Headers, name, lines)
		}
	}
	var cors []string
	for name := range a.header {
		if name == "Vary" || strings.HasPrefix(name, "Access-Control-") {
			cors = append(cors, name)
		}
	}
	slices.Sort(cors)
	for _, name := range cors {
		ok.ResponseHeadersToAdd = appendHeader(ok.ResponseHeadersToAdd, name, a.header[name])
	}
	return &authv3.CheckResponse{Status: &rpc.Status{Code: int32(codes.OK)},
		HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: ok}}
}

// deniedCode is for Envoy's statistics: it takes whatever is not OK for a denial.
func deniedCode(status int) codes.Code {
	if status == http.StatusFound || status == http.StatusUnauthorized {
		return codes.Unauthenticated
	}
	return codes.PermissionDenied
}

// appendHeader has Envoy write a header in the place of what is there. The second line of
// one stands beside the first, and Vary beside the app's. Envoy reads value and not
// raw_value, so what is no UTF-8 is changed as Envoy changes it in what it tells of a
// request.
func appendHeader(to []*corev3.HeaderValueOption, name string, lines []string) []*corev3.HeaderValueOption {
	action := corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
	if name == "Vary" {
		action = corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
	}
	for _, value := range lines {
		to = append(to, &corev3.HeaderValueOption{AppendAction: action, Header: &corev3.HeaderValue{
			Key: strings.ToLower(name), Value: strings.ToValidUTF8(value, "!")}})
		action = corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
	}
	return to
}
