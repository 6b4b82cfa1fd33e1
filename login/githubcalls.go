package login

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/oauth"
)

const (
	githubPerPage  = 100     // GitHub's most
	githubMaxPages = 10      // of one list; more ends the sign-in
	githubMaxPage  = 4 << 20 // bytes of a page: an entry of GET /user/teams describes its organization whole

	// githubRevokeWait is how long a sign-in waits for the token to be revoked.
	githubRevokeWait = 5 * time.Second
)

// githubCalls makes the calls of one sign-in to the REST API. It holds the token for that time.
type githubCalls struct {
	p           *Provider
	base, token string
}

func (g githubCalls) request(ctx context.Context, method, address string, body []byte) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return nil, fail(identity.Misconfigured, "base_url is not a URL")
	}
	req.Header.Set("Accept", "application/vnd.github+json")
	req.Header.Set("User-Agent", "sallyport") // GitHub refuses requests without one
	return req, nil
}

// get makes one call.
func (g githubCalls) get(ctx context.Context, path, query string) (*http.Response, []byte, error) {
	address := g.base + path
	if query != "" {
		address += "?" + query
	}
	req, err := g.request(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+g.token)
	resp, body, err := g.p.client.WithMaxBody(githubMaxPage).Answer(req, "userinfo")
	if err != nil {
		return nil, nil, failCall(err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, nil, githubError(req, "userinfo", resp, body)
	}
	return resp, body, nil
}

func (g githubCalls) object(ctx context.Context, path string) (claims, error) {
	_, body, err := g.get(ctx, path, "")
	if err != nil {
		return nil, err
	}
	members, err := oauth.Object(body)
	if err != nil {
		return nil, fail(identity.Rejected, "GET %s: %w", path, err)
	}
	for _, ours := range [...]string{githubEmails, githubOrgs, githubTeams} {
		delete(members, ours) // they are other calls' to fill
	}
	return members, nil
}

// list reads all pages of a list. We count the pages ourselves and ask for no address that
// came in an answer: the header Link only tells whether there is one more, and it must be the
// next one of the same list. A list that has more than githubMaxPages is refused: what is
// left of a part of it would be fewer organizations than the person has.
func (g githubCalls) list(ctx context.Context, path, query string) ([]json.RawMessage, error) {
	all := []json.RawMessage{}
	for page := 1; page <= githubMaxPages; page++ {
		resp, body, err := g.get(ctx, path,
			query+"per_page="+strconv.Itoa(githubPerPage)+"&page="+strconv.Itoa(page))
		if err != nil {
			return nil, err
		}
		list, err := jsonList(body)
		if err != nil {
			return nil, fail(identity.Rejected, "GET %s: %w", path, err)
		}
		if len(list) > githubPerPage {
			return nil, fail(identity.Rejected, "GET %s: a page of more than %d", path, githubPerPage)
		}
		all = append(all, list...)
		next, more := nextLink(resp.Header.Values("Link"))
		if !more {
			return all, nil
		}
		if !g.isPage(next, path, page+1) {
			return nil, fail(identity.Rejected, "GET %s: what Link calls the next page is not page %d of this list",
				path, page+1)
		}
	}
	return nil, fail(identity.Rejected, "GET %s: more than %d entries", path, githubPerPage*githubMaxPages)
}

// jsonList decodes one JSON list, as strictly as oauth.Object decodes an object.
func jsonList(body []byte) ([]json.RawMessage, error) {
	wrapped, err := oauth.Object(append(append([]byte(`{"list":`), body...), '}'))
	if err != nil || len(wrapped) != 1 {
		return nil, errNotList
	}
	var list []json.RawMessage
	if json.Unmarshal(wrapped["list"], &list) != nil || list == nil {
		return nil, errNotList
	}
	return list, nil
}

// isPage reports whether an address is that of one page of a list.
func (g githubCalls) isPage(address, path string, page int) bool {
	u, err := url.Parse(address)
	want, wrong := url.Parse(g.base + path)
	if err != nil || wrong != nil || u.User != nil {
		return false
	}
	return u.Scheme == want.Scheme && strings.EqualFold(u.Host, want.Host) && u.Path == want.Path &&
		u.Query().Get("page") == strconv.Itoa(page) && len(u.Query()["page"]) == 1
}

// revoke has GitHub forget the token, which would not expire. Basic with the client's
// credentials is the only way that GitHub has; they are sent as they are. If it fails, the
// sign-in goes on: SECURITY.md says what is left then.
func (g githubCalls) revoke(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), githubRevokeWait)
	defer cancel()
	body, err := json.Marshal(map[string]string{"access_token": g.token})
	if err == nil {
		err = g.revokeWith(ctx, body)
	}
	if err != nil {
		g.p.log.WarnContext(ctx, "an access token could not be revoked at GitHub, and stays good there "+
			"until the person revokes the app's access", "error", err)
	}
}

func (g githubCalls) revokeWith(ctx context.Context, body []byte) error {
	address := g.base + "/applications/" + url.PathEscape(g.p.clientID) + "/token"
	req, err := g.request(ctx, http.MethodDelete, address, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.SetBasicAuth(g.p.clientID, g.p.clientSecret)
	resp, answer, err := g.p.client.Answer(req, "revoke")
	if err != nil {
		return failCall(err)
	}
	if resp.StatusCode != http.StatusNoContent {
		return githubError(req, "revoke", resp, answer)
	}
	return nil
}
