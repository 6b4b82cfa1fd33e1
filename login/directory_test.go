package login

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/oauth"
)

const directoryCallback = "https://app.example.com/.sallyport/directory/corp/callback"

// workspace is a pretend Google whose directory can be read, and jonas, who is an administrator
// of acme.example there and has signed in.
type workspace struct {
	*world
	jonas identity.Identity
}

func newWorkspace(t *testing.T, edit ...func(*Options)) *workspace {
	t.Helper()
	w := &world{t: t}
	w.op = testenv.StartProvider(t, demo.ProviderOptions{ClientID: clientID, ClientSecret: clientSecret,
		RedirectURIs: []string{callbackURL, directoryCallback}, Now: epoch, Kind: demo.Google})
	w.use(append([]func(*Options){func(o *Options) {
		o.Type, o.Scopes = TypeGoogle, nil
		o.Directory = Directory{On: true, RedirectURL: directoryCallback, BaseURL: w.op.URL}
	}}, edit...)...)
	jonas, err := w.signIn("jonas", identity.AuthParams{})
	if err != nil {
		t.Fatal(err)
	}
	return &workspace{w, jonas}
}

// at is what comes back with the browser of somebody who goes there for who.
func (w *workspace) at(chosen string, who identity.Identity, h identity.Handshake) url.Values {
	w.t.Helper()
	to, err := w.p.DirectoryURL(w.t.Context(), h, who)
	if err != nil {
		w.t.Fatal(err)
	}
	browser := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	resp, err := browser.PostForm(to, url.Values{"person": {chosen}})
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	back, err := resp.Location()
	if err != nil {
		w.t.Fatalf("the provider did not send the browser back: %s", resp.Status)
	}
	return back.Query()
}

func (w *workspace) read(chosen string, who identity.Identity) (identity.OrgDetails, error) {
	w.t.Helper()
	h := handshake()
	return w.p.ReadDirectory(w.t.Context(), w.at(chosen, who, h), h, who)
}

// counts are what Google was asked: for tokens, for the Workspace, to end tokens.
func (w *workspace) counts() [3]int {
	return [3]int{w.op.Hits(testenv.Token), w.op.Hits(testenv.Customer), w.op.Hits(testenv.Revoke)}
}

func TestP08_ADirectoryIsReadOnceAndItsTokenIsEnded(t *testing.T) {
	w := newWorkspace(t)
	before := w.counts()
	d, err := w.read("jonas", w.jonas)
	if err != nil {
		t.Fatal(err)
	}
	want := identity.OrgDetails{OrgID: "corp:acme.example", CustomerID: d.CustomerID, Name: "Acme Rockets",
		Domain: "acme.example", ReadAt: epoch(), ReadBy: w.jonas.ID()}
	if d != want || !isCustomerID(d.CustomerID) || w.jonas.Org.Name != "acme.example" {
		t.Errorf("got %+v", d)
	}
	after := w.counts()
	if after != [3]int{before[0] + 1, 1, 1} {
		t.Errorf("asked %v times before, and %v times after it", before, after)
	}
	asked := w.op.Requests(testenv.Customer)[0]
	var issued struct {
		AccessToken string `json:"access_token"`
		Scope       string
	}
	answers := w.op.Answers(testenv.Token)
	if err := json.Unmarshal([]byte(answers[len(answers)-1]), &issued); err != nil {
		t.Fatal(err)
	}
	ended := w.op.Requests(testenv.Revoke)[0]
	form, err := url.ParseQuery(string(ended.Body))
	if err != nil || asked.Header.Get("Authorization") != "Bearer "+issued.AccessToken || len(form["token"]) != 1 ||
		form.Get("token") != issued.AccessToken || form.Has("client_secret") || ended.Header.Get("Authorization") != "" {
		t.Errorf("asked with %v, ended with %s", asked.Header, ended.Body)
	}
	if issued.Scope != "openid email "+directoryScope {
		t.Errorf("granted %q", issued.Scope)
	}
	answer := w.op.Answers(testenv.Customer)[0]
	for _, more := range []string{"phoneNumber", "contactName", "alternateEmail", "addressLine1"} {
		if strings.Contains(answer, more) {
			t.Errorf("what is not kept was asked for: %s", answer)
		}
	}
	// What was ended opens nothing any more.
	_, _, err = bearerGet(t.Context(), w.p.client.HTTPClient("test"), w.op.URL+directoryPath, issued.AccessToken)
	if call, ok := errors.AsType[*oauth.Error](err); !ok || call.Status != http.StatusUnauthorized {
		t.Errorf("the token still opens the directory: %v", err)
	}
	if log := w.logged(); strings.Contains(log, issued.AccessToken) || strings.Contains(log, "WARN") {
		t.Errorf("the log has %s", log)
	}
}

