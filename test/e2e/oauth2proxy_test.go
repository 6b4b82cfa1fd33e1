package e2e

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// oauth2Guide is the page whose configurations these tests run, with other addresses.
const oauth2Guide = "../../docs/fronts/oauth2-proxy.md"

// The line by which nginx tells which address is asked for, and what set-ups have in its
// place: oauth2-proxy's documentation from before, and what ingress-nginx writes.
const (
	forwardedURI = "proxy_set_header X-Forwarded-Uri $request_uri;"
	originalURI  = "proxy_set_header X-Original-URI $request_uri; proxy_set_header X-Scheme $scheme;"
	originalURL  = "proxy_set_header X-Original-URL $scheme://$http_host$request_uri; " +
		"proxy_set_header X-Original-Method $request_method; proxy_set_header X-Forwarded-Proto \"\"; " +
		"proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Auth-Request-Redirect $request_uri;"
)

// behindOAuth2Nginx is a site whose front is an nginx that was set up for oauth2-proxy, as
// the guide says. It tells which address is asked for by line; edit are further changes.
func behindOAuth2Nginx(t *testing.T, line string, edit ...string) *corp {
	t.Helper()
	need(t, nginxProgram)
	cert := need(t, world.cert)
	return behindFront(t, oauth2Guide, func(t *testing.T, at addresses) *process {
		block := guideBlock(t, oauth2Guide, "nginx", append(edit, "listen 443 ssl;", "listen "+at.front+" ssl;",
			"app.example.com", publicHost, "wiki.example.com", otherSite, "/etc/ssl/app.crt", cert.certFile,
			"/etc/ssl/app.key", cert.keyFile, "127.0.0.1:4180", at.public, "127.0.0.1:4182", at.asked,
			"127.0.0.1:8080", at.app, forwardedURI, line)...)
		return startNginx(t, at.dir, block)
	})
}

// A browser signs in through an nginx that was set up for oauth2-proxy, comes back to the
// page with its whole query, and signs out.
func TestABrowserSignsInThroughASetUpMadeForOAuth2Proxy(t *testing.T) {
	t.Parallel()
	c := behindOAuth2Nginx(t, forwardedURI)
	b := newPerson(t)
	deep := c.url + "/deep/page?week=47&by=%C3%A4&u=https://x.test/?a=b"
	b.says(b.signInAtProvider(deep, "mira"), "You asked for /deep/page?week=47&by=%C3%A4&u=https://x.test/?a=b")
	b.open(c.url + "/headers")
	b.says(b.at(c.url+"/headers"), `"X-Email":["mira@corp.example"]`, `"X-User":["mira"]`)
	wiki := "https://" + otherSite + portOf(c.url) // which is handed the session
	b.open(wiki + "/deep?a=1&b=2")
	b.says(b.at(wiki+"/deep?a=1&b=2"), "You asked for /deep?a=1&b=2")
	b.open(c.url + "/oauth2/start?rd=" + url.QueryEscape(wiki+"/headers"))
	b.says(b.at(wiki+"/headers"), `"X-User":["mira"]`)
	b.open(c.url + "/oauth2/userinfo")
	b.says(b.at(c.url+"/.sallyport/session"), "mira@corp.example")
	b.open(c.url + "/oauth2/start?rd=%2Fdeep%3Fa%3D1")
	b.at(c.url + "/deep?a=1")
	b.open(c.url + "/oauth2/sign_out?rd=/x")
	b.heading("Do you want to sign out?")
	b.press("Sign out")
	b.heading("You are signed out")
	b.forget(c.provider.Issuer)
	b.open(c.url + "/headers")
	b.heading(atProvider)
}

