package storetest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/store"
)

// workerEnv has the orders of a worker, in its process.
const workerEnv = "SALLYPORT_TEST_WORKER"

// orders are what a worker does: it has an app use the grants of some connectors until its
// standard input ends.
type orders struct {
	Name       string
	Address    string // of the database
	Party      string // where the third party is
	Connectors []string
	Clients    int           // that use each of them at the same time
	Pause      time.Duration // between two uses of a client; 0: 15 ms
}

// Worker is the test that is run in a process of its own by KilledProcesses and what is
// beside it. open opens the database at an address for the process of that name.
func Worker(t *testing.T, open func(address, name string) (*store.Store, error)) {
	text := os.Getenv(workerEnv)
	if text == "" {
		return // it is no test for itself
	}
	var o orders
	testenv.Check(t, json.Unmarshal([]byte(text), &o))
	s, err := open(o.Address, o.Name)
	testenv.Check(t, err)
	party := newCaller(o.Party)
	b := newBroker(t, stepping{s.Grants(), party}, party)
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // the other end is closed, or its process is gone
		stop()
	}()
	together := make(chan struct{})
	n := 0
	for _, connector := range o.Connectors {
		for range o.Clients {
			n++
			go func() {
				for ctx.Err() == nil {
					party.use(ctx, b, connector, cmp.Or(o.Pause, 15*time.Millisecond))
				}
				together <- struct{}{}
			}()
		}
	}
	for range n {
		<-together
	}
	b.Close()
	testenv.Check(t, b.Wait(context.Background()))
	testenv.Check(t, s.Close())
}

var who = identity.Identity{Provider: "corp", Subject: "ann"}

// newBroker is the broker of one process. All have the same configuration.
func newBroker(t *testing.T, s grant.Store, party *caller) *grant.Broker {
	t.Helper()
	key := grant.SealingKey{ID: "key"}
	copy(key.Secret[:], canary+"key-to-seal")
	ring, err := grant.NewKeyring([]grant.SealingKey{key})
	testenv.Check(t, err)
	o := grant.Options{Store: s, Keys: ring, Redirect: func(string) string { return "https://sallyport.test/callback" }}
	app := grant.App{ID: "app", Connectors: map[string][]string{}}
	for _, id := range connectors {
		o.Offers = append(o.Offers, grant.Offer{Connector: connector{id, party}, Owner: grant.OwnedByUser,
			Offered: []string{"read"}})
		app.Connectors[id] = []string{"read"}
	}
	o.Apps = []grant.App{app}
	b, err := grant.New(o)
	testenv.Check(t, err)
	return b
}

func keyOf(connector string) grant.Key {
	return grant.Key{Connector: connector, Owner: grant.Owner{Kind: grant.OwnedByUser, ID: who.ID()}}
}

// caller is how a process speaks with the third party, and tells the test what it does.
type caller struct {
	base          string
	client, steps *http.Client
}

// newCaller has two clients: net/http gives a connection to the next request before the last
// one is quite over, and whose context ends at that moment ends the next request too. Steps
// must not fail for what others have given up.
func newCaller(base string) *caller {
	client := func() *http.Client { return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 200}} }
	return &caller{base, client(), client()}
}

func (c *caller) post(ctx context.Context, path string, form url.Values) (status int, body []byte, err error) {
	return c.send(ctx, c.client, path, form)
}

func (c *caller) send(ctx context.Context, by *http.Client, path string, form url.Values) (status int, body []byte,
	err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer, err := by.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer answer.Body.Close()
	body, err = io.ReadAll(answer.Body)
	return answer.StatusCode, body, err
}

// step tells the test where the process is, which may hold it there.
func (c *caller) step(at point, id string, generation int64) {
	form := url.Values{"at": {string(at)}, "id": {id}, "generation": {strconv.FormatInt(generation, 10)}}
	if _, _, err := c.send(context.Background(), c.steps, "/step", form); err != nil {
		panic(err) // the test is gone, or has ended this process
	}
}

// use borrows a credential, tells how that went, and waits a while.
func (c *caller) use(ctx context.Context, b *grant.Broker, connector string, pause time.Duration) {
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	loan, err := b.Lend(limited, grant.Use{App: "app", Connector: connector, Who: grant.Party{Session: &who}})
	cancel()
	if ctx.Err() != nil {
		return
	}
	form := url.Values{"connector": {connector}, "access": {loan.Credential()}}
	if err == nil && !loan.Expires.After(began) {
		form.Set("error", fmt.Sprintf("it expired %v before it was asked for", began.Sub(loan.Expires)))
	}
	if err != nil {
		form.Set("error", err.Error())
		pause *= 2
	}
	if _, ok := errors.AsType[*grant.LaterError](err); ok {
		form.Set("later", "1")
	}
	if _, ok := errors.AsType[*grant.RequiredError](err); ok {
		form.Set("later", "1")
	}
	if errors.Is(err, context.DeadlineExceeded) { // the minute above is over
		form.Set("slow", "1")
	}
	_, _, _ = c.post(ctx, "/used", form)
	time.Sleep(pause)
}

