package attempt

import "encoding/binary"

// records finds where TLS records end in a stream (RFC 8446 §5.1). So it is known whether
// crypto/tls has returned everything that it received: it returns nothing of a record before
// it has the whole record.
type records struct {
	followed bool // the stream consists of TLS records
	head     [5]byte
	have     int // how many bytes of head were read
	left     int // how many bytes of the record are still to come after its head
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
