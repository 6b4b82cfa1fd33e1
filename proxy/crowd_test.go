package proxy

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// CVE-2026-33544: state shared between sign-ins gave one person another's
// account. Fifty people sign in two hundred times at once, and the provider is
// slow at random.
func TestP06_ConcurrentSignInsAreNotMixedUp(t *testing.T) {
	t.Parallel()
	var people []demo.Person
	for i := range 50 {
		people = append(people, demo.Person{Key: fmt.Sprintf("person-%d", i), Name: fmt.Sprintf("Person %d", i),
			Email: fmt.Sprintf("p%d@acme.example", i), EmailVerified: true})
	}
	s := newTestSite(t, setup{SignIn: true, People: people, Call: time.Minute})
	s.proxy.signIns.flowTime = time.Minute // a busy machine is no provider that hangs
	var faults []testenv.Fault
	for i, endpoint := range []string{testenv.Discovery, testenv.Token, testenv.JWKS, testenv.Authorize} {
		rng, mu := rand.New(rand.NewPCG(80, uint64(i))), sync.Mutex{}
		faults = append(faults, testenv.Fault{Endpoint: endpoint, Before: func(*demo.Provider) {
			mu.Lock()
			d := time.Duration(rng.IntN(3000)) * time.Microsecond
			mu.Unlock()
			time.Sleep(d) // only to mix the order; nothing depends on it
		}})
	}
	s.provider.Set(faults...)
	s.app.Respond(func(raw []byte) []byte { // tells who was announced
		return reply("", strings.Join(headerOf(raw)["x-forwarded-user"], "|"))(raw)
	})
	var crowd sync.WaitGroup
	start := make(chan struct{})
	for i := range 200 {
		crowd.Go(func() {
			<-start
			who := people[i%len(people)].Key
			b := s.browser(t)
			page := s.signIn(t, b, fmt.Sprintf("/deep/%d?x=%d", i, i), who)
			if page.URL.RequestURI() != fmt.Sprintf("/deep/%d?x=%d", i, i) || page.Body != "main:"+who {
				t.Errorf("%s ended at %s as %s", who, page.URL, page.Body)
			}
			for range 3 {
				if page := b.Open(s.url + "/again"); page.Body != "main:"+who {
					t.Errorf("%s became %s", who, page.Body)
				}
			}
		})
	}
	close(start)
	crowd.Wait()
	if s.provider.Hits(testenv.Discovery) != 1 || s.provider.Hits(testenv.Token) != 200 {
		t.Errorf("%d discoveries, %d token requests", s.provider.Hits(testenv.Discovery),
			s.provider.Hits(testenv.Token))
	}
}

// Many people at once, each through the same connections to the app: nobody gets
// another's answer.
func TestAnswersGoToWhoAsked(t *testing.T) {
	t.Parallel()
	for _, o := range []setup{{}, {TLS: true}} {
		s := newTestSite(t, o)
		s.app.Respond(func(raw []byte) []byte {
			return reply("", strings.Join(headerOf(raw)["x-forwarded-user"], "|")+" "+testenv.Target(raw))(raw)
		})
		var crowd sync.WaitGroup
		for i := range 40 {
			crowd.Go(func() {
				who := alice()
				who.Subject = fmt.Sprint("s-", i)
				cookie := s.mint(t, who)
				for n := range 15 {
					path := fmt.Sprintf("/%d/%d", i, n)
					req, err := http.NewRequest("POST", s.url+path, strings.NewReader(path))
					if err != nil {
						t.Error(err)
						return
					}
					req.Header.Set("Cookie", cookie)
					if a := s.send(t, req); a.body != "main:s-"+fmt.Sprint(i)+" "+path {
						t.Errorf("asked for %s, got %q", path, a.body)
					}
				}
			})
		}
		crowd.Wait()
	}
}
