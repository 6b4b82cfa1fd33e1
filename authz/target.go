package authz

import "errors"

// ErrTarget marks a request target that means different things to different
// readers, or nothing. It is answered with 400, never repaired: "fix and
// continue" is how matcher and forwarder come to disagree (CVE-2026-40912).
var ErrTarget = errors.New("ambiguous request target")

// TargetError says which rule a target broke. It is an ErrTarget. Why is for the
// log; Public and Advice are for the person, and name the key that helps, if one
// does.
type TargetError struct{ Why, Public, Advice string }

func (e *TargetError) Error() string { return ErrTarget.Error() + ": " + e.Why }

// Is makes errors.Is find ErrTarget.
func (e *TargetError) Is(target error) bool { return target == ErrTarget }

const adviceLinks = "Write the address as the links of this site do, or start again from the site's first page."

// The rules. ErrAmbiguous, which needs the routes, stands beside Lookup.
var (
	errNoPath = &TargetError{"it does not begin with a slash",
		"The request names no path on this site.", adviceLinks}
	errAuthority = &TargetError{"no host, or a user or backslash in it",
		"The request does not say clearly which site it is for.", adviceLinks}
	errHost = &TargetError{"malformed host",
		"The request does not say clearly which site it is for.",
		"Check the name in the address. If you run this site: " +
			"look at what the proxy before Sallyport sends as Host and X-Forwarded-Host."}
	errQuery = &TargetError{"a control, blank or # in its query",
		"Behind its question mark the address has a blank, a # or a sign that cannot be seen.",
		"Write a blank as %20 and # as %23."}
	errControl = &TargetError{"a control character",
		"The address has a sign in it that cannot be seen.", adviceLinks}
	errBackslash = &TargetError{"a backslash",
		"The address has a backslash, which some programs read as a slash.", "Write a slash instead."}
	errHash = &TargetError{"a #",
		"The address was sent with its part behind #, which is for the browser alone.", "Leave out # and what follows."}
	errQuestion = &TargetError{"a ?",
		"The path of the address has a question mark in it.", "Write it as %3F."}
	errEscape = &TargetError{"malformed escape",
		"The address has a % that is not followed by two digits of a hexadecimal number.",
		"Write a percent sign itself as %25."}
	errDots = &TargetError{"a dot segment",
		"A part of the address is nothing but dots, and programs differ in where that leads.",
		"Write the address out, without . and .. between its slashes."}
	errHiddenDots = &TargetError{"a dot segment behind an escaped slash", errDots.Public, errDots.Advice}
	errHidden     = &TargetError{"a control or backslash, escaped twice",
		"The address has a backslash, or a sign that cannot be seen, escaped twice.", adviceLinks}
	errLeadingSlashes = &TargetError{"it begins with two slashes",
		"The address begins with two slashes, which some programs read as the name of another site.",
		"Write one slash instead."}
	errDoubled = &TargetError{"two slashes in a row",
		"The address has two slashes in a row, and programs differ in whether they are one.",
		"Write one slash instead. If you run this site and the app needs both: " +
			"`doubled_slashes: forward` on its route lets them pass."}
	errEncoded = &TargetError{"an escaped /, %, #, ? or ;",
		"The address has an escaped /, %, #, ? or ;, which some programs read as the sign itself.",
		"If you run this site and the app needs it: `encoded: forward` on its route lets it pass."}
	errNotUTF8 = &TargetError{"its path is not UTF-8",
		"The address has letters that are not written in UTF-8.",
		"Open the page by a link of this site. If you run this site and the app needs such addresses: " +
			"`encoded: forward` on its route lets them pass."}
	errOverlong = &TargetError{"an ASCII character in an overlong form of UTF-8",
		"The address has a letter in a form of UTF-8 that is forbidden.", adviceLinks} // RFC 3629 §10
)
