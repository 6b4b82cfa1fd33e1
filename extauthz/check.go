package extauthz

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"strings"

	"github.com/sallyport-proxy/sallyport/identity"
)

// readCheck reads the message of a Check. Its attributes say what the request line is, and
// the header of the request says the rest. Query, fragment, body, certificates, principals,
// metadata and context extensions are not read: nothing of them is for a rule of ours.
func (d *Door) readCheck(message []byte) (question, error) {
	asked, err := parseCheckRequest(message)
	if err != nil {
		return question{}, err
	}
	if !asked.http {
		return question{}, errors.New("the message is not about an HTTP request")
	}
	l := line{method: asked.method, scheme: asked.scheme, host: asked.host, target: asked.path, client: asked.client,
		joined: len(asked.headers) > 0}
	header, err := checkHeader(asked, &l)
	if err != nil {
		return question{method: l.method}, err
	}
	l.unsure = !onlyHop(header["X-Forwarded-For"], l.client)
	if header["X-Forwarded-Proto"] != nil { // over HTTP/2 the client chooses the scheme
		if l.scheme, err = single(header, "X-Forwarded-Proto"); err != nil {
			return question{method: l.method}, err
		}
	}
	return grpcDialect.question(d, l, header)
}

// onlyHop reports whether nobody stands behind who is connected to Envoy: that is the source
// of a Check, whatever trusted hops Envoy is told of (Envoy's check_request_utils.cc). So behind
// a balancer all clients would have the balancer's address, and any of them would be from
// within. Envoy adds the source itself to what X-Forwarded-For says.
func onlyHop(forwardedFor []string, source string) bool {
	switch len(forwardedFor) {
	case 0:
		return true
	case 1:
		return parseClient(forwardedFor[0]) == parseClient(source)
	}
	return false
}

// checkHeader is the header of the request that is asked about. Envoy sends it as a map,
// whose values it has changed where they were no UTF-8 and joined where there were several,
// or as the lines that there are (encode_raw_headers). Both at once are two requests.
func checkHeader(asked *checkRequest, l *line) (http.Header, error) {
	if len(asked.lines) > 0 && len(asked.headers) > 0 {
		return nil, errors.New("there are both headers and header_map")
	}
	header := make(http.Header, len(asked.lines)+len(asked.headers))
	for _, h := range asked.headers {
		had := len(header)
		if err := addHeader(header, l, h.name, h.value); err != nil {
			return nil, err
		}
		if repeats := h.name[0] == ':' || h.name == "host"; len(header) == had && !repeats {
			return nil, fmt.Errorf("%q is there twice", h.name) // and a map has each name once
		}
	}
	for _, h := range asked.lines {
		value := h.value
		if h.raw != "" {
			if value != "" {
				return nil, fmt.Errorf("there are both value and raw_value of %q", h.name)
			}
			value = h.raw
		}
		if err := addHeader(header, l, h.name, value); err != nil {
			return nil, err
		}
	}
	return header, nil
}

// addHeader adds one line. Names are lower case, as those of HTTP/2 are (RFC 9113 §8.2.1);
// those that repeat the request line must say the same.
func addHeader(header http.Header, l *line, name, value string) error {
	var same string
	switch name {
	case ":method":
		same = l.method
	case ":scheme":
		same = l.scheme
	case ":authority", "host":
		same = l.host
	case ":path":
		same = l.target
	case ":protocol":
		if l.protocol != "" {
			return errors.New("there are several :protocol")
		}
		l.protocol = value
		return nil
	default:
		if !identity.IsToken(name) || strings.ToLower(name) != name {
			return fmt.Errorf("%q is no name of a header", name)
		}
		if strings.ContainsFunc(value, isControl) {
			return fmt.Errorf("the value of %s cannot be one", name)
		}
		name = textproto.CanonicalMIMEHeaderKey(name)
		header[name] = append(header[name], value)
		return nil
	}
	if value != same {
		return fmt.Errorf("%s is not what the attributes say", name)
	}
	return nil
}

// isControl is for values (RFC 9110 §5.5).
func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }
