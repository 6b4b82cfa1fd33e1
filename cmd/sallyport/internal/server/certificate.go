package server

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// CertificatePoll is how often the files of a certificate are read. They are
// compared by content: Kubernetes swaps links, and times of files tell nothing.
const CertificatePoll = 5 * time.Second

// Certificate is that of one listener. Where it is in files it follows them;
// what does not work there never replaces what does.
type Certificate struct {
	key     string // of the configuration: listen.https
	log     *slog.Logger
	current atomic.Pointer[tls.Certificate]

	mu     sync.Mutex // guards what follows
	read   Reread
	judged [sha256.Size]byte // of what was read last, so that each fault is told once
}

// Reread reads the files of a certificate and of its key again.
type Reread func() (certPEM, keyPEM string, err error)

// NewCertificate begins with a pair in PEM. key is what the configuration calls the listener.
func NewCertificate(key, certPEM, keyPEM string, reread Reread, log *slog.Logger) (*Certificate, error) {
	pair, err := tls.X509KeyPair([]byte(certPEM), []byte(keyPEM))
	if err != nil {
		return nil, err
	}
	c := &Certificate{key: key, read: reread, log: log, judged: digest(certPEM, keyPEM, nil)}
	c.current.Store(&pair)
	c.warnOfItsTime()
	return c, nil
}

// OutOfTime says why clients refuse a certificate at a time; "" if it is valid then. It is in use
// all the same: with none at all nobody would be told that it is that.
func OutOfTime(cert *x509.Certificate, now time.Time) string {
	switch {
	case now.After(cert.NotAfter):
		return "the certificate expired at " + cert.NotAfter.UTC().Format(time.RFC3339) + ": clients refuse it"
	case now.Before(cert.NotBefore):
		return "the certificate is valid only from " + cert.NotBefore.UTC().Format(time.RFC3339) +
			": clients refuse it until then, or the clock of this machine is wrong"
	}
	return ""
}

func (c *Certificate) warnOfItsTime() {
	if doubt := OutOfTime(c.current.Load().Leaf, time.Now()); doubt != "" {
		c.log.Warn(c.key + ": " + doubt)
	}
}

// CheckPair reports what is wrong with a pair in PEM.
func CheckPair(certPEM, keyPEM string) error {
	_, err := tls.X509KeyPair([]byte(certPEM), []byte(keyPEM))
	return err
}

// Replace takes another pair into use, and from here on follows its files. With an
// error the old one stays.
func (c *Certificate) Replace(certPEM, keyPEM string, reread Reread) error {
	pair, err := tls.X509KeyPair([]byte(certPEM), []byte(keyPEM))
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read = reread
	if now := digest(certPEM, keyPEM, nil); now != c.judged {
		c.judged = now
		c.use(&pair)
	}
	return nil
}

func (c *Certificate) use(pair *tls.Certificate) {
	c.current.Store(pair)
	c.log.Info(c.key+": a new certificate is in use", "not_after", c.notAfter())
	c.warnOfItsTime()
}

func digest(cert, key string, err error) [sha256.Size]byte {
	if err != nil {
		return sha256.Sum256([]byte("error\x00" + err.Error()))
	}
	return sha256.Sum256([]byte("pair\x00" + cert + "\x00" + key))
}

// Config is TLS 1.3, or 1.2 with forward secrecy and authenticated encryption:
// Mozilla's intermediate profile, without the finite-field suites that Go lacks.
// Go itself would also offer CBC with SHA-1. HTTP/2 is for those who have it.
func (c *Certificate) Config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		CipherSuites: []uint16{ // of TLS 1.2; those of 1.3 are not configurable and all authenticated
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current.Load(), nil },
	}
}

func (c *Certificate) notAfter() time.Time { return c.current.Load().Leaf.NotAfter }

// Certificates are those of all listeners that have one, for the metrics.
type Certificates []*Certificate

// Describe implements prometheus.Collector.
func (all Certificates) Describe(to chan<- *prometheus.Desc) { to <- describeNotAfter() }

// Collect implements prometheus.Collector.
func (all Certificates) Collect(to chan<- prometheus.Metric) {
	for _, c := range all {
		to <- prometheus.MustNewConstMetric(describeNotAfter(), prometheus.GaugeValue, float64(c.notAfter().Unix()),
			c.key)
	}
}

func describeNotAfter() *prometheus.Desc {
	return prometheus.NewDesc("sallyport_tls_certificate_not_after_seconds", "Until when the certificate of a "+
		"listener (listen.https, listen.external_auth or listen.grants) is valid, in seconds since 1970.",
		[]string{"listener"}, nil)
}

// Watch follows the files until ctx is done.
func (c *Certificate) Watch(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			c.refresh()
		}
	}
}

// refresh reads the files once.
func (c *Certificate) refresh() {
	c.mu.Lock()
	defer c.mu.Unlock()
	certPEM, keyPEM, err := c.read()
	now := digest(certPEM, keyPEM, err)
	if now == c.judged {
		return
	}
	c.judged = now
	var pair tls.Certificate
	if err == nil {
		pair, err = tls.X509KeyPair([]byte(certPEM), []byte(keyPEM))
	}
	if err != nil {
		c.log.Warn(c.key+": the new certificate or key does not work; the old one stays in use",
			"error", err.Error(), "not_after", c.notAfter())
		return
	}
	c.use(&pair)
}
