package config

import (
	"slices"
	"strings"
)

// foreign are keys of other proxies that people bring along, with what stands
// for them here. A name that is a key here too, only elsewhere, is not listed.
// oauth2-proxy, Authelia, Pomerium, Vouch, Traefik and nginx write them with
// "-", "_" or in one word; all count.
var foreign = map[string]string{
	"issuerurl":                        "issuer",
	"oidcissuerurl":                    "providers[].issuer",
	"idpproviderurl":                   "providers[].issuer",
	"idpclientid":                      "providers[].client_id",
	"idpclientsecret":                  "providers[].client_secret",
	"idpprovider":                      "providers[].type",
	"provider":                         "providers",
	"providerdisplayname":              "providers[].name",
	"clientsecretfile":                 "client_secret: file:/path",
	"redirecturl":                      "public_url, from which each provider's redirect URI is made (`sallyport check` prints them)",
	"redirecturi":                      "public_url, from which each provider's redirect URI is made (`sallyport check` prints them)",
	"callbackurl":                      "public_url, from which each provider's redirect URI is made (`sallyport check` prints them)",
	"externalurl":                      "public_url",
	"authenticateserviceurl":           "public_url",
	"cookiesecret":                     "session.keys, which `sallyport genkey` makes",
	"cookiesecretfile":                 "session.keys, which `sallyport genkey` makes",
	"sharedsecret":                     "session.keys, which `sallyport genkey` makes",
	"jwtsecret":                        "session.keys, which `sallyport genkey` makes",
	"signingkey":                       "session.keys, from which the key of the assertion is made too",
	"cookieexpire":                     "session.absolute_timeout",
	"cookierefresh":                    "session.idle_timeout",
	"cookiedomains":                    "nothing: cookies belong to the host of public_url alone",
	"cookiedomain":                     "nothing: cookies belong to the host of public_url alone",
	"cookiesecure":                     "nothing: cookies are secure where public_url is https",
	"upstreams":                        "routes, each with a path and an upstream",
	"to":                               "upstream",
	"from":                             "host",
	"backend":                          "upstream",
	"policy":                           "allow",
	"rules":                            "allow",
	"allowedgroups":                    "routes[].allow: [{groups: [...]}]",
	"allowedgroup":                     "routes[].allow: [{groups: [...]}]",
	"allowedusers":                     "routes[].allow: [{emails: [...]}]",
	"alloweddomains":                   "routes[].allow: [{email_domains: [...]}]",
	"authenticatedemailsfile":          "routes[].allow: [{emails: [...]}]",
	"allowpublicunauthenticatedaccess": "public: true",
	"allowanyauthenticateduser":        "allow: authenticated",
	"skipauthroutes":                   "routes with `public: true`",
	"skipauthregex":                    "routes with `public: true`",
	"skipjwtbearertokens":              "routes[].bearer",
	"oidcgroupsclaim":                  "providers[].claims.groups",
	"groupsclaim":                      "providers[].claims.groups",
	"oidcemailclaim":                   "providers[].claims.email",
	"emailclaim":                       "providers[].claims.email",
	"scope":                            "providers[].scopes",
	"oidcscopes":                       "providers[].scopes",
	"passauthorizationheader":          "nothing: a provider's tokens are thrown away; apps get headers and a signed assertion",
	"passaccesstoken":                  "nothing: a provider's tokens are thrown away; apps get headers and a signed assertion",
	"setauthorizationheader":           "nothing: a provider's tokens are thrown away; apps get headers and a signed assertion",
	"passuserheaders":                  "routes[].headers",
	"setxauthrequest":                  "routes[].headers: {preset: auth-request}",
	"passidentityheaders":              "routes[].headers",
	"reverseproxy":                     "trusted_proxies, by address",
	"trustedips":                       "trusted_proxies, which are proxies; addresses let nobody in without signing in",
	"httpaddress":                      "listen.http",
	"httpsaddress":                     "listen.https.address",
	"address":                          "listen",
	"metricsaddress":                   "listen.admin",
	"tls":                              "listen.https, with address, cert and key",
	"tlscertfile":                      "listen.https.cert",
	"tlskeyfile":                       "listen.https.key",
	"certificatefile":                  "listen.https.cert",
	"certificatekeyfile":               "listen.https.key",
	"proxyprefix":                      "prefix",
	"whitelistdomains":                 "nothing: after signing in people come back to public_url alone",
	"proxywebsockets":                  "websocket",
	"allowwebsockets":                  "websocket",
	"sslinsecureskipverify":            "nothing skips the verification of certificates; upstream.ca names an authority of your own",
	"tlsskipverify":                    "nothing skips the verification of certificates; upstream.ca names an authority of your own",
	"sslupstreaminsecureskipverify":    "nothing skips the verification of certificates; upstream.ca names an authority of your own",
	"insecureskipverify":               "nothing skips the verification of certificates; upstream.ca names an authority of your own",
	"loglevel":                         "log.level",
	"logging":                          "log",
	"codechallengemethod":              "nothing: PKCE is always used",
	"jwksurl":                          "providers[].endpoints.jwks",
	"oidcjwksurl":                      "providers[].endpoints.jwks",
	"loginurl":                         "providers[].endpoints.authorization",
	"redeemurl":                        "providers[].endpoints.token",
	"profileurl":                       "providers[].endpoints.userinfo",
	"tokenurl":                         "providers[].endpoints.token",
	"authurl":                          "providers[].endpoints.authorization",
	"userinfourl":                      "providers[].endpoints.userinfo",
}

// unknownField says where a key that is not known here belongs. meant is the key
// beside it of which it is a slip, if there is one.
func (w *walker) unknownField(at place, meant string) (advice, suggestion string) {
	name := at.node.Value
	if meant != "" {
		return "", meant
	}
	if here := foreign[oneWord(name)]; here != "" {
		if _, beside := cutLast(at.path); slices.ContainsFunc(w.keys, func(k Key) bool { return anyIndex(beside+here) == k.Path }) {
			return "", here
		}
		return "; what you want is " + here, ""
	}
	var elsewhere []string
	for _, k := range w.keys {
		if k.name() == name && len(elsewhere) < 3 {
			elsewhere = append(elsewhere, k.Path)
		}
	}
	if elsewhere != nil {
		return "; it belongs at " + orList(elsewhere), ""
	}
	return "", ""
}

// oneWord is a key without what divides its words.
func oneWord(name string) string {
	return strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(name))
}

// cutLast divides a path before its last key: "routes[0]." and "pth".
func cutLast(path string) (last, before string) {
	i := strings.LastIndexByte(path, '.')
	return path[i+1:], path[:i+1]
}
