package admission

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
)

// ResourcePath is where a host says which access tokens a part of it takes; the path
// of that part follows (RFC 9728 §3.1).
const ResourcePath = "/.well-known/oauth-protected-resource"

// Resource finds the route about whose access tokens a request asks; nil: it asks
// about none that there are, or the operator has a route of their own for the answer.
func (a *Admission) Resource(f authz.Facts) *Route {
	about, ok := strings.CutPrefix(f.Path, ResourcePath)
	if !ok || about != "" && about[0] != '/' {
		return nil
	}
	if r, err := a.lookup(f); err == nil && strings.HasPrefix(r.Path, "/.well-known") {
		return nil
	}
	f.Path = cmp.Or(about, "/")
	r, err := a.lookup(f)
	if err != nil || !r.Access.AsksWho() || r.Tokens == nil {
		return nil
	}
	return r
}

// Resource is the name under which programs know the route on the host that f asks
// for (RFC 9728 §1.2): the address that all of its addresses begin with.
func (r *Route) Resource(f authz.Facts) string {
	return f.OwnOrigin() + strings.TrimSuffix(r.Path, "/")
}

// ChallengeStepUp is the WWW-Authenticate of an answer to somebody who has to prove
// again who they are, as RFC 9470 §3 has it. It says what is asked by the route that
// asks for it.
func (r *Route) ChallengeStepUp(f authz.Facts, asked identity.Proof) string {
	value := `Bearer error="insufficient_user_authentication", error_description="sign in again"`
	if len(asked.ACR) > 0 {
		value += `, acr_values="` + strings.Join(asked.ACR, " ") + `"`
	}
	if asked.MaxAge > 0 {
		value += `, max_age="` + strconv.FormatInt(int64(asked.MaxAge/time.Second), 10) + `"`
	}
	if r.Tokens != nil {
		value += ", " + r.metadataParameter(f)
	}
	return value
}

// Challenge is the WWW-Authenticate of an answer to a request whose access token is
// not good for the route, for a reason that has a code, or that has none (RFC 6750
// §3.1). It says where to read who issues such tokens (RFC 9728 §5.1).
func (r *Route) Challenge(f authz.Facts, code string) string {
	parameter := `realm="sallyport"`
	if code != "" {
		parameter = `error="` + code + `"`
	}
	return `Bearer ` + parameter + ", " + r.metadataParameter(f)
}

func (r *Route) metadataParameter(f authz.Facts) string {
	return `resource_metadata="` + f.OwnOrigin() + ResourcePath + strings.TrimSuffix(r.Path, "/") + `"`
}
