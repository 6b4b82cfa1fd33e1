package grant

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// NoticeKind is what an app is told of a grant.
type NoticeKind string

const (
	NoticeNeedsReconnect NoticeKind = "needs_reconnect" // nothing is lent until a person does something
	NoticeRecovered      NoticeKind = "recovered"       // after NoticeNeedsReconnect: it is lent again
	NoticeDisconnected   NoticeKind = "disconnected"    // the grant, or the app's consent, was ended
)

// Notice is what an app is told of a grant that it had a consent to.
type Notice struct {
	ID     int64 // of the store; a later one is larger
	App    string
	Kind   NoticeKind
	Key           // whose grant of what
	Status Status // what it has become
	At     time.Time
	Tries  int // attempts to tell it that failed
}

// NoticeOf is what apps are told when a grant that was in one status is in another one; ""
// is nothing. Where a refresh fails for now, or our own client is refused, they can do
// nothing about it.
func NoticeOf(was, is Status) NoticeKind {
	switch {
	case was != Disconnected && is == Disconnected:
		return NoticeDisconnected
	case was.Usable() && is.needsPerson():
		return NoticeNeedsReconnect
	case was.needsPerson() && is.Usable():
		return NoticeRecovered
	}
	return ""
}

// needsPerson reports whether nothing is lent until a person does something.
func (s Status) needsPerson() bool {
	switch s {
	case NeedsReconnect, NeedsAdmin, TooNarrow, RevokedUpstream:
		return true
	}
	return false
}

// ErrNoticeRefused: the app has said that it will not take a notice, however often it is told.
var ErrNoticeRefused = errors.New("the app refuses what it is told")

const (
	// NoticeLife is for how long a notice is kept for an app that does not take it.
	NoticeLife = 24 * time.Hour
	// NoticeLease is for how long the notices that a replica was given are its own.
	NoticeLease = time.Minute
	// NoticeWait is for how long an app that fails is left alone, at most.
	NoticeWait = 10 * time.Minute

	noticeEvery = time.Second // how often an app's notices are looked for
	noticesMost = 50          // how many are taken at a time
	noticeWarn  = time.Minute // how often is told that the store does not answer
)

// notify tells an app what it is to be told, until ctx ends: one after the other in their
// order, and none before the one that it did not take.
func (b *Broker) notify(ctx context.Context, app string) {
	ticker := time.NewTicker(noticeEvery)
	defer ticker.Stop()
	var warned time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := b.notifyOnce(ctx, app)
		if now := time.Now(); err != nil && ctx.Err() == nil && now.Sub(warned) >= noticeWarn {
			warned = now
			b.Log.Warn("what an app is to be told could not be read or noted", "app", app, "error", err.Error())
		}
	}
}

func (b *Broker) notifyOnce(ctx context.Context, app string) error {
	list, err := b.Store.Notices(ctx, app, noticesMost)
	if err != nil || len(list) == 0 {
		return err
	}
	until := b.Store.Now().Add(NoticeLease - CallTime)
	for _, n := range list {
		if !b.Store.Now().Before(until) || ctx.Err() != nil {
			return b.Store.NoticesLater(context.WithoutCancel(ctx), n, false, b.Store.Now())
		}
		called, cancel := context.WithTimeout(ctx, CallTime)
		err := b.Notify(called, n)
		cancel()
		switch {
		case err == nil:
			b.Metrics.noticed(app, "told")
		case errors.Is(err, ErrNoticeRefused):
			b.Metrics.noticed(app, "refused")
			b.Log.Warn("an app refused what it was told of a grant, and is not told again", "app", app,
				"connector", n.Connector, "kind", string(n.Kind), "error", err.Error())
		case ctx.Err() != nil:
			return b.Store.NoticesLater(context.WithoutCancel(ctx), n, false, b.Store.Now())
		default:
			b.Metrics.noticed(app, "failed")
			wait := min(NoticeWait, time.Second<<min(n.Tries, 10))
			wait -= rand.N(wait/4 + 1)
			b.Log.Warn("an app could not be told of a grant, and is told again", "app", app, "connector", n.Connector,
				"kind", string(n.Kind), "after", wait.String(), "error", err.Error())
			return b.Store.NoticesLater(ctx, n, true, b.Store.Now().Add(wait))
		}
		if err := b.Store.Noticed(context.WithoutCancel(ctx), n); err != nil {
			return err // it is told twice, with the same id
		}
	}
	return nil
}

// forgetNotices gives up what apps did not take in time. Apps that want to be told nothing
// have notices, too.
func (b *Broker) forgetNotices(ctx context.Context) {
	lost, err := b.Store.ForgetNotices(ctx, NoticeLife)
	if err != nil {
		b.Log.Warn("old notices for apps could not be deleted", "error", err.Error())
	}
	for app, n := range lost {
		if a := b.apps[app]; a != nil && a.Told && b.Notify != nil {
			b.Metrics.noticesEnded(app, "lost", n)
			b.Log.Error("an app did not take what it was told of grants, and is not told any more", "app", app,
				"notices", n)
		}
	}
}
