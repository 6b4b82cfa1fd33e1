package server

import "github.com/prometheus/client_golang/prometheus"

// lanes tells of the lanes of listeners, where they have one.
type lanes []*Listener

// Describe implements prometheus.Collector.
func (all lanes) Describe(to chan<- *prometheus.Desc) {
	answered, handed := describeLanes()
	to <- answered
	to <- handed
}

// Collect implements prometheus.Collector.
func (all lanes) Collect(to chan<- prometheus.Metric) {
	answered, handed := describeLanes()
	for _, l := range all {
		if in := l.lane.Load(); in != nil {
			a, h := in.Counts()
			to <- prometheus.MustNewConstMetric(answered, prometheus.CounterValue, float64(a), l.label())
			to <- prometheus.MustNewConstMetric(handed, prometheus.CounterValue, float64(h), l.label())
		}
	}
}

func describeLanes() (answered, handed *prometheus.Desc) {
	labels := []string{"listener"}
	answered = prometheus.NewDesc("sallyport_lane_requests_total",
		"Requests that were answered by the server that listen.lane switches on, by listener.", labels, nil)
	handed = prometheus.NewDesc("sallyport_lane_handed_over_total", "Connections that the server of listen.lane left "+
		"to the standard library's, for the rest of their time, at the first request that it does not take, by "+
		"listener.", labels, nil)
	return answered, handed
}
