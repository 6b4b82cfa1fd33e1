package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ClientAuth is how the client proves itself at the token endpoint. There is no
// "try and see": x/oauth2 probes by sending the same code twice, and the answer
// to the second hides what went wrong with the first.
type ClientAuth string

const (
	Basic ClientAuth = "basic" // RFC 6749 §2.3.1, id and secret form-urlencoded
	// BasicRaw is Basic without the encoding, as RFC 7617 has it and some servers
	// expect it. A client id with a colon cannot be sent so.
	BasicRaw ClientAuth = "basic_raw"
	Post     ClientAuth = "post" // id and secret in the form
	// Assertion is a JWT that vouches for the client (RFC 7523 §2.2).
	Assertion ClientAuth = "assertion"
	None      ClientAuth = "none" // a public client: only the id, in the form
)

// TokenRequest is one request to a token endpoint. It prints as "<token request>".
type TokenRequest struct {
	URL                    string
	ClientID, ClientSecret string
	Auth                   ClientAuth
	Assertion              string     // with Auth Assertion
	Form                   url.Values // grant_type and what belongs to it
	// TokenTypes are the values of token_type that are accepted, in any case; nil:
	// Bearer. Slack says "bot" and "user" of tokens that are used as Bearer.
	TokenTypes []string
	// Further names members of the answer that the caller reads itself, such as
	// Slack's authed_user. They may hold tokens.
	Further []string
	// Once: it is never sent again, not even where the provider says that it did nothing
	// with it. A refresh token that is used once may be shown no more often than somebody
	// counts, and a provider can be wrong about what it did.
	Once bool
}

// TokenResponse is what came back. Every field may be empty: what is needed is
// the caller's to say. It prints as "<tokens>".
type TokenResponse struct {
	AccessToken, IDToken, RefreshToken string
	Scope                              string
	ExpiresIn                          time.Duration // 0: not told, which is not "for ever"; negative: expired already
	// Further has those members that TokenRequest.Further names and the answer has.
	Further map[string]json.RawMessage
}

// Format implements fmt.Formatter: no verb prints a secret.
func (TokenRequest) Format(s fmt.State, _ rune) { io.WriteString(s, "<token request>") }

// LogValue implements slog.LogValuer.
func (TokenRequest) LogValue() slog.Value { return slog.StringValue("<token request>") }

// Format implements fmt.Formatter: no verb prints a token.
func (TokenResponse) Format(s fmt.State, _ rune) { io.WriteString(s, "<tokens>") }

// LogValue implements slog.LogValuer.
func (TokenResponse) LogValue() slog.Value { return slog.StringValue("<tokens>") }

// Exchange sends r so that the provider acts on it once at most. Errors are of type *Error.
func (c *Client) Exchange(ctx context.Context, r TokenRequest) (TokenResponse, error) {
	req, err := r.build(ctx)
	if err != nil {
		return TokenResponse{}, &Error{Kind: Misconfigured, Call: tokenCall, Sent: Never, Err: err}
	}
	t, err := c.exchange(req, r)
	return t, to(req, err)
}

// Revoke sends r once, to a revocation endpoint (RFC 7009 §2.1): its Form has the token. Of
// an answer with success nothing is read (§2.2). Errors are of type *Error.
func (c *Client) Revoke(ctx context.Context, r TokenRequest) error {
	req, err := r.build(ctx)
	if err != nil {
		return &Error{Kind: Misconfigured, Call: revokeCall, Sent: Never, Err: err}
	}
	resp, body, err := c.send(req, revokeCall, taking{})
	if err == nil && (resp.StatusCode < 200 || resp.StatusCode > 299) {
		answer, _ := Object(body) // a body that is none has no code
		e := codeError(revokeCall, resp.StatusCode, text(answer["error"]))
		e.OwnCode, e.SubCodes = ownCodes(answer)
		err = answered(resp, e)
	}
	return to(req, err)
}

