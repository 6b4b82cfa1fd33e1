package grant

import (
	"context"
	"log/slog"
	"slices"
)

// revoking ends at the third party what has ended here.
type revoking struct {
	store     Store
	keys      Keyring
	log       *slog.Logger
	connector func(id string) Connector // nil: there is none
}

func (b *Broker) revoking() revoking {
	return revoking{b.Store, b.Keys, b.Log, func(id string) Connector {
		if offer := b.offers[id]; offer != nil {
			return offer.Connector
		}
		return nil
	}}
}

// revoker is what ends r at the third party; false: nothing does. What was granted to another
// client is not shown to this one's third party: it may be another one by now.
func (e revoking) revoker(r Record) (Revoker, bool) {
	c := e.connector(r.Connector)
	revoker, ok := c.(Revoker)
	if !ok || c.About().Revoke == "" {
		return nil, false
	}
	if !isOther(r, c.About()) {
		return revoker, true
	}
	sharer, ok := c.(Sharer)
	return revoker, ok && sharer.Shares(r.ClientID, c.About().ClientID)
}

// record ends what is sealed in r.
func (e revoking) record(ctx context.Context, r Record) Revocation {
	if _, ok := e.revoker(r); !ok {
		return NotSupported
	}
	tokens, err := e.keys.Open(r)
	if err != nil {
		e.log.Error("a grant that ended could not be opened, and was not ended at the third party",
			"connector", r.Connector, "error", err.Error())
		return RevokeFailed
	}
	return e.tokens(ctx, r, tokens)
}

// tokens ends t, which are or were those of r. Grants of the same account that are kept
// are counted, because some third parties end them together.
func (e revoking) tokens(ctx context.Context, r Record, t Tokens) Revocation {
	revoker, ok := e.revoker(r)
	if !ok {
		return NotSupported
	}
	to := Destinations(e.connector(r.Connector), r.Account)
	if other := moved(connectedAt(r, t), to, ToRevoke); other != nil {
		e.log.Warn("a grant was not ended at the third party: its credential is not sent to another address",
			"connector", r.Connector, "error", other.Error())
		return NotSupported
	}
	ctx, cancel := context.WithTimeout(ctx, CallTime)
	defer cancel()
	siblings, err := e.siblings(ctx, r)
	if err != nil {
		e.log.Warn("grants of the same account could not be counted; nothing was ended at the third party",
			"connector", r.Connector, "error", err.Error())
		return RevokeFailed
	}
	became, err := revoker.Revoke(ctx, t, siblings)
	if err != nil {
		e.log.Warn("a grant could not be ended at the third party", "connector", r.Connector, "error", err.Error())
		return RevokeFailed
	}
	return became
}

// siblings counts the grants that are kept of the account and the client of r, with any
// connector, and those of clients that share its end.
func (e revoking) siblings(ctx context.Context, r Record) (int, error) {
	if r.Account.ID == "" {
		return 0, nil
	}
	list, err := e.store.List(ctx, Filter{Account: r.Account.ID})
	if err != nil {
		return 0, err
	}
	sharer, _ := e.connector(r.Connector).(Sharer)
	return len(slices.DeleteFunc(list, func(k Kept) bool {
		return k.ClientID != r.ClientID && (sharer == nil || !sharer.Shares(r.ClientID, k.ClientID))
	})), nil
}
