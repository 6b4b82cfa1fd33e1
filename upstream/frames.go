package upstream

import (
	"crypto/rand"
	"encoding/binary"
)

// frames follows where WebSocket frames begin and end in one direction of a tunnel
// (RFC 6455 §5.2), in whatever pieces the bytes come. It reads lengths and keeps no
// payload, so what an extension does to payloads does not matter. A control frame may
// stand between any two frames, those of one message too (§5.4): wherever between
// reports true, a close frame can follow.
type frames struct {
	masked bool // all frames of this direction must be: those of a client (§5.1)

	header [maxFrameHeader]byte // of the frame that is under way
	have   uint8                // bytes of header, as long as it is not whole
	opcode byte
	left   uint64 // bytes of payload to come
	closed bool   // a close frame has ended: nothing may follow it (§5.5.1)
	lost   bool   // what came is no frame; nothing more is followed
}

const (
	maxFrameHeader = 2 + 8 + 4
	maxControl     = 125 // bytes of a control frame's payload (§5.5)

	opPong  = 0xA // the greatest that is defined
	opClose = 0x8
)

// skip takes b as the next bytes of the stream.
func (f *frames) skip(b []byte) {
	for len(b) > 0 {
		b = b[f.next(b):]
	}
}

// next takes the next bytes of the stream to the end of the frame that is under way, or
// that begins with b, and returns how many those are: all of b if the frame goes on.
func (f *frames) next(b []byte) int {
	if f.lost {
		return len(b)
	}
	n := 0
	if f.left == 0 {
		for f.have < 2 || f.have < f.headerSize() {
			if n == len(b) {
				return n
			}
			f.header[f.have] = b[n]
			f.have++
			n++
		}
		if f.begin(); f.lost {
			return len(b)
		}
	}
	take := min(f.left, uint64(len(b)-n))
	f.left -= take
	if f.left == 0 && f.opcode == opClose {
		f.closed = true
	}
	return n + int(take)
}

// between reports whether the stream stands between two frames.
func (f *frames) between() bool { return !f.lost && f.left == 0 && f.have == 0 }

// headerSize is how long the header is, by its first two bytes.
func (f *frames) headerSize() uint8 {
	size := uint8(2)
	switch f.header[1] & 0x7F {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	if f.header[1]&0x80 != 0 {
		size += 4
	}
	return size
}

// begin is called with the header of a frame, and judges it as far as it must be
// understood: what is not written as §5.2 demands was written by something that does
// not speak WebSocket, or has lost its place.
func (f *frames) begin() {
	short := f.header[1] & 0x7F
	f.have, f.opcode, f.left = 0, f.header[0]&0x0F, uint64(short)
	minimal := true
	switch short {
	case 126:
		f.left = uint64(binary.BigEndian.Uint16(f.header[2:]))
		minimal = f.left > maxControl
	case 127:
		f.left = binary.BigEndian.Uint64(f.header[2:])
		minimal = f.left > 0xFFFF && f.left>>63 == 0
	}
	final, masked := f.header[0]&0x80 != 0, f.header[1]&0x80 != 0
	control := f.opcode >= opClose
	reserved := f.opcode > opPong || f.opcode > 2 && !control
	if !minimal || reserved || masked != f.masked || control && (!final || short > maxControl) {
		f.lost = true
	}
}

// CloseFrame is what a WebSocket is told when it is closed (RFC 6455 §5.5.1): a status
// code of §7.4, and a reason in at most 123 bytes.
type CloseFrame struct {
	Code   uint16
	Reason string
}

// CloseGoingAway is the code of an endpoint that goes away: a server that stops, a
// browser that leaves the page.
const CloseGoingAway = 1001

func (c CloseFrame) payload() []byte {
	p := binary.BigEndian.AppendUint16(nil, c.Code)
	if len(p)+len(c.Reason) <= maxControl { // a part of it may be no UTF-8
		p = append(p, c.Reason...)
	}
	return p
}

// forClient is the frame as a server sends it.
func (c CloseFrame) forClient() []byte {
	payload := c.payload()
	return append([]byte{0x80 | opClose, byte(len(payload))}, payload...)
}

// forServer is the frame as a client sends it, masked with what nobody can guess (§5.3).
func (c CloseFrame) forServer() []byte {
	payload := c.payload()
	var mask [4]byte
	_, _ = rand.Read(mask[:]) // it never fails
	frame := append([]byte{0x80 | opClose, 0x80 | byte(len(payload))}, mask[:]...)
	for i, b := range payload {
		frame = append(frame, b^mask[i%4])
	}
	return frame
}
