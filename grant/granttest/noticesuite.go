package granttest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// told takes all notices of an app, and has them be told.
func told(t *testing.T, s grant.Store, app string) (list []string) {
	t.Helper()
	for {
		notices, err := s.Notices(t.Context(), app, 2)
		testenv.Check(t, err)
		if len(notices) == 0 {
			return list
		}
		for _, n := range notices {
			if n.App != app || n.At.IsZero() {
				t.Errorf("notice %+v", n)
			}
			list = append(list, fmt.Sprintf("%s %s %s: %s", n.Kind, n.Connector, n.Owner.ID, n.Status))
			testenv.Check(t, s.Noticed(t.Context(), n))
		}
	}
}

// noticed goes through all changes of which apps are told, and those of which they are not.
func noticed(t *testing.T, rows Rows) {
	s := rows.Open(t)
	k := keyOf("calendar", "corp:ann")
	r := connect(t, s, k)
	testenv.Check(t, s.Agree(t.Context(), r.ID, consentOf("mail-app"), r.Version))
	set := func(is grant.Status) {
		t.Helper()
		testenv.Check(t, s.SetStatus(t.Context(), r.ID, r.Generation, is, "x", time.Time{}))
	}
	wants := func(what, app string, want ...string) {
		t.Helper()
		same(t, what+", "+app, told(t, s, app), want)
	}
	for _, is := range []grant.Status{grant.Degraded, grant.OperatorError, grant.Active} {
		set(is)
		wants("of what passes", "calendar-app")
	}
	set(grant.NeedsReconnect)
	set(grant.RevokedUpstream) // it is known that a person has to do something
	for _, app := range []string{"calendar-app", "mail-app"} {
		wants("that a person is needed", app, "needs_reconnect calendar corp:ann: needs_reconnect")
	}
	kept := get(t, s, k)
	again := recordOf(k)
	_, err := s.Connect(t.Context(), again, consentOf("new-app"), kept.Version, seal)
	testenv.Check(t, err)
	wants("who agreed just now", "new-app")
	wants("that it was connected again", "mail-app", "recovered calendar corp:ann: active")
	r = get(t, s, k).Record
	wants("the same", "calendar-app", "recovered calendar corp:ann: active")

	l := lease(t, s, r)
	testenv.Check(t, s.Abandon(t.Context(), l, false, grant.NeedsReconnect, "lost_response", time.Time{}))
	_, err = s.Late(t.Context(), l, refreshed(r), seal)
	testenv.Check(t, err)
	wants("of a loss, and of the late result", "calendar-app", "needs_reconnect calendar corp:ann: needs_reconnect",
		"recovered calendar corp:ann: active")
	r = get(t, s, k).Record
	narrow := refreshed(r)
	narrow.Status = grant.TooNarrow
	_, err = s.Commit(t.Context(), lease(t, s, r), narrow, seal)
	testenv.Check(t, err)
	wants("that scopes were taken away", "new-app", "needs_reconnect calendar corp:ann: needs_reconnect",
		"recovered calendar corp:ann: active", "needs_reconnect calendar corp:ann: too_narrow")

	_, err = s.Withdraw(t.Context(), k, "mail-app")
	testenv.Check(t, err)
	wants("that its consent was ended", "mail-app", "needs_reconnect calendar corp:ann: needs_reconnect",
		"recovered calendar corp:ann: active", "needs_reconnect calendar corp:ann: too_narrow",
		"disconnected calendar corp:ann: disconnected")
	wants("whose consent is left", "calendar-app", "needs_reconnect calendar corp:ann: too_narrow")
	c := consentOf("offline-app")
	c.Offline, c.By = true, "corp:ann"
	testenv.Check(t, s.Agree(t.Context(), r.ID, c, get(t, s, k).Version))
	_, err = s.SignedIn(t.Context(), "corp:ann", tick(0), func(_ grant.Key, c grant.Consent) bool {
		return c.App != "offline-app"
	})
	testenv.Check(t, err)
	wants("of what ended for people who are away only", "offline-app")
	_, err = s.Disconnect(t.Context(), get(t, s, k).ID)
	testenv.Check(t, err)
	wants("that all was ended", "calendar-app", "disconnected calendar corp:ann: disconnected")
	wants("that it too was ended", "offline-app", "disconnected calendar corp:ann: disconnected")
	connect(t, s, k)
	wants("of a grant that is new", "calendar-app")
}

