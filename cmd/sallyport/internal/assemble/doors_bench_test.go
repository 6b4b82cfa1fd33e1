package assemble

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/server"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// BenchmarkExternalAuth compares the answer for somebody who is signed in with that of a
// handler that does nothing, both over a kept connection.
func BenchmarkExternalAuth(b *testing.B) {
	d := newDoors(b)
	raw := "GET /verify HTTP/1.1\r\nHost: s\r\nX-Original-URL: https://app.example.com/x\r\nX-Original-Method: GET\r\n" +
		"X-Forwarded-For: 192.0.2.9\r\nUser-Agent: Mozilla/5.0\r\nAccept: */*\r\nCookie: " +
		d.cookies["ann app.example.com"] + "\r\n\r\n"
	for name, h := range map[string]http.HandlerFunc{"signed in": d.process.ServeExternalAuth,
		"bare": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "0") }} {
		b.Run(name, func(b *testing.B) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			testenv.Check(b, err)
			s := server.NewExternalAuthHTTP(h, time.Minute, slog.New(slog.DiscardHandler))
			go func() { _ = s.Serve(l) }()
			defer func() { _ = s.Close() }()
			c, err := net.Dial("tcp", l.Addr().String())
			testenv.Check(b, err)
			defer func() { _ = c.Close() }()
			in := bufio.NewReader(c)
			for b.Loop() {
				_, err := io.WriteString(c, raw)
				testenv.Check(b, err)
				for line := []byte{0}; len(line) > 2 || line[0] == 0; {
					if line, err = in.ReadSlice('\n'); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
