package authz

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport-proxy/sallyport/identity"
)

func ranges(texts ...string) (all []netip.Prefix) {
	for _, t := range texts {
		all = append(all, netip.MustParsePrefix(t))
	}
	return all
}

// P1: a condition narrows what it stands beside and opens nothing else.
func TestP01_MethodsAndAddressesNarrowAndNeverAdmit(t *testing.T) {
	staff := &identity.Identity{Provider: "sso", Subject: "1", Groups: []string{"staff"}}
	guest := &identity.Identity{Provider: "sso", Subject: "2"}
	hidden := &identity.Identity{Provider: "sso", Subject: "3", GroupsUnknown: true}
	office := ranges("10.0.0.0/8", "2001:db8::/32")
	reads := Conditions{Methods: []string{"GET"}}
	inside := Conditions{From: office}
	both := Conditions{Methods: []string{"GET", "PUT"}, From: office}
	anybody := Access{Public: true, PublicIf: reads}
	readsOrStaff := Access{Public: true, PublicIf: reads, Rules: []Rule{{Groups: []string{"staff"}}}}
	insideOrStaff := Access{Public: true, PublicIf: inside, Rules: []Rule{{Groups: []string{"staff"}}}}
	insideOrAll := Access{Public: true, PublicIf: inside, Authenticated: true}
	narrowed := Access{Rules: []Rule{{Groups: []string{"staff"}, Methods: []string{"GET"}},
		{Groups: []string{"staff"}, Methods: []string{"POST"}, From: office}}}
	allRead := Access{Rules: []Rule{{Authenticated: true, Methods: []string{"GET"}},
		{Groups: []string{"staff"}, From: office}}}
	bare := Access{Rules: []Rule{{Methods: []string{"GET"}, From: office}}}
	for _, row := range []struct {
		name         string
		access       Access
		method, from string
		who          *identity.Identity
		want         Outcome
		reason       Reason
	}{
		{"public reads: GET", anybody, "GET", "", nil, Forward, ReasonPublic},
		{"public reads: HEAD is GET without a body", anybody, "HEAD", "", nil, Forward, ReasonPublic},
		{"public reads: POST, and no sign-in would help", anybody, "POST", "", nil, Deny, ReasonMethod},
		{"public reads: POST of somebody", anybody, "POST", "", staff, Deny, ReasonMethod},
		{"public reads: another case is another method", anybody, "get", "", nil, Deny, ReasonMethod},
		{"public reads: no method", anybody, "", "", nil, Deny, ReasonMethod},
		{"public reads: a longer word", anybody, "GETS", "", nil, Deny, ReasonMethod},
		{"HEAD covers HEAD alone", Access{Public: true, PublicIf: Conditions{Methods: []string{"HEAD"}}},
			"GET", "", nil, Deny, ReasonMethod},

		{"reads or staff: POST of nobody", readsOrStaff, "POST", "", nil, Login, ReasonNoSession},
		{"reads or staff: POST of staff", readsOrStaff, "POST", "", staff, Forward, ReasonRule},
		{"reads or staff: POST of a guest", readsOrStaff, "POST", "", guest, Deny, ReasonNoRule},
		{"reads or staff: GET of a guest is public", readsOrStaff, "GET", "", guest, Forward, ReasonPublic},

		{"inside or staff: inside", insideOrStaff, "PUT", "10.255.0.1", nil, Forward, ReasonPublic},
		{"inside or staff: mapped", insideOrStaff, "PUT", "::ffff:10.0.0.1", nil, Forward, ReasonPublic},
		{"inside or staff: IPv6 with a zone", insideOrStaff, "PUT", "2001:db8::1%eth0", nil, Forward, ReasonPublic},
		{"inside or staff: just outside", insideOrStaff, "PUT", "11.0.0.0", nil, Login, ReasonNoSession},
		{"inside or staff: not known", insideOrStaff, "PUT", "", nil, Login, ReasonNoSession},
		{"inside or staff: not known, staff", insideOrStaff, "PUT", "", staff, Forward, ReasonRule},
		{"inside or all: outside, a guest", insideOrAll, "PUT", "8.8.8.8", guest, Forward, ReasonAuthenticated},
		{"inside only: outside", Access{Public: true, PublicIf: inside}, "GET", "8.8.8.8", staff, Deny, ReasonAddress},
		{"inside only: not known", Access{Public: true, PublicIf: inside}, "GET", "", nil, Deny, ReasonAddress},

		{"both: both hold", Access{Public: true, PublicIf: both}, "PUT", "10.0.0.1", nil, Forward, ReasonPublic},
		{"both: the method alone", Access{Public: true, PublicIf: both}, "PUT", "8.8.8.8", nil, Deny, ReasonAddress},
		{"both: the address alone", Access{Public: true, PublicIf: both}, "POST", "10.0.0.1", nil, Deny, ReasonMethod},

		{"rule: GET of staff", narrowed, "GET", "", staff, Forward, ReasonRule},
		{"rule: GET of nobody", narrowed, "GET", "", nil, Login, ReasonNoSession},
		{"rule: POST from elsewhere, and a sign-in would not help", narrowed, "POST", "8.8.8.8", nil,
			Deny, ReasonAddress},
		{"rule: POST of staff from elsewhere", narrowed, "POST", "8.8.8.8", staff, Deny, ReasonAddress},
		{"rule: POST of staff from inside", narrowed, "POST", "10.0.0.1", staff, Forward, ReasonRule},
		{"rule: DELETE", narrowed, "DELETE", "10.0.0.1", staff, Deny, ReasonMethod},
		{"rule: GET of a guest", narrowed, "GET", "10.0.0.1", guest, Deny, ReasonNoRule},
		{"rule: groups that are not known", narrowed, "GET", "", hidden, Deny, ReasonGroupsUnknown},

		{"all read: GET of a guest", allRead, "GET", "", guest, Forward, ReasonRule},
		{"all read: GET of somebody whose groups are not known", allRead, "GET", "", hidden, Forward, ReasonRule},
		{"all read: GET of nobody", allRead, "GET", "", nil, Login, ReasonNoSession},
		{"all read: POST of a guest", allRead, "POST", "10.0.0.1", guest, Deny, ReasonMethod},
		{"all read: POST of staff", allRead, "POST", "10.0.0.1", staff, Forward, ReasonRule},
		{"all read: POST of staff from elsewhere", allRead, "POST", "8.8.8.8", staff, Deny, ReasonAddress},
		{"all read: POST of nobody from elsewhere", allRead, "POST", "8.8.8.8", nil, Deny, ReasonAddress},
		{"all in one rule", Access{Rules: []Rule{{Authenticated: true}}}, "PUT", "", guest, Forward, ReasonRule},

		{"a rule of conditions alone admits nobody", bare, "GET", "10.0.0.1", staff, Deny, ReasonNoRule},
		{"and asks nobody to sign in from elsewhere", bare, "GET", "", nil, Deny, ReasonAddress},
	} {
		f := Facts{Method: row.method, Host: "app.example", Path: "/"}
		if row.from != "" {
			f.Client = netip.MustParseAddr(row.from)
		}
		v := Decide(f, &Route{Name: "r", Access: row.access}, row.who)
		if v.Outcome != row.want || v.Reason != row.reason {
			t.Errorf("%s: %v, %s (%s); want %v, %s", row.name, v.Outcome, v.Reason, v.Detail, row.want, row.reason)
		}
		if v.Outcome == Deny && (v.Public == "" || strings.Contains(v.Public, "10.0.0.0")) {
			t.Errorf("%s: people read %q", row.name, v.Public)
		}
	}
}