// What a client writes itself never reaches the app as a word of Sallyport's, whichever
// header the set-up tells the address by; and no client has another address judged.
func TestASetUpMadeForOAuth2ProxyPassesOnWhatSallyportSays(t *testing.T) {
	t.Parallel()
	for name, line := range map[string]string{"documented": forwardedURI, "documented before": originalURI,
		"ingress": originalURL} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := behindOAuth2Nginx(t, line)
			cookie := c.signIn(t, "mira")
			get := func(target string, lines ...string) string { return c.writes("GET", target, lines...) }
			for _, alias := range []string{"X-User", "X-Email", "X_User", "X.User", "X-Auth-Request-User", "GAP-Auth",
				"X.Auth.Request.User", "X.Sallyport.Assertion"} {
				resp, told := c.raw(t, get("/headers", alias+": evil", "Cookie: a=1; "+cookie))
				evil := told.Get("X-User")+told.Get("X-Email")+told.Get("X_user")+told.Get("X.user") !=
					"miramira@corp.example"
				if resp.StatusCode != 200 || evil || strings.Contains(strings.Join(told["Cookie"], ""), c.cookie) {
					t.Errorf("%s: %s, the app was told %v", alias, resp.Status, told)
				}
			}
			overwritten := 403 // X-Original-URL, by nginx: then it is the page's own
			if name == "ingress" {
				overwritten = 302
			}
			page := []string{"Accept: text/html", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}
			for request, status := range map[string]int{
				get("/headers", page...):                     302,
				get("/headers", "Cookie: "+cookie):           200,
				get("/admin", "Cookie: "+cookie):             403,
				get("/open/x"):                               200,
				get("/open/../admin", "Cookie: "+cookie):     403,
				get("/open/%2e%2e/admin", "Cookie: "+cookie): 403,
				get("/headers",
					"X-Original-URL: "+c.url+"/open"): overwritten,
				get("/admin", "Cookie: "+cookie, "X-Forwarded-Uri: /open/x"):                             403,
				get("/admin", "Cookie: "+cookie, "X-Original-URI: /open/x"):                              403,
				get("/admin", "Cookie: "+cookie, "X-Original-URL: "+c.url+"/open/x"):                     403,
				get("/admin", "Cookie: "+cookie, "X-Forwarded-Host: x.test"):                             403,
				get("/oauth2/auth", "Cookie: "+cookie):                                                   404,
				get("/oauth2/auth", "Cookie: "+cookie, "X-Original-URL: "+c.url+"/"):                     404,
				get("/oauth2/static/x.css"):                                                              404,
				get("/headers", "Cookie: "+cookie+"; big="+strings.Repeat("a", 7000)):                    200,
				strings.Replace(get("/headers", "Content-Length: 5")+"abcde", "GET", "POST", 1):          302,
				strings.Replace(get("/x", "Cookie: "+cookie, "Content-Length: 1")+"a", "GET", "POST", 1): 200,
			} {
				if resp, _ := c.raw(t, request); resp.StatusCode != status {
					t.Errorf("%q: %s, want %d", request[:min(len(request), 200)], resp.Status, status)
				}
			}
			for target, want := range map[string]string{
				"/oauth2/sign_in?rd=http://" + publicHost + "/x?a=1&b": "/.sallyport/renew?return_to=%2Fx%3Fa%3D1%26b",
				"/oauth2/start?rd=%2Fx":                                "/.sallyport/renew?return_to=%2Fx",
				"/oauth2/start?rd=https://evil.example/":               "/.sallyport/renew",
				"/oauth2/sign_in":                                      "/.sallyport/renew",
			} {
				resp, _ := c.raw(t, get(target))
				if to := resp.Header.Get("Location"); resp.StatusCode != http.StatusFound || to != c.url+want ||
					resp.Header.Get("Set-Cookie") != "" {
					t.Errorf("%s: %s %s", target, resp.Status, to)
				}
			}
		})
	}
}

// A WebSocket passes for somebody who is signed in, from a page of the site itself.
func TestASetUpMadeForOAuth2ProxyPassesWebSocketsOfItsOwnPagesOnly(t *testing.T) {
	t.Parallel()
	c := behindOAuth2Nginx(t, forwardedURI)
	cookie := c.signIn(t, "mira")
	for origin, status := range map[string]int{c.url: 200, "https://evil.example": 403} {
		resp, _ := c.raw(t, c.writesUpgrade("/headers", "Cookie: "+cookie, "Origin: "+origin))
		if resp.StatusCode != status {
			t.Errorf("%s: %s, want %d", origin, resp.Status, status)
		}
	}
}
