package proxy

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"
)

// An answer that announces trailers, has no body and ends when its header is
// about to be sent on: its end and the timer for the header met on the
// connection, and one answer in ten had a chunk that nobody could read.
func TestAnEmptyAnswerWithTrailersArrivesWhole(t *testing.T) {
	t.Parallel()
	const clients, rounds = 30, 40
	s := newSite(t, setup{App: playApp(t, func(p *peer) {
		for n := 0; p.head() != ""; n++ {
			p.say("HTTP/1.1 200 OK\r\nTrailer: X-End\r\nTransfer-Encoding: chunked\r\n\r\n")
			time.Sleep(headerPatience + time.Duration(n%10-1)*40*time.Microsecond)
			p.say("0\r\nX-End: yes\r\n\r\n")
		}
	})})
	cookie := "Cookie: " + s.mint(t, alice())
	var all sync.WaitGroup
	for range clients {
		w := s.wire(t)
		w.dial()
		all.Go(func() {
			for i := range rounds {
				if err := askForTrailers(w, rawRequest("GET", "/x", s.host, cookie)); err != nil {
					t.Errorf("answer %d on its connection: %v", i, err)
					return
				}
			}
		})
	}
	all.Wait()
}

func askForTrailers(w *wire, request string) error {
	if _, err := io.WriteString(w.conn, request); err != nil {
		return err
	}
	res, err := http.ReadResponse(w.in, nil)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(res.Body)
	if err != nil || len(body) > 0 || res.Trailer.Get("X-End") != "yes" {
		return fmt.Errorf("%d with body %q and trailers %v: %w", res.StatusCode, body, res.Trailer, err)
	}
	return nil
}
