// Package useragent says in words which browser a User-Agent header is of, such as
// "Firefox on Linux", so that people recognize their own sessions in a list.
//
// Its words are a closed list: nothing of the header itself is ever returned, however
// it was made. What it says is a help for the eye and no ground for a decision, since
// a header says whatever its sender likes. It knows no sessions: session.Entry keeps
// the words, and the front door asks for them.
package useragent

import "strings"

// Unknown is what Words says of a header that it does not recognize at all.
const Unknown = "an unknown browser"

// seen bounds how much of a header is looked at.
const seen = 512

// browsers in the order in which they are looked for: most also claim to be another
// one, which comes after them.
var browsers = [...]struct{ token, name string }{
	{"EdgiOS/", "Edge"}, {"EdgA/", "Edge"}, {"Edg/", "Edge"}, {"Edge/", "Edge"},
	{"OPR/", "Opera"}, {"OPT/", "Opera"}, {"OPiOS/", "Opera"},
	{"SamsungBrowser/", "Samsung Internet"}, {"Vivaldi/", "Vivaldi"}, {"YaBrowser/", "Yandex Browser"},
	{"DuckDuckGo/", "DuckDuckGo"}, {"Ddg/", "DuckDuckGo"},
	{"FxiOS/", "Firefox"}, {"Focus/", "Firefox Focus"}, {"SeaMonkey/", "SeaMonkey"}, {"Firefox/", "Firefox"},
	{"CriOS/", "Chrome"}, {"HeadlessChrome/", "Chrome"}, {"Chrome/", "Chrome"}, {"Chromium/", "Chromium"},
	{"Epiphany/", "GNOME Web"}, {"Trident/", "Internet Explorer"}, {"MSIE ", "Internet Explorer"},
	{"AppleWebKit/", "Safari"},
}

// systems, in the same way. An iPad says that it is a Macintosh, unless it is asked
// to show pages for phones.
var systems = [...]struct{ token, name string }{
	{"Android", "Android"}, {"iPhone", "iPhone"}, {"iPad", "iPad"}, {"iPod", "iPhone"},
	{"Windows", "Windows"}, {"CrOS", "ChromeOS"}, {"Macintosh", "macOS"},
	{"FreeBSD", "FreeBSD"}, {"OpenBSD", "OpenBSD"}, {"NetBSD", "NetBSD"}, {"Linux", "Linux"}, {"X11", "Unix"},
}

// Words returns which browser runs where, as far as header says so.
func Words(header string) string {
	if len(header) > seen {
		header = header[:seen]
	}
	browser, system := "", ""
	for _, b := range browsers {
		if strings.Contains(header, b.token) {
			browser = b.name
			break
		}
	}
	for _, s := range systems {
		if strings.Contains(header, s.token) {
			system = s.name
			break
		}
	}
	switch {
	case browser == "" && system == "":
		return Unknown
	case browser == "":
		return Unknown + " on " + system
	case system == "":
		return browser
	}
	return browser + " on " + system
}