// A rule with a condition never admits more than the same rule without.
func FuzzP01_AConditionOnlyNarrows(f *testing.F) {
	for _, method := range []string{"GET", "HEAD", "get", "POST", "GET ", "", "ＧＥＴ", "COPY"} {
		f.Add(method, "GET", []byte{10, 0, 0, 1}, byte(8))
	}
	f.Add("GET", "GET", []byte("\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x0a\x00\x00\x01"), byte(8))
	f.Fuzz(func(t *testing.T, method, listed string, client []byte, bits byte) {
		facts := Facts{Method: method}
		facts.Client, _ = netip.AddrFromSlice(client)
		within := netip.PrefixFrom(netip.MustParseAddr("10.0.0.0"), int(bits)%33).Masked()
		who := &identity.Identity{Provider: "sso", Subject: "1", Groups: []string{"staff"}}
		rule := Rule{Groups: []string{"staff"}, Methods: []string{listed}, From: []netip.Prefix{within}}
		got := Decide(facts, &Route{Access: Access{Rules: []Rule{rule}}}, who).Outcome == Forward
		inRange := facts.Client.IsValid() && within.Contains(facts.Client.Unmap())
		want := (method == listed || method == "HEAD" && listed == "GET") && inRange
		if got != want {
			t.Errorf("%q where %q is listed, %v within %v: %v", method, listed, facts.Client, within, got)
		}
	})
}

