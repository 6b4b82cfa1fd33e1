package relay

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestHopByHopFieldsAreNotPassedOn(t *testing.T) {
	t.Parallel()
	h := http.Header{
		"Connection": {"close, x-a", ` X-B	, Te`}, "X-A": {"1"}, "X-B": {"2"}, "X-C": {"3"},
		"Keep-Alive":       {"timeout=5"},
		"Proxy-Connection": {"keep-alive"}, "Proxy-Authenticate": {"Basic"}, "Proxy-Authorization": {"Basic x"},
		"Te": {"gzip;q=1, Trailers;q=0.5"}, "Trailer": {"X-D"}, "Transfer-Encoding": {"chunked"}, "Upgrade": {"h2c"},
		"Http2-Settings": {"x"}, "Accept": {"*/*"},
	}
	dropHopByHop(h)
	want := http.Header{"X-C": {"3"}, "Accept": {"*/*"}, "Te": {"trailers"}} // gRPC servers refuse calls without it
	if !maps.EqualFunc(h, want, slices.Equal) {
		t.Errorf("%v is left, want %v", h, want)
	}
}

// FuzzHopByHop: whatever a Connection header says, nothing that is about the
// connection is left, and nothing is added.
func FuzzHopByHop(f *testing.F) {
	f.Add("close, X-A", "trailers")
	f.Add(",, ;\x00\t", "gzip, trailers;q=0")
	f.Fuzz(func(t *testing.T, connection, te string) {
		h := http.Header{"Connection": {connection}, "Te": {te}, "X-A": {"1"}, "Upgrade": {"websocket"}}
		dropHopByHop(h)
		for name, values := range h {
			switch {
			case name == "X-A" && values[0] == "1":
			case name == "Te" && slices.Equal(values, []string{"trailers"}) &&
				strings.Contains(strings.ToLower(te), "trailers"):
			default:
				t.Errorf("%s: %q is left", name, values)
			}
		}
	})
}

func TestHopsAreCountedWhetherTheAppIsToldOrNot(t *testing.T) {
	t.Parallel()
	h := http.Header{"Via": {"1.1 cdn"}}
	for _, protocol := range []string{"HTTP/1.0", "HTTP/1.1", "HTTP/2.0"} {
		countThisHop(h, protocol, false)
	}
	want := []string{"1.1 cdn", "1.0 sallyport", "1.1 sallyport", "2.0 sallyport"}
	if !slices.Equal(h["Via"], want) || countHops(h) != 3 {
		t.Errorf("Via is %q, %d hops", h["Via"], countHops(h))
	}
	countThisHop(h, "HTTP/1.1", true)
	if h["Via"] != nil || !slices.Equal(h["Cdn-Loop"], []string{"sallyport"}) || countHops(h) != 1 {
		t.Errorf("%v, %d hops", h, countHops(h))
	}
	for range maxHops {
		countThisHop(h, "HTTP/1.1", true)
	}
	if n := countHops(h); n != maxHops+1 {
		t.Errorf("%d hops", n)
	}
}

// The first hop's value is one for all requests: what is added in one is in no other.
func TestTheHopsOfARequestAreNoOthers(t *testing.T) {
	t.Parallel()
	for range 3 {
		h := http.Header{}
		countThisHop(h, "HTTP/1.1", false)
		countThisHop(h, "HTTP/2.0", false)
		if want := []string{"1.1 sallyport", "2.0 sallyport"}; !slices.Equal(h["Via"], want) {
			t.Errorf("Via is %q", h["Via"])
		}
	}
}

// Cookies, lengths and what leads browsers elsewhere have no place after a message.
func TestOnlyHarmlessFieldsAreTrailers(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]bool{
		"Set-Cookie": true, "Content-Length": true, "Transfer-Encoding": true, "Trailer": true, "Authorization": true,
		"Alt-Svc": true, "X-Request-Id": true, "Grpc-Status": false, "Etag": false, "Digest": false,
	} {
		if badTrailer(name) != bad {
			t.Errorf("%s: %v", name, !bad)
		}
	}
}
