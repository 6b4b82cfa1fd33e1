// Package board is a connector for notice boards, made outside of Sallyport: people paste the
// key that a board gave them, and apps read its notices.
package board

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/command"
	"github.com/sallyport-proxy/sallyport/connector"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// board is a grant.Keyed.
type board struct {
	about  grant.About
	origin string
	http   *http.Client
}

// New makes a connector of what the configuration says. The key `options.floor` says which
// board of the house it is.
func New(s command.Settings) (grant.Connector, error) {
	origin, err := connector.Origin(s.BaseURL)
	if err != nil {
		return nil, connector.FaultAt("base_url", err)
	}
	floor := s.Options["floor"]
	if floor == "" || strings.Trim(floor, "0123456789") != "" {
		return nil, connector.FaultAt("options.floor", errors.New("must be the number of a floor"))
	}
	rules, err := connector.Rules([]string{"GET /notices", "GET /notices/*"})
	if err != nil {
		return nil, err
	}
	return &board{
		origin: origin + "/floor/" + floor,
		http:   s.OAuth.HTTPClient("probe"),
		about: grant.About{
			ID: s.ID, Type: "notice_board", Name: cmp.Or(s.Name, "Notice board"), ClientID: origin,
			Owner: s.Owner, Offline: true, KeyHint: "the key on the back of your badge",
			Accesses: []grant.Access{{Name: "read", Means: "read the notices of your floor", Rules: rules}},
			Inject:   grant.Injection{Header: "X-Board-Key"},
		}}, nil
}

// About implements grant.Connector. The caller may keep and change what it gets.
func (b *board) About() grant.About {
	about := b.about
	about.Accesses = slices.Clone(about.Accesses)
	return about
}

// Origin implements grant.Connector.
func (b *board) Origin(grant.Account) string { return b.origin }

// Accept asks the board whose key it is.
func (b *board) Accept(ctx context.Context, key string, _ grant.Request) (grant.Result, error) {
	key = strings.TrimSpace(key)
	if len(key) < 8 || len(key) > 64 || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return grant.Result{}, &grant.Error{Class: grant.Yours, Reason: "key_malformed",
			Err: errors.New("a key has 8 to 64 visible characters")}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.origin+"/me", nil)
	if err != nil {
		return grant.Result{}, &grant.Error{Class: grant.Ours, Reason: connector.RequestRefused, Err: err}
	}
	req.Header.Set(b.about.Inject.Header, key)
	res, err := b.http.Do(req)
	if err != nil {
		return grant.Result{}, failed(err)
	}
	defer res.Body.Close()
	var me struct{ ID, Name string }
	if err := json.NewDecoder(res.Body).Decode(&me); err != nil || me.ID == "" {
		return grant.Result{}, &grant.Error{Class: grant.Ours, Reason: connector.Garbled,
			Err: errors.New("the board did not say whose key it is")}
	}
	return grant.Result{Tokens: grant.Tokens{Access: key, AccessIssued: time.Now()},
		Account: grant.Account{ID: me.ID, Name: me.Name}}, nil
}

// failed says who can do something about a request that failed. Its text quotes nothing.
func failed(err error) error {
	e, ok := errors.AsType[*oauth.Error](err)
	switch {
	case ok && (e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden):
		return &grant.Error{Class: grant.Yours, Reason: "key_refused", Err: e}
	case ok && e.Status >= 300 && e.Status < 500 && e.Status != http.StatusTooManyRequests:
		return &grant.Error{Class: grant.Ours, Reason: connector.WrongEndpoint, Err: e}
	case ok:
		return &grant.Error{Class: grant.Later, Reason: connector.Busy, RetryAfter: e.RetryAfter, Err: e}
	}
	return &grant.Error{Class: grant.Later, Reason: connector.NoAnswer, Err: errors.New("the board did not answer")}
}
