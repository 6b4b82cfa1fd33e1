package command

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/server"
)

// The keys of listeners that may have a certificate.
const (
	httpsKey        = "listen.https"
	externalAuthKey = "listen.external_auth"
	grantsKey       = "listen.grants"
)

// certified is the certificate of a listener with TLS.
type certified struct {
	*server.Certificate
	listener string
}

func newCertificates(cfg *config.Config, log *slog.Logger) (certs []certified, err error) {
	for _, l := range cfg.Listen.Certificates() {
		c, err := server.NewCertificate(l.Listener, l.Cert.Value(), l.Key.Value(), reread(l.Cert, l.Key), log)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", l.Listener, err)
		}
		certs = append(certs, certified{c, l.Listener})
	}
	return certs, nil
}

// certificateWarnings say what clients will have against certificates that work with their keys.
func certificateWarnings(cfg *config.Config, now time.Time) (all []config.Fault) {
	for _, l := range cfg.Listen.Certificates() {
		pair, err := tls.X509KeyPair([]byte(l.Cert.Value()), []byte(l.Key.Value()))
		if err != nil {
			continue // a fault
		}
		if doubt := server.OutOfTime(pair.Leaf, now); doubt != "" {
			all = append(all, cfg.Fault(l.Listener, "%s", doubt))
		}
		if l.Listener != httpsKey {
			continue // programs ask there, by names that this configuration does not know
		}
		for _, host := range append([]string{cfg.PublicHost()}, cfg.OtherHosts()...) {
			name := (&url.URL{Host: host}).Hostname()
			if strings.ContainsAny(name, "*{") || pair.Leaf.VerifyHostname(name) == nil {
				continue
			}
			all = append(all, cfg.Fault(l.Listener, "the certificate is not for %s: browsers refuse it there, unless "+
				"a load balancer before Sallyport shows them another", name))
		}
	}
	return all
}

// certificate is that of a listener; nil: it has none.
func (s *serving) certificate(listener string) *server.Certificate {
	for _, c := range s.certs {
		if c.listener == listener {
			return c.Certificate
		}
	}
	return nil
}

// replaceCertificates takes the certificates of a configuration into use, or none of them.
// That a listener has one does not change without a restart.
func (s *serving) replaceCertificates(cfg *config.Config) error {
	all := cfg.Listen.Certificates()
	for _, l := range all {
		if err := server.CheckPair(l.Cert.Value(), l.Key.Value()); err != nil {
			return err
		}
	}
	for _, l := range all {
		c := s.certificate(l.Listener)
		if c == nil {
			continue
		}
		if err := c.Replace(l.Cert.Value(), l.Key.Value(), reread(l.Cert, l.Key)); err != nil {
			return err
		}
	}
	return nil
}

// reread reads the files of a certificate again, as they are now.
func reread(cert, key config.Ref) server.Reread {
	root := os.DirFS("/")
	return func() (string, string, error) {
		certPEM, certErr := cert.Reread(root)
		keyPEM, keyErr := key.Reread(root)
		return certPEM, keyPEM, errors.Join(certErr, keyErr)
	}
}