func TestP20_TheRequestForADirectoryIsOurs(t *testing.T) {
	w := newWorkspace(t)
	h := handshake()
	to, err := w.p.DirectoryURL(t.Context(), h, w.jonas)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	got := u.Query()
	if len(got.Get("code_challenge")) != 43 || strings.Contains(to, h.Verifier) {
		t.Errorf("no challenge: %s", to)
	}
	got.Del("code_challenge")
	want := url.Values{"response_type": {"code"}, "client_id": {clientID}, "redirect_uri": {directoryCallback},
		"scope": {"openid email " + directoryScope}, "state": {h.State}, "nonce": {h.Nonce},
		"code_challenge_method": {"S256"}, "access_type": {"online"}, "prompt": {"consent"}, "hd": {"acme.example"},
		"login_hint": {"jonas@acme.example"}}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	for _, broken := range []identity.Handshake{{}, {State: h.State, Nonce: h.Nonce},
		{State: h.State, Verifier: h.Verifier}, {Nonce: h.Nonce, Verifier: h.Verifier}} {
		if to, err := w.p.DirectoryURL(t.Context(), broken, w.jonas); err == nil {
			t.Errorf("a handshake with gaps leads to %s", to)
		}
	}
	for name, who := range map[string]identity.Identity{
		"no organization":       changed(w.jonas, func(id *identity.Identity) { id.Org = identity.Org{} }),
		"one that is no domain": changed(w.jonas, func(id *identity.Identity) { id.Org.ID = "corp:7/.." }),
		"another provider's":    changed(w.jonas, func(id *identity.Identity) { id.Org.ID = "other:acme.example" }),
		"one that is folded":    changed(w.jonas, func(id *identity.Identity) { id.Org.ID = "acme" }),
		"another provider":      changed(w.jonas, func(id *identity.Identity) { id.Provider = "other" }),
	} {
		if to, err := w.p.DirectoryURL(t.Context(), h, who); err == nil {
			t.Errorf("%s: leads to %s", name, to)
		}
		if d, err := w.p.ReadDirectory(t.Context(), url.Values{}, h, who); err == nil {
			t.Errorf("%s: read %v", name, d)
		}
	}
	w.use(func(o *Options) { o.Type, o.Scopes = TypeGoogle, nil })
	if _, ok := w.p.DirectoryDomain(w.jonas); ok {
		t.Error("a directory is read that no configuration names")
	}
}

