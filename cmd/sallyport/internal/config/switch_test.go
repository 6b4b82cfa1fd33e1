package config

import (
	"strings"
	"testing"
)

// Elsewhere on, yes and no are true and false (YAML 1.1). Here they are texts, and what was meant is
// told.
func TestASwitchIsTrueOrFalse(t *testing.T) {
	for value, want := range map[string]bool{"true": true, "false": false} {
		if got := parse(t, with(t, "session:", "listen:\n  lane: "+value+"\nsession:")).Listen.Lane; got != want {
			t.Errorf("lane: %s is %t", value, got)
		}
	}
	for change, want := range map[string]string{
		"lane: off":    `listen.lane: must be true or false, not "off" (did you mean "false"?)`,
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
