package oauth

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kind says who can do something about a failed call.
type Kind string

const (
	// Unavailable: no answer, or the provider says it cannot answer now. Later may help.
	Unavailable Kind = "unavailable"
	// Misconfigured: the provider refuses our client or our request, or the
	// address is not the right one. The operator must act.
	Misconfigured Kind = "misconfigured"
	// Rejected: the provider refuses this grant, or what it sent cannot be used.
	Rejected Kind = "rejected"
)

// Sent says whether the provider may have acted on a failed call.
type Sent string

const (
	Never    Sent = "never"    // there was no connection to send it over
	Maybe    Sent = "maybe"    // there was, and no answer came
	Answered Sent = "answered" // the provider has answered
)

// Error is how every failed call ends. Its text can be logged: it holds no
// body, no error_description, and no library error that could quote either.
type Error struct {
	Kind   Kind
	Call   string // "discovery", "jwks", "token", …
	URL    string // that was asked, without its query; "" if there was no request
	Status int    // of the HTTP answer; 0 if there was none
	Code   string // the OAuth error code if it is a registered one, else ""
	Err    error  // what happened, in our words; may be nil

	Sent Sent
	// OwnCode and SubCodes are what the provider calls it, such as Slack's
	// "token_revoked", and Microsoft's suberror and error_codes. They have the form
	// of codes, and are for comparing: the text of the error leaves them out.
	OwnCode  string
	SubCodes []string
	// RetryAfter is how long the provider asks to wait, at most maxRetryAfter; 0: it
	// does not say.
	RetryAfter time.Duration
}

// maxRetryAfter bounds Error.RetryAfter, so that no answer stops calls for good.
const maxRetryAfter = time.Hour

// answered notes in err, an *Error or nil, what the header of an answer says.
func answered(resp *http.Response, err error) error {
	if e, ok := err.(*Error); ok {
		e.Sent, e.RetryAfter = Answered, retryAfter(resp.Header.Get("Retry-After"), time.Now())
	}
	return err
}

// retryAfter reads seconds or a date (RFC 9110 §10.2.3); anything else is 0.
func retryAfter(value string, now time.Time) time.Duration {
	var wait time.Duration
	if n, err := strconv.ParseUint(value, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		wait = time.Duration(min(n, uint64(maxRetryAfter/time.Second))) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		wait = at.Sub(now)
	}
	return min(max(wait, 0), maxRetryAfter)
}

// maxSubCodes bounds Error.SubCodes.
const maxSubCodes = 8

// ownCodes reads a provider's own codes out of an answer: error, then Microsoft's
// suberror, Google's error_subtype, and Microsoft's error_codes, which are numbers.
func ownCodes(answer map[string]json.RawMessage) (code string, sub []string) {
	for _, name := range []string{"suberror", "error_subtype"} {
		if s := text(answer[name]); isCode(s) {
			sub = append(sub, s)
		}
	}
	var numbers []json.RawMessage
	if json.Unmarshal(answer["error_codes"], &numbers) == nil {
		for _, n := range numbers {
			if s := string(n); isCode(s) && len(sub) < maxSubCodes {
				sub = append(sub, s)
			}
		}
	}
	if code = text(answer["error"]); !isCode(code) {
		code = ""
	}
	return code, sub
}

// isCode: letters, digits, "_", "-" and ".", and not long.
func isCode(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, codeLetters) == ""
}

const codeLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-."

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Call + " request")
	if e.URL != "" {
		b.WriteString(" to " + e.URL)
	}
	fmt.Fprintf(&b, ": %s", e.Kind)
	if e.Status != 0 {
		fmt.Fprintf(&b, ", status %d", e.Status)
	}
	if e.Code != "" {
		b.WriteString(", " + e.Code)
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// to notes in err, an *Error or nil, where req went.
func to(req *http.Request, err error) error {
	if e, ok := err.(*Error); ok {
		e.URL = (&url.URL{Scheme: req.URL.Scheme, Host: req.URL.Host, Path: req.URL.Path}).String()
	}
	return err
}

// statusError classes an answer by its status alone.
func statusError(call string, status int) *Error {
	e := &Error{Kind: Misconfigured, Call: call, Status: status}
	switch {
	case status >= 300 && status < 400:
		// A secret must not travel to wherever somebody points (RFC 9110 §15.4.8).
		e.Err = errors.New("a redirect, and redirects are not followed")
	case status == http.StatusTooManyRequests, status == http.StatusRequestTimeout, status >= 500:
		e.Kind = Unavailable
	case status < 300:
		e.Kind = Rejected
	}
	return e
}

// codeError classes an answer by the error code of RFC 6749 §5.2 in it. What a
// server said while it was failing counts for nothing: the status goes first.
func codeError(call string, status int, code string) *Error {
	e := statusError(call, status)
	if !slices.Contains(registered[:], code) {
		if e.Kind == Rejected { // a success status around an error
			e.Err = errors.New("an error in a successful answer")
		}
		return e
	}
	e.Code = code
	if e.Kind == Unavailable {
		return e
	}
	switch code {
	case "invalid_grant", "invalid_code", "code_already_used", "bad_verification_code", "unverified_user_email",
		"bad_refresh_token":
		e.Kind = Rejected
	case "server_error", "temporarily_unavailable", "slow_down":
		e.Kind = Unavailable
	default:
		e.Kind = Misconfigured
	}
	return e
}

// registered are the token endpoint's error codes that may appear in a text:
// RFC 6749 §5.2 and §4.1.2.1, RFC 8628 §3.5, RFC 8707 §2, Slack's own for
// openid.connect.token, and GitHub's (docs/providers/github.md).
var registered = [...]string{
	"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type",
	"invalid_scope",
	"server_error", "temporarily_unavailable", "access_denied", "slow_down", "invalid_target",
	"invalid_code", "code_already_used", "bad_client_secret", "invalid_client_id", "bad_redirect_uri",
	"incorrect_client_credentials", "bad_verification_code", "redirect_uri_mismatch", "unverified_user_email",
	"bad_refresh_token",
}

// describe says why a connection failed. Only errors of the network and of TLS
// are quoted: those of the HTTP parser quote what the server sent.
func describe(err error) string {
	var (
		cert *tls.CertificateVerificationError
		root x509.UnknownAuthorityError
		dns  *net.DNSError
		op   *net.OpError
	)
	switch {
	case errors.As(err, &cert) && errors.As(err, &root):
		return "its certificate was refused: " + cert.Err.Error() + "; ca of the provider says who may vouch for it"
	case errors.As(err, &cert):
		return "its certificate was refused: " + cert.Err.Error()
	case errors.As(err, &dns):
		return dns.Error()
	case errors.As(err, &op):
		return op.Error()
	}
	return "the connection broke, or what came was not HTTP"
}
