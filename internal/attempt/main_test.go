package attempt

import (
	"io"
	"log"
	"os"
	"testing"
)

// TestMain drops what net/http writes to the standard log, as main does: a line for
// each peer that sends what nobody asked for, and here hundreds do.
func TestMain(m *testing.M) {
	log.SetOutput(io.Discard)
	os.Exit(m.Run())
}
