package gatewaytest

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// LendOptions are what a Lending needs.
type LendOptions struct {
	Connector grant.Keyed
	Access    string // the one that is offered to App
	Store     grant.Store
	Transport *http.Transport // to the third party; nil: the gateway's own
}

// Lending is a broker with one connector of pasted keys, and the gateway in front of it, for App
// and Mira.
type Lending struct {
	*grant.Broker
	*Gateway
	Log     *bytes.Buffer // of the gateway and the broker; to be read after the last request
	Metrics *prometheus.Registry

	connector, assertion string
}

// Mira is the person of a Lending.
func Mira() identity.Identity { return identity.Identity{Provider: "corp", Subject: "mira"} }

// Lend starts a Lending, which runs until the end of the test.
func Lend(tb testing.TB, o LendOptions) *Lending {
	tb.Helper()
	id := o.Connector.About().ID
	l := &Lending{Log: new(bytes.Buffer), Metrics: prometheus.NewRegistry(), connector: id}
	log := slog.New(slog.NewTextHandler(l.Log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	k := grant.SealingKey{ID: "k"}
	copy(k.Secret[:], "canary-key")
	ring, err := grant.NewKeyring([]grant.SealingKey{k})
	testenv.Check(tb, err)
	l.Broker, err = grant.New(grant.Options{Store: o.Store, Keys: ring, Log: log,
		Offers: []grant.Offer{{Connector: o.Connector, Owner: grant.OwnedByUser, Offered: []string{o.Access}}},
		Apps: []grant.App{{ID: App, Name: "Planner", Routes: []string{Route},
			Connectors: map[string][]string{id: {o.Access}}}},
		Redirect: func(string) string { return "" }})
	testenv.Check(tb, err)
	tb.Cleanup(func() {
		l.Close()
		testenv.Check(tb, l.Wait(context.Background()))
	})
	l.Gateway = Start(tb, Options{Broker: l.Broker, Connector: o.Connector, Log: log, Metrics: l.Metrics,
		Transport: o.Transport})
	l.assertion = l.Assertion(tb, Mira())
	return l
}

// Ask sends a request of the app for Mira, with pairs of header fields, and returns all of the
// answer as text too. Redirects are not followed.
func (l *Lending) Ask(tb testing.TB, method, path, body string, header ...string) (*http.Response, string) {
	tb.Helper()
	res := l.Open(tb, method, path, body, header...)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		b = append(b, "\nBROKEN OFF"...)
	}
	return res, string(b)
}

// Open is Ask for who reads the body, and closes it.
func (l *Lending) Open(tb testing.TB, method, path, body string, header ...string) *http.Response {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), method, l.URL+path, strings.NewReader(body))
	testenv.Check(tb, err)
	req.Header.Set("Authorization", "Bearer "+Token)
	req.Header.Set("X-Sallyport-Assertion", l.assertion)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true}}
	res, err := client.Do(req)
	testenv.Check(tb, err)
	return res
}

// Paste connects Mira's account by a key.
func (l *Lending) Paste(tb testing.TB, key string) error {
	tb.Helper()
	_, err := l.ConnectKey(tb.Context(), Mira(), grant.Ask{Connector: l.connector, App: App}, key, false)
	return err
}
