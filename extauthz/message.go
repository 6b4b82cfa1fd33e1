package extauthz

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Of Envoy's messages little is read and written here, and that in the encoding itself
// (https://protobuf.dev/programming-guides/encoding): the types that are made of their
// definitions bring 5 MB of other things, of which a process keeps several in memory, and
// take a request apart that is not looked at. The tests hold both side by side.

// The methods that are answered, and the service that Envoy asks.
const (
	methodCheck  = "/envoy.service.auth.v3.Authorization/Check"
	methodHealth = "/grpc.health.v1.Health/Check"
	checkService = "envoy.service.auth.v3.Authorization"
)

// The fields that are read, by their numbers, and in the order in which one is in another.
const (
	checkAttributes = 1 // envoy/service/auth/v3/external_auth.proto: CheckRequest

	attributesSource, attributesRequest = 1, 4 // attribute_context.proto: AttributeContext
	peerAddress                         = 1    // Peer
	addressSocket                       = 1    // envoy/config/core/v3/address.proto: Address
	socketIP                            = 2    // SocketAddress

	requestHTTP                                   = 2 // AttributeContext.Request
	httpMethod, httpHeaders, httpPath, httpHost   = 2, 3, 4, 5
	httpScheme, httpHeaderMap                     = 6, 13
	entryKey, entryValue                          = 1, 2    // of a map
	mapHeaders                                    = 1       // envoy/config/core/v3/base.proto: HeaderMap
	headerKey, headerValue, headerRaw             = 1, 2, 3 // HeaderValue
	healthService                                 = 1       // grpc.health.v1: HealthCheckRequest
	healthStatus, healthServing, healthNotServing = 1, 1, 2 // HealthCheckResponse
)

// checkRequest is what is read of a CheckRequest.
type checkRequest struct {
	http                       bool // it is about a request of HTTP
	client                     string
	method, scheme, host, path string
	headers                    []headerLine // of the map
	lines                      []headerLine // of header_map, as there are
}

// usualHeaders is about how many a browser's request has.
const usualHeaders = 24

// headerLine is a header, whose value is in one of two fields.
type headerLine struct{ name, value, raw string }

var (
	errTwice   = errors.New("a field is there twice")
	errNotUTF8 = errors.New("a text is no UTF-8")
)

// eachField calls take with the fields of a message that are texts, bytes or messages. Others
// are skipped.
func eachField(message []byte, take func(field protowire.Number, value []byte) error) error {
	for len(message) > 0 {
		field, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		message = message[n:]
		if n = protowire.ConsumeFieldValue(field, kind, message); n < 0 {
			return protowire.ParseError(n)
		}
		if kind == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(message)
			if err := take(field, value); err != nil {
				return err
			}
		}
		message = message[n:]
	}
	return nil
}

// once sees that none of the fields that are read is there twice. Readers of the encoding
// take the last, or join both; nobody who means one thing writes two.
type once uint32

func (o *once) see(field protowire.Number) error {
	bit := once(1) << field
	if *o&bit != 0 {
		return errTwice
	}
	*o |= bit
	return nil
}

// text is the value of a field that is a string.
func (o *once) text(field protowire.Number, value []byte, to *string) error {
	if err := o.see(field); err != nil {
		return err
	}
	if !utf8.Valid(value) {
		return errNotUTF8
	}
	*to = string(value)
	return nil
}

// inner reads the fields of a field that is a message.
func (o *once) inner(field protowire.Number, value []byte, take func(protowire.Number, []byte) error) error {
	if err := o.see(field); err != nil {
		return err
	}
	return eachField(value, take)
}

