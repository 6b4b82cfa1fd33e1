package proxy

import (
	"context"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/sallyport-proxy/sallyport/identity"
)

// fixedLogin is a provider at which everybody is who.
type fixedLogin struct {
	who    identity.Identity
	url    string // "" means a page of this site that nobody minds
	err    error  // of Redeem
	redeem func(ctx context.Context) error
}

// swapLogin is a provider that a test can exchange.
type swapLogin struct{ now atomic.Pointer[LoginProvider] }

func (s *swapLogin) use(l LoginProvider) { s.now.Store(&l) }

func (s *swapLogin) AuthURL(ctx context.Context, h identity.Handshake, p identity.AuthParams) (string, error) {
	return (*s.now.Load()).AuthURL(ctx, h, p)
}

func (s *swapLogin) Redeem(ctx context.Context, q url.Values, h identity.Handshake,
	p identity.AuthParams) (identity.Identity, error) {
	return (*s.now.Load()).Redeem(ctx, q, h, p)
}

func (f fixedLogin) AuthURL(_ context.Context, h identity.Handshake, p identity.AuthParams) (string, error) {
	to := f.url
	if to == "" {
		to = "/open/provider"
	}
	sep := "?"
	if strings.Contains(to, sep) {
		sep = "&"
	}
	return to + sep + "state=" + url.QueryEscape(h.State) + "&prompt=" + p.Prompt, nil
}

func (f fixedLogin) Redeem(ctx context.Context, _ url.Values, _ identity.Handshake,
	_ identity.AuthParams) (identity.Identity, error) {
	if f.redeem != nil {
		if err := f.redeem(ctx); err != nil {
			return identity.Identity{}, err
		}
	}
	return f.who, f.err
}
