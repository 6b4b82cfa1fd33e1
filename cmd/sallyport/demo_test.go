package main

import (
	"strings"
	"testing"
)

func TestTheDemoTakesAnotherPortOnlyWhereNobodyChoseOne(t *testing.T) {
	taken := takenAddress(t)
	defer taken.Close()
	address := taken.Addr().String()

	free, note, err := freeAddress(t.Context(), address, false)
	if err != nil || free == address {
		t.Fatalf("took %q: %v", free, err)
	}
	if want := address + " is taken by another program, so this demo took " + free; !strings.HasPrefix(note, want) {
		t.Errorf("it says %q, want %q", note, want)
	}
	if _, _, err := freeAddress(t.Context(), address, true); err == nil ||
		!strings.Contains(err.Error(), "choose another with --listen") {
		t.Errorf("an address that was chosen and is taken: %v", err)
	}
}

// TestP21_TheDemoStaysOnThisMachine: its people have no passwords.
func TestP21_TheDemoStaysOnThisMachine(t *testing.T) {
	for _, address := range []string{"127.0.0.1:4180", "[::1]:4180", "localhost:0"} {
		if err := loopbackOnly(address); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	for _, address := range []string{":4180", "0.0.0.0:4180", "[::]:4180", "127.0.0.2:4180", "192.0.2.1:4180",
		"example.com:4180", "127.0.0.1", "localhost.evil.example:1"} {
		if loopbackOnly(address) == nil {
			t.Errorf("the demo would listen on %s", address)
		}
	}
}