// stepping is a store that tells before and after a refresh is held, and before its result
// is stored.
type stepping struct {
	grant.Store
	party *caller
}

func (s stepping) Lease(ctx context.Context, id string, generation int64) (grant.Lease, grant.Record, error) {
	s.party.step(toLease, id, generation)
	l, r, err := s.Store.Lease(ctx, id, generation)
	if err != nil {
		s.party.step(ended, id, generation)
	}
	return l, r, err
}

func (s stepping) Commit(ctx context.Context, l grant.Lease, r grant.Record, seal grant.Seal) (grant.Record, error) {
	s.party.step(toCommit, l.ID, l.Generation)
	r, err := s.Store.Commit(ctx, l, r, seal)
	if err == nil {
		s.party.step(ended, l.ID, l.Generation)
	}
	return r, err
}

func (s stepping) Late(ctx context.Context, l grant.Lease, r grant.Record, seal grant.Seal) (grant.Record, error) {
	r, err := s.Store.Late(ctx, l, r, seal)
	if err == nil || over(err) {
		s.party.step(ended, l.ID, l.Generation)
	}
	return r, err
}

func (s stepping) Abandon(ctx context.Context, l grant.Lease, known bool, status grant.Status, reason string,
	retryAt time.Time) error {
	err := s.Store.Abandon(ctx, l, known, status, reason, retryAt)
	if err == nil || over(err) {
		s.party.step(ended, l.ID, l.Generation)
	}
	return err
}

// over reports whether err says that a lease is over.
func over(err error) bool {
	return errors.Is(err, grant.ErrFenced) || errors.Is(err, grant.ErrNotFound) || errors.Is(err, grant.ErrRolledBack)
}

// connector asks the third party of the test.
type connector struct {
	id    string
	party *caller
}

func (c connector) About() grant.About {
	rule, err := grant.ParseRule("GET /things")
	if err != nil {
		panic(err)
	}
	return grant.About{ID: c.id, Name: c.id, ClientID: "client", Owner: grant.OwnedByUser, Offline: true,
		Refresh: "https://api.test", Resend: c.id != onceOnly,
		Inject:   grant.Injection{Header: "Authorization", Prefix: "Bearer "},
		Accesses: []grant.Access{{Name: "read", Scopes: []string{"read"}, Rules: []grant.Rule{rule}}}}
}

func (c connector) Origin(grant.Account) string { return "https://api.test" }
func (c connector) Issuer() string              { return "" }

func (c connector) AuthURL(identity.Handshake, grant.Request) (string, error) {
	return "https://api.test/authorize", nil
}

func (c connector) Redeem(ctx context.Context, _ url.Values, _ identity.Handshake, r grant.Request) (grant.Result,
	error) {
	result, err := c.ask(ctx, "/redeem", url.Values{"connector": {c.id}})
	result.Scopes, result.Account = r.Scopes, grant.Account{ID: "1", Name: "ann@api.test"}
	return result, err
}

func (c connector) Refresh(ctx context.Context, t grant.Tokens, _ []string) (grant.Result, error) {
	return c.ask(ctx, "/token", url.Values{"connector": {c.id}, "refresh": {t.Refresh}})
}

func (c connector) ask(ctx context.Context, path string, form url.Values) (grant.Result, error) {
	status, body, err := c.party.post(ctx, path, form)
	var issued struct {
		Access, Refresh string
		At              time.Time
		Life            time.Duration
	}
	switch {
	case err != nil:
		return grant.Result{}, &grant.Error{Class: grant.Lost, Reason: "no_answer", Err: err}
	case status != http.StatusOK:
		return grant.Result{}, &grant.Error{Class: grant.Yours, Reason: "invalid_grant", Err: errors.New("refused")}
	}
	if err := json.Unmarshal(body, &issued); err != nil {
		return grant.Result{}, &grant.Error{Class: grant.Lost, Reason: "no_answer", Err: err}
	}
	return grant.Result{Tokens: grant.Tokens{Access: issued.Access, Refresh: issued.Refresh, AccessIssued: issued.At,
		AccessExpires: issued.At.Add(issued.Life)}}, nil
}
