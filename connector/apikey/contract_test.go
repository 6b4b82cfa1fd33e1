package apikey_test

import (
	"testing"

	"github.com/sallyport-proxy/sallyport/connector/apikey"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/grant/granttest"
	"github.com/sallyport-proxy/sallyport/oauth"
)

func TestTheContractOfConnectors(t *testing.T) {
	granttest.TestConnector(t, granttest.ThirdParty{
		New: func(t *testing.T, base string, client *oauth.Client) grant.Connector {
			rule, err := grant.ParseRule("GET /oncalls")
			if err != nil {
				t.Fatal(err)
			}
			c, err := apikey.New(apikey.Options{ID: "oncall", BaseURL: base, Format: "Token token=%s", Probe: "GET /me",
				Accesses: []grant.Access{{Name: "read", Rules: []grant.Rule{rule}}}, OAuth: client})
			if err != nil {
				t.Fatal(err)
			}
			return c
		},
		Key: "canary-key-0123456789",
	})
}
