package relay

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/upstream"
)

// traced is a way to an app that tells which connections are used.
type traced struct {
	http.RoundTripper
	got func(reused bool)
}

func (t traced) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx := httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		t.got(i.Reused)
	}})
	return t.RoundTripper.RoundTrip(r.WithContext(ctx))
}

// An app hangs up on an idle connection just when it is used again. The request goes out once
// more, and the app dies in the middle of its body: that is seen at once, as on a first attempt.
func TestAnAppThatHangsUpOnASecondAttemptIsSeenAtOnce(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testenv.Check(t, err)
	t.Cleanup(func() { l.Close() })
	leave, left := make(chan struct{}), make(chan struct{})
	heads := make(chan string, 9)
	go func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			in := bufio.NewReader(c)
			r, err := http.ReadRequest(in)
			if err == nil {
				heads <- r.Method
			}
			if n == 0 {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				<-leave
				c.Close()
				close(left)
				continue
			}
			_, _ = io.ReadFull(r.Body, make([]byte, 5))
			c.Close()
		}
	}()
	target, err := url.Parse("http://" + l.Addr().String())
	testenv.Check(t, err)
	up, err := upstream.New(upstream.Options{URL: target})
	testenv.Check(t, err)
	t.Cleanup(up.Close)
	attempts := 0
	d := newDoor(t, nil, func(o *Order) {
		o.URL = url.URL{Scheme: up.Scheme(), Host: up.Host()}
		o.Header, o.Idle = time.Minute, time.Minute
		o.Transport = traced{up, func(reused bool) {
			if attempts++; reused {
				close(leave)
				<-left
				time.Sleep(20 * time.Millisecond) // until the end is here
			}
		}}
	})
	conn, in := d.dial(t, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	res, err := http.ReadResponse(in, nil)
	testenv.Check(t, err)
	if res.StatusCode != 200 {
		t.Fatal(res.Status)
	}
	_, err = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhello") // and waits
	testenv.Check(t, err)
	res, err = http.ReadResponse(in, nil)
	testenv.Check(t, err)
	if res.StatusCode != 502 || attempts != 3 || len(heads) != 2 {
		t.Errorf("answered %d after %d attempts; the app was asked %d times", res.StatusCode, attempts, len(heads))
	}
	if r := d.result(t, 1); r.outcome.Attempts != 2 || strings.Contains(r.err.Error(), "slow") {
		t.Errorf("%+v", r)
	}
}
