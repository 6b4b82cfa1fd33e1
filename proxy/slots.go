package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
)

// slots bound how many sign-ins wait for one provider at one time: a slow
// provider must not fill the memory with people who wait for it.
// Nor must one machine that invents codes take them all.
type slots struct {
	mu   sync.Mutex // guards what follows
	used int
	held map[string]int // by holder
}

var errSlotsUsed = errors.New("its share of limits.flows is in use")

// holder is somebody who holds slots: a client address or a browser. While half
// of the slots are free nobody counts; after that, a holder has so many quarters
// of them at most.
type holder struct {
	name     string // for the log too
	quarters int
}

// take takes one of total slots for all holders at once.
func (s *slots) take(total int, holders ...holder) (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used >= total {
		return nil, errSlotsUsed
	}
	for _, h := range holders {
		if s.held[h.name] >= (total*h.quarters+3)/4 && s.used >= total/2 {
			return nil, fmt.Errorf("%s has its part of limits.flows in use, %d", h.name, s.held[h.name])
		}
	}
	s.used++
	for _, h := range holders {
		s.held[h.name]++
	}
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.used--
		for _, h := range holders {
			if s.held[h.name]--; s.held[h.name] == 0 {
				delete(s.held, h.name)
			}
		}
	}), nil
}

// sharedByCarriers are addresses behind which an access provider has many homes
// (RFC 6598).
var sharedByCarriers = netip.MustParsePrefix("100.64.0.0/10")

// machine is what of a client's address belongs to one machine or home: an IPv4
// address, or the first 64 bits of an IPv6 address. Of private addresses and
// those of listed proxies nothing does: anybody may be behind them.
func (ps peers) machine(client string) (string, bool) {
	addr, err := netip.ParseAddr(client)
	if err != nil || !addr.IsGlobalUnicast() || addr.IsPrivate() || sharedByCarriers.Contains(addr) || ps.trusts(addr) {
		return "", false
	}
	if addr.Is4() {
		return addr.String(), true
	}
	network, err := addr.Prefix(64)
	return network.String(), err == nil
}
