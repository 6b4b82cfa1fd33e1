package upstream

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
)

// frame is a frame as its sender writes it: with a mask, a client's.
func frame(first byte, payload int, masked bool) []byte {
	b := []byte{first, 0}
	switch {
	case payload <= 125:
		b[1] = byte(payload)
	case payload <= 0xFFFF:
		b[1] = 126
		b = binary.BigEndian.AppendUint16(b, uint16(payload))
	default:
		b[1] = 127
		b = binary.BigEndian.AppendUint64(b, uint64(payload))
	}
	if masked {
		b[1] |= 0x80
		b = append(b, 1, 2, 3, 4)
	}
	return append(b, bytes.Repeat([]byte{0x88}, payload)...)
}

// The first bytes of frames.
const (
	text, more, final, ping, closing = 0x81, 0x01, 0x80, 0x89, 0x88
	packed                           = 0xC1 // with permessage-deflate (RFC 7692 §6)
)

// boundaries reads a stream that is there as a whole: where its frames end, whether one
// closed it, and whether it is no stream of frames.
func boundaries(b []byte, masked bool) (ends []int, closed, lost bool) {
	for at := 0; len(b)-at >= 2; {
		first, second := b[at], b[at+1]
		header, length := 2, uint64(second&0x7F)
		switch length {
		case 126:
			if header += 2; len(b)-at >= header {
				length = uint64(binary.BigEndian.Uint16(b[at+2:]))
				lost = length < 126
			}
		case 127:
			if header += 8; len(b)-at >= header {
				length = binary.BigEndian.Uint64(b[at+2:])
				lost = length < 1<<16 || length >= 1<<63
			}
		}
		if second >= 0x80 {
			header += 4
		}
		if len(b)-at < header {
			return ends, closed, false
		}
		switch first & 15 {
		case 0, 1, 2:
		case 8, 9, 10:
			lost = lost || first < 0x80 || second&0x7F > 125
		default:
			lost = true
		}
		if lost || (second >= 0x80) != masked {
			return ends, closed, true
		}
		if uint64(len(b)-at-header) < length {
			return ends, closed, false
		}
		at += header + int(length)
		ends = append(ends, at)
		closed = closed || first&15 == 8
	}
	return ends, closed, false
}

// follow gives b to a tracker in pieces.
func follow(f *frames, b []byte, piece func(rest int) int) (ends []int) {
	for at := 0; at < len(b); {
		size := piece(len(b) - at)
		for end := at + size; at < end; {
			n := f.next(b[at:end])
			if at += n; f.between() {
				ends = append(ends, at)
			}
		}
	}
	return ends
}

func TestFrameBoundariesAreFoundInPiecesOfAnySize(t *testing.T) {
	for _, masked := range []bool{false, true} {
		var stream []byte
		for _, size := range []int{0, 1, 125, 126, 127, 0xFFFF, 0x10000, 3} {
			stream = append(stream, frame(text, size, masked)...)
			stream = append(stream, frame(more, size, masked)...)
			stream = append(stream, frame(ping, size%126, masked)...)
			stream = append(stream, frame(final, 0, masked)...)
			stream = append(stream, frame(packed, size, masked)...)
		}
		stream = append(stream, frame(closing, 2, masked)...)
		want, closed, lost := boundaries(stream, masked)
		if len(want) != 8*5+1 || !closed || lost {
			t.Fatalf("the test itself finds %d frames, %v, %v", len(want), closed, lost)
		}
		for _, size := range []int{1, 2, 3, 7, 4096, len(stream)} {
			f := frames{masked: masked}
			got := follow(&f, stream, func(rest int) int { return min(size, rest) })
			if !slices.Equal(got, want) || !f.closed || f.lost {
				t.Errorf("in pieces of %d: %d boundaries, not %d; closed %v, lost %v", size, len(got), len(want),
					f.closed, f.lost)
			}
		}
	}
}

