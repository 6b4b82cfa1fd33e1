package config

import (
	"errors"
	"net/url"
	"strings"

	"github.com/sallyport-proxy/sallyport/internal/hostname"
	yaml "go.yaml.in/yaml/v4"
)

// WebSocket says who may open WebSockets: pages of the route's own site and of
// Origins.
type WebSocket struct {
	Allowed bool
	Origins []string // as browsers write them: "https://app.example.com"
}

func webSocketShape() shape[WebSocket] {
	allowed := func(ws *WebSocket) *bool { return &ws.Allowed }
	full := object[WebSocket]{keys: []key[WebSocket]{
		field("origins", "The sites whose pages may open them too: scheme, host and port.", list(origin(), 1), func(ws *WebSocket) *[]string { return &ws.Origins }).required(),
	}, check: func(_ *walker, _ place, ws *WebSocket) { ws.Allowed = true }}.shape()
	return either("true or a mapping with origins", within(onlyTrue(), allowed), yaml.MappingNode, full)
}

// origin is compared with what browsers send, so it is written as they do.
func origin() shape[string] {
	want := "an origin such as https://app.example.com"
	s := schema{"type": "string", "pattern": `^https?://[^/?#@*\sA-Z]+$`}
	return shape[string]{want: want, schema: s, read: func(w *walker, at place, into *string) {
		v, ok := w.text(at, want, false)
		if !ok {
			return
		}
		var u *url.URL
		parsed(w, at, v, &u, parsePageOrigin)
		switch {
		case u == nil: // told
		case u.String() != v:
			w.suggest(at, u.String(), "must be written as browsers write it, not %s", quote(v))
		default:
			*into = v
		}
	}}
}

func parsePageOrigin(v string) (*url.URL, error) {
	if strings.Contains(v, "*") && !strings.Contains(v, "@") {
		return nil, errors.New("must be one origin such as https://app.example.com; a pattern lets in sites that nobody thought of")
	}
	u, err := parseOrigin(v, "https://app.example.com")
	if err != nil {
		return nil, err
	}
	if u.Scheme == "http" && !hostname.IsLoopback(u.Hostname()) {
		return nil, errors.New("must be https, because over plain http anybody on the way could be that site (http is for localhost and other loopback hosts)")
	}
	return u, nil
}
