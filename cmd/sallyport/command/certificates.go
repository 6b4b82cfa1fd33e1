package command

import (
	"errors"
	"log/slog"
	"os"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/server"
)

// pair is where the configuration has the certificate of a listener, and its key.
type pair struct {
	key  string // the listener's
	refs func(*config.Config) (cert, key config.Ref)
}

var (
	httpsPair = pair{"listen.https", func(c *config.Config) (cert, key config.Ref) {
		return c.Listen.HTTPS.Cert, c.Listen.HTTPS.Key
	}}
	externalAuthPair = pair{"listen.external_auth", func(c *config.Config) (cert, key config.Ref) {
		return c.Listen.ExternalAuth.Cert, c.Listen.ExternalAuth.Key
	}}
	grantsPair = pair{"listen.grants", func(c *config.Config) (cert, key config.Ref) {
		return c.Listen.Grants.Cert, c.Listen.Grants.Key
	}}
)

// certified is the certificate of a listener with TLS.
type certified struct {
	*server.Certificate
	of pair
}

func newCertificates(cfg *config.Config, log *slog.Logger) (certs []certified, err error) {
	for _, p := range [...]pair{httpsPair, externalAuthPair, grantsPair} {
		cert, key := p.refs(cfg)
		if cert.IsZero() {
			continue
		}
		c, err := server.NewCertificate(p.key, cert.Value(), key.Value(), reread(cert, key), log)
		if err != nil {
			return nil, err
		}
		certs = append(certs, certified{c, p})
	}
	return certs, nil
}

// certificate is that of a listener; nil: it has none.
func (s *serving) certificate(listener string) *server.Certificate {
	for _, c := range s.certs {
		if c.of.key == listener {
			return c.Certificate
		}
	}
	return nil
}

// replaceCertificates takes the certificates of a configuration into use, or none of them.
func (s *serving) replaceCertificates(cfg *config.Config) error {
	for _, c := range s.certs {
		cert, key := c.of.refs(cfg)
		if err := server.CheckPair(cert.Value(), key.Value()); err != nil {
			return err
		}
	}
	for _, c := range s.certs {
		cert, key := c.of.refs(cfg)
		if err := c.Replace(cert.Value(), key.Value(), reread(cert, key)); err != nil {
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