func parseCheckRequest(message []byte) (*checkRequest, error) {
	c := &checkRequest{}
	var top, attributes, request once
	err := eachField(message, func(field protowire.Number, value []byte) error {
		if field != checkAttributes {
			return nil
		}
		return top.inner(field, value, func(field protowire.Number, value []byte) error {
			switch field {
			case attributesSource:
				return attributes.inner(field, value, c.source())
			case attributesRequest:
				return attributes.inner(field, value, func(field protowire.Number, value []byte) error {
					if field != requestHTTP {
						return nil
					}
					c.http = true
					return request.inner(field, value, c.asked())
				})
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("the message is no CheckRequest: %w", err)
	}
	return c, nil
}

// source reads who the client is.
func (c *checkRequest) source() func(protowire.Number, []byte) error {
	var peer, address, socket once
	return func(field protowire.Number, value []byte) error {
		if field != peerAddress {
			return nil
		}
		return peer.inner(field, value, func(field protowire.Number, value []byte) error {
			if err := address.see(0); err != nil { // an address has one form
				return err
			}
			if field != addressSocket {
				return nil
			}
			return eachField(value, func(field protowire.Number, value []byte) error {
				if field != socketIP {
					return nil
				}
				return socket.text(field, value, &c.client)
			})
		})
	}
}

// asked reads the request that is asked about.
func (c *checkRequest) asked() func(protowire.Number, []byte) error {
	var seen once
	return func(field protowire.Number, value []byte) error {
		switch field {
		case httpMethod:
			return seen.text(field, value, &c.method)
		case httpScheme:
			return seen.text(field, value, &c.scheme)
		case httpHost:
			return seen.text(field, value, &c.host)
		case httpPath:
			return seen.text(field, value, &c.path)
		case httpHeaders:
			if c.headers == nil {
				c.headers = make([]headerLine, 0, usualHeaders)
			}
			h, err := parseHeader(value, entryKey, entryValue, 0)
			c.headers = append(c.headers, h)
			return err
		case httpHeaderMap:
			return seen.inner(field, value, func(field protowire.Number, value []byte) error {
				if field != mapHeaders {
					return nil
				}
				h, err := parseHeader(value, headerKey, headerValue, headerRaw)
				c.lines = append(c.lines, h)
				return err
			})
		}
		return nil
	}
}

// parseHeader reads an entry of a map, which has no raw value, or a HeaderValue.
func parseHeader(message []byte, key, value, raw protowire.Number) (h headerLine, err error) {
	var seen once
	err = eachField(message, func(field protowire.Number, b []byte) error {
		switch field {
		case key:
			return seen.text(field, b, &h.name)
		case value:
			return seen.text(field, b, &h.value)
		case raw:
			h.raw = string(b) // any bytes
			return seen.see(field)
		}
		return nil
	})
	return h, err
}

// parseHealthRequest is the service that is asked about.
func parseHealthRequest(message []byte) (service string, err error) {
	var seen once
	err = eachField(message, func(field protowire.Number, value []byte) error {
		if field != healthService {
			return nil
		}
		return seen.text(field, value, &service)
	})
	return service, err
}

// The fields that are written.
const (
	responseStatus, responseDenied, responseOK = 1, 2, 3 // CheckResponse
	statusCode                                 = 1       // google.rpc.Status
	deniedStatus, deniedHeaders, deniedBody    = 1, 2, 3 // DeniedHttpResponse
	httpStatusCode                             = 1       // envoy/type/v3/http_status.proto: HttpStatus
	okHeaders, okRemove, okToResponse          = 2, 5, 6 // OkHttpResponse
	optionHeader, optionAction                 = 1, 3    // HeaderValueOption
)

// headerAction is a HeaderAppendAction.
type headerAction uint64

const (
	appendIfThere headerAction = 0 // APPEND_IF_EXISTS_OR_ADD
	overwrite     headerAction = 2 // OVERWRITE_IF_EXISTS_OR_ADD
)

func appendVarint(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 { // as good as nothing
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

func appendText(b []byte, field protowire.Number, v string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), v)
}

func appendMessage(b []byte, field protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), v)
}

// appendOption appends a HeaderValueOption. name and value are UTF-8.
func appendOption(b []byte, field protowire.Number, name, value string, action headerAction) []byte {
	header := sizeOfText(headerKey, name) + sizeOfText(headerValue, value)
	size := protowire.SizeTag(optionHeader) + protowire.SizeBytes(header)
	if action != 0 {
		size += protowire.SizeTag(optionAction) + protowire.SizeVarint(uint64(action))
	}
	b = protowire.AppendVarint(protowire.AppendTag(b, field, protowire.BytesType), uint64(size))
	b = protowire.AppendVarint(protowire.AppendTag(b, optionHeader, protowire.BytesType), uint64(header))
	b = appendText(appendText(b, headerKey, name), headerValue, value)
	return appendVarint(b, optionAction, uint64(action))
}

func sizeOfText(field protowire.Number, v string) int {
	return protowire.SizeTag(field) + protowire.SizeBytes(len(v))
}
