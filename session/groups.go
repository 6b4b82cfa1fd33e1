package session

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/sallyport-proxy/sallyport/identity"
)

// keptDigest names a set of groups that are kept; zero stands for all there are.
// A session holds it: whether its person is in a group that was not kept at the
// sign-in is not known later, and must not be taken for "no".
type keptDigest [8]byte

func keptGroups(names []string) (map[string]bool, keptDigest) {
	if names == nil {
		return nil, keptDigest{}
	}
	set := make(map[string]bool, len(names))
	h := sha256.New()
	h.Write([]byte("sallyport groups kept\x00"))
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
		set[name] = true
		h.Write(binary.AppendUvarint(nil, uint64(len(name))))
		h.Write([]byte(name))
	}
	return set, keptDigest(h.Sum(nil)[:8])
}

// Keep returns id with those of its groups, and the acr, that a session would hold. The
// groups of the argument are not changed.
func (m *Manager) Keep(id identity.Identity) identity.Identity {
	if !m.anyACR && !slices.Contains(m.acr, id.ACR) {
		id.ACR = ""
	}
	if m.groups == nil || len(id.Groups)+len(id.OrgGroups) == 0 {
		return id
	}
	id.OrgGroups = slices.DeleteFunc(slices.Clone(id.OrgGroups), func(g identity.OrgGroup) bool {
		return !m.groups[g.Group]
	})
	if len(id.OrgGroups) == 0 {
		id.OrgGroups = nil
	}
	var kept []string
	for _, g := range id.Groups {
		if m.groups[g] {
			kept = append(kept, g)
		}
	}
	id.Groups = kept
	return id
}
