package storetest

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
	"github.com/sallyport-proxy/sallyport/store"
)

func detailsOf(id string) identity.OrgDetails {
	return identity.OrgDetails{OrgID: id, CustomerID: "C0" + id, Name: "Name of " + id + ` "'%ö`,
		Domain: id + ".example", ReadAt: time.Now().UTC().Truncate(time.Millisecond), ReadBy: "google:104"}
}

// keptOf is what s has of an organization, as a text.
func keptOf(t *testing.T, s *store.Store, id string) string {
	t.Helper()
	d, ok, err := s.OrgDetails(t.Context(), id)
	testenv.Check(t, err)
	return fmt.Sprint(d, ok)
}

func keepsOrgs(t *testing.T, d Database) {
	a, b := d.Open(t, store.Options{}), d.Open(t, store.Options{})
	acme, birch := detailsOf("google:acme"), detailsOf("google:birch")
	if got := keptOf(t, a, acme.OrgID); got != fmt.Sprint(identity.OrgDetails{}, false) {
		t.Errorf("of nobody: %s", got)
	}
	testenv.Check(t, a.KeepOrg(t.Context(), birch))
	testenv.Check(t, a.KeepOrg(t.Context(), acme))
	acme.Name, acme.ReadBy, acme.ReadAt = "", "google:105", acme.ReadAt.Add(time.Hour)
	testenv.Check(t, b.KeepOrg(t.Context(), acme)) // read again
	if got := keptOf(t, a, acme.OrgID); got != fmt.Sprint(acme, true) {
		t.Errorf("another replica has %s\nwant %v", got, acme)
	}
	if got := keptOf(t, a, "google:ACME"); got != fmt.Sprint(identity.OrgDetails{}, false) {
		t.Errorf("in capitals: %s", got)
	}
	odd := detailsOf("google:odd")
	odd.Name = strings.Repeat("\x00\xff", 4000) // which no database keeps as it is
	testenv.Check(t, a.KeepOrg(t.Context(), odd))
	command, err := d.TryOpen(store.Options{Brief: true})
	testenv.Check(t, err)
	list, err := command.OrgsDetails(t.Context())
	if err != nil || len(list) != 3 || list[0] != acme || list[1] != birch || list[2].OrgID != odd.OrgID ||
		len(list[2].Name) > 1024 {
		t.Errorf("a command lists %v, %v", list, err)
	}
	if was, err := command.ForgetOrg(t.Context(), birch.OrgID); was != birch || err != nil {
		t.Errorf("forgot %v, %v", was, err)
	}
	if was, err := command.ForgetOrg(t.Context(), birch.OrgID); !errors.Is(err, store.ErrNoOrg) {
		t.Errorf("forgot once more %v, %v", was, err)
	}
	testenv.Check(t, command.Close())
	if got := keptOf(t, b, birch.OrgID); got != fmt.Sprint(identity.OrgDetails{}, false) {
		t.Errorf("a running replica still has %s", got)
	}
	testenv.Check(t, a.Close())
	if got := keptOf(t, d.Open(t, store.Options{}), acme.OrgID); got != fmt.Sprint(acme, true) {
		t.Errorf("after a restart: %s", got)
	}
	if _, _, err := a.OrgDetails(t.Context(), acme.OrgID); !errors.Is(err, session.ErrStore) {
		t.Errorf("a closed store: %v", err)
	}
}

// otherCustomer has a domain be sold: its new owner is another customer of the provider.
func otherCustomer(t *testing.T, d Database) {
	s := d.Open(t, store.Options{})
	acme := detailsOf("google:acme")
	testenv.Check(t, s.KeepOrg(t.Context(), acme))
	sold := acme
	sold.CustomerID, sold.Name = "C0other", "Another one"
	if err := s.KeepOrg(t.Context(), sold); !errors.Is(err, identity.ErrOtherCustomer) {
		t.Errorf("keep: %v", err)
	}
	if got := keptOf(t, s, acme.OrgID); got != fmt.Sprint(acme, true) {
		t.Errorf("kept %s", got)
	}
	_, err := s.ForgetOrg(t.Context(), acme.OrgID)
	testenv.Check(t, err)
	testenv.Check(t, s.KeepOrg(t.Context(), sold)) // an operator has seen to it
	if got := keptOf(t, s, acme.OrgID); got != fmt.Sprint(sold, true) {
		t.Errorf("kept %s", got)
	}
}

// orgsTogether has two customers claim one domain at once, each many times: one of them has it.
func orgsTogether(t *testing.T, d Database) {
	replicas := []*store.Store{d.Open(t, store.Options{}), d.Open(t, store.Options{})}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			o := detailsOf("google:acme")
			o.CustomerID = fmt.Sprint("C0", i%2)
			if err := replicas[i%2].KeepOrg(t.Context(), o); err != nil && !errors.Is(err, identity.ErrOtherCustomer) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if a, b := keptOf(t, replicas[0], "google:acme"), keptOf(t, replicas[1], "google:acme"); a != b {
		t.Errorf("one has %s\nand the other %s", a, b)
	}
	if n := d.Number(t, `select count(*) from sallyport_orgs`); n != 1 {
		t.Errorf("%d rows", n)
	}
}