// What is no frame is not followed: a boundary found in it would be somewhere.
func TestWhatIsNoFrameIsNotFollowed(t *testing.T) {
	for name, b := range map[string][]byte{
		"masked, from a server":            frame(text, 1, true),
		"a reserved opcode":                frame(0x83, 1, false),
		"a reserved control opcode":        frame(0x8B, 1, false),
		"a ping in parts":                  frame(0x09, 1, false),
		"a close frame of 126 bytes":       frame(closing, 126, false),
		"126 bytes written in eight bytes": {text, 127, 0, 0, 0, 0, 0, 0, 0, 126},
		"a byte written in two":            {text, 126, 0, 1},
		"a length of 64 bits":              {text, 127, 0x80, 0, 0, 0, 0, 0, 0, 0},
		"HTTP":                             []byte("HTTP/1.1 400 Bad Request\r\n\r\n"),
	} {
		var f frames
		f.skip(frame(text, 5, false))
		if !f.between() {
			t.Fatal("a good frame is not followed")
		}
		if f.skip(b); !f.lost || f.between() {
			t.Errorf("%s: lost %v, a boundary %v", name, f.lost, f.between())
		}
		if f.skip(frame(text, 5, false)); f.between() {
			t.Errorf("%s: it is followed again", name)
		}
	}
	f := frames{masked: true}
	if f.skip(frame(text, 1, false)); !f.lost {
		t.Error("a client's frame without a mask is followed (RFC 6455 §5.1)")
	}
}

// RFC 6455 §5.5.1, §5.3.
func TestCloseFramesAreWellFormed(t *testing.T) {
	c := CloseFrame{1008, "signed out"}
	want := append([]byte{0x88, 12, 0x03, 0xF0}, "signed out"...)
	if got := c.forClient(); !bytes.Equal(got, want) {
		t.Errorf("for a client % x", got)
	}
	got := c.forServer()
	if len(got) != 6+12 || got[0] != 0x88 || got[1] != 0x80|12 {
		t.Fatalf("for a server % x", got)
	}
	for i, b := range got[6:] {
		if b^got[2+i%4] != want[2+i] {
			t.Errorf("byte %d is not what was meant: % x", i, got)
		}
	}
	if other := c.forServer(); bytes.Equal(got[2:6], other[2:6]) {
		t.Error("the mask can be guessed")
	}
	for _, masked := range []bool{false, true} {
		long := CloseFrame{1008, string(make([]byte, 124))}
		b := long.forClient()
		if masked {
			b = long.forServer()
		}
		f := frames{masked: masked}
		if f.skip(b); !f.closed || !f.between() {
			t.Errorf("a reason that is too long breaks the frame: % x", b[:4])
		}
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(append(frame(more, 200, false), frame(closing, 2, false)...), false, uint64(1))
	f.Add(append(frame(text, 70000, true), frame(ping, 5, true)...), true, uint64(2))
	f.Add([]byte{text, 127, 0, 0, 0, 0, 0, 1, 0, 0}, false, uint64(3))
	f.Fuzz(func(t *testing.T, b []byte, masked bool, seed uint64) {
		want, closed, lost := boundaries(b, masked)
		random := rand.New(rand.NewPCG(seed, 0))
		tracker := frames{masked: masked}
		got := follow(&tracker, b, func(rest int) int { return 1 + random.IntN(min(rest, 1+int(seed%5000))) })
		if !slices.Equal(got, want) || tracker.closed != closed || tracker.lost != lost {
			t.Errorf("boundaries %v, not %v; closed %v, not %v; lost %v, not %v", got, want, tracker.closed, closed,
				tracker.lost, lost)
		}
	})
}

// BenchmarkFrames is what following costs for each piece that a tunnel reads.
func BenchmarkFrames(b *testing.B) {
	for name, payload := range map[string]int{"10 bytes each": 10, "1000 bytes each": 1000} {
		b.Run(name, func(b *testing.B) {
			piece := bytes.Repeat(frame(text, payload, false), 1+tunnelBuffer/payload)[:tunnelBuffer]
			b.SetBytes(tunnelBuffer)
			b.ReportAllocs()
			for b.Loop() {
				var f frames
				f.skip(piece)
			}
		})
	}
}
