package proxy

import (
	"io"
	"log"
	"os"
	"testing"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// TestMain drops what net/http writes to the standard log, as main does: a line for
// each app that sends what nobody asked for.
func TestMain(m *testing.M) {
	log.SetOutput(io.Discard)
	testenv.WaitTogether()
	os.Exit(m.Run())
}
