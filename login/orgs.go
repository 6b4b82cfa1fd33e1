package login

import (
	"encoding/json"

	"github.com/sallyport-proxy/sallyport/identity"
)

// orgs are those of a claim that names several, by id or as objects. A list
// that cannot be read whole is left out whole.
func (r reader) orgs() []identity.Org {
	name := r.p.claims.Orgs
	c, ok := r.from(name)
	if name == "" || !ok {
		return nil
	}
	var list []json.RawMessage
	if json.Unmarshal(c[name], &list) != nil {
		r.dropped(name, "not a list")
		return nil
	}
	orgs := make([]identity.Org, len(list))
	for i, raw := range list {
		var o struct{ ID, Name, Domain string }
		if json.Unmarshal(raw, &o.ID) != nil && json.Unmarshal(raw, &o) != nil || !printable(o.ID, maxText) {
			r.dropped(name, "not a list of ids, or of objects with an id")
			return nil
		}
		orgs[i] = identity.Org{ID: r.p.id + ":" + o.ID, Name: o.Name, Domain: o.Domain, Source: identity.SourceClaim}
	}
	return orgs
}
