package e2e

import "testing"

// A service worker that passes every request on makes browsers say something
// else of a page: people must still be able to sign in, out and in again.
func TestPeopleSignInThroughAServiceWorker(t *testing.T) {
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	c := ownCorp(t, overHTTP(address)) // the worker stays with the site
	b := newPerson(t)
	b.signInAtProvider(c.url+"/first", "mira")
	eval[bool](b, `navigator.serviceWorker.register('/sw.js').then(() => navigator.serviceWorker.ready).then(() => true)`)
	b.until("the worker to take over",
		func() bool { return eval[bool](b, `navigator.serviceWorker.controller !== null`) })

	b.open(c.url + "/.sallyport/account")
	b.heading("Your account")
	b.press("Sign out") // a form through the worker
	b.heading("You are signed out")
	b.forget(c.provider.Issuer) // or she would be signed in again, without a word

	b.signInAtProvider(c.url+"/deep?a=1", "mira")
	b.says(b.at(c.url+"/deep?a=1"), "You asked for /deep?a=1", "User: corp:mira")
	if !eval[bool](b, `navigator.serviceWorker.controller !== null`) {
		t.Error("the page did not come through the worker")
	}

	b.forget(c.url)
	eval[bool](b, `(document.body.insertAdjacentHTML('beforeend', '<form method=post action=/save><input name=a><button id=save>Save</button></form>'), true)`)
	b.click("#save")
	b.heading("You were signed out; your form was not sent")
}
