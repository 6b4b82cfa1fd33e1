package session

import (
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/sallyport-proxy/sallyport/identity"
)

func keeping(groups ...string) func(*Options) {
	return func(o *Options) { o.KeepGroups = append([]string{}, groups...) }
}

func TestSessionHoldsOnlyTheGroupsThatAreKept(t *testing.T) {
	c := newClock()
	for _, row := range []struct {
		name   string
		change []func(*Options)
		want   []string
	}{
		{"all", nil, []string{"oncall", "eng"}},
		{"one", []func(*Options){keeping("eng", "nobody-is-in")}, []string{"eng"}},
		{"as they came", []func(*Options){keeping("eng", "oncall", "eng")}, []string{"oncall", "eng"}},
		{"in another case", []func(*Options){keeping("ENG")}, nil},
		{"none", []func(*Options){keeping()}, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			m := newManager(t, c, row.change...)
			told := alice()
			s := m.Start(told)
			got, err := m.Read(pair(write(t, m, testHost, s)), testHost)
			if err != nil || !reflect.DeepEqual(got, s) || !reflect.DeepEqual(got.Identity.Groups, row.want) {
				t.Errorf("got %+v, %v; want groups %q", got, err, row.want)
			}
			if !reflect.DeepEqual(told, alice()) {
				t.Errorf("what the provider told was changed: %+v", told)
			}
			renewed, _ := m.Renew(s)
			if _, err := m.Read(pair(write(t, m, testHost, renewed)), testHost); err != nil {
				t.Errorf("renewed: %v", err)
			}
		})
	}
	m := newManager(t, c, keeping("eng"))
	some := alice()
	some.GroupsUnknown = true
	if id := m.Keep(some); !id.GroupsUnknown || !slices.Equal(id.Groups, []string{"eng"}) {
		t.Errorf("of groups that are not all: %+v", id)
	}
}

// P11: somebody who signed in while other groups were kept is not known to be in the
// new ones, and not known not to be. They sign in again.
func TestP11_ASessionOfWhenOtherGroupsWereKeptIsOutdated(t *testing.T) {
	c := newClock()
	managers := map[string]*Manager{
		"all": newManager(t, c), "none": newManager(t, c, keeping()), "empty name": newManager(t, c, keeping("")),
		"a": newManager(t, c, keeping("a")), "ab": newManager(t, c, keeping("ab")),
		"a, b": newManager(t, c, keeping("a", "b")), "b, a": newManager(t, c, keeping("b", "a", "b")),
	}
	same := func(a, b string) bool { return a == b || (len(a) == 4 && len(b) == 4 && a[1] == ',' && b[1] == ',') }
	for from, sealer := range managers {
		_, cookie := signedIn(t, sealer)
		for to, reader := range managers {
			s, err := reader.Read(cookie, testHost)
			switch {
			case same(from, to) && err != nil:
				t.Errorf("%q read by %q: %v", from, to, err)
			case !same(from, to) && !errors.Is(err, ErrOutdated):
				t.Errorf("%q read by %q: %v", from, to, err)
			case s.ID == "":
				t.Errorf("%q read by %q: nothing to sign out of", from, to)
			}
		}
	}
}

// What has ended stays ended: "sign in again" must not read as "we know you".
func TestP10_AnOutdatedSessionThatEndedHasEnded(t *testing.T) {
	c := newClock()
	ended := NewMemory(MemoryOptions{Now: c.Now})
	both := func(o *Options) { o.Ended = ended }
	s, cookie := signedIn(t, newManager(t, c, both))
	end(ended, &s)
	if _, err := newManager(t, c, both, keeping("a")).Read(cookie, testHost); !errors.Is(err, ErrEnded) {
		t.Errorf("got %v", err)
	}
}

// Where all groups are kept, nobody's cookie is longer for it.
func TestP17_TheDigestOfKeptGroupsCostsEightBytes(t *testing.T) {
	size := func(m *Manager) int {
		s := m.Start(identity.Identity{Provider: "p", Subject: "s"})
		b, err := compact{}.Serialize(&s)
		if err != nil {
			t.Fatal(err)
		}
		return len(b)
	}
	all, some := size(newManager(t, newClock())), size(newManager(t, newClock(), keeping("a")))
	if all != 2+idBytes+4+6+5*3+4+7 || some != all+8 {
		t.Errorf("%d bytes, and %d with a digest", all, some)
	}
}

// A long acr that no route asks for makes no cookie longer. What routes ask for is kept,
// and the reference person stays within one KiB.
func TestP17_OnlyAnACRThatIsAskedForIsKept(t *testing.T) {
	c := newClock()
	kept := func(acr ...string) *Manager {
		return newManager(t, c, func(o *Options) { o.KeepACR = append([]string{}, acr...) })
	}
	id := alice()
	id.Groups = groupsOf(20, "6f9619ff-8b86-d011-b42d-00cf4fc9%04x")
	size := func(m *Manager, acr string) int {
		id.ACR = acr
		return len(valueOf(write(t, m, testHost, m.Start(id))))
	}
	if none, long := size(kept(), ""), size(kept("mfa"), "urn:oasis:names:tc:SAML:2.0:ac:classes:Password"); none != long {
		t.Errorf("an acr that nobody asks for takes %d bytes", long-none)
	}
	if n := size(kept("mfa", "phr"), "phr"); n > 1024 {
		t.Errorf("with one that is asked for, the cookie has %d bytes", n)
	}
	for acr, want := range map[string]string{"phr": "phr", "pwd": "", "PHR": "", "": ""} {
		id.ACR = acr
		m := kept("mfa", "phr")
		got, err := m.Read(pair(write(t, m, testHost, m.Start(id))), testHost)
		if err != nil || got.Identity.ACR != want {
			t.Errorf("of %q there is %q, %v", acr, got.Identity.ACR, err)
		}
	}
}
