package relay

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport-proxy/sallyport/upstream"
)

// Where a moment is promised, time is a fake one: a busy machine is not late in it.

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func orderOf(app roundTrip, limit time.Duration) Order {
	return Order{Transport: app, URL: url.URL{Scheme: "http", Host: "app", Path: "/"}, Hooks: &caller{},
		Header: limit, Idle: time.Hour}
}

// A header waits a moment for the body's first piece, and every other piece for
// nothing: neither for more of them nor for a time.
func TestWhatArrivesIsWrittenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body, app := io.Pipe()
		w := &writerDouble{header: http.Header{}}
		r := httptest.NewRequest("GET", "/", nil)
		c := NewClient(w, r, "id", false)
		ended := make(chan error, 1)
		go func() {
			_, err := New().Exchange(c, r, orderOf(func(*http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: 200, Header: http.Header{}, Body: body, ContentLength: -1}, nil
			}, time.Hour))
			ended <- err
		}()
		began := time.Now()
		time.Sleep(flushDelay)
		synctest.Wait()
		want := []string{"200", "flush"}
		if got, _ := w.seen(); !slices.Equal(got, want) {
			t.Fatalf("before the body: %q", got)
		}
		for _, piece := range []string{"data: 1\n\n", "data: 2\n\n", "."} {
			_, _ = io.WriteString(app, piece)
			synctest.Wait() // until everybody waits for something
			want = append(want, piece, "flush")
			if got, _ := w.seen(); !slices.Equal(got, want) {
				t.Errorf("%q was written, want %q", got, want)
			}
		}
		if passed := time.Since(began); passed != flushDelay {
			t.Errorf("it took %v", passed)
		}
		app.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// The time for a header begins when the request was sent for the first time, and
// not once more with a second attempt.
func TestASecondAttemptTakesNoTimeOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit, first = 600 * time.Millisecond, 400 * time.Millisecond
		attempts := 0
		app := func(r *http.Request) (*http.Response, error) {
			for body := r.Body; attempts < 10; attempts++ {
				if text, err := io.ReadAll(body); string(text) != "order" || err != nil {
					t.Errorf("attempt %d: %q, %v", attempts, text, err)
				}
				httptrace.ContextClientTrace(r.Context()).WroteRequest(httptrace.WroteRequestInfo{})
				select {
				case <-r.Context().Done():
					return nil, r.Context().Err()
				case <-time.After(first): // refused, or the connection broke
				}
				body, _ = r.GetBody()
			}
			return nil, errors.New("time without end")
		}
		r := httptest.NewRequest("POST", "/", strings.NewReader("order"))
		c := NewClient(&writerDouble{header: http.Header{}}, r, "id", false)
		began := time.Now()
		_, err := New().Exchange(c, r, orderOf(app, limit))
		if took := time.Since(began); !errors.Is(err, upstream.ErrTimeout) || attempts != 1 || took != limit {
			t.Errorf("ended with %v after %v and %d more attempts, want it after %v", err, took, attempts, limit)
		}
	})
}
