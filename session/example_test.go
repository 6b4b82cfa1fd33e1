package session_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/session"
)

// A session begins after a sign-in, travels as a sealed cookie, and is read from
// the next request's Cookie header. Once it has ended, the cookie is worth nothing.
func ExampleManager() {
	now := time.Date(2026, 1, 5, 9, 0, 0, 0, time.UTC)
	keys, err := session.NewKeyring([]session.Key{session.NewKey(now)})
	if err != nil {
		fmt.Println(err)
		return
	}
	manager, err := session.New(session.Options{
		Keys: keys, Secure: true, AbsoluteTimeout: 12 * time.Hour, IdleTimeout: time.Hour,
		Now: func() time.Time { return now },
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	begun := manager.Start(identity.Identity{Provider: "corp", Subject: "ann"})
	answer := httptest.NewRecorder()
	if err := manager.Write(answer, "app.example", begun); err != nil {
		fmt.Println(err)
		return
	}
	cookie, _, _ := strings.Cut(answer.Header().Get("Set-Cookie"), ";")

	read, err := manager.Read(cookie, "app.example")
	fmt.Println(read.Identity.ID(), "until", read.Expires.Format(time.TimeOnly), err)

	_, err = manager.Read(cookie, "other.example")
	fmt.Println("on another host:", err)

	if err := manager.EndSignIn(context.Background(), read); err != nil {
		fmt.Println(err)
		return
	}
	_, err = manager.Read(cookie, "app.example")
	fmt.Println("after signing out:", err)
	// Output:
	// corp:ann until 21:00:00 <nil>
	// on another host: the session cookie is not one of ours
	// after signing out: the session was ended
}
