package admission

import (
	"net/http"
	"net/textproto"
	"strings"

	"github.com/sallyport-proxy/sallyport/authz"
)

// NoteWebSocket notes in the facts of r whether it asks to speak WebSocket from
// here on (RFC 6455 §4.1), and from a page of which origin. Every other upgrade is
// ignored: h2c would lead around Sallyport.
func NoteWebSocket(f *authz.Facts, r *http.Request) {
	if r.Header["Upgrade"] != nil && asksWebSocket(r) {
		f.WebSocket, f.Origin = true, strings.Join(r.Header["Origin"], ", ")
	}
}

func asksWebSocket(r *http.Request) bool {
	upgrade := r.Header["Upgrade"]
	if r.Method != http.MethodGet || r.ProtoMajor != 1 || r.ProtoMinor != 1 ||
		len(upgrade) != 1 || !strings.EqualFold(upgrade[0], "websocket") {
		return false
	}
	for _, line := range r.Header["Connection"] {
		for option := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(textproto.TrimString(option), "upgrade") {
				return r.ContentLength == 0
			}
		}
	}
	return false
}
