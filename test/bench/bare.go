package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"time"
)

// runBare serves what Sallyport is compared with: on the first address the standard library's
// proxy, on the second a handler that answers with an empty 200, or over HTTP/2 with an empty
// message of gRPC, and on the third what this process has allocated.
func runBare(proxyAt, handlerAt, metricsAt, upstream string) error {
	to, err := url.Parse(upstream)
	if err != nil {
		return err
	}
	failed := make(chan error)
	serve := func(s *http.Server) { failed <- s.ListenAndServe() }
	transport := &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}
	go serve(&http.Server{Addr: proxyAt, ReadHeaderTimeout: time.Minute, Handler: &httputil.ReverseProxy{
		Transport: transport, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to); r.SetXForwarded() }}})
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	go serve(&http.Server{Addr: handlerAt, ReadHeaderTimeout: time.Minute, Protocols: &protocols,
		Handler: http.HandlerFunc(answerEmpty)})
	go serve(&http.Server{Addr: metricsAt, ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(tellAllocations)})
	return <-failed
}

func answerEmpty(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor != 2 {
		return
	}
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status")
	_, _ = w.Write(make([]byte, 5)) // the prefix of a message without a byte
	w.Header().Set("Grpc-Status", "0")
}

func tellAllocations(w http.ResponseWriter, _ *http.Request) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	_, _ = fmt.Fprintf(w, "go_memstats_mallocs_total %d\ngo_memstats_alloc_bytes_total %d\n", m.Mallocs, m.TotalAlloc)
}

// bare is that process, from outside.
type bare struct {
	*process
	proxy, handler string
}

func startBare(c cores, upstream string) (*bare, error) {
	at, err := freeAddresses(3)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "bare", at[0], at[1], at[2], "http://"+upstream)
	p, err := launch(c, "what Go's standard library has", cmd, at...)
	if err != nil {
		return nil, err
	}
	p.metrics = "http://" + at[2]
	return &bare{p, at[0], at[1]}, nil
}

var errUsage = errors.New("usage: bench rounds|scaling [flags]")
