package ics_test

import (
	"fmt"
	"net/http"
	"net/url"
	"testing"

	"github.com/sallyport-proxy/sallyport/connector/ics"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/grant/granttest"
	"github.com/sallyport-proxy/sallyport/oauth"
)

const feed = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//Example//EN\r\nBEGIN:VEVENT\r\nUID:1\r\n" +
	"DTSTAMP:20261101T000000Z\r\nDTSTART:20261102T090000Z\r\nSUMMARY:Release\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"

// secret is the address of the calendar at its host.
const secret = "/calendar/ical/mira%40acme.example/private-canary0123456789abcdef/basic.ics?tz=UTC"

func serveFeed(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/calendar; charset=utf-8")
	fmt.Fprint(w, feed)
}

// allowing is the connector of an operator who allows the hosts of these addresses.
func allowing(t *testing.T, client *oauth.Client, bases ...string) *ics.Connector {
	t.Helper()
	var hosts []string
	for _, base := range bases {
		u, err := url.Parse(base)
		if err != nil {
			t.Fatal(err)
		}
		hosts = append(hosts, u.Host)
	}
	c, err := ics.New(ics.Options{ID: "feed", AllowHosts: hosts, OAuth: client})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTheContractOfConnectors(t *testing.T) {
	granttest.TestConnector(t, granttest.ThirdParty{
		New: func(t *testing.T, base string, client *oauth.Client) grant.Connector {
			return allowing(t, client, base)
		},
		Further: http.HandlerFunc(serveFeed), Account: grant.Account{Name: "127.0.0.1"},
		Key: secret, KeyIsAddress: true,
	})
}
