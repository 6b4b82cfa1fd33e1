package testenv

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
)

// DNS is a DNS server that gives one address after the other to every name, and the last one
// from then on.
type DNS struct {
	Asked atomic.Int32 // for IPv4 addresses
	at    string
}

// StartDNS starts one, which has answers for IPv4 addresses only, until the test ends.
func StartDNS(t *testing.T, answers ...string) *DNS {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	Check(t, err)
	t.Cleanup(func() { pc.Close() })
	d := &DNS{at: pc.LocalAddr().String()}
	go func() {
		b := make([]byte, 512)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			if reply := d.reply(b[:n], answers); reply != nil {
				_, _ = pc.WriteTo(reply, from)
			}
		}
	}()
	return d
}

// reply answers a message with one question (RFC 1035 §4.1).
func (d *DNS) reply(b []byte, answers []string) []byte {
	const header, typeA = 12, 1
	end := header
	for end < len(b) && b[end] != 0 {
		end += int(b[end]) + 1
	}
	if end+5 > len(b) {
		return nil
	}
	question := b[header : end+5]
	reply := append([]byte{b[0], b[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, question...)
	if binary.BigEndian.Uint16(question[len(question)-4:]) != typeA {
		return reply
	}
	ip := netip.MustParseAddr(answers[min(int(d.Asked.Add(1)), len(answers))-1]).As4()
	reply[7] = 1
	reply = append(reply, 0xc0, header, 0, typeA, 0, 1, 0, 0, 0, 0, 0, 4)
	return append(reply, ip[:]...)
}

// Resolver asks it, whatever this machine is set up with.
func (d *DNS) Resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", d.at)
	}}
}
