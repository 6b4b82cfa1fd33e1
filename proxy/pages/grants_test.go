package pages

import "time"

// grantSamples are the pages about what people lend, by golden file name.
func grantSamples(now time.Time) map[string]Page {
	const post = "/.sallyport/connect/calendar?app=board&return_to=%2Fbusy"
	busy := []string{"see when you are busy, and nothing of what for"}
	scopes := []string{"https://www.googleapis.com/auth/calendar.freebusy"}
	google := []string{"https://accounts.google.com"}
	account := func(g Grants) Account {
		return Account{Name: "Ada Lovelace", UserID: "google:1", Provider: "Google", Now: now,
			ExpiresAt: now.Add(11 * time.Hour), IdleExpiresAt: now.Add(time.Hour),
			LogoutURL: "/.sallyport/logout", BackURL: "/", Grants: g}
	}
	return map[string]Page{
		"connect": {Template: "connect", FormAction: google, Data: Connect{Person: "Ada Lovelace", App: "Busy Board",
			Connector: "Google Calendar", May: busy, Scopes: scopes, Trip: true, OfflinePossible: true,
			Days: []int{7, 30, 90}, DefaultDays: 30, PostURL: post, Form: "c2VjcmV0"}},
		"connect_agree": {Template: "connect", FormAction: google, Data: Connect{Person: "Ada Lovelace",
			App: "Busy Board", Connector: "Google Calendar", May: busy, Scopes: scopes, Account: "ada@acme.com",
			OfflinePossible: true, OfflineNow: true, Days: []int{7, 30, 90}, DefaultDays: 30, PostURL: post,
			Form: "c2VjcmV0"}},
		"connect_key": {Template: "connect", Data: Connect{Person: "Ada Lovelace", App: "Pager Wall",
			Connector: "PagerDuty", Org: "Acme Rockets", May: []string{"see who is on call", "see open incidents"},
			Trip: true, Events: true, Key: &KeyField{Hint: "a read-only key of your PagerDuty account",
				URL: "https://acme.pagerduty.com/api_keys"}, PostURL: post, Form: "c2VjcmV0"}},
		"connect_org": {Template: "connect", FormAction: google, Data: Connect{Person: "Ada Lovelace", App: "Pager Wall",
			Connector: "Slack", Org: "Acme Rockets", OfSome: true, May: []string{"write messages as the bot"},
			Scopes: []string{"chat:write"}, Trip: true, Events: true, OfflinePossible: true, Days: []int{7, 30, 90},
			DefaultDays: 30, PostURL: post, Form: "c2VjcmV0"}},
		"connect_password": {Template: "connect", Data: Connect{Person: "Ada Lovelace", App: "Busy Board",
			Connector: "Team calendar", May: []string{"read all calendars of the account"}, Trip: true,
			Key: &KeyField{User: "the user name or the e-mail address of the account",
				Hint: "an app password, made for this alone"}, PostURL: post, Form: "c2VjcmV0"}},
		"connect_other": {Status: 409, Template: "connect", FormAction: google, Data: Connect{Person: "Ada Lovelace",
			App: "Busy Board", Connector: "Google Calendar", May: busy, Scopes: scopes, Account: "ada@acme.com",
			Trip: true, PostURL: post, Form: "c2VjcmV0", Notice: &Notice{Title: "This is another account",
				Text:    "Until now the account ada@acme.com is connected, and now you chose ada@home.example.",
				Confirm: true}}},
		"connect_again": {Template: "connect", FormAction: google, Data: Connect{Person: "Ada Lovelace",
			Connector: "Google Calendar", May: busy, Scopes: scopes, Account: "ada@acme.com", Trip: true,
			PostURL: "/.sallyport/connect/calendar", Form: "c2VjcmV0"}},
		"connectapps": {Template: "connectapps", Data: ConnectApps{Connector: "Google Calendar",
			BackURL: "/.sallyport/account#grants", Apps: []ConnectApp{
				{"Busy Board", "/.sallyport/connect/calendar?app=board"},
				{"Pager Wall", "/.sallyport/connect/calendar?app=wall"}}}},
		"disconnected": {Template: "disconnected", Data: Disconnected{Connector: "Google Calendar", Revoked: true,
			BackURL: "/.sallyport/account#grants"}},
		"disconnected_here": {Template: "disconnected", Data: Disconnected{Connector: "PagerDuty",
			FinishURL: "https://acme.pagerduty.com/api_keys", BackURL: "/.sallyport/account#grants"}},
		"disconnected_nowhere": {Template: "disconnected", Data: Disconnected{Connector: "Status page",
			BackURL: "/.sallyport/account#grants"}},
		"disconnected_failed": {Template: "disconnected", Data: Disconnected{Connector: "Google Calendar", Failed: true,
			FinishURL: "https://myaccount.google.com/connections", BackURL: "/.sallyport/account#grants"}},
		"disconnected_shared": {Template: "disconnected", Data: Disconnected{Connector: "Google Calendar", Shared: true,
			FinishURL: "https://myaccount.google.com/connections", BackURL: "/.sallyport/account#grants"}},
		"account_grants_unknown": {Template: "account", Data: account(Grants{Shown: true, Unknown: true})},
		"account_grants": {Template: "account", Data: account(Grants{Shown: true, List: []Grant{
			{Name: "Google Calendar", Account: "ada@acme.com", Connected: true, Status: "It works.",
				Requested: scopes, Granted: append(scopes, "openid"), Excess: []string{"openid"},
				ConnectedBy: "you", ConnectedAt: now.Add(-9 * 24 * time.Hour),
				Reconsent: now.Add(20 * 24 * time.Hour), MayManage: true,
				ConnectURL: "/.sallyport/connect/calendar", EndURL: "/.sallyport/disconnect/calendar",
				Apps: []GrantApp{
					{ID: "board", Name: "Busy Board", Agreed: true, May: busy, Offline: true,
						Until: now.Add(21 * 24 * time.Hour), UsedAt: now.Add(-5 * time.Minute)},
					{ID: "wall", Name: "Pager Wall", Agreed: true},
					{ID: "notes", Name: "Notes", ConnectURL: "/.sallyport/connect/calendar?app=notes"}}},
			{Name: "PagerDuty", Org: "Acme Rockets", Account: "acme", Connected: true,
				Status:      "PagerDuty does not accept it any more.",
				Next:        "Ask an administrator of your organization to connect it.",
				ConnectedBy: "google:7", ConnectedAt: now.Add(-90 * 24 * time.Hour),
				Apps: []GrantApp{{ID: "wall", Name: "Pager Wall", Agreed: true,
					May: []string{"see who is on call", "see open incidents"}}}},
			{Name: "Outlook Calendar", Account: "ada@acme.com", Connected: true, MayManage: true,
				Status: "An administrator of the account at Outlook Calendar has to agree to it.",
				Next:   "Ask them, and then connect it again.", ApproveURL: "https://login.microsoftonline.com/x?a=b&c",
				ConnectedBy: "you", ConnectedAt: now.Add(-time.Hour),
				ConnectURL: "/.sallyport/connect/outlook", EndURL: "/.sallyport/disconnect/outlook"},
			{Name: "Slack", Status: "It is not connected.", MayManage: true,
				ConnectURL: "/.sallyport/connect/slack", Apps: []GrantApp{{ID: "notes", Name: "Notes",
					ConnectURL: "/.sallyport/connect/slack?app=notes"}}},
		}})},
	}
}
