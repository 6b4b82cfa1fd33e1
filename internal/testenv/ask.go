package testenv

import (
	"io"
	"net/http"
	"time"
)

// WaitFor asks for condition until it is true, for ten seconds.
func WaitFor(t TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	for !condition() {
		select {
		case <-deadline.C:
			t.Fatalf("waited in vain: %s", what)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func getFresh(url string) (*http.Response, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	return client.Get(url)
}

// StatusOf asks url over a new connection; 0 if there is no answer.
func StatusOf(url string) int {
	res, err := getFresh(url)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	return res.StatusCode
}

// BodyOf is what url answers over a new connection, or the error.
func BodyOf(url string) string {
	res, err := getFresh(url)
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	return string(text)
}