func (c *Client) exchange(req *http.Request, r TokenRequest) (TokenResponse, error) {
	resp, body, err := c.send(req, tokenCall, taking{})
	if err != nil {
		return TokenResponse{}, err
	}
	answer, err := Object(body)
	refused := string(answer["ok"]) == "false" // how Slack fails, with status 200
	if code := text(answer["error"]); code != "" || refused || resp.StatusCode < 200 || resp.StatusCode > 299 {
		e := codeError(tokenCall, resp.StatusCode, code)
		e.OwnCode, e.SubCodes = ownCodes(answer)
		return TokenResponse{}, answered(resp, e)
	}
	var t TokenResponse
	if err == nil {
		t, err = readTokens(answer, r)
	}
	if err != nil {
		e := &Error{Kind: Rejected, Call: tokenCall, Status: resp.StatusCode, Err: err}
		return TokenResponse{}, answered(resp, e)
	}
	return t, nil
}

const (
	tokenCall  = "token"
	revokeCall = "revoke"
)

func (r TokenRequest) build(ctx context.Context) (*http.Request, error) {
	form := maps.Clone(r.Form)
	if form == nil {
		form = url.Values{}
	}
	switch r.Auth {
	case Basic:
	case BasicRaw:
		if strings.Contains(r.ClientID, ":") {
			return nil, errors.New("a client id with a colon cannot be sent without encoding")
		}
	case Post:
		form.Set("client_id", r.ClientID)
		form.Set("client_secret", r.ClientSecret)
	case None:
		form.Set("client_id", r.ClientID)
	case Assertion:
		form.Set("client_id", r.ClientID) // RFC 7521 §4.2: may be there, and some servers look for it
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", r.Assertion)
	default:
		return nil, errors.New("no client authentication was chosen")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.URL, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, errors.New("the token endpoint is not a URL")
	}
	switch r.Auth {
	case Basic: // RFC 6749 §2.3.1: encoded first; a ':' in the id would move the border
		req.SetBasicAuth(url.QueryEscape(r.ClientID), url.QueryEscape(r.ClientSecret))
	case BasicRaw:
		req.SetBasicAuth(r.ClientID, r.ClientSecret)
	}
	if r.Once {
		req.GetBody = nil // what package attempt would need for a second time
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	return req, nil
}

// readTokens reads an answer of RFC 6749 §5.1, whatever Content-Type it came
// with, and forgives what real servers get wrong and nobody is harmed by.
func readTokens(answer map[string]json.RawMessage, r TokenRequest) (TokenResponse, error) {
	var t TokenResponse
	var kind string
	for name, field := range map[string]*string{
		"access_token": &t.AccessToken, "id_token": &t.IDToken, "refresh_token": &t.RefreshToken, "token_type": &kind,
	} {
		if raw, ok := answer[name]; ok && json.Unmarshal(raw, field) != nil {
			return TokenResponse{}, fmt.Errorf("%s is not a string", name)
		}
	}
	if kind != "" && !r.accepts(kind) {
		return TokenResponse{}, errors.New("token_type is not " + strings.Join(r.tokenTypes(), " or "))
	}
	for _, name := range r.Further {
		if raw, ok := answer[name]; ok {
			if t.Further == nil {
				t.Further = map[string]json.RawMessage{}
			}
			t.Further[name] = raw
		}
	}
	t.Scope = text(answer["scope"])
	t.ExpiresIn = seconds(answer["expires_in"])
	return t, nil
}

func (r TokenRequest) tokenTypes() []string {
	if r.TokenTypes == nil {
		return []string{"Bearer"}
	}
	return r.TokenTypes
}

// accepts compares as RFC 6749 §5.1 says, in any case.
func (r TokenRequest) accepts(kind string) bool {
	return slices.ContainsFunc(r.tokenTypes(), func(t string) bool { return strings.EqualFold(t, kind) })
}

// seconds reads 3600, 3600.0 and "3600"; anything else is "not told".
func seconds(raw json.RawMessage) time.Duration {
	s := text(raw)
	if s == "" {
		s = string(raw)
	}
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(n) {
		return 0
	}
	const most = 10 * 365 * 24 * 3600
	return time.Duration(max(-most, min(n, most)) * float64(time.Second))
}

// text is the string in raw, or "" if there is none.
func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}
