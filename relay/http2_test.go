package relay

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

func TestP03_MalformedRequestsOfHTTP2AreRefused(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		target, host string
		lengths      []string
		length       int64
		body         io.Reader
		want         string
	}{
		"an ordinary one":              {body: strings.NewReader("")},
		"the same host":                {host: "APP.example:443"},
		"another host":                 {host: "other.example", want: "differ"},
		"another port":                 {host: "app.example:80", want: "differ"},
		"no path":                      {target: "*", want: "slash"},
		"a length":                     {lengths: []string{"4"}, length: 4},
		"two lengths":                  {lengths: []string{"4", "4"}, length: 4, want: "not one number"},
		"a length with a sign":         {lengths: []string{"+4"}, length: 4, want: "not one number"},
		"a length that is none":        {lengths: []string{"4, 4"}, want: "not one number"},
		"a length too large":           {lengths: []string{"9223372036854775808"}, want: "not one number"},
		"a body that does not come":    {lengths: []string{"4"}, want: "none comes"},
		"a length of nothing":          {lengths: []string{"0"}, body: strings.NewReader("")},
		"a body that should not come":  {lengths: []string{"0"}, body: strings.NewReader("x"), want: "one comes"},
		"a body that ends with an err": {lengths: []string{"0"}, body: brokenReader{}, want: "one comes"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &http.Request{RequestURI: "/", Host: "app.example", Header: http.Header{}, ContentLength: tt.length}
			if tt.target != "" {
				r.RequestURI = tt.target
			}
			if tt.host != "" {
				r.Header["Host"] = []string{tt.host}
			}
			if tt.lengths != nil {
				r.Header["Content-Length"] = tt.lengths
			}
			if tt.body != nil {
				r.Body = io.NopCloser(tt.body)
			}
			err := CheckHTTP2(httptest.NewRecorder(), r, "https")
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("reset") }

// The wait for the end of an empty request is limited, and the limit is for that
// read alone.
func TestAnEmptyHTTP2RequestMustEndInTime(t *testing.T) {
	t.Parallel()
	w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	r := &http.Request{RequestURI: "/", Header: http.Header{"Content-Length": {"0"}}, Body: http.NoBody}
	testenv.Check(t, CheckHTTP2(w, r, "https"))
	if len(w.set) != 2 || time.Until(w.set[0]) > http2EndTimeout || w.set[0].IsZero() || !w.set[1].IsZero() {
		t.Errorf("deadlines %v", w.set)
	}
}

type deadlines struct {
	*httptest.ResponseRecorder
	set []time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error { d.set = append(d.set, t); return nil }