// Nothing that Google, somebody who answers for it, or the person does otherwise gives an
// organization a name, and the token is ended all the same.
func TestP07_ADirectoryThatLiesTellsNothing(t *testing.T) {
	w := newWorkspace(t)
	tenancy := func(tenant string) func(map[string]any) { return testenv.With("customerDomain", tenant) }
	named := func(name any) func(map[string]any) {
		return testenv.With("postalAddress", map[string]any{"organizationName": name})
	}
	refused := func(status int, reason string) testenv.Fault {
		return testenv.Fault{Endpoint: testenv.Customer, Status: status,
			Body: `{"error":{"code":403,"message":"c4nary","errors":[{"reason":"` + reason + `"}]}}`}
	}
	answer := func(change func(map[string]any)) testenv.Fault {
		return testenv.Fault{Endpoint: testenv.Customer, JSON: change}
	}
	claims := func(change func(map[string]any)) testenv.Fault {
		return testenv.Fault{Endpoint: testenv.Token, Claims: change}
	}
	tokens := func(change func(map[string]any)) testenv.Fault {
		return testenv.Fault{Endpoint: testenv.Token, JSON: change}
	}
	for name, c := range map[string]struct {
		who    string // chosen at Google; "": jonas
		fault  testenv.Fault
		reason identity.DirectoryReason
		asked  int // how often the directory was
	}{
		"another account of the same Workspace": {who: "mira", reason: identity.DirectoryOtherAccount},
		"the administrator of another one":      {who: "tomoko", reason: identity.DirectoryOtherAccount},
		"a consumer account":                    {who: "zoe", reason: identity.DirectoryOtherAccount},
		"the account has moved": {fault: claims(testenv.With("hd", "birch.example")),
			reason: identity.DirectoryOtherDomain},
		"the account has left":   {fault: claims(testenv.Without("hd")), reason: identity.DirectoryOtherDomain},
		"hd is a domain below":   {fault: claims(testenv.With("hd", "x.acme.example")), reason: identity.DirectoryOtherDomain},
		"another sub":            {fault: claims(testenv.With("sub", "1")), reason: identity.DirectoryOtherAccount},
		"another nonce":          {fault: claims(testenv.With("nonce", "x")), reason: identity.DirectoryRejected},
		"another client's token": {fault: claims(testenv.With("aud", "x")), reason: identity.DirectoryRejected},
		"another access token": {fault: tokens(testenv.With("access_token", "ya29.c4nary-other")),
			reason: identity.DirectoryRejected},
		"no ID token": {fault: tokens(testenv.Without("id_token")), reason: identity.DirectoryRejected},
		"the scope was unticked": {fault: tokens(testenv.With("scope", "openid email")),
			reason: identity.DirectoryNotGranted},
		"a wider one is not it": {fault: tokens(testenv.With("scope", "openid email "+directoryScope+".x")),
			reason: identity.DirectoryNotGranted},
		"no administrator": {fault: refused(403, "forbidden"), reason: identity.DirectoryNotAdmin, asked: 1},
		"the API is off": {fault: refused(403, "accessNotConfigured"), reason: identity.DirectoryNotEnabled,
			asked: 1},
		"too little was granted": {fault: refused(403, "insufficientPermissions"),
			reason: identity.DirectoryNotGranted, asked: 1},
		"too often": {fault: refused(403, "rateLimitExceeded"), reason: identity.DirectoryUnavailable,
			asked: 1},
		"403 without a word": {fault: testenv.Fault{Endpoint: testenv.Customer, Status: 403, Body: "<html>"},
			reason: identity.DirectoryNotAdmin, asked: 1},
		"no such token": {fault: refused(401, "authError"), reason: identity.DirectoryRejected, asked: 1},
		"a redirect": {fault: testenv.Fault{Endpoint: testenv.Customer, Redirect: w.op.URL + "/c4nary"},
			reason: identity.DirectoryRejected, asked: 1},
		"another Workspace":  {fault: answer(tenancy("evil.example")), reason: identity.DirectorySecondary, asked: 1},
		"the parent domain":  {fault: answer(tenancy("example")), reason: identity.DirectorySecondary, asked: 1},
		"a domain below":     {fault: answer(tenancy("x.acme.example")), reason: identity.DirectorySecondary, asked: 1},
		"no domain":          {fault: answer(tenancy("acme.example/x")), reason: identity.DirectoryUnusable, asked: 1},
		"a domain of others": {fault: answer(tenancy("аcme.example")), reason: identity.DirectoryUnusable, asked: 1},
		"no domain at all": {fault: answer(testenv.Without("customerDomain")), reason: identity.DirectoryUnusable,
			asked: 1},
		"no customer id": {fault: answer(testenv.Without("id")), reason: identity.DirectoryUnusable, asked: 1},
		"a customer id with a line break": {fault: answer(testenv.With("id", "C0\nSet-Cookie")),
			reason: identity.DirectoryUnusable, asked: 1},
		"a customer id without end": {fault: answer(testenv.With("id", strings.Repeat("C", 65))),
			reason: identity.DirectoryUnusable, asked: 1},
		"a name with control characters": {fault: answer(named("Acme\r\nX-User: root")),
			reason: identity.DirectoryUnusable, asked: 1},
		"a name of nothing that can be read": {fault: answer(named("Acme\ufffd")), reason: identity.DirectoryUnusable,
			asked: 1},
		"a name without end": {fault: answer(named(strings.Repeat("ä", 129))), reason: identity.DirectoryUnusable,
			asked: 1},
		"a name that is a list": {fault: answer(named([]string{"Acme"})), reason: identity.DirectoryUnusable, asked: 1},
		"an address that is a text": {fault: answer(testenv.With("postalAddress", "Acme")),
			reason: identity.DirectoryUnusable, asked: 1},
		"two ids": {fault: testenv.Fault{Endpoint: testenv.Customer,
			Body: `{"id":"C01","id":"C02","customerDomain":"acme.example"}`}, reason: identity.DirectoryUnusable, asked: 1},
		"an answer without end": {fault: testenv.Fault{Endpoint: testenv.Customer, Pad: maxDirectory},
			reason: identity.DirectoryRejected, asked: 1},
		"half an answer": {fault: testenv.Fault{Endpoint: testenv.Customer, Truncate: true},
			reason: identity.DirectoryRejected, asked: 1},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.op.Set(c.fault)
			before := w.counts()
			d, err := w.read(or(c.who, "jonas"), w.jonas)
			after := w.counts()
			if failed, ok := errors.AsType[*identity.DirectoryError](err); !ok || failed.Reason != c.reason {
				t.Errorf("got %v, want %s", err, c.reason)
			}
			if d != (identity.OrgDetails{}) {
				t.Errorf("read %+v", d)
			}
			if after[1]-before[1] != c.asked || after[2]-before[2] != 1 {
				t.Errorf("the directory was asked %d times, want %d, and %d tokens were ended, want 1",
					after[1]-before[1], c.asked, after[2]-before[2])
			}
			if err != nil && strings.Contains(err.Error(), "c4nary") {
				t.Errorf("the error holds what is nobody's to see: %v", err)
			}
		})
	}
	w.t = t
	if strings.Contains(w.logged(), "ya29.") {
		t.Error("the log has a token")
	}
}

