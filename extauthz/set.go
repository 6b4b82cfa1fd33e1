package extauthz

import (
	"net/http"
	"strings"

	"github.com/sallyport-proxy/sallyport/identity"
)

// maxTold is how much an app is told about a person, in bytes: fronts have buffers for
// the header of an answer (nginx's proxy_buffer_size).
const maxTold = 16 << 10

// headerSet is what the proxy is to set in a request that may pass: the same names for all
// routes, so that one list in its configuration is complete. A header that nobody has a
// value for is there and empty, or a client's own would stay (CVE-2026-30851).
type headerSet struct {
	names []string // as http.Header has them
	list  []string // the one value of X-Sallyport-Names
}

// empty is the value of a header that is to be empty. Answers share it.
var empty = []string{""}

func newHeaderSet(headers *identity.Headers, authorization bool) headerSet {
	s := headerSet{names: append(headers.Names(), identity.AssertionHeader, "Cookie")}
	if authorization {
		s.names = append(s.names, "Authorization")
	}
	s.list = []string{strings.ToLower(strings.Join(s.names, ", "))}
	return s
}

// write fills an answer with what stands in told, and returns the names that have no value.
func (s *headerSet) write(to, told http.Header) (gone []string) {
	for _, name := range s.names {
		switch lines := told[name]; {
		case len(lines) == 0:
			to[name] = empty
			gone = append(gone, strings.ToLower(name))
		case len(lines) == 1:
			to[name] = lines
		default: // only Cookie has several (RFC 9113 §8.2.3)
			to[name] = []string{strings.Join(lines, "; ")}
		}
	}
	to["X-Sallyport-Names"] = s.list
	return gone
}
