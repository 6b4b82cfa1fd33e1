package pages

import "time"

// Connect asks somebody whether an app may use an account that they have elsewhere.
type Connect struct {
	Person         string   // who is signed in
	App, Connector string   // names; App "": it is connected again, for the apps that use it
	Org            string   // it is connected for all of this organization; "": for the person
	OfSome         bool     // apps may use it for some people of Org only
	Account        string   // that is connected now; may be empty
	May            []string // what the app may do, in words that follow "may"
	Scopes         []string // what the third party is asked for
	Trip           bool     // the browser goes there next, or a key is pasted
	Key            *KeyField
	Notice         *Notice

	Events          bool // the app gets those of the third party, whoever is there
	OfflinePossible bool
	OfflineNow      bool // it has been agreed to before
	Days            []int
	DefaultDays     int // for how many of Days offline use lasts unless somebody chooses

	PostURL, Form string // where the answer goes, and what proves that the page was shown
}

// KeyField is where a key is pasted.
type KeyField struct {
	User      string // which user name is needed with it, in words; "": none
	Hint, URL string
	Optional  bool // there is another way than a key
}

// Notice is what somebody has to know first. Confirm: to go on says yes to it.
type Notice struct {
	Title, Text string
	Confirm     bool
}

// ConnectApps is for somebody who connects something without an app that asks.
type ConnectApps struct {
	Connector string
	Apps      []ConnectApp
	BackURL   string
}

// ConnectApp is an app that may ask.
type ConnectApp struct {
	Name, URL string
}

// Disconnected says what has become of a grant that somebody ended: over at the third party
// too (Revoked), which could not be asked (Failed), or was not because other grants there
// would have ended with it (Shared), or has no way to be asked.
type Disconnected struct {
	Connector               string
	Revoked, Failed, Shared bool
	FinishURL               string // where the person can end it there; may be empty
	BackURL                 string
}

// Grants are what somebody lends to apps.
type Grants struct {
	Shown   bool // there is something to connect
	Unknown bool // which cannot be read now
	List    []Grant
}

// Grant is what is known of one connector, connected or not.
type Grant struct {
	Name, Account, Org string // Org: it is that organization's
	Connected          bool
	Status, Next       string   // what has become of it, and what to do, in words
	Requested, Granted []string // scopes
	Excess             []string // that are granted and that no app needs
	ConnectedBy        string
	ConnectedAt        time.Time
	Reconsent          time.Time // when the third party asks again whatever we do; zero: not known
	Apps               []GrantApp
	MayManage          bool
	ConnectURL, EndURL string
	ApproveURL         string // for the administrator who has to agree; may be empty
}

// GrantApp is an app that may use it, or ask for it.
type GrantApp struct {
	ID, Name   string
	Agreed     bool
	May        []string // now
	Offline    bool
	Until      time.Time
	UsedAt     time.Time
	ConnectURL string
}
