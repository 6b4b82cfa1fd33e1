package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"testing/fstest"
)

// What depends on an address being there is judged before references are read.
func TestAnAddressIsItsReferenceUntilResolve(t *testing.T) {
	c := parse(t, string(read(t, "testdata/good/quirks.yaml")))
	e := &c.Providers[1].Endpoints
	if e.AuthorizationURL != "env:PERSCOM_AUTHORIZATION" || e.TokenURL != "file:/etc/sallyport/perscom-token" {
		t.Errorf("before: %+v", e)
	}
	env := map[string]string{"PERSCOM_AUTHORIZATION": "https://dash.example.com/oauth/authorize", "PERSCOM_SECRET": "x",
		"BROKER_SECRET": "x"}
	files := func(pem string) fstest.MapFS {
		return fstest.MapFS{
			"run/secrets/session-key": aFile(0o600, "k"), "run/secrets/partner": aFile(0o600, "s"),
			"etc/sallyport/perscom-token": aFile(0o644, "https://dash.example.com/oauth/token\n"),
			"etc/sallyport/partner.pem":   aFile(0o644, pem),
		}
	}
	if faults := resolve(c, env, files(goodPEM)); faults != nil {
		t.Fatal(faults)
	}
	if e.AuthorizationURL != "https://dash.example.com/oauth/authorize" ||
		e.TokenURL != "https://dash.example.com/oauth/token" {
		t.Errorf("after: %+v", e)
	}
	if keys := c.Providers[0].Options().PublicKeys; len(keys) != 1 || !strings.Contains(keys[0], "BEGIN PUBLIC KEY") {
		t.Errorf("keys %q", keys)
	}
	for pem, says := range map[string]string{
		"hunter2": "must be public keys or certificates in PEM",
		"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----": "this is a private one",
	} {
		faults := resolve(c, env, files(pem))
		if len(faults) != 1 || faults[0].Path != "providers[0].public_keys[0]" ||
			!strings.Contains(faults[0].Message, says) || strings.Contains(faults.Error(), "hunter2") {
			t.Errorf("%q: %v", pem, faults)
		}
	}
	env["PERSCOM_AUTHORIZATION"] = "http://dash.example.com/"
	if faults := resolve(c, env, files(goodPEM)); len(faults) != 1 || !strings.Contains(faults[0].Message, "must be "+
		"https") {
		t.Errorf("%v", faults)
	}
}

const goodPEM = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEMKBCTNIcKUSDii11ySs3526iDZ8A
iTo7Tu6KPAqv7D7gS2XpJFbZiItSs3m9+9Ue6GnvHw/GW2ZZaVtszggXIw==
-----END PUBLIC KEY-----
`

func TestAnIssuerThatNoTokenCanNameIsAFault(t *testing.T) {
	for issuer, want := range map[string]string{
		"https://sso.example.com/.well-known/openid-configuration":          `must be the issuer, which is the address of the discovery document without what begins at /.well-known/`,
		"https://sso.example.com/realms/a/.well-known/openid-configuration": `(did you mean "https://sso.example.com/realms/a"?)`,
		"https://sso.example.com/.well-known/oauth-authorization-server/a":  `(did you mean "https://sso.example.com"?)`,
		"https://login.microsoftonline.com/common/v2.0": "write `type: microsoft` and `tenant: " +
			"common` instead",
		"https://login.microsoftonline.com/organizations/v2.0": "`tenant: organizations`",
		"https://login.microsoftonline.com/consumers/v2.0/":    "`tenant: consumers`",
		"https://login.microsoftonline.us/Common/v2.0":         "`tenant: common`",
		"https://login.partner.microsoftonline.cn/common":      "`tenant: common`",
		"https://sts.windows.net/common/":                      "`tenant: common`",
		"https://login.microsoftonline.com/{tenantid}/v2.0":    "`tenant: common`",
	} {
		got := faultOf(t, with(t, "https://sso.example.com", "'"+issuer+"'"))
		if !strings.Contains(got, "providers[0].issuer: ") || !strings.Contains(got, want) {
			t.Errorf("%s: %s", issuer, got)
		}
	}
	for _, issuer := range []string{"https://login.microsoftonline.com/0aa0e6f4-5b1c-4a41-9d5c-6f5d1f7c2b11/v2.0",
		"https://sso.example.com/common", "https://sso.example.com/well-known"} {
		parse(t, with(t, "https://sso.example.com", issuer))
	}
	c := parse(t, with(t, "https://sso.example.com", "env:ISSUER"))
	env := map[string]string{"CLIENT_SECRET": "x", "ISSUER": "https://sso.example.com/.well-known/openid-configuration"}
	faults := c.Resolve(func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		fstest.MapFS{"run/secrets/session-key": {Data: []byte("x"), Mode: 0o600}})
	if len(faults) != 1 || !strings.Contains(faults[0].Message, "must be the issuer") {
		t.Errorf("behind a reference: %v", faults)
	}
}

// certificatePEM is some authority.
func certificatePEM(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}

// An authority that cannot be read is found by check --values, at its place,
// and not by the first handshake; so for apps and for providers.
func TestAnAuthorityThatCannotBeReadIsAFault(t *testing.T) {
	good := certificatePEM(t)
	for text, says := range map[string]string{
		good:                  "",
		good + "\n" + good:    "",
		"hunter2":             "must be certificates in PEM, and holds none",
		goodPEM:               "must be certificates in PEM and nothing else",
		good + "\n" + goodPEM: "must be certificates in PEM and nothing else",
		"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----": "one of them cannot be read",
	} {
		for where, file := range map[string]string{
			"providers[0].ca": with(t, "client_id: sallyport", "client_id: sallyport\n    ca: file:/ca.pem"),
			"routes[0].upstream.ca": with(t, "upstream: http://127.0.0.1:8080", "upstream: {url: "+
				"\"https://app:8443\", ca: file:/ca.pem}"),
		} {
			c := parse(t, file)
			faults := resolve(c, map[string]string{"CLIENT_SECRET": "x"}, fstest.MapFS{
				"run/secrets/session-key": aFile(0o600, "k"), "ca.pem": aFile(0o644, text)})
			switch {
			case says == "" && faults != nil:
				t.Errorf("%s: %v", where, faults)
			case says != "" && (len(faults) != 1 || faults[0].Path != where ||
				!strings.Contains(faults[0].Message, says) ||
				strings.Contains(faults.Error(), "hunter2")):
				t.Errorf("%s, want %q: %v", where, says, faults)
			}
		}
	}
}
