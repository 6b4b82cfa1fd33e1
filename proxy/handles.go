package proxy

import (
	"maps"
	"sync"
	"sync/atomic"
)

// handles remember the metric of each set of labels: looking one up by its labels takes
// longer than counting. There are as many as there are series, whose labels are from closed
// lists or the configuration. Safe for concurrent use.
type handles[Labels comparable, Metric any] struct {
	known atomic.Pointer[map[Labels]Metric]
	mu    sync.Mutex // held to add one
}

// get returns the metric of labels, made by find the first time.
func (h *handles[Labels, Metric]) get(labels Labels, find func(Labels) Metric) Metric {
	if known := h.known.Load(); known != nil {
		if m, ok := (*known)[labels]; ok {
			return m
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	next := map[Labels]Metric{}
	if known := h.known.Load(); known != nil {
		next = maps.Clone(*known)
	}
	m := find(labels)
	next[labels] = m
	h.known.Store(&next)
	return m
}
