package testenv

import (
	"io"
	"net/http"
)

func getFresh(url string) (*http.Response, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	return client.Get(url)
}

// StatusOf returns the status of a GET of url over a new connection; 0 if there is no answer.
func StatusOf(url string) int {
	res, err := getFresh(url)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	return res.StatusCode
}

// BodyOf returns the body of a GET of url over a new connection, or the error.
func BodyOf(url string) string {
	res, err := getFresh(url)
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	return string(text)
}