// losses makes notices of an app: a grant for each that is lost.
func losses(t *testing.T, s grant.Store, app string, n int) {
	t.Helper()
	for i := range n {
		k := keyOf("calendar", fmt.Sprint(app, ":", i))
		r, err := s.Connect(t.Context(), recordOf(k), consentOf(app), 0, seal)
		testenv.Check(t, err)
		testenv.Check(t, s.SetStatus(t.Context(), r.ID, r.Generation, grant.NeedsReconnect, "x", time.Time{}))
	}
}

func noticesTaken(t *testing.T, rows Rows) {
	a, b := rows.Open(t), rows.Open(t)
	const app, other, n = "calendar-app", "other-app", 5
	losses(t, a, app, n)
	losses(t, a, other, 1)
	var mu sync.Mutex
	var got []grant.Notice
	together(8, func(i int) {
		list, err := []grant.Store{a, b}[i%2].Notices(t.Context(), app, 3)
		if err != nil {
			t.Errorf("take: %v", err)
		}
		mu.Lock()
		defer mu.Unlock()
		got = append(got, list...)
	})
	if len(got) != 3 {
		t.Fatalf("%d were taken, want 3: %+v", len(got), got)
	}
	for i, n := range got {
		if i > 0 && n.ID <= got[i-1].ID || n.Owner.ID != fmt.Sprint(app, ":", i) || n.Tries != 0 {
			t.Errorf("number %d is %+v", i, n)
		}
	}
	none := func(what string) {
		t.Helper()
		if list, err := b.Notices(t.Context(), app, 3); len(list) != 0 || err != nil {
			t.Errorf("%s: %+v, %v", what, list, err)
		}
	}
	none("while somebody has some")
	testenv.Check(t, a.Noticed(t.Context(), got[0]))
	none("after the first was told")
	if list, err := b.Notices(t.Context(), other, 3); len(list) != 1 || err != nil {
		t.Errorf("of another app: %+v, %v", list, err)
	}
	testenv.Check(t, a.NoticesLater(t.Context(), got[1], true, a.Now().Add(grant.NoticeWait)))
	none("while the app is left alone")
	rows.Advance(t, grant.NoticeWait)
	list, err := b.Notices(t.Context(), app, 3)
	if err != nil || len(list) != 3 || list[0].ID != got[1].ID || list[0].Tries != 1 || list[1].Tries != 0 {
		t.Errorf("when its time has come: %+v, %v", list, err)
	}
	testenv.Check(t, b.NoticesLater(t.Context(), list[0], false, b.Now()))
	list, err = a.Notices(t.Context(), app, 1)
	if err != nil || len(list) != 1 || list[0].ID != got[1].ID || list[0].Tries != 1 {
		t.Errorf("given back: %+v, %v", list, err)
	}
	rows.Advance(t, grant.NoticeLease) // who took them has gone
	if list, err = b.Notices(t.Context(), app, 3); err != nil || len(list) != 3 {
		t.Errorf("after its lease: %+v, %v", list, err)
	}
	rows.Advance(t, -12*time.Hour) // the clock was set back, and who took them has gone
	if list, err = a.Notices(t.Context(), app, 3); err != nil || len(list) != 3 {
		t.Errorf("when the clock was set back: %+v, %v", list, err)
	}
	none("while somebody has some, by the new time")
}

func noticesForgotten(t *testing.T, rows Rows) {
	s := rows.Open(t)
	losses(t, s, "calendar-app", 2)
	rows.Advance(t, grant.NoticeLife)
	losses(t, s, "other-app", 1)
	if list, err := s.Notices(t.Context(), "calendar-app", 3); len(list) != 0 || err != nil {
		t.Errorf("too old: %+v, %v", list, err)
	}
	lost, err := s.ForgetNotices(t.Context(), grant.NoticeLife-time.Minute)
	testenv.Check(t, err)
	same(t, "lost", lost, map[string]int{"calendar-app": 2})
	if list, err := s.Notices(t.Context(), "other-app", 3); len(list) != 1 || err != nil {
		t.Errorf("a newer one: %+v, %v", list, err)
	}
}
