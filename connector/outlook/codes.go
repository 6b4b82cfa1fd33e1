package outlook

import (
	"net/url"
	"strings"

	"github.com/sallyport-proxy/sallyport/connector"
	"github.com/sallyport-proxy/sallyport/grant"
)

// The reasons of a grant.Error that only Microsoft has.
const (
	NotApproved = "not_approved"  // nobody who may do that has agreed to what is asked for
	AdminPolicy = "admin_policy"  // a policy of the tenant, or who may use the application there
	SignInAgain = "sign_in_again" // the tenant wants the person to prove again who they are
)

// codes are Microsoft's own. The numbers are those of error_codes in answers of the token
// endpoint, and of the AADSTS in front of a description:
// https://learn.microsoft.com/entra/identity-platform/reference-error-codes. That page says
// that they may change; one that is not here means what the error beside it does, as the
// standard has it.
func codes() connector.Codes {
	codes := connector.Codes{
		"invalid_resource": {Class: grant.Ours, Reason: connector.RequestRefused},
	}
	for _, of := range []struct {
		connector.Meaning
		numbers string
	}{
		{connector.Meaning{Class: grant.Yours, Reason: connector.GrantRefused},
			// revoked, or the password was changed; invalid; expired; not used for too long; the
			// same of a single-page application; a code that was redeemed
			"50173 70000 70008 700082 700084 54005"},
		{connector.Meaning{Class: grant.Yours, Reason: SignInAgain},
			// the password has expired; nobody is signed in; a second factor is to be set up, or
			// shown; it has expired; sign in at a social provider; expired; a known device;
			// the password was changed; the same; another proof; a device that is managed, and how;
			// as often as the tenant wants it; anything else that needs the person
			"50055 50058 50072 50074 50076 50078 50079 50085 50089 50097 50132 50133 50144 50158 " +
				"53000 53001 53002 70043 700020"},
		{connector.Meaning{Class: grant.Yours, Reason: connector.Denied}, "65004"}, // the person said no
		{connector.Meaning{Class: grant.AdminTheir, Reason: NotApproved},
			// neither the person nor an administrator has agreed; the least that is needed; an
			// administrator has to agree; the same, and they can be asked there
			"65001 90008 90094 90095"},
		{connector.Meaning{Class: grant.AdminTheir, Reason: AdminPolicy},
			// the account is disabled; it is not assigned to the application; the tenants do not
			// let their people into each other, out and in; conditional access; a policy; security
			// defaults
			"50057 50105 500212 500213 53003 530032 530035"},
		{connector.Meaning{Class: grant.Ours, Reason: connector.ClientRefused},
			// disabled; not in the directory; the secret is wrong; there is to be none; the
			// application is not in the tenant; disabled; the secret is wrong; missing; expired
			"70001 700011 70002 700025 700016 7000112 7000215 7000218 7000222"},
		{connector.Meaning{Class: grant.Ours, Reason: connector.RequestRefused},
			// scopes, three times; the redirect URI; one tenant only; what the application may ask
			// for, twice; the redirect URI; the scope; of other tenants; of several APIs; of none; no
			// such tenant; organizations only, twice; organizations only
			"28002 28003 50011 50194 65005 650057 70004 70011 700005 700022 700023 90002 90124 90130 9002332"},
		{connector.Meaning{Class: grant.Later, Reason: connector.Busy},
			// Microsoft's words: retryable; the same, of a second factor; too much of the same; of
			// personal accounts; unavailable; too slow; transient; unavailable; too much; unavailable
			"50033 50087 50196 70012 90006 90012 90024 90033 90055 90090 90091"},
	} {
		for number := range strings.FieldsSeq(of.numbers) {
			codes[number] = of.Meaning
		}
	}
	return codes
}

// refused is the error of a callback with an error. There the number is nowhere but in front
// of the description; the rest of that text is not read.
func refused(callback url.Values) *grant.Error {
	if number := numberOf(callback.Get("error_description")); number != "" {
		if _, known := codes()[number]; known {
			return codes().Refused(number)
		}
	}
	return codes().Refused(callback.Get("error"))
}

// numberOf reads "90094" from "AADSTS90094: …", and "" from anything else.
func numberOf(description string) string {
	rest, ok := strings.CutPrefix(description, "AADSTS")
	number, _, found := strings.Cut(rest, ":")
	if !ok || !found || number == "" || len(number) > 9 || strings.Trim(number, "0123456789") != "" {
		return ""
	}
	return number
}
