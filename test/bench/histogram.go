package main

import (
	"math"
	"math/bits"
	"time"
)

// histogram counts durations in classes that are 1/64 of their value wide at most.
type histogram struct {
	classes [40 * 64]int
	count   int
}

func (h *histogram) add(nanoseconds int64) {
	h.classes[class(uint64(max(nanoseconds, 0)))]++
	h.count++
}

// class is the place of a value: 64 classes for each power of two.
func class(v uint64) int {
	shift := max(0, bits.Len64(v)-7)
	return min(shift<<6+int(v>>shift), 40*64-1)
}

// lowest is the least value of a class.
func lowest(class int) uint64 {
	if class < 128 {
		return uint64(class)
	}
	shift := class>>6 - 1
	return uint64(class-shift<<6) << shift
}

// quantile is the value that a share q of all do not exceed.
func (h *histogram) quantile(q float64) time.Duration {
	rest := int(math.Ceil(q * float64(h.count)))
	for i, n := range h.classes {
		if rest -= n; n > 0 && rest <= 0 {
			return time.Duration(lowest(i+1) - 1)
		}
	}
	return 0
}
