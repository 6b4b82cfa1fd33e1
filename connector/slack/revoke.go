package slack

import (
	"context"
	"errors"
	"net/url"
	"slices"

	"github.com/sallyport-proxy/sallyport/connector"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// Revoke implements grant.Revoker. It uninstalls the app (apps.uninstall), which ends all of
// its tokens, and so is not asked while another grant of the workspace and client is kept.
// Where the access token has ended a refresh gets one for it.
//
// Where Slack does not let the app be uninstalled so, the tokens are ended one by one
// (auth.revoke). Of an app with token rotation that ends them and not the installation,
// which goes on to get events: it has to be finished there.
// https://docs.slack.dev/authentication/using-token-rotation
func (c *Connector) Revoke(ctx context.Context, t grant.Tokens, siblings int) (grant.Revocation, error) {
	if siblings > 0 {
		return grant.SharedThere, nil
	}
	code, err := c.uninstall(ctx, t.Access)
	if isOver(code) && t.Refresh != "" {
		next, failed := c.Refresh(ctx, t, nil)
		switch class := grant.ClassOf(failed); {
		case failed == nil:
			t.Access = next.Tokens.Access
			if next.Tokens.Refresh != "" {
				t.Refresh = next.Tokens.Refresh
			}
			code, err = c.uninstall(ctx, t.Access)
		case class == grant.Gone:
			return grant.Revoked, nil
		case class == grant.Yours: // neither token is good, and whether the app is there nobody says
			return grant.NotSupported, nil
		default:
			return grant.RevokeFailed, failed
		}
	}
	switch class := grant.ClassOf(err); {
	case err == nil, class == grant.Gone:
		return grant.Revoked, nil
	case code == "" || class == grant.Later && code != invalidAuth:
		return grant.RevokeFailed, err
	}
	return c.endTokens(ctx, t)
}

// invalidAuth is what Slack says of a token that it does not know, too.
const invalidAuth = "invalid_auth"

// isOver reports whether a code says that a token is not good, and not that there is no
// installation either.
func isOver(code string) bool {
	return slices.Contains([]string{"token_expired", "token_revoked", invalidAuth}, code)
}

// endTokens ends the tokens themselves, the one that lasts longer first.
func (c *Connector) endTokens(ctx context.Context, t grant.Tokens) (grant.Revocation, error) {
	for _, token := range []string{t.Refresh, t.Access} {
		if token == "" {
			continue
		}
		r := oauth.TokenRequest{Auth: oauth.None, Form: url.Values{"token": {token}}}
		code, err := c.call(ctx, "auth.revoke", r)
		if err != nil && grant.ClassOf(err) != grant.Gone && !isOver(code) {
			return grant.RevokeFailed, err
		}
	}
	if t.Refresh != "" {
		return grant.NotSupported, nil
	}
	return grant.Revoked, nil
}

func (c *Connector) uninstall(ctx context.Context, token string) (code string, err error) {
	return c.call(ctx, "apps.uninstall", oauth.TokenRequest{ClientSecret: c.request.ClientSecret, Auth: oauth.Post,
		Form: url.Values{"token": {token}}})
}

// call calls a method, once. Its error has the code that Slack gave, "" where it gave none.
func (c *Connector) call(ctx context.Context, method string, r oauth.TokenRequest) (code string, err error) {
	r.URL, r.ClientID, r.Once, r.Further = c.origin+"/api/"+method, c.request.ClientID, true, []string{"ok"}
	answer, err := c.oauth.Exchange(ctx, r)
	if e, ok := errors.AsType[*oauth.Error](err); ok {
		code = e.OwnCode
	}
	if err == nil && string(answer.Further["ok"]) != "true" {
		return "", &grant.Error{Class: grant.Lost, Reason: connector.Garbled,
			Err: errors.New("the answer does not say that it is ok")}
	}
	return code, codes().Failed(err)
}
