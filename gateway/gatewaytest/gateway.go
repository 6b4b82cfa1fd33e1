// Package gatewaytest has what tests of connectors need of the gateway: one in front of a
// connector, for an app, and the proof of who asks. It is linked by tests only; how a connector
// keeps to its contract is granttest's.
package gatewaytest

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-proxy/sallyport/assertion"
	"github.com/sallyport-proxy/sallyport/gateway"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
)

// The app of a Gateway.
const (
	App   = "planner"
	Route = "app"
	Token = "app-token-app-token-app-token-0123456789"
)

// Options are what a Gateway needs.
type Options struct {
	Broker    *grant.Broker // has the connector, and App with Route
	Connector grant.Connector
	Offline   bool                  // the app may use grants while the person is away
	Log       *slog.Logger          // nil: nowhere
	Metrics   prometheus.Registerer // nil: a registry of its own
	Transport *http.Transport       // to the third party; nil: the gateway's own
}

// Gateway is one that runs until the end of the test.
type Gateway struct {
	URL      string // of the gateway; the connector is below it, at Path
	Path     string
	Sessions *session.Manager
	signer   *assertion.Signer
}

// Start starts a Gateway.
func Start(tb testing.TB, o Options) *Gateway {
	tb.Helper()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = prometheus.NewRegistry()
	}
	about := o.Connector.About()
	g := &Gateway{Path: "/gateway/" + about.ID}
	keys, err := session.NewKeyring([]session.Key{session.NewKey(time.Now().Add(-time.Hour))})
	testenv.Check(tb, err)
	g.Sessions, err = session.New(session.Options{Keys: keys, Secure: true, AbsoluteTimeout: 12 * time.Hour,
		IdleTimeout: time.Hour})
	testenv.Check(tb, err)
	g.signer, err = assertion.New(assertion.Options{Issuer: "https://sallyport.test",
		Seeds: [][]byte{bytes.Repeat([]byte{1}, assertion.SeedBytes)}, Signing: func(time.Time) int { return 0 },
		Now: time.Now})
	testenv.Check(tb, err)
	public, err := url.Parse("https://sallyport.test")
	testenv.Check(tb, err)
	handler, err := gateway.New(gateway.NewProcess(gateway.ProcessOptions{
		Observers: []observe.Observer{observe.Log{Logger: o.Log}}, Registerer: o.Metrics, Transport: o.Transport}),
		gateway.Options{PublicURL: public, Prefix: "/.sallyport/",
			Broker: o.Broker, Assertions: g.signer, Sessions: g.Sessions, IdleTimeout: time.Hour,
			Apps: []gateway.App{{ID: App, Tokens: []string{Token}, Routes: []string{Route}, Offline: o.Offline,
				Connectors: map[string]*gateway.Connector{about.ID: {About: about, Accesses: about.Accesses}}}}})
	testenv.Check(tb, err)
	s := httptest.NewServer(handler)
	tb.Cleanup(s.Close)
	g.URL = s.URL
	return g
}

// Assertion is that of somebody who signs in now, for Route.
func (g *Gateway) Assertion(tb testing.TB, who identity.Identity) string {
	tb.Helper()
	signedIn := g.Sessions.Start(who)
	token, err := g.signer.Sign(assertion.Caller{Key: who.ID(), Identity: &who, SID: signedIn.SID(),
		End: time.Now().Add(10 * time.Hour)}, Route)
	testenv.Check(tb, err)
	return token[0]
}
