package gateway_test

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport-proxy/sallyport/gateway"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/grant/granttest"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

const problems = "https://sallyport-proxy.github.io/problems/"

// newTeamRig is a rig with two other connectors: team is an organization's, managed by its
// admins and usable by everybody of it but those who are suspended; own is each person's.
func newTeamRig(t *testing.T) *rig {
	t.Helper()
	in := func(group string) func(identity.Identity) bool {
		return func(who identity.Identity) bool { return slices.Contains(who.Groups, group) }
	}
	about := func(id, name string) grant.About {
		return grant.About{ID: id, Name: name, ClientID: "client", Offline: true, Refresh: "https://login.test",
			Inject:   grant.Injection{Header: "Authorization", Prefix: "Bearer "},
			Accesses: []grant.Access{{Name: "read", Scopes: []string{"read"}, Rules: rules(t, "GET /things/*")}}}
	}
	peer := testenv.NewRawUpstream(t)
	third := &third{origin: peer.URL()}
	team, own := connected{third, about("team", "Team")}, connected{third, about("own", "Own")}
	ring, err := grant.NewKeyring([]grant.SealingKey{{ID: "k", Secret: [32]byte{1}}})
	testenv.Check(t, err)
	broker, err := grant.New(grant.Options{Store: granttest.NewStore(nil), Keys: ring,
		Offers: []grant.Offer{{Connector: team, Owner: grant.OwnedByOrg, Offered: []string{"read"},
			ManagedBy: in("admins"), UsableBy: func(who identity.Identity) bool { return !in("suspended")(who) }},
			{Connector: own, Owner: grant.OwnedByUser, Offered: []string{"read"}}},
		Apps: []grant.App{{ID: "planner", Name: "Planner", Routes: []string{"planner"}, Offline: true,
			Connectors: map[string][]string{"team": {"read"}, "own": {"read"}}}},
		Redirect: func(string) string { return "https://sallyport.test/callback" }})
	testenv.Check(t, err)
	t.Cleanup(broker.Close)
	return newRig(t, peer.URL(), func(o *gateway.Options) {
		o.Broker = broker
		for _, c := range []connected{team, own} {
			o.Apps[0].Connectors[c.about.ID] = &gateway.Connector{About: c.about, Accesses: c.about.Accesses}
		}
	})
}

// of is somebody of the organization acme who is in groups.
func of(subject string, groups ...string) *identity.Identity {
	return &identity.Identity{Provider: "google", Subject: subject, Groups: groups,
		Org: identity.Org{ID: "google:acme", Name: "Acme"}}
}

// An organization's account is connected by those who manage it. An app reads that of everybody
// else, so that it sends nobody to a page on which they can do nothing, and the link is for the
// organization's people and not for this person alone.
func TestP12_WhoCannotConnectIsNotSentToConnect(t *testing.T) {
	r := newTeamRig(t)
	const as, le, pe = "X-Sallyport-Assertion", "X-Sallyport-Lease", "X-Sallyport-Person"
	const once = "It is connected once for the organization, by somebody who manages that: give connect_url to " +
		"one of them."
	manager, member := r.assertionOf(of("zoe", "admins"), "planner"), r.assertionOf(of("mia", "staff"), "planner")
	_, body := r.ask("POST", "/v1/leases", "", as, member)
	var lease struct{ Lease string }
	testenv.Check(t, json.Unmarshal([]byte(body), &lease))
	for _, c := range []struct {
		name, connector   string
		header            []string
		detail, by        string
		forOrg, forPerson string
	}{
		{"a manager", "team", []string{as, manager}, "Send them to connect_url.", "", "", "google:zoe"},
		{"a member", "team", []string{as, member}, once +
			" The person who is signed in is not among them, and can do nothing there.", "manager", "google:acme", ""},
		{"by a lease, which does not tell it", "team", []string{as, "", le, lease.Lease}, once, "manager", "google:acme",
			""},
		{"nobody is signed in", "team", []string{as, "", pe, "org:google:acme"}, once, "manager", "google:acme", ""},
		{"a member, of their own", "own", []string{as, member}, "Send them to connect_url.", "", "", "google:mia"},
	} {
		check := func(what, address, by string) {
			t.Helper()
			u, err := url.Parse(address)
			testenv.Check(t, err)
			org, _ := r.sessions.OpenOrg(u.Query().Get("for"))
			person, _ := r.sessions.OpenPerson(u.Query().Get("for"))
			if by != c.by || org != c.forOrg || person != c.forPerson || u.Query().Get("app") != "planner" ||
				u.Path != "/_sallyport/connect/"+c.connector {
				t.Errorf("%s, %s: by %q, for the organization %q or the person %q: %s", c.name, what, by, org, person,
					address)
			}
		}
		res, body := r.ask("GET", "/gateway/"+c.connector+"/things/1", "", c.header...)
		var p struct {
			Detail     string `json:"detail"`
			ConnectURL string `json:"connect_url"`
			ConnectBy  string `json:"connect_by"`
		}
		testenv.Check(t, json.Unmarshal([]byte(body), &p))
		if res.StatusCode != 409 || p.Detail != c.detail {
			t.Errorf("%s: %d %s", c.name, res.StatusCode, body)
		}
		check("the answer", p.ConnectURL, p.ConnectBy)
		_, body = r.ask("GET", "/v1/grants", "", c.header...)
		var list struct {
			Grants []struct {
				Connector  string `json:"connector"`
				ConnectURL string `json:"connect_url"`
				ConnectBy  string `json:"connect_by"`
			} `json:"grants"`
		}
		testenv.Check(t, json.Unmarshal([]byte(body), &list))
		for _, g := range list.Grants {
			if g.Connector == c.connector {
				check("the list", g.ConnectURL, g.ConnectBy)
			}
		}
		if !strings.Contains(body, `"connector":"`+c.connector+`"`) {
			t.Errorf("%s: the list has no %s: %s", c.name, c.connector, body)
		}
	}
}

// Whose grant it is decides whom an app has to name, and the answer says so.
func TestWhoMustBeNamedIsSaid(t *testing.T) {
	r := newTeamRig(t)
	const as, pe = "X-Sallyport-Assertion", "X-Sallyport-Person"
	noOrg := `"No organization","status":403,"detail":"The grant is an organization's, and none is active. While ` +
		`nobody is signed in, name it: X-Sallyport-Person: org:ID."`
	homeless := of("otto")
	homeless.Org = identity.Org{}
	for _, c := range []struct {
		name, connector string
		header          []string
		want            string
	}{
		{"somebody without an organization", "team", []string{as, r.assertionOf(homeless, "planner")}, noOrg},
		{"a person is named", "team", []string{as, "", pe, "google:mia"}, noOrg},
		{"an organization is named", "own", []string{as, "", pe, "org:google:acme"}, `"No person","status":403,` +
			`"detail":"The grant is a person's, and an organization is named. Name the person: X-Sallyport-Person: ` +
			`PROVIDER:SUBJECT."`},
		{"who may not use it", "team", []string{as, r.assertionOf(of("sam", "suspended"), "planner")},
			`"Not theirs to use","status":403,"detail":"The person may not use the grant of the organization."`},
	} {
		res, body := r.ask("GET", "/gateway/"+c.connector+"/things/1", "", c.header...)
		want := `{"type":"` + problems + `not-allowed","title":` + c.want + `,"request_id":"` +
			res.Header.Get("X-Request-Id") + "\"}\n"
		if res.StatusCode != 403 || body != want {
			t.Errorf("%s: %d\n%s\nand not\n%s", c.name, res.StatusCode, body, want)
		}
	}
}
