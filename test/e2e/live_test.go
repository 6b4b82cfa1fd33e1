package e2e

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// soon is how late a person may see what an app has sent: before it sends more, with
// something to spare for a browser on a busy machine.
const (
	soon  = 800  // ms
	apart = 1000 // ms between two events
)

// The page notes when each event arrives; the event says when it was sent. Both
// are clocks of one machine, which nothing else uses meanwhile. The first event
// comes some time after the header, which must not wait for it.
func TestEventsReachABrowserAtOnce(t *testing.T) {
	for _, way := range []struct {
		name, kind string
		front      func(*testing.T) *corp
	}{{"TLS to http", "http", theFront}, {"TLS to h2c", "h2c", theFront}, {"plain to https", "https", thePlainFront}} {
		t.Run(way.name, func(t *testing.T) {
			b := newPerson(t)
			b.signInAtProvider(way.front(t).url+"/"+way.kind+"/", "mira")
			// Another try is for a machine that was busy with something else; what
			// holds events back does so every time.
			var late []string
			for range 3 {
				problem := watchEvents(t, b, way.kind)
				if problem == "" {
					return
				}
				late = append(late, problem)
			}
			t.Error(strings.Join(late, "\n"))
		})
	}
}

// watchEvents returns what is wrong with how events arrive, or "".
func watchEvents(t *testing.T, b *tab, kind string) string {
	t.Helper()
	raw := eval[string](b, fmt.Sprintf(`new Promise((done) => {
		const late = [], begun = Date.now(), source = new EventSource('/%s/events?n=12&every=%dms');
		let opened = 0;
		const end = (error) => { source.close(); done(JSON.stringify({late, opened, error})); };
		source.onopen = () => { opened = Date.now() - begun; };
		source.onmessage = (e) => { late.push(Date.now() - Number(e.data)); if (late.length === 6) end(''); };
		source.onerror = () => end('error');
	})`, kind, apart))
	var got struct {
		Late   []int
		Opened int
		Error  string
	}
	if err := json.Unmarshal([]byte(raw), &got); err != nil {
		t.Fatal(err)
	}
	t.Logf("open after %d ms, events late by %v ms", got.Opened, got.Late)
	if got.Error != "" || len(got.Late) != 6 || got.Opened >= apart || slices.Max(got.Late) > soon {
		return raw
	}
	return ""
}

const openSocket = `new Promise((done) => {
	const ws = new WebSocket(%q);
	ws.onopen = () => ws.send('who');
	ws.onmessage = (e) => { ws.close(4000, 'enough'); ws.onclose = (c) => done('got ' + e.data + ' ' + c.code + ' ' + c.reason + ' ' + c.wasClean); };
	ws.onerror = () => done('refused');
})`

var originRefused = regexp.MustCompile(`path=/ws-http status=403 .*reason=origin user=corp:mira`)

// A browser sends this site's cookies with a WebSocket of any page; only the
// Origin tells (RFC 6455 §10.2). Another port of the same host is another origin,
// and yet the same site for cookies.
func TestPagesOfOtherOriginsOpenNoWebSocket(t *testing.T) {
	t.Parallel()
	for _, front := range []func(*testing.T) *corp{theFront, thePlainFront} {
		c := front(t)
		b := newPerson(t)
		b.signInAtProvider(c.url+"/http/", "mira")
		address := strings.Replace(c.url, "http", "ws", 1) + "/ws-http"
		if got := eval[string](b, fmt.Sprintf(openSocket, address)); got != "got corp:mira 4000 enough true" {
			t.Errorf("the site's own page: %s", got)
		}
		b.open(otherOrigin(t, ""))
		b.heading("Another origin")
		if got := eval[string](b, fmt.Sprintf(openSocket, address)); got != "refused" {
			t.Errorf("a page of another origin: %s", got)
		}
		if strings.HasPrefix(c.url, "https") {
			continue
		}
		if _, err := c.process.says(originRefused); err != nil { // the browser may know before the log does
			t.Error("the log does not tell of an origin refused to Mira:", err)
		}
	}
}

// A page that reconnects whenever its WebSocket breaks off would do so for ever; one that
// reads the code knows that it must ask people to sign in.
func TestP10_APageReadsThatItsWebSocketWasClosedBySigningOut(t *testing.T) {
	t.Parallel()
	for _, front := range []func(*testing.T) *corp{theFront, thePlainFront} {
		c := front(t)
		for _, kind := range []string{"http", "https"} {
			b := newPerson(t)
			b.signInAtProvider(c.url+"/http/", "mira")
			address := strings.Replace(c.url, "http", "ws", 1) + "/ws-" + kind
			got := eval[string](b, fmt.Sprintf(`new Promise((done) => {
				const ws = new WebSocket(%q);
				ws.onopen = () => ws.send('who');
				ws.onmessage = () => fetch('/.sallyport/logout', {method: 'POST', redirect: 'manual'});
				ws.onclose = (c) => done(c.code + ' ' + c.reason + ' ' + c.wasClean);
			})`, address))
			if got != "1008 signed out true" {
				t.Errorf("%s: %s", address, got)
			}
		}
	}
}
