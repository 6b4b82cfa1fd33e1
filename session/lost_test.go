package session

import "testing"

func TestALostFlowIsKnownFromAnUnexpiredStateAlone(t *testing.T) {
	c := newClock()
	b := &browser{t: t, m: newManager(t, c)}
	h := b.begin(aFlow)
	if f, ok := b.m.Lost(h.State); !ok || f != aFlow {
		t.Errorf("%+v %v", f, ok)
	}
	for _, state := range []string{"", "x", h.State[1:], h.State + "A"} {
		if f, ok := b.m.Lost(state); ok || f != (Flow{}) {
			t.Errorf("%q opens: %+v", state, f)
		}
	}
	c.Advance(FlowTime)
	if f, ok := b.m.Lost(h.State); ok || f != (Flow{}) {
		t.Errorf("after ten minutes: %+v", f)
	}
}
