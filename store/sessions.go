package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/session"
)

const (
	// signInsMax bounds the sign-ins that wait to be put on the list.
	signInsMax = 1000
	// signInsAtOnce is how many of them one transaction writes.
	signInsAtOnce = 100
	defaultListed = 50
	// maxExamined bounds the rows that one list goes through: those that have ended are
	// among them.
	maxExamined = 20_000
	// textMax bounds each text of a row.
	textMax = 1024
)

// NoteSignIn puts e on the list of sign-ins, when the database can be written. It
// waits for nothing: beyond signInsMax e is dropped, and counted.
func (s *Store) NoteSignIn(e session.Entry) {
	if _, ok := session.KeyOfSID(e.SID); !ok {
		return
	}
	for _, text := range [...]*string{&e.Person, &e.Org, &e.Provider, &e.ProviderSID, &e.From, &e.Browser} {
		*text = plain(*text)
	}
	e.Orgs = slices.Clone(e.Orgs)
	for i := range e.Orgs {
		e.Orgs[i] = plain(e.Orgs[i])
	}
	s.mu.Lock()
	full := len(s.signIns) >= signInsMax
	if full {
		s.dropped++
	} else {
		s.signIns = append(s.signIns, e)
	}
	first := full && s.dropped == 1
	s.mu.Unlock()
	if first {
		s.o.Log.Error("too many sign-ins wait to be put on the list: it will lack some", "most", signInsMax)
	}
	s.wake()
}

// plain is text as both databases can keep it.
func plain(text string) string {
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "?"), "\x00", "?")
	if len(text) > textMax {
		text = strings.ToValidUTF8(text[:textMax], "")
	}
	return text
}

// Dropped is how many sign-ins the list lacks because too many waited to be
// written, or because the database refused them.
func (s *Store) Dropped() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dropped + s.refused
}

// Sessions returns the sign-ins that neither are over nor have ended, the newest
// first.
func (s *Store) Sessions(ctx context.Context, which session.Which) ([]session.Entry, error) {
	if which.Most <= 0 {
		which.Most = defaultListed
	}
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	if err := s.usable(); err != nil {
		return nil, fmt.Errorf("%w: %w", session.ErrStore, err)
	}
	if s.o.Brief { // nobody follows
		if err := s.readNew(ctx); err != nil {
			return nil, fmt.Errorf("%w: %w", session.ErrStore, err)
		}
	}
	which.Person, which.Org = plain(which.Person), plain(which.Org)
	list := s.waitingSignIns(which)
	page := which.Most + len(list) + 50 // some have ended
	for from, found := 0, 0; found < which.Most && from < maxExamined; from += page {
		rows, err := s.sessionRows(ctx, which, from, page)
		if err != nil {
			return nil, fmt.Errorf("%w: list sessions: %w", session.ErrStore, err)
		}
		for _, e := range rows {
			if which.Matches(&e) && !s.view.EndedEntry(&e) {
				list = append(list, e)
				found++
			}
		}
		if len(rows) < page {
			break
		}
	}
	slices.SortStableFunc(list, func(a, b session.Entry) int { return b.Since.Compare(a.Since) })
	seen := map[string]bool{} // what was just written may still be among what waits
	list = slices.DeleteFunc(list, func(e session.Entry) bool {
		twice := seen[e.SID]
		seen[e.SID] = true
		return twice
	})
	return list[:min(len(list), which.Most)], nil
}

// waitingSignIns are those that wait to be written by this process.
func (s *Store) waitingSignIns(which session.Which) (list []session.Entry) {
	now := s.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.signIns {
		if e.Until.After(now) && which.Matches(&e) && !s.view.EndedEntry(&e) {
			list = append(list, e)
		}
	}
	return list
}

