package config

import (
	"errors"
	"net/url"
	"strings"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/yamltable"
	"github.com/sallyport-proxy/sallyport/internal/hostname"
)

// WebSocket says who may open WebSockets: pages of the route's own site and of
// Origins.
type WebSocket struct {
	Allowed bool
	Origins []string // as browsers write them: "https://app.example.com"
}

func webSocketShape() yamltable.Shape[WebSocket] {
	allowed := func(ws *WebSocket) *bool { return &ws.Allowed }
	full := yamltable.Object[WebSocket]{Keys: []yamltable.Entry[WebSocket]{
		yamltable.Field("origins", "The sites whose pages may open them too: scheme, host and port.",
			yamltable.List(origin(), 1), func(ws *WebSocket) *[]string { return &ws.Origins }).Required(),
	}, Check: func(_ *yamltable.Walker, _ yamltable.Place, ws *WebSocket) { ws.Allowed = true }}.Shape()
	return yamltable.Either("true or a mapping with origins", yamltable.Within(yamltable.OnlyTrue(), allowed),
		yamltable.Mapping, full)
}

// origin is compared with what browsers send, so it is written as they do.
func origin() yamltable.Shape[string] {
	want := "an origin such as https://app.example.com"
	s := yamltable.Schema{"type": "string", "pattern": `^https?://[^/?#@*\sA-Z]+$`}
	return yamltable.Shape[string]{Want: want, Schema: s, Read: func(w *yamltable.Walker, at yamltable.Place,
		into *string) {
		v, ok := w.Text(at, want, false)
		if !ok {
			return
		}
		var u *url.URL
		yamltable.Parsed(w, at, v, &u, parsePageOrigin)
		switch {
		case u == nil: // told
		case u.String() != v:
			w.Suggest(at, u.String(), "must be written as browsers write it, not %s", yamltable.Quote(v))
		default:
			*into = v
		}
	}}
}

func parsePageOrigin(v string) (*url.URL, error) {
	if strings.Contains(v, "*") && !strings.Contains(v, "@") {
		return nil, errors.New("must be one origin such as https://app.example.com; a pattern lets in sites that " +
			"nobody thought of")
	}
	u, err := parseOrigin(v, "https://app.example.com")
	if err != nil {
		return nil, err
	}
	if u.Scheme == "http" && !hostname.IsLoopback(u.Hostname()) {
		return nil, errors.New("must be https, because over plain http anybody on the way could be that site (http " +
			"is for localhost and other loopback hosts)")
	}
	return u, nil
}
