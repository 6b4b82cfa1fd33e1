package assemble

import (
	"fmt"
	"os"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/login"
	"github.com/sallyport-proxy/sallyport/session"
)

// Secrets are what Resolve learns that the configuration itself does not hold.
type Secrets struct{ Keys session.Keyring }

// Resolve reads every reference and parses what has a form of its own. Its error is config.Faults.
func Resolve(cfg *config.Config, env func(string) (string, bool)) (*Secrets, error) {
	faults := cfg.Resolve(env, os.DirFS("/"))
	if len(faults) > 0 {
		return nil, faults
	}
	var keys []session.Key
	for _, text := range cfg.Session.KeyTexts {
		key, err := session.ParseKey(text.Text())
		if err != nil {
			faults = append(faults, cfg.Fault(text.Path, "%v", err))
			continue
		}
		keys = append(keys, key)
	}
	faults = append(faults, providerFaults(cfg)...)
	if len(faults) > 0 {
		return nil, faults
	}
	ring, err := session.NewKeyring(keys)
	if err != nil {
		return nil, config.Faults{cfg.Fault("session.keys", "%v", err)}
	}
	return &Secrets{Keys: ring}, nil
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
	if o.ClientAssertion != nil { // such a token lives for minutes, and whoever issues it puts the next into the file
		o.ClientAssertion = func() (string, error) { return p.ClientAssertion.Reread(os.DirFS("/")) }
	}
	return o
}

// RedirectURI is what is to be registered at a provider.
func RedirectURI(cfg *config.Config, provider string) string {
	return ownAddress(cfg, "/callback/"+provider)
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