// sessionRows reads a page of the list. An organization that was not active at the
// sign-in is looked for in the text of all: the caller looks closer.
func (s *Store) sessionRows(ctx context.Context, which session.Which, from, most int) ([]session.Entry, error) {
	query := `select root_hash, person, org, orgs, provider, sid, since_ms, until_ms, from_ip, browser
		from sallyport_sessions where until_ms > $1`
	args := []any{s.Now().UnixMilli()}
	arg := func(v any) string {
		args = append(args, v)
		return fmt.Sprint("$", len(args))
	}
	if which.Person != "" {
		query += ` and person = ` + arg(which.Person)
	}
	if which.Org != "" {
		query += ` and (org = ` + arg(which.Org) + ` or orgs like ` + arg(likeOrg(which.Org)) + ` escape '!')`
	}
	query += ` order by since_ms desc, root_hash limit ` + arg(most) + ` offset ` + arg(from)
	rows, err := s.d.Lists.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []session.Entry
	for rows.Next() {
		e, err := scanEntry(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return list, rows.Err()
}

func scanEntry(rows *sql.Rows) (e session.Entry, err error) {
	var key []byte
	var orgs string
	var since, until int64
	err = rows.Scan(&key, &e.Person, &e.Org, &orgs, &e.Provider, &e.ProviderSID, &since, &until, &e.From, &e.Browser)
	if err != nil {
		return e, err
	}
	if len(key) != len(session.CutKey{}) {
		return e, errors.New("a row is not one that this version knows")
	}
	if err := listOf(orgs, &e.Orgs); err != nil {
		return e, err
	}
	e.SID = session.CutKey(key).SID()
	e.Since, e.Until = time.UnixMilli(since).UTC(), time.UnixMilli(until).UTC()
	return e, nil
}

// listText is how several texts are kept in one column.
func listText[T any](list []T) string {
	if len(list) == 0 {
		return ""
	}
	text, _ := json.Marshal(list) // a list of texts always has one
	return string(text)
}

// listOf reads what listText made.
func listOf[T any](text string, into *[]T) error {
	if text == "" {
		*into = nil
		return nil
	}
	if err := json.Unmarshal([]byte(text), into); err != nil {
		return fmt.Errorf("read a list of a row: %w", err)
	}
	return nil
}

// likeOrg matches the texts of listText that org is in, and perhaps some others.
func likeOrg(org string) string {
	text, _ := json.Marshal(org)
	return "%" + strings.NewReplacer("!", "!!", "%", "!%", "_", "!_").Replace(string(text)) + "%"
}

// writeSignIns puts those that wait on the list, some at a time. Where the database refuses one
// of them they are written one by one until that is found, which is left out: it would be
// refused again, and nothing behind it would ever be written.
func (s *Store) writeSignIns(ctx context.Context) error {
	atOnce := signInsAtOnce
	for {
		s.mu.Lock()
		some := slices.Clone(s.signIns[:min(len(s.signIns), atOnce)])
		s.mu.Unlock()
		if len(some) == 0 {
			return nil
		}
		err := s.insertSignIns(ctx, some)
		refused := s.d.Refuses(err)
		if refused && len(some) > 1 {
			atOnce = 1
			continue
		}
		if err != nil && !refused {
			return fmt.Errorf("put sign-ins on the list: %w", err)
		}
		s.mu.Lock()
		if refused {
			atOnce = signInsAtOnce
			if s.refused++; s.refused == 1 {
				s.o.Log.Error("the database refuses a sign-in: the list lacks it", "error", err)
			}
		}
		s.signIns = slices.Delete(s.signIns, 0, len(some))
		if len(s.signIns) == 0 {
			s.signIns = nil
		}
		s.mu.Unlock()
	}
}

func (s *Store) insertSignIns(ctx context.Context, list []session.Entry) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	now := s.Now()
	return s.transact(ctx, func(tx *sql.Tx) error {
		for i := range list {
			e := &list[i]
			key, ok := session.KeyOfSID(e.SID)
			if !ok || !e.Until.After(now) || s.view.EndedEntry(e) {
				continue
			}
			_, err := tx.ExecContext(ctx, `insert into sallyport_sessions
				(root_hash, person, org, orgs, provider, sid, since_ms, until_ms, from_ip, browser)
				values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) on conflict do nothing`,
				key[:], e.Person, e.Org, listText(e.Orgs), e.Provider, e.ProviderSID,
				e.Since.UnixMilli(), e.Until.UnixMilli(), e.From, e.Browser)
			if err != nil {
				return err
			}
		}
		return nil
	})
}
