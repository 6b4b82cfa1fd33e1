package grant

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
)

// View is a connector on somebody's account page.
type View struct {
	About     About
	Owner     Owner
	Kept      *Kept // nil: nothing is connected
	Status    Status
	Apps      []AppView // those that may use it, and those that are configured to
	Excess    []string  // scopes that were granted and that no app needs
	Moved     string    // why it has to be connected again where the configuration is why; "": it is not
	Unused    bool      // no app has used it for UnusedDays, and somebody may want to end it
	MayManage bool      // they may connect and end it
	FinishURL string    // where to end at the third party what Sallyport cannot; "": nowhere
	// ApproveURL is where an administrator agrees, with NeedsAdmin; "": it is not known.
	ApproveURL string
}

// AppView is an app in a View.
type AppView struct {
	ID, Name string
	Agreed   bool     // there is a consent
	Accesses []Access // what the app may do now
	Offline  bool
	Until    time.Time // of Offline
	By       string    // identity.Identity.ID of who agreed
	At       time.Time
	UsedAt   time.Time // zero: never
}

// Name is what people call a connector: its id where there is none of it.
func (b *Broker) Name(connector string) string {
	if offer := b.offers[connector]; offer != nil {
		return cmp.Or(offer.Connector.About().Name, connector)
	}
	return connector
}

// Words says what the status of something at a third party means to people, and what those
// can do who manage it.
func (s Status) Words(at string) (means, next string) {
	switch s {
	case Active:
		return "It works.", ""
	case Degraded:
		return at + " did not answer as it should the last time.", "Nothing: it is tried again by itself."
	case NeedsReconnect:
		return at + " does not accept it any more.", "Connect it again."
	case NeedsAdmin:
		return "An administrator of the account at " + at + " has to agree to it.",
			"Ask them, and then connect it again."
	case TooNarrow:
		return at + " no longer allows what the apps need.", "Connect it again."
	case RevokedUpstream:
		return "It was ended at " + at + ".", "Connect it again, or disconnect it here too."
	case OperatorError:
		return at + " does not accept Sallyport at the moment.", "Nothing: who runs Sallyport has to mend it."
	case Disconnected, NotConnected:
		return "It is not connected.", ""
	}
	return string(s), ""
}

// NeedsManager reports whether nothing is lent until somebody who manages the grant has done
// something.
func (s Status) NeedsManager() bool {
	switch s {
	case NeedsReconnect, NeedsAdmin, TooNarrow, RevokedUpstream, Disconnected, NotConnected:
		return true
	}
	return false
}

// View returns the connectors that somebody can see, in the order of their ids.
func (b *Broker) View(ctx context.Context, who identity.Identity) ([]View, error) {
	var views []View
	for _, id := range slices.Sorted(maps.Keys(b.offers)) {
		offer := b.offers[id]
		owner, err := offer.ownerFor(who)
		if err != nil {
			continue // they have no organization now
		}
		v := View{About: offer.Connector.About(), Owner: owner, Status: NotConnected,
			MayManage: owner.Kind == OwnedByUser || offer.ManagedBy(who)}
		if !v.MayManage && offer.UsableBy != nil && !offer.UsableBy(who) {
			continue
		}
		kept, err := b.Store.Get(ctx, Key{id, owner})
		switch {
		case err == nil:
			v.Kept, v.Status = &kept, b.statusOf(kept.Record)
			if e := b.moved(kept.Record); e != nil && kept.Status.Usable() {
				v.Moved = e.Error()
			}
			v.Unused = b.unused(kept)
			if f, ok := offer.Connector.(Finish); ok {
				v.FinishURL = f.FinishURL(kept.Account)
			}
			if v.Status == NeedsAdmin {
				v.ApproveURL = approveURL(offer.Connector, &kept,
					Request{RedirectURI: b.Redirect(id), Access: kept.Access, Scopes: kept.Requested})
			}
		case !errors.Is(err, ErrNotFound):
			return nil, fmt.Errorf("read the grant: %w", err)
		}
		b.viewApps(&v)
		views = append(views, v)
	}
	return views, nil
}

// UnusedDays is after how many days without any use it is proposed to people to end a grant.
const UnusedDays = 30

// unused reports whether no app has used a grant for UnusedDays. A consent that is younger is
// for something that may come yet.
func (b *Broker) unused(k Kept) bool {
	newest := k.ConnectedAt
	for _, c := range k.Consents {
		for _, at := range [...]time.Time{c.At, c.UsedAt} {
			if at.After(newest) {
				newest = at
			}
		}
	}
	return b.Store.Now().Sub(newest) >= UnusedDays*day
}

func (b *Broker) viewApps(v *View) {
	var needed []string
	for _, id := range slices.Sorted(maps.Keys(b.apps)) {
		app := b.apps[id]
		a := AppView{ID: id, Name: app.Name}
		if v.Kept != nil {
			if c, ok := v.Kept.Consent(id); ok {
				a.Agreed, a.By, a.At, a.UsedAt = true, c.By, c.At, c.UsedAt
				a.Accesses = b.effective(*v.Kept, c)
				needed = append(needed, scopesOf(a.Accesses)...)
				if app.Offline && b.offlineNow(*v.Kept, c) {
					a.Offline, a.Until = true, c.OfflineUntil()
				}
			}
		}
		if a.Agreed || len(app.Connectors[v.About.ID]) > 0 {
			v.Apps = append(v.Apps, a)
		}
	}
	if v.Kept == nil {
		return
	}
	for _, c := range v.Kept.Consents { // an app that the configuration has no more can still be shown the door
		if b.apps[c.App] == nil {
			v.Apps = append(v.Apps, AppView{ID: c.App, Name: c.App, Agreed: true, By: c.By, At: c.At, UsedAt: c.UsedAt})
		}
	}
	v.Excess = without(v.Kept.Scopes, needed)
}
