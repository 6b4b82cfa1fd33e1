package assemble

import (
	"cmp"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/login"
	"github.com/sallyport-proxy/sallyport/session"
)

// Secrets are what Resolve learns that the configuration itself does not hold.
type Secrets struct {
	Keys session.Keyring
	// KeyNames say where each of Keys came from: a file, or "session.keys[1]".
	KeyNames []string
	// GrantKeys seal what people lend; none where nothing is lent.
	GrantKeys GrantKeys
}

// GrantKeys are the keys that seal what people lend.
type GrantKeys struct {
	grant.Keyring
	Names   map[string]string    // where a key came from, by its id: a file, or "grants.encryption_keys[1]"
	Created map[string]time.Time // by its id
}

// Resolve reads every reference and parses what has a form of its own. Its error is config.Faults.
func Resolve(cfg *config.Config, env func(string) (string, bool)) (*Secrets, error) {
	faults := cfg.Resolve(env, os.DirFS("/"))
	if len(faults) > 0 {
		return nil, faults
	}
	keys, faults := parseKeys(cfg, cfg.Session.KeyTexts)
	faults = append(faults, providerFaults(cfg)...)
	faults = append(faults, certificateFaults(cfg)...)
	faults = append(faults, tokenFaults(cfg)...)
	if len(faults) > 0 {
		return nil, faults
	}
	sec, err := newSecrets(cfg, keys)
	if err != nil {
		return nil, err
	}
	if sec.GrantKeys, faults = grantKeys(cfg, keys); len(faults) > 0 {
		return nil, faults
	}
	return sec, nil
}

// ResolveGrants reads what the commands need that see to what is lent: the store, the keys
// and, where third parties are to be asked, the connectors. Its error is config.Faults.
func ResolveGrants(cfg *config.Config, env func(string) (string, bool), connectors bool) (GrantKeys, error) {
	if faults := cfg.ResolveGrants(env, os.DirFS("/"), connectors); len(faults) > 0 {
		return GrantKeys{}, faults
	}
	keys, faults := grantKeys(cfg, nil)
	if len(faults) > 0 {
		return GrantKeys{}, faults
	}
	return keys, nil
}

// grantKeys makes the ring that seals what people lend. None of it may be a session key:
// whoever got those could open it.
func grantKeys(cfg *config.Config, sessionKeys []session.Key) (GrantKeys, config.Faults) {
	texts := cfg.Grants.KeyTexts
	keys, faults := parseKeys(cfg, texts)
	if len(texts) == 0 || len(faults) > 0 {
		return GrantKeys{}, faults
	}
	var seals []grant.SealingKey
	ring := GrantKeys{Names: map[string]string{}, Created: map[string]time.Time{}}
	for i, k := range keys {
		if at := slices.IndexFunc(sessionKeys, k.SameSecret); at >= 0 {
			faults = append(faults, cfg.Fault(texts[i].Path, "%s is the session key in %s too; make a key of its own "+
				"(`sallyport genkey`)", keyName(texts[i]), keyName(cfg.Session.KeyTexts[at])))
		}
		if at := slices.IndexFunc(keys[:i], k.SameSecret); at >= 0 {
			faults = append(faults, cfg.Fault(texts[i].Path, "the same key is in %s and in %s", keyName(texts[at]),
				keyName(texts[i])))
		}
		seal := grant.SealingKey{ID: hex.EncodeToString(k.Derive("grant key id", 8)), Created: k.Created()}
		copy(seal.Secret[:], k.Derive("grant sealing", len(seal.Secret)))
		seals = append(seals, seal)
		ring.Names[seal.ID], ring.Created[seal.ID] = keyName(texts[i]), seal.Created
	}
	if len(faults) > 0 {
		return GrantKeys{}, faults
	}
	var err error
	if ring.Keyring, err = grant.NewKeyring(seals); err != nil {
		return GrantKeys{}, config.Faults{cfg.Fault("grants.encryption_keys", "%v", err)}
	}
	return ring, nil
}

// tokenFaults: a token proves one app.
func tokenFaults(cfg *config.Config) (faults config.Faults) {
	seen := map[string]string{}
	for i, a := range cfg.Grants.Apps {
		for _, token := range a.Tokens {
			if other, twice := seen[token.Value()]; twice {
				faults = append(faults, cfg.Fault(fmt.Sprintf("grants.apps[%d].token", i),
					"is a token of app %s too; give each app a token of its own", other))
			}
			seen[token.Value()] = a.ID
		}
	}
	return faults
}

// parseKeys reads the texts of keys.
func parseKeys(cfg *config.Config, texts []config.KeyText) (keys []session.Key, faults config.Faults) {
	for _, text := range texts {
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

// certificateFaults judges whether the certificate of each listener goes with its key.
func certificateFaults(cfg *config.Config) (faults config.Faults) {
	for _, l := range cfg.Listen.Certificates() {
		if _, err := tls.X509KeyPair([]byte(l.Cert.Value()), []byte(l.Key.Value())); err != nil {
			faults = append(faults, cfg.Fault(l.Listener, "the certificate and its key do not work together: %v%s", err,
				certificateAdvice(err)))
		}
	}
	return faults
}

// certificateAdvice says what to do where crypto/tls only says what it expected.
func certificateAdvice(err error) string {
	switch text := err.Error(); {
	case strings.Contains(text, "failed to parse private key"):
		return "; it must have no passphrase: `openssl pkey -in KEY -out NEW` writes it without one"
	case strings.Contains(text, "private key does not match"):
		return "; the first certificate of the file must be the listener's own, and key the one that it was made with"
	case strings.Contains(text, "PEM data in"):
		return "; files that begin with -----BEGIN are PEM: `openssl x509 -inform der` makes one of others"
	}
	return ""
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
	if o.Directory.On {
		o.Directory.RedirectURL = DirectoryURI(cfg, p.ID)
	}
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

// DirectoryURI is to be registered at a provider too, where its directory is read.
func DirectoryURI(cfg *config.Config, provider string) string {
	return ownAddress(cfg, "/directory/"+provider+"/callback")
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
