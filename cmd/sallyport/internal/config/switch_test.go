package config

import (
	"strings"
	"testing"
)

// YAML 1.1 has on and off for true and false, and so has who writes it; what is meant by other
// words is told.
func TestASwitchIsOnOrOff(t *testing.T) {
	for value, want := range map[string]bool{"true": true, "on": true, "'on'": true, "false": false, "off": false} {
		if got := parse(t, with(t, "session:", "listen:\n  lane: "+value+"\nsession:")).Listen.Lane; got != want {
			t.Errorf("lane: %s is %t", value, got)
		}
	}
	for change, want := range map[string]string{
		"lane: no":     `listen.lane: must be true or false, not "no" (did you mean "false"?)`,
		"lane: 'true'": `listen.lane: must be true or false, not "true" (did you mean "true"?)`,
		"lane: 1":      "listen.lane: must be true or false, not the number 1",
		"h2c: yes":     `listen.h2c: must be true or left out, not "yes" (did you mean "true"?)`,
		"h2c: off":     `listen.h2c: must be true or left out, not "off"`,
		"h2c: [on]":    "listen.h2c: must be true or left out, not a list",
	} {
		if got := faultOf(t, with(t, "session:", "listen:\n  "+change+"\nsession:")); got != want &&
			!(strings.HasPrefix(got, want+"\n")) {
			t.Errorf("%s:\ngot  %s\nwant %s", change, got, want)
		}
	}
}