func TestADirectoryWithoutANameOrInCapitals(t *testing.T) {
	w := newWorkspace(t)
	w.op.Set(testenv.Fault{Endpoint: testenv.Customer, JSON: func(v map[string]any) {
		v["customerDomain"] = "ACME.example"
		delete(v, "postalAddress")
	}})
	d, err := w.read("jonas", w.jonas)
	if err != nil || d.Domain != "acme.example" || d.Name != "" {
		t.Errorf("got %+v, %v", d, err)
	}
	// RFC 6749 §5.1: an answer without a scope means as it was asked.
	w.op.Set(testenv.Fault{Endpoint: testenv.Token, JSON: testenv.Without("scope")})
	if d, err := w.read("jonas", w.jonas); err != nil || d.Name != "Acme Rockets" {
		t.Errorf("got %+v, %v", d, err)
	}
}

// Before there is a token there is none to end, and without an answer nothing is known.
func TestP08_ADirectoryIsNotReadWithoutACode(t *testing.T) {
	w := newWorkspace(t)
	h := handshake()
	good := w.at("jonas", w.jonas, h)
	with := func(name, value string) url.Values {
		q := url.Values{}
		for k, v := range good {
			q[k] = v
		}
		q.Set(name, value)
		return q
	}
	for name, c := range map[string]struct {
		callback url.Values
		reason   identity.DirectoryReason
	}{
		"the person said no": {url.Values{"error": {"access_denied"}, "state": {h.State}}, identity.DirectoryDeclined},
		"the client is unknown": {url.Values{"error": {"invalid_client"}, "state": {h.State}},
			identity.DirectoryMisconfigured},
		"Google has a fault": {url.Values{"error": {"server_error"}, "state": {h.State}},
			identity.DirectoryUnavailable},
		"another state":         {with("state", "x"), identity.DirectoryRejected},
		"another issuer":        {with("iss", "https://evil.example"), identity.DirectoryRejected},
		"no code":               {with("code", ""), identity.DirectoryRejected},
		"a code that is no one": {with("code", "x"), identity.DirectoryRejected},
	} {
		d, err := w.p.ReadDirectory(t.Context(), c.callback, h, w.jonas)
		if got := identity.DirectoryReasonOf(err); err == nil || got != c.reason || d != (identity.OrgDetails{}) {
			t.Errorf("%s: %v %v, want %s", name, d, err, c.reason)
		}
	}
	if n := w.counts(); n[1] != 0 || n[2] != 0 {
		t.Errorf("asked %v times", n)
	}
	// The code of a sign-in is none for a directory, and the other way round.
	signIn := handshake()
	callback, err := w.authorize("jonas", signIn, identity.AuthParams{})
	if err != nil {
		t.Fatal(err)
	}
	if d, err := w.p.ReadDirectory(t.Context(), callback, signIn, w.jonas); err == nil {
		t.Errorf("read %v with the code of a sign-in", d)
	}
	if who, err := w.p.Redeem(t.Context(), good, h, identity.AuthParams{}); err == nil {
		t.Errorf("%s signed in with the code of a directory", who.ID())
	}
}

