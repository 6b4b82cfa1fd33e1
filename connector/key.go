package connector

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// The reasons of a grant.Error that only keys have.
const (
	KeyMalformed = "key_malformed" // it cannot be a key: nothing was asked
	KeyRefused   = "key_refused"   // the third party does not accept it
)

// The length of a key. A shorter one than this is no secret, and would be found by chance
// in answers, where the gateway must not let it through.
const (
	MinKey = 8
	maxKey = 4096
)

// PastedKey is a key as somebody pasted it, without the white space around it that comes from
// copying. It has visible ASCII and no blanks, so that it can neither add a header nor be two
// words. Errors are of type *grant.Error and say what is wrong without the key.
func PastedKey(pasted string) (string, error) {
	key := strings.TrimSpace(pasted)
	if err := wellFormed(key); err != nil {
		return "", NoKey(err)
	}
	return key, nil
}

// NoKey is for what cannot be a key, so that nothing was asked. why is told to the person, and
// is no part of what they pasted.
func NoKey(why error) error {
	return &grant.Error{Class: grant.Yours, Reason: KeyMalformed, Err: why,
		Sentence: "That cannot be a key: " + why.Error() + "."}
}

func wellFormed(key string) error {
	switch {
	case len(key) < MinKey:
		return fmt.Errorf("a key has at least %d characters", MinKey)
	case len(key) > maxKey:
		return fmt.Errorf("a key has at most %d characters", maxKey)
	case strings.Contains(key, " "):
		return errors.New("a key has no blanks in it; paste it alone, without a word such as Bearer before it")
	case strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }):
		return errors.New("a key has visible ASCII characters only")
	}
	return nil
}

// KeyFailed says what a failed request with a key means, the first one or one that finds out
// whether it still works. err is not nil. A key is refused for good only where the third party
// says so: any other answer is no answer to the question.
func KeyFailed(err error) error {
	e, ok := errors.AsType[*oauth.Error](err)
	if !ok {
		return &grant.Error{Class: grant.Later, Reason: NoAnswer, Err: errors.New("the probe failed")}
	}
	failed := func(class grant.Class, reason string) error {
		return &grant.Error{Class: class, Reason: reason, RetryAfter: e.RetryAfter, Err: e}
	}
	switch s := e.Status; {
	case s == http.StatusForbidden && e.RetryAfter > 0: // RFC 9110 §10.2.3; GitHub's rate limits come so
		return failed(grant.Later, Busy)
	case s == http.StatusUnauthorized, s == http.StatusForbidden:
		return &grant.Error{Class: grant.Yours, Reason: KeyRefused, Err: e,
			Sentence: "The key is not accepted there: part of it may be missing, it may have ended, or it may be too " +
				"weak."}
	case s == 0 && e.Sent == oauth.Never:
		return failed(grant.Later, Unreachable)
	case s == 0:
		return failed(grant.Later, NoAnswer)
	case s >= 500, s == http.StatusTooManyRequests, s == http.StatusRequestTimeout:
		return failed(grant.Later, Busy)
	case s < 400, s == http.StatusNotFound, s == http.StatusMethodNotAllowed, s == http.StatusGone:
		return failed(grant.Ours, WrongEndpoint)
	}
	return failed(grant.Ours, RequestRefused)
}

// KeyWorks reports whether a failed request shows all the same that a key works: 204, or a
// body that is too long or not whole, none of which is needed.
func KeyWorks(err error) bool {
	e, ok := errors.AsType[*oauth.Error](err)
	return ok && e.Status >= 200 && e.Status < 300
}
