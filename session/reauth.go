package session

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"net/http"
	"reflect"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
)

// Due reports whether the provider is to be asked again who s belongs to: after has passed
// since it last was, give or take a tenth, so that people who signed in at one moment do
// not all come back at one moment.
func (m *Manager) Due(s *Session, after time.Duration) bool {
	now, last := m.now(), s.SignedIn
	for _, t := range [...]time.Time{s.Checked, s.Tried} {
		// What is from the future was noted by a clock that has been set back since.
		if t.After(last) && !t.After(now.Add(clocksApart)) {
			last = t
		}
	}
	ago, tenth := now.Sub(last), after/10
	if ago < after-tenth { // nearly always
		return false
	}
	sum := sha256.Sum256([]byte("reauthentication " + s.Root))
	jitter := time.Duration(float64(2*tenth) * float64(binary.BigEndian.Uint32(sum[:])) / (1 << 32))
	return ago >= after-tenth+jitter
}

// Leave notes in the cookie that the browser is sent to the provider now, so that it is
// not sent there again before the next time it is due, whether it comes back or not.
func (m *Manager) Leave(w http.ResponseWriter, host string, s Session) error {
	s.Tried = m.seenNow(&s)
	return m.Write(w, host, s)
}

// Confirm puts into the cookie that the provider has said again who s belongs to. If what
// it says of the person is not what it was, the next session of the same sign-in takes
// the place of s, which ends (see Switch): what the person may no longer do ends with it,
// in all copies of the cookie. So it does if they are in another session at the provider by
// now: a logout names that one alone (OpenID Connect Back-Channel Logout 1.0 §2.4), and what
// was opened before would outlive it. The next session lasts no longer than s would.
func (m *Manager) Confirm(ctx context.Context, w http.ResponseWriter, host string, s Session,
	id identity.Identity) (next Session, changed bool, err error) {
	id = m.Keep(withProofOf(s.Identity, id))
	s.Checked = m.seenNow(&s)
	if id.ProviderSID != s.Identity.ProviderSID || !sameFacts(s.Identity, id) {
		next, err = m.replace(ctx, w, host, s, id, nextFacts(s.generation))
		return next, true, err
	}
	if m.HasEnded(&s) {
		return s, false, ErrEnded
	}
	s.Seen = s.Checked
	s.Identity.AuthTime, s.Identity.ACR = id.AuthTime, id.ACR
	s = m.withDeadlines(s)
	return s, false, m.Write(w, host, s)
}

// withProofOf is id with what before tells of how its person signed in, where the provider
// says nothing of that now: many do only when they are asked (OpenID Connect Core §2,
// auth_time). What they have proved stays true. By which means, is kept of the same sign-in
// only.
func withProofOf(before, id identity.Identity) identity.Identity {
	if id.AuthTime.IsZero() {
		id.AuthTime = before.AuthTime
	}
	if id.ACR == "" && id.AuthTime.Equal(before.AuthTime) {
		id.ACR = before.ACR
	}
	if id.ProviderSID == "" {
		id.ProviderSID = before.ProviderSID
	}
	return id
}

// sameFacts reports whether a and b tell rules and apps the same. How and when somebody
// signed in is not among it. Groups that did not fit a cookie would not fit again.
func sameFacts(a, b identity.Identity) bool {
	if a.GroupsDropped {
		b.Groups, b.OrgGroups, b.GroupsUnknown, b.GroupsDropped = a.Groups, a.OrgGroups, true, true
	}
	b.AuthTime, b.ACR, b.ProviderSID = a.AuthTime, a.ACR, a.ProviderSID
	for _, id := range [...]*identity.Identity{&a, &b} { // a cookie does not tell empty from none
		if len(id.Groups) == 0 {
			id.Groups = nil
		}
		if len(id.Orgs) == 0 {
			id.Orgs = nil
		}
		if len(id.OrgGroups) == 0 {
			id.OrgGroups = nil
		}
	}
	return reflect.DeepEqual(a, b)
}
