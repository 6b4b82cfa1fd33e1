package proxy

import (
	"os"
	"testing"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

func TestMain(m *testing.M) {
	testenv.WaitTogether()
	os.Exit(m.Run())
}
