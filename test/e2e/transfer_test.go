package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"
)

func sha(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// allowedGrowth is how much memory the process may take for transfers of any
// length over what it has after a first request: buffers, and the windows of
// HTTP/2. Measured are up to 4 MiB for 1 GiB.
const allowedGrowth = 16.0 // MiB

// The memory is that of the binary, as the system sees it, every 10 ms.
func TestP17_TransfersOfAnyLengthTakeNoMemory(t *testing.T) {
	t.Parallel()
	size := int64(128 << 20)
	if long() {
		size = 1 << 30
	}
	c := ownFront(t, overTLS)
	cookie := c.signIn(t, "mira")
	for _, kind := range []string{"http", "h2c"} {
		for _, p := range []protocol{http1, http2} {
			client := newClient(t, p)
			for _, direction := range []struct {
				name string
				run  func(t *testing.T, client *http.Client, url, cookie string, size int64)
			}{{"up", upload}, {"down", download}} {
				t.Run(fmt.Sprintf("%s over %s to %s", direction.name, p, kind), func(t *testing.T) {
					direction.run(t, client, c.url+"/"+kind, cookie, 1<<10)
					idle := c.process.residentMiB(t)
					stop := c.process.peak(t)
					begun := time.Now()
					direction.run(t, client, c.url+"/"+kind, cookie, size)
					took, most := time.Since(begun), stop()
					t.Logf("%d MiB in %v, %.0f MiB/s; memory %.1f MiB before, %.1f at most", size>>20,
						took.Round(time.Millisecond),
						float64(size>>20)/took.Seconds(), idle, most)
					if most-idle > allowedGrowth {
						t.Errorf("memory grew by %.1f MiB", most-idle)
					}
				})
			}
		}
	}
}

// An app that speaks HTTP/2 may tell the length of a body and send trailers; in
// HTTP/1.1 it is one or the other.
func TestTrailersReachEveryClient(t *testing.T) {
	t.Parallel()
	c := theFront(t)
	cookie := c.signIn(t, "mira")
	for _, kind := range []string{"http", "https", "h2c", "unix"} {
		for _, p := range []protocol{http1, http2} {
			for _, size := range []int64{0, 1, 100, 4 << 10, 1 << 20} {
				t.Run(fmt.Sprintf("%s to %s, %d bytes", p, kind, size), func(t *testing.T) {
					download(t, newClient(t, p), c.url+"/"+kind, cookie, size)
				})
			}
		}
	}
}

func do(t *testing.T, client *http.Client, method, url, cookie string, body io.Reader, length int64) *http.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	r.ContentLength = length
	r.Header.Set("Cookie", cookie)
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s", method, url, resp.Status)
	}
	return resp
}

func upload(t *testing.T, client *http.Client, url, cookie string, size int64) {
	t.Helper()
	h := sha256.New()
	resp := do(t, client, http.MethodPost, url+"/up", cookie, io.TeeReader(noise(size), h), size)
	defer resp.Body.Close()
	var got sum
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if got.Bytes != size || got.SHA256 != hex.EncodeToString(h.Sum(nil)) {
		t.Errorf("the app took in %+v", got)
	}
}

func download(t *testing.T, client *http.Client, url, cookie string, size int64) {
	t.Helper()
	resp := do(t, client, http.MethodGet, fmt.Sprintf("%s/down?bytes=%d", url, size), cookie, nil, 0)
	defer resp.Body.Close()
	h := sha256.New()
	n, err := io.Copy(h, resp.Body)
	if err != nil || n != size {
		t.Fatalf("%d bytes of %d: %v", n, size, err)
	}
	if want := resp.Trailer.Get("X-Sum"); want != hex.EncodeToString(h.Sum(nil)) {
		t.Errorf("what arrived is not what was sent; the trailer is %q", want)
	}
}