func TestADirectoryThatHangsIsGivenUp(t *testing.T) {
	client, err := oauth.NewClient(oauth.Options{Provider: "corp", Timeout: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorkspace(t, func(o *Options) { o.Client = client })
	for _, endpoint := range []string{testenv.Token, testenv.Customer, testenv.Revoke} {
		w.op.Set(testenv.Fault{Endpoint: endpoint, Stall: true})
		began := time.Now()
		d, err := w.read("jonas", w.jonas)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s hangs: it took %s", endpoint, took)
		}
		if endpoint == testenv.Revoke { // what was read counts; the token expires by itself
			if err != nil || d.Name != "Acme Rockets" || !strings.Contains(w.logged(), "could not be ended at Google") {
				t.Errorf("the end of the token hangs: %v %v", d, err)
			}
			continue
		}
		if identity.DirectoryReasonOf(err) != identity.DirectoryUnavailable || d != (identity.OrgDetails{}) {
			t.Errorf("%s hangs: %v %v", endpoint, d, err)
		}
	}
	// Whoever gives up has the token ended all the same.
	w.op.Set(testenv.Fault{Endpoint: testenv.Customer, Stall: true})
	h := handshake()
	callback, before := w.at("jonas", w.jonas, h), w.counts()
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	if d, err := w.p.ReadDirectory(ctx, callback, h, w.jonas); err == nil {
		t.Errorf("read %v", d)
	}
	if after := w.counts(); after[2] != before[2]+1 {
		t.Errorf("%d tokens were ended", after[2]-before[2])
	}
}

// What a directory said is in sign-ins from then on, and only of its own organization.
func TestSignInsHaveWhatADirectorySaid(t *testing.T) {
	known := identity.OrgDetails{OrgID: "corp:acme.example", CustomerID: "C01", Name: "Acme Rockets",
		Domain: "acme.example"}
	w := newWorkspace(t, func(o *Options) {
		o.OrgDetails = func(_ context.Context, org identity.Org) identity.Org { return known.Of(org) }
	})
	if got := w.jonas.Org; got != (identity.Org{ID: "corp:acme.example", Name: "Acme Rockets", Domain: "acme.example",
		Source: identity.SourceDirectory}) {
		t.Errorf("jonas is of %+v", got)
	}
	tomoko, err := w.signIn("tomoko", identity.AuthParams{})
	if err != nil || tomoko.Org.Name != "birch.example" || tomoko.Org.Source != "claim" {
		t.Errorf("tomoko is of %+v: %v", tomoko.Org, err)
	}
	zoe, err := w.signIn("zoe", identity.AuthParams{})
	if err != nil || zoe.Org != (identity.Org{}) {
		t.Errorf("zoe is of %+v: %v", zoe.Org, err)
	}
}

func TestWhatADirectoryDoesNotGoWith(t *testing.T) {
	for name, o := range map[string]Options{
		"another type":            {Type: TypeMicrosoft, Tenant: TenantCommon, Directory: Directory{On: true}},
		"tokens only":             {Type: TypeGoogle, Use: UseTokens, Directory: Directory{On: true}},
		"an organization's claim": {Type: TypeGoogle, Claims: ClaimNames{OrgID: "x"}, Directory: Directory{On: true}},
		"claims of several":       {Type: TypeGoogle, Claims: ClaimNames{Orgs: "x"}, Directory: Directory{On: true}},
	} {
		found := false
		for _, c := range o.Conflicts() {
			found = found || c.Key == "directory"
		}
		if !found {
			t.Errorf("%s: no conflict", name)
		}
	}
	o := Options{ID: "g", Type: TypeGoogle, ClientID: "x", ClientSecret: "y", RedirectURL: callbackURL}
	for _, d := range []Directory{{On: true}, {On: true, RedirectURL: "http://app.example.com/x"},
		{On: true, RedirectURL: directoryCallback, BaseURL: "https://x.example/path"},
		{On: true, RedirectURL: directoryCallback, BaseURL: "http://x.example"}} {
		o.Directory = d
		if _, err := New(o); err == nil {
			t.Errorf("%+v is taken", d)
		}
	}
}
