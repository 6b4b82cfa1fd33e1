package attempt

import "encoding/binary"

// records finds the borders of TLS records in a stream (RFC 8446 §5.1). It tells
// whether the reader above has been given all that was sent to it: crypto/tls hands
// out nothing of a record before it has the whole one.
type records struct {
	followed bool // the stream is one of records
	head     [5]byte
	have     int // bytes of head
	left     int // bytes of the record after its head
}

// follow takes the next bytes of the stream.
func (r *records) follow(p []byte) {
	for r.followed && len(p) > 0 {
		if r.left > 0 {
			n := min(r.left, len(p))
			r.left, p = r.left-n, p[n:]
			continue
		}
		n := copy(r.head[r.have:], p)
		r.have, p = r.have+n, p[n:]
		if r.have == len(r.head) {
			r.have, r.left = 0, int(binary.BigEndian.Uint16(r.head[3:]))
		}
	}
}

// whole reports whether the stream is between two records.
func (r *records) whole() bool { return r.have == 0 && r.left == 0 }