func TestConditionsInWords(t *testing.T) {
	office := ranges("10.0.0.0/8", "192.0.2.7/32", "2001:db8::1/128")
	for want, a := range map[string]Access{
		"everybody, without signing in, for GET or HEAD requests": {Public: true,
			PublicIf: Conditions{Methods: []string{"GET"}}},
		"everybody, without signing in, for requests from 10.0.0.0/8, 192.0.2.7 or 2001:db8::1; or " +
			"everybody who is signed in": {Public: true, PublicIf: Conditions{From: office}, Authenticated: true},
		"people who are in the group a, for PUT or DELETE requests from 10.0.0.0/8": {Rules: []Rule{
			{Groups: []string{"a"}, Methods: []string{"PUT", "DELETE"}, From: office[:1]}}},
		"everybody who is signed in, for GET or HEAD requests; or people who are in the group a": {Rules: []Rule{
			{Authenticated: true, Methods: []string{"GET"}}, {Groups: []string{"a"}}}},
	} {
		if got := a.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// A host whose only routes are public under conditions has nobody who signs in.
func TestPublicConditionsAskWhoOnlyBesideAllow(t *testing.T) {
	reads := Conditions{Methods: []string{"GET"}}
	table, err := NewTable([]Route{
		{Name: "a", Host: "a.example", Path: "/", Access: Access{Public: true, PublicIf: reads}},
		{Name: "b", Host: "b.example", Path: "/", Access: Access{Public: true, PublicIf: reads, Authenticated: true}}})
	if err != nil {
		t.Fatal(err)
	}
	if table.SignsIn("a.example") || !table.SignsIn("b.example") {
		t.Errorf("%v, %v", table.SignsIn("a.example"), table.SignsIn("b.example"))
	}
}

// The second resource of a COPY is judged for the same client with the same method.
func TestP03_ADestinationIsJudgedWithMethodAndAddress(t *testing.T) {
	f, err := NewFacts("COPY", "https", "app.example", "/a")
	if err != nil {
		t.Fatal(err)
	}
	f.Client = netip.MustParseAddr("10.0.0.1")
	to, err := f.Destination("/b")
	if err != nil || to.Method != "COPY" || to.Client != f.Client {
		t.Fatalf("%+v, %v", to, err)
	}
	writes := Access{Public: true, PublicIf: Conditions{Methods: []string{"GET", "PUT"}, From: ranges("10.0.0.0/8")}}
	if v := Decide(to, &Route{Access: writes}, nil); v.Reason != ReasonMethod {
		t.Errorf("COPY onto a route for GET and PUT: %v", v)
	}
	writes.PublicIf.Methods = slices.Concat(writes.PublicIf.Methods, []string{"COPY"})
	if v := Decide(to, &Route{Access: writes}, nil); v.Outcome != Forward {
		t.Errorf("COPY where it is listed: %v", v)
	}
}
