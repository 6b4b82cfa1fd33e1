package assemble

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/login"
	"github.com/sallyport-proxy/sallyport/session"
)

// Secrets are what Resolve learns that the configuration itself does not hold.
type Secrets struct {
	Keys session.Keyring
	// KeyNames say where each of Keys came from: a file, or "session.keys[1]".
	KeyNames []string
}

// Resolve reads every reference and parses what has a form of its own. Its error is config.Faults.
func Resolve(cfg *config.Config, env func(string) (string, bool)) (*Secrets, error) {
	faults := cfg.Resolve(env, os.DirFS("/"))
	if len(faults) > 0 {
		return nil, faults
	}
	keys, faults := parseKeys(cfg)
	faults = append(faults, providerFaults(cfg)...)
	faults = append(faults, certificateFaults(cfg)...)
	if len(faults) > 0 {
		return nil, faults
	}
	return newSecrets(cfg, keys)
}

// parseKeys reads the texts of session keys.
func parseKeys(cfg *config.Config) (keys []session.Key, faults config.Faults) {
	for _, text := range cfg.Session.KeyTexts {
		key, err := session.ParseKey(text.Text())
		switch {
		case err != nil && text.File != "":
			faults = append(faults, cfg.Fault(text.Path, "%v: file %s", err, text.File))
		case err != nil:
			faults = append(faults, cfg.Fault(text.Path, "%v", err))
		}
		keys = append(keys, key)
	}
	return keys, faults
}

// newSecrets makes a ring of the keys, which are in the order of cfg's texts.
func newSecrets(cfg *config.Config, keys []session.Key) (*Secrets, error) {
	texts := cfg.Session.KeyTexts
	ring, err := session.NewKeyring(keys)
	if twins, ok := errors.AsType[session.TwinError](err); ok {
		return nil, config.Faults{cfg.Fault(texts[twins.Second].Path, "the same session key is in %s and in %s",
			keyName(texts[twins.First]), keyName(texts[twins.Second]))}
	}
	if err != nil {
		return nil, config.Faults{cfg.Fault("session.keys", "%v", err)}
	}
	sec := &Secrets{Keys: ring}
	for _, key := range ring.All() {
		sec.KeyNames = append(sec.KeyNames, keyName(texts[slices.Index(keys, key)]))
	}
	return sec, nil
}

func keyName(text config.KeyText) string { return cmp.Or(text.File, text.Path) }

// certificateFaults judges whether the certificate of listen.https goes with its key.
func certificateFaults(cfg *config.Config) config.Faults {
	https := cfg.Listen.HTTPS
	if https.Address == "" {
		return nil
	}
	if _, err := tls.X509KeyPair([]byte(https.Cert.Value()), []byte(https.Key.Value())); err != nil {
		return config.Faults{cfg.Fault("listen.https", "the certificate and its key do not work together: %v", err)}
	}
	return nil
}

// providerFaults judges what can be judged of providers without asking them,
// once all values are there.
func providerFaults(cfg *config.Config) config.Faults {
	var faults config.Faults
	for i, p := range cfg.Providers {
		if _, err := login.New(ProviderOptions(cfg, p)); err != nil {
			faults = append(faults, cfg.Fault(fmt.Sprintf("providers[%d]", i), "%v", err))
		}
	}
	return faults
}

// ProviderOptions are what login makes a provider of.
func ProviderOptions(cfg *config.Config, p config.Provider) login.Options {
	o := p.Options()
	o.Needs = cfg.Needs()
	o.RedirectURL = RedirectURI(cfg, p.ID)
	if o.ClientAssertion != nil { // such a token lives for minutes, and its issuer puts the next into the file
		o.ClientAssertion = func() (string, error) { return p.ClientAssertion.Reread(os.DirFS("/")) }
	}
	if o.DiscoveryCredential != nil {
		o.DiscoveryCredential = func() (string, error) { return p.DiscoveryToken.Reread(os.DirFS("/")) }
	}
	return o
}

// RedirectURI is what is to be registered at a provider.
func RedirectURI(cfg *config.Config, provider string) string {
	return ownAddress(cfg, "/callback/"+provider)
}

// BackchannelURI is where a provider says who signed out there.
func BackchannelURI(cfg *config.Config, provider string) string {
	return ownAddress(cfg, "/backchannel-logout/"+provider)
}

// LogoutURI is to be registered too, where a provider sends people back to it.
func LogoutURI(cfg *config.Config) string { return ownAddress(cfg, "/logout") }

func ownAddress(cfg *config.Config, path string) string {
	public := "<public_url>" // as long as that is only a reference
	if cfg.PublicURL != nil {
		public = cfg.PublicURL.String()
	}
	return public + cfg.Prefix + path
}
