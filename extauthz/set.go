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
	lower []string // the same, in lower case
	list  []string // the one value of X-Sallyport-Names
}

// empty is the value of a header that is to be empty. Answers share it.
var empty = []string{""}

func newHeaderSet(headers *identity.Headers, authorization bool) headerSet {
	s := headerSet{names: append(headers.Names(), identity.AssertionHeader, "Cookie")}
	if authorization {
		s.names = append(s.names, "Authorization")
	}
	for _, name := range s.names {
		s.lower = append(s.lower, strings.ToLower(name))
	}
	s.list = []string{strings.Join(s.lower, ", ")}
	return s
}

// write fills an answer with what stands in told.
func (s *headerSet) write(to, told http.Header) {
	for _, name := range s.names {
		switch lines := told[name]; {
		case len(lines) == 0:
			to[name] = empty
		case len(lines) == 1:
			to[name] = lines
		default: // only Cookie has several (RFC 9113 §8.2.3)
			to[name] = []string{strings.Join(lines, "; ")}
		}
	}
	to["X-Sallyport-Names"] = s.list
}

// absent are the names that have no value in told, in lower case.
func (s *headerSet) absent(told http.Header) []string {
	var names []string
	for i, name := range s.names {
		if len(told[name]) == 0 {
			names = append(names, s.lower[i])
		}
	}
	return names
}
