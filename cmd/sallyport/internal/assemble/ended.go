package assemble

import (
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/sallyport-proxy/sallyport/session"
)

// storeLate is how old what is known of other servers may be before the store counts
// as away. It is read four times a second, or once where notifications arrive.
const storeLate = 5 * time.Second

// endedMetrics measures what ended, and the store where there is one.
type endedMetrics struct {
	p                                           *Process
	kept, up, writable, fresh, offset, unlisted *prometheus.Desc
}

// measureEnded registers them.
func (p *Process) measureEnded(reg prometheus.Registerer) {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("sallyport_"+name, help, labels, nil)
	}
	reg.MustRegister(&endedMetrics{p: p,
		kept: desc("ended", "What is remembered of sessions that ended before their time, by what each entry ends: a "+
			"sign-in (root), a session at the provider (sid), all sessions of a person or of an organization.", "kind"),
		up: desc("store_up", "1 if the store was read within the last 5 s, else 0. Only with a store."),
		writable: desc("store_writable", "1 unless the last attempt to write to the store failed, as on a full disk. "+
			"Until it is 1 again, other servers do not learn of sign-outs here. Only with a store."),
		fresh: desc("store_fresh_timestamp_seconds", "When the last complete read of the store began: what ended on "+
			"other servers until then is known here. 0 before the first one. Only with a store."),
		offset: desc("store_clock_offset_seconds", "How far the clock of the store's database is ahead of this "+
			"machine's. Only with a store."),
		unlisted: desc("store_unlisted_sign_ins_total", "Sign-ins that the list of sessions lacks, because too many "+
			"waited for the store to be written, or it refused them. Only with a store."),
	})
}

// Describe implements prometheus.Collector.
func (m *endedMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range [...]*prometheus.Desc{m.kept, m.up, m.writable, m.fresh, m.offset, m.unlisted} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (m *endedMetrics) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, kind := range session.Kinds() {
		gauge(m.kept, float64(m.p.ended.Len(kind)), kind.String())
	}
	s := m.p.store
	if s == nil {
		return
	}
	up, writable, since, fresh := 0.0, 0.0, 0.0, s.Fresh()
	if time.Since(fresh) <= storeLate {
		up = 1
	}
	if !fresh.IsZero() {
		since = float64(fresh.UnixMilli()) / 1000
	}
	if s.Writable() {
		writable = 1
	}
	gauge(m.up, up)
	gauge(m.writable, writable)
	gauge(m.fresh, since)
	gauge(m.offset, s.Offset().Seconds())
	to <- prometheus.MustNewConstMetric(m.unlisted, prometheus.CounterValue, float64(s.Dropped()))
}

// endingsMerged shouts when so many people signed out that the list of who did
// became coarser: others have to sign in again.
func endingsMerged(reg prometheus.Registerer, log *slog.Logger) func(session.Merge) {
	merges := promauto.With(reg).NewCounter(prometheus.CounterOpts{Name: "sallyport_ended_merged_total",
		Help: "Times that there were too many ended sessions to remember apart (limits.ended), so that everybody who " +
			"had signed in before some moment signs in again."})
	return func(m session.Merge) {
		if m.Person != "" {
			log.Warn("somebody signed in and out so often that "+
				"all of their sessions that began at or before this time were ended",
				"user", m.Person, "before", m.Before, "entries", m.Entries)
			return
		}
		merges.Inc()
		log.Error("ended sessions merged: everybody who signed in at or before this time signs in again; "+
			"raise limits.ended or shorten session.absolute_timeout if this happens often",
			"before", m.Before, "entries", m.Entries)
	}
}
