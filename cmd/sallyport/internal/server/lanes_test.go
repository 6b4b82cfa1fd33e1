package server

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-proxy/sallyport/internal/lane"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// What the lane has answered, and what it has left to net/http, can be told apart.
func TestALaneIsCounted(t *testing.T) {
	t.Parallel()
	if !lane.Supported {
		t.Skip("there is no lane on this system")
	}
	on, err := Listen(t.Context(), "listen.http", "127.0.0.1:0")
	testenv.Check(t, err)
	log, front, reg := slog.New(slog.DiscardHandler), &echo{}, prometheus.NewRegistry()
	s := &Server{Listeners: []*Listener{{Key: "listen.http.address", on: on, Lane: true,
		HTTP: NewPublicHTTP(front, limitsWith(true), log)}}, Front: front, Log: log, Ready: &atomic.Bool{}}
	s.Measure(reg)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	client := &http.Client{Transport: &http.Transport{}}
	for _, method := range []string{"GET", "GET", "POST", "GET"} { // on one connection
		r, err := http.NewRequestWithContext(t.Context(), method, "http://"+on.Addr().String()+"/", strings.NewReader("x"))
		testenv.Check(t, err)
		if method == "GET" {
			r.Body, r.ContentLength = http.NoBody, 0
		}
		resp, err := client.Do(r)
		testenv.Check(t, err)
		_, err = io.Copy(io.Discard, resp.Body)
		testenv.Check(t, err)
		resp.Body.Close()
	}
	families, err := reg.Gather()
	testenv.Check(t, err)
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			got[f.GetName()+" "+m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
		}
	}
	if want := map[string]float64{"sallyport_lane_requests_total listen.http": 2,
		"sallyport_lane_handed_over_total listen.http": 1}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	client.CloseIdleConnections()
	stop()
	testenv.Check(t, <-ended)
}
