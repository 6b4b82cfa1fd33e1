package extauthz

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// appendCheckResponse appends an answer as Envoy reads it. The request passes if, and only
// if, the status in it is OK.
func (d *Door) appendCheckResponse(to []byte, a *answer) []byte {
	if a.status != http.StatusOK {
		return appendDenied(to, a)
	}
	ok := make([]byte, 0, usualResponse)
	for _, name := range d.set.names {
		if lines := a.header[name]; lines[0] != "" {
			ok = appendHeader(ok, okHeaders, name, lines)
		}
	}
	for _, name := range a.remove {
		ok = appendText(ok, okRemove, name)
	}
	var cors []string
	for name := range a.header {
		if name == "Vary" || strings.HasPrefix(name, "Access-Control-") {
			cors = append(cors, name)
		}
	}
	slices.Sort(cors)
	for _, name := range cors {
		ok = appendHeader(ok, okToResponse, name, a.header[name])
	}
	to = appendMessage(to, responseStatus, appendVarint(nil, statusCode, uint64(codeOK)))
	return appendMessage(to, responseOK, ok)
}

// usualResponse is about how long an answer is.
const usualResponse = 1 << 10

func appendDenied(to []byte, a *answer) []byte {
	denied := make([]byte, 0, usualResponse)
	denied = appendMessage(denied, deniedStatus, appendVarint(nil, httpStatusCode, uint64(a.status)))
	for _, name := range slices.Sorted(maps.Keys(a.header)) {
		denied = appendHeader(denied, deniedHeaders, name, a.header[name])
	}
	denied = appendText(denied, deniedBody, strings.ToValidUTF8(a.body.String(), "!"))
	to = appendMessage(to, responseStatus, appendVarint(nil, statusCode, uint64(deniedCode(a.status))))
	return appendMessage(to, responseDenied, denied)
}

// deniedCode is for Envoy's statistics: it takes whatever is not OK for a denial.
func deniedCode(status int) callCode {
	if status == http.StatusFound || status == http.StatusUnauthorized {
		return codeUnauthenticated
	}
	return codePermissionDenied
}

// appendHeader has Envoy write a header in the place of what is there. The second line of
// one stands beside the first, and Vary beside the app's. Envoy reads value and not
// raw_value, so what is no UTF-8 is changed as Envoy changes it in what it tells of a
// request.
func appendHeader(to []byte, field protowire.Number, name string, lines []string) []byte {
	action := overwrite
	if name == "Vary" {
		action = appendIfThere
	}
	for _, value := range lines {
		to = appendOption(to, field, strings.ToLower(name), strings.ToValidUTF8(value, "!"), action)
		action = appendIfThere
	}
	return to
}
