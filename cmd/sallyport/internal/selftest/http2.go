package selftest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// field is one field of a header block of HTTP/2, pseudo-headers included.
type field struct{ name, value string }

// Frames of RFC 9113 §6 that matter here, and their flags.
const (
	frameHeaders   = 0x1
	frameRSTStream = 0x3
	frameSettings  = 0x4
	framePing      = 0x6
	frameGoAway    = 0x7

	flagAck        = 0x1
	flagEndStream  = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20

	maxFrame  = 16 << 10 // RFC 9113 §4.2: no peer may send more unless it is told
	maxFrames = 1000     // until the answer begins
)

// offersHTTP2 reports whether the front speaks HTTP/2 over TLS.
func (w wire) offersHTTP2(ctx context.Context) bool {
	if w.url.Scheme != "https" {
		return false
	}
	conn, err := w.dial(ctx, "h2")
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// exchangeHTTP2 sends fields as the one request of a connection. Of the answer only the
// status is read: the echo sees what matters.
func (w wire) exchangeHTTP2(ctx context.Context, fields []field) (answer, error) {
	conn, err := w.dial(ctx, "h2")
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(w.timeout)); err != nil {
		return answer{}, err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	out := []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	out = appendFrame(out, frameSettings, 0, 0, nil)
	out = appendFrame(out, frameHeaders, flagEndStream|flagEndHeaders, 1, headerBlock(fields))
	if _, err := conn.Write(out); err != nil {
		return answer{}, err
	}
	for range maxFrames {
		kind, flags, payload, err := readFrame(conn)
		if err != nil {
			return answer{}, fmt.Errorf("no answer: %w", err)
		}
		switch kind {
		case frameHeaders:
			status, err := statusOf(payload, flags)
			if err != nil || status >= 200 {
				return answer{status: status}, err
			}
		case frameRSTStream, frameGoAway:
			return answer{}, errors.New("no answer: the front ended the stream")
		case frameSettings, framePing:
			if flags&flagAck != 0 {
				continue
			}
			if kind == frameSettings {
				payload = nil
			}
			if _, err := conn.Write(appendFrame(nil, kind, flagAck, 0, payload)); err != nil {
				return answer{}, err
			}
		}
	}
	return answer{}, errors.New("no answer: frames without end")
}

func appendFrame(b []byte, kind, flags byte, stream uint32, payload []byte) []byte {
	n := len(payload)
	b = append(b, byte(n>>16), byte(n>>8), byte(n), kind, flags)
	return append(binary.BigEndian.AppendUint32(b, stream), payload...)
}

func readFrame(r io.Reader) (kind, flags byte, payload []byte, err error) {
	var head [9]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, 0, nil, err
	}
	n := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
	if n > maxFrame {
		return 0, 0, nil, errors.New("a frame is too long")
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(r, payload)
	return head[3], head[4], payload, err
}

// headerBlock writes fields without index and without Huffman coding (RFC 7541 §6.2.2), so
// that they arrive as they are, whatever is wrong with them.
func headerBlock(fields []field) []byte {
	var b []byte
	for _, f := range fields {
		b = append(b, 0)
		for _, s := range []string{f.name, f.value} {
			if len(s) < 0x7f {
				b = append(b, byte(len(s)))
			} else { // RFC 7541 §5.1
				b = binary.AppendUvarint(append(b, 0x7f), uint64(len(s)-0x7f))
			}
			b = append(b, s...)
		}
	}
	return b
}

var errStatus = errors.New("no answer: its header block does not begin with a status")

// statusOf reads :status, which comes first (RFC 9113 §8.3), out of a HEADERS frame.
func statusOf(block []byte, flags byte) (int, error) {
	skip := 0
	if flags&flagPadded != 0 {
		skip++
	}
	if flags&flagPriority != 0 {
		skip += 5
	}
	if len(block) < skip {
		return 0, errStatus
	}
	block = block[skip:]
	for len(block) > 0 && block[0]&0xe0 == 0x20 { // a new size of the table, RFC 7541 §6.3
		size := 1
		for block[0]&0x1f == 0x1f && size < len(block) && block[size]&0x80 != 0 {
			size++
		}
		if block[0]&0x1f == 0x1f {
			size++
		}
		block = block[min(size, len(block)):]
	}
	if len(block) == 0 {
		return 0, errStatus
	}
	known := map[byte]int{0x88: 200, 0x89: 204, 0x8a: 206, 0x8b: 304, 0x8c: 400, 0x8d: 404, 0x8e: 500} // appendix A
	if status, ok := known[block[0]]; ok {
		return status, nil
	}
	value := block[1:]
	switch first := block[0]; {
	case first == 0x00 || first == 0x10 || first == 0x40: // the name is written out
		if len(value) == 0 || len(value) < 1+int(value[0]&0x7f) {
			return 0, errStatus
		}
		value = value[1+int(value[0]&0x7f):]
	case first&0x40 != 0 && first&0x3f >= 8 && first&0x3f <= 14:
	case first < 0x20 && first&0x0f >= 8 && first&0x0f <= 14:
	default:
		return 0, errStatus
	}
	return statusText(value)
}

// statusText reads three digits, maybe by the code of Huffman (RFC 7541 appendix B): there
// 0 to 2 have five bits, and 3 to 9 have six.
func statusText(s []byte) (int, error) {
	if len(s) == 0 || len(s) < 1+int(s[0]&0x7f) {
		return 0, errStatus
	}
	text := s[1 : 1+int(s[0]&0x7f)]
	if s[0]&0x80 == 0 {
		return threeDigits(string(text))
	}
	var bits strings.Builder
	for _, b := range text {
		fmt.Fprintf(&bits, "%08b", b)
	}
	rest, digits := bits.String(), ""
	for len(digits) < 3 {
		short, long := codeOf(rest, 5), codeOf(rest, 6)
		switch {
		case short >= 0 && short <= 2:
			digits, rest = digits+strconv.Itoa(short), rest[5:]
		case long >= 25 && long <= 31: // 3 is 011001
			digits, rest = digits+strconv.Itoa(long-22), rest[6:]
		default:
			return 0, errStatus
		}
	}
	return threeDigits(digits)
}

// codeOf is the number of the first n bits, -1 if there are fewer.
func codeOf(bits string, n int) int {
	if len(bits) < n {
		return -1
	}
	code, err := strconv.ParseUint(bits[:n], 2, 8)
	if err != nil {
		return -1
	}
	return int(code)
}

func threeDigits(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || len(s) != 3 || n < 100 {
		return 0, errStatus
	}
	return n, nil
}
