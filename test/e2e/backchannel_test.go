package e2e

import (
	"io"
	"net/http"
	"net/url"
	"regexp"
	"testing"
	"time"
)

var xsrf = regexp.MustCompile(`name="xsrf" value="([^"]+)"`)

// signOutAtProvider is what somebody does on the provider's own page.
func (c *corp) signOutAtProvider(t *testing.T, client *http.Client) {
	t.Helper()
	page, err := client.Get(c.provider.Issuer + "/session/end?client_id=" + c.provider.ClientID)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(page.Body)
	page.Body.Close()
	m := xsrf.FindSubmatch(body)
	if err != nil || m == nil {
		t.Fatalf("the provider's page: %s %s %v", page.Status, body, err)
	}
	done, err := client.PostForm(c.provider.Issuer+"/session/end/confirm",
		url.Values{"xsrf": {string(m[1])}, "logout": {"yes"}})
	if err != nil {
		t.Fatal(err)
	}
	done.Body.Close()
	if done.StatusCode >= 400 {
		t.Fatalf("signing out at the provider: %s", done.Status)
	}
}

// A provider that nobody here wrote tells that somebody signed out there, and only that
// session of theirs ends, at the next request.
func TestP10_SigningOutAtTheProviderEndsTheSession(t *testing.T) {
	t.Parallel()
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	s := overHTTP(address)
	s.Stored = true
	c := ownCorp(t, s)
	cookie, client := c.signInKeeping(t, "mira")
	other, tom := c.signIn(t, "mira"), c.signIn(t, "tom")
	lives := func(cookie string) bool {
		status, _ := asProgram(t, c.url+"/.sallyport/session", cookie)
		return status == http.StatusOK
	}
	if !lives(cookie) || !lives(other) || !lives(tom) {
		t.Fatal("somebody is not signed in")
	}
	c.signOutAtProvider(t, client)
	for deadline := time.Now().Add(patience); lives(cookie); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the session lives on")
		}
	}
	if !lives(other) || !lives(tom) {
		t.Errorf("the other session lives: %v, tom's: %v", lives(other), lives(tom))
	}
}
