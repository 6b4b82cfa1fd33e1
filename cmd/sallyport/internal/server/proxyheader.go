package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pires/go-proxyproto"
)

// Bounds of a PROXY header, by which a balancer says for whom it opened a connection
// (https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt).
const (
	proxyHeaderTime = 5 * time.Second // since the connection was accepted
	proxyHeaderSize = 4 << 10         // the specification allows 64 KiB
	proxyLineSize   = 107             // of version 1, §2.1
)

var (
	errNoProxyHeader   = errors.New("the connection does not begin with a PROXY header")
	errProxyHeaderLate = fmt.Errorf("no whole PROXY header within %s", proxyHeaderTime)
	errProxyHeaderSize = fmt.Errorf("a PROXY header of more than %d bytes", proxyHeaderSize)
	errProxyChecksum   = errors.New("the checksum of the PROXY header is wrong")
	errProxyTLV        = errors.New("the fields behind the addresses of the PROXY header (TLV) are malformed")
	errProxyDatagrams  = errors.New("the PROXY header is for datagrams, and this is a connection")
)

// proxyHeader is what a connection of a listed peer must begin with. It is read by
// the first Read or RemoteAddr of the connection, whichever comes first: both are
// called by the goroutine of that connection, so Accept waits for nobody.
type proxyHeader struct {
	conn  net.Conn
	close func() // ends the connection, as its listener does
	tell  *refusals
	timer *time.Timer // closes the connection if the header is late

	once   sync.Once
	client net.Addr // for whom the connection was opened
	err    error
}

func newProxyHeader(conn net.Conn, limit time.Duration, closeConn func(), tell *refusals) *proxyHeader {
	return &proxyHeader{conn: conn, close: closeConn, tell: tell, timer: time.AfterFunc(limit, closeConn)}
}

// await reads the header if that has not been done yet. A connection that does not
// begin with one is closed without an answer: to a sender that speaks another
// protocol an answer of ours would mean nothing.
func (h *proxyHeader) await() error {
	h.once.Do(func() {
		h.client = h.conn.RemoteAddr()
		raw, err := readProxyHeader(h.conn)
		var client netip.AddrPort
		if err == nil {
			client, err = parseProxyHeader(raw)
		}
		switch inTime := h.timer.Stop(); {
		case !inTime:
			err = errProxyHeaderLate
		case err == nil:
			h.client = peerOf(h.client, client)
			return
		case len(raw) == 0, errors.Is(err, net.ErrClosed):
			h.fail(err) // a balancer looked whether somebody listens, or this process stops
			return
		}
		h.tell.refused(h.client, reasonOf(err), err)
		h.fail(err)
	})
	return h.err
}

// peerOf is what a connection says of its other end. Where no client is named it is the
// balancer's address without a port (0), which no connection comes from: that address is
// not the client's, and rules about addresses must not take it for that.
func peerOf(balancer net.Addr, client netip.AddrPort) net.Addr {
	tcp, ok := balancer.(*net.TCPAddr)
	switch {
	case client.IsValid():
		return net.TCPAddrFromAddrPort(client)
	case ok:
		return &net.TCPAddr{IP: tcp.IP, Zone: tcp.Zone}
	}
	return balancer
}

// fail closes the connection. net/http answers nothing to an error of this form.
func (h *proxyHeader) fail(err error) {
	h.close()
	h.err = &net.OpError{Op: "read", Net: "tcp", Source: h.conn.LocalAddr(), Addr: h.client, Err: err}
}

// readProxyHeader takes a header from a connection, and not a byte of what follows:
// that is for others to read, and whether something waits there is what stopping asks
// (hasUnread). With an error it returns what it has taken so far.
func readProxyHeader(r io.Reader) ([]byte, error) {
	raw := make([]byte, len(proxyproto.SIGV2), 256)
	for n := 0; n < len(raw); {
		more, err := r.Read(raw[n:])
		n += more
		if !beginsProxyHeader(raw[:n]) {
			return raw[:n], errNoProxyHeader
		}
		if err != nil && n < len(raw) {
			return raw[:n], err
		}
	}
	if bytes.HasPrefix(raw, proxyproto.SIGV1) {
		return readProxyLine(r, raw)
	}
	raw, err := readMore(r, raw, 4) // version and command, family, length
	if err != nil {
		return raw, err
	}
	length := int(binary.BigEndian.Uint16(raw[14:]))
	if len(raw)+length > proxyHeaderSize {
		return raw, errProxyHeaderSize
	}
	return readMore(r, raw, length)
}

