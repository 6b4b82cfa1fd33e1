package config

import (
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
	env := map[string]string{"PERSCOM_AUTHORIZATION": "https://dash.example.com/oauth/authorize", "PERSCOM_SECRET": "x", "BROKER_SECRET": "x"}
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
	if e.AuthorizationURL != "https://dash.example.com/oauth/authorize" || e.TokenURL != "https://dash.example.com/oauth/token" {
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
		if len(faults) != 1 || faults[0].Path != "providers[0].public_keys[0]" || !strings.Contains(faults[0].Message, says) || strings.Contains(faults.Error(), "hunter2") {
			t.Errorf("%q: %v", pem, faults)
		}
	}
	env["PERSCOM_AUTHORIZATION"] = "http://dash.example.com/"
	if faults := resolve(c, env, files(goodPEM)); len(faults) != 1 || !strings.Contains(faults[0].Message, "must be https") {
		t.Errorf("%v", faults)
	}
}

const goodPEM = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEMKBCTNIcKUSDii11ySs3526iDZ8A
iTo7Tu6KPAqv7D7gS2XpJFbZiItSs3m9+9Ue6GnvHw/GW2ZZaVtszggXIw==
-----END PUBLIC KEY-----
`
