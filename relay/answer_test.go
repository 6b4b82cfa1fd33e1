package relay

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// An answer that announces trailers, has no body and ends when its header is
// about to be sent on: its end and the timer for the header met on the
// connection, and one answer in ten had a chunk that nobody could read.
func TestAnEmptyAnswerWithTrailersArrivesWhole(t *testing.T) {
	t.Parallel()
	const clients, rounds = 30, 40
	d := newDoor(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		for n := 0; err == nil; n++ { // the first request was read before
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nTrailer: X-End\r\nTransfer-Encoding: chunked\r\n\r\n")
			time.Sleep(flushDelay + time.Duration(n%10-1)*40*time.Microsecond)
			_, _ = io.WriteString(conn, "0\r\nX-End: yes\r\n\r\n")
			_, err = http.ReadRequest(buffered.Reader)
		}
	}), nil)
	var all sync.WaitGroup
	for range clients {
		conn, in := d.dial(t, "")
		testenv.Check(t, conn.SetDeadline(time.Now().Add(3*soon)))
		all.Go(func() {
			for i := range rounds {
				if err := askForTrailers(conn, in); err != nil {
					t.Errorf("answer %d on its connection: %v", i, err)
					return
				}
			}
		})
	}
	all.Wait()
}

func askForTrailers(conn net.Conn, in *bufio.Reader) error {
	if _, err := io.WriteString(conn, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return err
	}
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(res.Body)
	if err != nil || len(body) > 0 || res.Trailer.Get("X-End") != "yes" {
		return fmt.Errorf("%d with body %q and trailers %v: %w", res.StatusCode, body, res.Trailer, err)
	}
	return nil
}