func beginsProxyHeader(p []byte) bool {
	return bytes.HasPrefix(proxyproto.SIGV2, p) || bytes.HasPrefix(p, proxyproto.SIGV1) ||
		bytes.HasPrefix(proxyproto.SIGV1, p)
}

// readProxyLine reads the rest of a header of version 1, which is a line and does not
// say how long it is: so one byte at a time, less than a hundred for a connection.
func readProxyLine(r io.Reader, raw []byte) (_ []byte, err error) {
	for len(raw) < proxyLineSize && err == nil && raw[len(raw)-1] != '\n' {
		raw, err = readMore(r, raw, 1)
	}
	return raw, err // the parser says what is wrong with a line that does not end
}

func readMore(r io.Reader, raw []byte, n int) ([]byte, error) {
	have := len(raw)
	raw = append(raw, make([]byte, n)...)
	got, err := io.ReadFull(r, raw[have:])
	return raw[:have+got], err
}

// Of version 2, §2.2.
const (
	proxyHead        = 16 // bytes before the addresses
	proxyCommand     = 12 // where version and command stand; the family is next
	commandProxy     = 0x21
	familyUnspecific = 0x00
	typeCRC32C       = 0x03
)

// parseProxyHeader returns the client that a header names. It is not valid if there is
// none to name: the balancer asks for itself (LOCAL), does not know (UNKNOWN, or an
// unspecified family), or the client came over a Unix socket. Then the peer counts, see peerOf.
func parseProxyHeader(raw []byte) (client netip.AddrPort, err error) {
	v2 := bytes.HasPrefix(raw, proxyproto.SIGV2)
	if v2 && len(raw) >= proxyHead && raw[proxyCommand] == commandProxy && raw[proxyCommand+1] == familyUnspecific {
		return client, checkTLVs(raw, proxyHead) // the library takes this from LOCAL only
	}
	header, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(raw)))
	if err != nil || header.Command.IsLocal() {
		return client, err
	}
	if !header.TransportProtocol.IsStream() {
		return client, errProxyDatagrams
	}
	addresses := 0
	switch from := header.SourceAddr.(type) {
	case *net.TCPAddr:
		at := from.AddrPort()
		client = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
		addresses = 12
		if header.TransportProtocol.IsIPv6() {
			addresses = 36
		}
	case *net.UnixAddr:
		addresses = 216
	}
	if v2 {
		err = checkTLVs(raw, proxyHead+addresses)
	}
	if err != nil {
		return netip.AddrPort{}, err
	}
	return client, nil
}

// checkTLVs judges what follows the addresses of version 2: whether it is whole, and
// whether a checksum among it is that of the header (§2.2.3), which the library does
// not do. What else it says is not used.
func checkTLVs(raw []byte, from int) error {
	for rest := raw[from:]; len(rest) > 0; {
		if len(rest) < 3 || len(rest) < 3+int(binary.BigEndian.Uint16(rest[1:])) {
			return errProxyTLV
		}
		value := rest[3 : 3+int(binary.BigEndian.Uint16(rest[1:]))]
		if rest[0] == typeCRC32C {
			if len(value) != 4 {
				return errProxyTLV
			}
			said := binary.BigEndian.Uint32(value)
			clear(value)
			is := crc32.Checksum(raw, crc32.MakeTable(crc32.Castagnoli))
			binary.BigEndian.PutUint32(value, said)
			if said != is {
				return errProxyChecksum
			}
		}
		rest = rest[3+len(value):]
	}
	return nil
}

// listed tells whether the peer of a connection is one of ranges.
func listed(ranges []netip.Prefix, peer net.Addr) bool {
	if len(ranges) == 0 {
		return false
	}
	tcp, ok := peer.(*net.TCPAddr)
	if !ok {
		return false
	}
	addr := tcp.AddrPort().Addr().Unmap().WithZone("") // prefixes have no zone
	for _, p := range ranges {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// DialLocal connects to a listener of this machine, for ourselves. If it takes us for
// one of its proxies, the connection begins with a PROXY header that says so (LOCAL).
func DialLocal(ctx context.Context, network, address string, proxies []netip.Prefix) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil || !listed(proxies, c.LocalAddr()) {
		return c, err
	}
	header := &proxyproto.Header{Version: 2, Command: proxyproto.LOCAL, TransportProtocol: proxyproto.UNSPEC}
	if _, err := header.WriteTo(c); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}
