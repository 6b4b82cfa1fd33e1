package relay

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// uploadOf is the upload of a request with this body.
func uploadOf(body io.Reader, o Order) *upload {
	r := &http.Request{ProtoMajor: 1, ProtoMinor: 1, ContentLength: -1, Body: io.NopCloser(body), Header: http.Header{}}
	o.Hooks = &caller{}
	return newUpload(clientOf(&writerDouble{}), r, &o, &watch{begun: time.Now()}, nil)
}

// Where an upload has come to its end it stays, whatever is read after that.
func TestAnUploadEndsInOneState(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		body io.Reader
		max  int64
		want int32
		err  error
	}{
		"whole":           {strings.NewReader("body"), 4, uploadEnded, nil},
		"too large":       {strings.NewReader("body"), 3, uploadTooLarge, errBodyGone},
		"without a limit": {strings.NewReader(strings.Repeat("x", 1<<20)), 0, uploadEnded, nil},
		"broken by the client": {io.MultiReader(strings.NewReader("bo"), iotest.ErrReader(io.ErrUnexpectedEOF)), 0,
			uploadBroken, io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			u := uploadOf(tt.body, Order{MaxBody: tt.max})
			_, err := io.Copy(io.Discard, u)
			if !errors.Is(err, tt.err) || !u.is(tt.want) {
				t.Errorf("%v in state %d, want %v in %d", err, u.state.Load(), tt.err, tt.want)
			}
			for _, state := range []int32{uploadIdle, uploadWaiting, uploadEnded, uploadAbandoned} {
				if u.enter(state); !u.is(tt.want) {
					t.Fatalf("went on to %d", u.state.Load())
				}
			}
			if _, err := u.Read(make([]byte, 1)); err == nil || !u.is(tt.want) {
				t.Errorf("read on: %v in state %d", err, u.state.Load())
			}
		})
	}
}

// A second attempt gets the whole body or none of it.
func TestAnUploadIsSentAgainFromItsBeginningOrNotAtAll(t *testing.T) {
	t.Parallel()
	small, large := strings.Repeat("s", replayable), strings.Repeat("l", replayable+1)
	for name, tt := range map[string]struct {
		body string
		read int
		do   func(*upload)
		want string
	}{
		"unread":                     {body: small, want: small},
		"half read":                  {body: small, read: replayable / 2, want: small},
		"read but for its end":       {body: small, read: replayable, want: small},
		"more than is kept":          {body: large, read: replayable + 1},
		"while somebody reads":       {body: small, read: 5, do: func(u *upload) { u.enter(uploadWaiting) }},
		"after nobody reads it more": {body: small, read: 5, do: func(u *upload) { u.enter(uploadAbandoned) }},
	} {
		t.Run(name, func(t *testing.T) {
			u := uploadOf(strings.NewReader(tt.body), Order{})
			_, err := io.ReadFull(u, make([]byte, tt.read))
			testenv.Check(t, err)
			if tt.do != nil {
				tt.do(u)
			}
			again, err := u.replay()
			if tt.want == "" {
				if !errors.Is(err, errBodyGone) {
					t.Errorf("it can be sent again: %v", err)
				}
				return
			}
			testenv.Check(t, err)
			if got, err := io.ReadAll(again); string(got) != tt.want || err != nil {
				t.Errorf("%d bytes the second time, %v", len(got), err)
			}
		})
	}
}

// 100 Continue is said when the upstream wants the body, and not after it has
// answered without it.
func TestAClientIsToldToSendItsBodyOnlyWhenItIsWanted(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		before func(*upload)
		want   bool
	}{
		"no answer yet":       {func(*upload) {}, true},
		"an answer":           {func(u *upload) { u.responded.Store(true) }, false},
		"an answer after 100": {func(u *upload) { u.responded.Store(true); u.asked.Store(true) }, true},
		"an interim answer": {func(u *upload) {
			u.responded.Store(true)
			_ = u.client.queueInterim(103, nil)
		}, true},
		"an answer that is passed on": {func(u *upload) { u.client.Settle() }, false},
	} {
		t.Run(name, func(t *testing.T) {
			done := make(chan struct{})
			close(done)
			u := uploadOf(strings.NewReader("body"), Order{})
			u.done, u.expected = done, true
			tt.before(u)
			n, err := u.Read(make([]byte, 9))
			if (n == 4) != tt.want || (err == nil) != tt.want {
				t.Errorf("read %d bytes, %v", n, err)
			}
		})
	}
}

// Closing a connection with bytes unread resets it, and the answer is lost.
func TestWhatAClientStillSendsIsTakenInAfterAnEarlyAnswer(t *testing.T) {
	t.Parallel()
	d := newDoor(t, raw("HTTP/1.1 413 No\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"), nil)
	conn, in := d.dial(t, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n")
	for range 20 { // longer than net/http waits by itself, which is half a second
		time.Sleep(50 * time.Millisecond)
		if _, err := io.WriteString(conn, strings.Repeat("x", 100000)); err != nil {
			t.Fatalf("the connection was reset: %v", err)
		}
	}
	res, err := http.ReadResponse(in, nil)
	testenv.Check(t, err)
	if body, err := io.ReadAll(res.Body); res.StatusCode != 413 || string(body) != "no" || err != nil || !res.Close {
		t.Errorf("answered %d %q %v, close %v", res.StatusCode, body, err, res.Close)
	}
}
