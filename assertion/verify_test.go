package assertion

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const sid = "AAAAAAAAAAAAAAAAAAAAAA"

// An app finds out which session an assertion rests on and when that ends at the
// latest; of an access token there is neither.
func TestAnAssertionNamesItsSession(t *testing.T) {
	c := newClock()
	s := newSigner(t, c)
	end := c.Now().Add(8 * time.Hour)
	token, err := s.Sign(Caller{Key: "k", Identity: alice(), SID: sid, End: end}, "app")
	if err != nil {
		t.Fatal(err)
	}
	if told, _ := verify(t, s, token[0]); told["sid"] != sid || told["session_end"] != float64(end.Unix()) {
		t.Errorf("sid %v, session_end %v", told["sid"], told["session_end"])
	}
	if told, _ := verify(t, s, sign(t, s, "token", "app", alice())); told["sid"] != nil || told["session_end"] != nil {
		t.Errorf("without a session: sid %v, session_end %v", told["sid"], told["session_end"])
	}
	got, err := s.Verify(token[0], "other", "app")
	issued := c.Now().Truncate(time.Minute)
	want := Verified{
		Subject: "google:1101", Org: "acme", Audience: "app", SID: sid, SessionEnd: got.SessionEnd,
		IssuedAt: got.IssuedAt, Expires: got.Expires, Identity: got.Identity,
	}
	if err != nil || !reflect.DeepEqual(got, want) || !got.SessionEnd.Equal(end) || !got.IssuedAt.Equal(issued) ||
		!got.Expires.Equal(issued.Add(Lifetime)) {
		t.Errorf("%+v, %v", got, err)
	}
	who := alice()
	if id := got.Identity; id.ID() != who.ID() || id.Org.ID != who.Org.ID || !slices.Equal(id.Groups, who.Groups) ||
		id.VerifiedEmail() != who.VerifiedEmail() {
		t.Errorf("it is about %+v, want %+v", id, who)
	}
}

// forge signs what it is told to, with the key of seed n.
func forge(t testing.TB, n byte, head map[jose.HeaderKey]any, payload string) string {
	t.Helper()
	key, err := keyFrom(seed(n))
	if err != nil {
		t.Fatal(err)
	}
	kid, err := thumbprint(key)
	if err != nil {
		t.Fatal(err)
	}
	o := &jose.SignerOptions{ExtraHeaders: map[jose.HeaderKey]any{"typ": "JWT"}}
	maps.Copy(o.ExtraHeaders, head)
	for name, v := range o.ExtraHeaders {
		if v == nil {
			delete(o.ExtraHeaders, name)
		}
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, o)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign([]byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	token, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// Each claim is wrong once, signed with the right key; each part of the form is
// wrong once besides.
func TestP02_VerifyTakesOnlyWhatWasSignedHereForThisAppAndNow(t *testing.T) {
	c := newClock()
	s := newSigner(t, c)
	now := c.Now().Unix()
	payload := func(change map[string]any) string {
		m := map[string]any{"iss": issuer, "sub": "p:s", "aud": "app", "iat": now, "exp": now + 60,
			"sid": sid, "session_end": now + 90}
		for k, v := range change {
			if m[k] = v; v == nil {
				delete(m, k)
			}
		}
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	good := forge(t, 1, nil, payload(nil))
	if _, err := s.Verify(good, "app"); err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(good, ".")
	b64 := base64.RawURLEncoding.EncodeToString
	changed := b64([]byte(payload(map[string]any{"sub": "p:t"})))
	for name, row := range map[string]struct {
		token string
		want  error
	}{
		"another issuer":  {forge(t, 1, nil, payload(map[string]any{"iss": issuer + "/"})), ErrIssuer},
		"no issuer":       {forge(t, 1, nil, payload(map[string]any{"iss": nil})), ErrIssuer},
		"another app":     {forge(t, 1, nil, payload(map[string]any{"aud": "App"})), ErrAudience},
		"several apps":    {forge(t, 1, nil, payload(map[string]any{"aud": []string{"app"}})), ErrMalformed},
		"no app":          {forge(t, 1, nil, payload(map[string]any{"aud": nil})), ErrMalformed},
		"nobody":          {forge(t, 1, nil, payload(map[string]any{"sub": ""})), ErrMalformed},
		"just over":       {forge(t, 1, nil, payload(map[string]any{"iat": now - 9, "exp": now})), ErrExpired},
		"no end":          {forge(t, 1, nil, payload(map[string]any{"exp": nil})), ErrMalformed},
		"no beginning":    {forge(t, 1, nil, payload(map[string]any{"iat": nil})), ErrMalformed},
		"too long a life": {forge(t, 1, nil, payload(map[string]any{"exp": now + 301})), ErrMalformed},
		"made in the future": {forge(t, 1, nil, payload(map[string]any{"iat": now + 62, "exp": now + 99})),
			ErrNotYet},
		"for later":              {forge(t, 1, nil, payload(map[string]any{"nbf": now + 62})), ErrNotYet},
		"an end as text":         {forge(t, 1, nil, payload(map[string]any{"exp": "1"})), ErrMalformed},
		"a session without end":  {forge(t, 1, nil, payload(map[string]any{"session_end": nil})), ErrMalformed},
		"an end without session": {forge(t, 1, nil, payload(map[string]any{"sid": nil})), ErrMalformed},
		"twice the same name":    {forge(t, 1, nil, `{"iss":"x",`+payload(nil)[1:]), ErrMalformed},
		"something behind":       {forge(t, 1, nil, payload(nil)+"{}"), ErrMalformed},
		"no object":              {forge(t, 1, nil, "null"), ErrMalformed},
		"another key":            {forge(t, 2, nil, payload(nil)), ErrKey},
		"another type":           {forge(t, 1, map[jose.HeaderKey]any{"typ": "at+jwt"}, payload(nil)), ErrMalformed},
		"no type":                {forge(t, 1, map[jose.HeaderKey]any{"typ": nil}, payload(nil)), ErrMalformed},
		"a key set of its own": {forge(t, 1, map[jose.HeaderKey]any{"jku": "https://evil.test"}, payload(nil)),
			ErrMalformed},
		"a changed claim":  {strings.Join([]string{parts[0], changed, parts[2]}, "."), ErrSignature},
		"no signature":     {parts[0] + "." + parts[1] + ".", ErrMalformed},
		"no algorithm":     {b64([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + parts[1] + ".", ErrMalformed},
		"padding":          {good + "==", ErrMalformed},
		"a line break":     {parts[0] + "\n." + parts[1] + "." + parts[2], ErrMalformed},
		"a fourth part":    {good + ".AAAA", ErrMalformed},
		"another last bit": {good[:len(good)-1] + string(good[len(good)-1]+1), ErrMalformed},
		"too long":         {good + strings.Repeat("A", maxToken), ErrMalformed},
		"nothing":          {"", ErrMalformed},
	} {
		got, err := s.Verify(row.token, "app")
		if !errors.Is(err, row.want) || !reflect.DeepEqual(got, Verified{}) {
			t.Errorf("%s: %+v, %v; want %v", name, got, err, row.want)
		}
	}
	if _, err := s.Verify(good); !errors.Is(err, ErrAudience) {
		t.Errorf("for no audience: %v", err)
	}
}

// What was signed before keys rotated verifies as long as its key is listed, on
// each replica that lists it.
func TestVerifyKnowsAllListedKeys(t *testing.T) {
	c := newClock()
	old := sign(t, newSigner(t, c), "s", "app", alice())
	both := newSigner(t, c, func(o *Options) { o.Seeds, o.Signing = [][]byte{seed(2), seed(1)}, always(0) })
	next := newSigner(t, c, func(o *Options) { o.Seeds = [][]byte{seed(2)} })
	if _, err := both.Verify(old, "app"); err != nil {
		t.Error(err)
	}
	if _, err := next.Verify(old, "app"); !errors.Is(err, ErrKey) {
		t.Errorf("a key that was taken out: %v", err)
	}
	c.Advance(4*time.Minute + 29*time.Second)
	if _, err := both.Verify(old, "app"); err != nil {
		t.Error(err)
	}
	c.Advance(time.Second)
	if _, err := both.Verify(old, "app"); !errors.Is(err, ErrExpired) {
		t.Error(err)
	}
}

// Whatever is changed about an assertion, what verifies is what was signed.
func FuzzVerify(f *testing.F) {
	c := newClock()
	s := newSigner(f, c)
	good := sign(f, s, "s", "app", alice())
	f.Add(good)
	f.Add(strings.Replace(good, ".", "..", 1))
	f.Add(forge(f, 2, nil, `{"iss":"https://app.example.com","sub":"p:s","aud":"app"}`))
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	signedPart := good[:strings.LastIndexByte(good, '.')]
	f.Fuzz(func(t *testing.T, token string) {
		got, err := s.Verify(token, "app")
		if (err == nil) != !reflect.DeepEqual(got, Verified{}) {
			t.Errorf("%+v, %v", got, err)
		}
		if err == nil && !strings.HasPrefix(token, signedPart+".") {
			t.Errorf("verifies: %q", token)
		}
	})
}

// An assertion is opened once, and judged each time it is shown.
func TestP12_AnAssertionThatWasShownBeforeIsJudgedAnew(t *testing.T) {
	c := newClock()
	s := newSigner(t, c)
	token := sign(t, s, "one", "app", alice())
	v, err := s.Verify(token, "app")
	if err != nil {
		t.Fatal(err)
	}
	v.Identity.Groups[0] = "changed by who was told"
	again, err := s.Verify(token, "app")
	if err != nil || again.Identity.Groups[0] != "oncall" {
		t.Errorf("shown again: %v, %v", again.Identity.Groups, err)
	}
	if _, err := s.Verify(token, "other"); !errors.Is(err, ErrAudience) {
		t.Errorf("for another audience: %v", err)
	}
	last := byte('A')
	if token[len(token)-2] == last {
		last = 'B'
	}
	forged := token[:len(token)-2] + string(last) + token[len(token)-1:]
	if _, err := s.Verify(forged, "app"); !errors.Is(err, ErrSignature) {
		t.Errorf("with another signature: %v", err)
	}
	c.Advance(Lifetime)
	if _, err := s.Verify(token, "app"); !errors.Is(err, ErrExpired) {
		t.Errorf("after its life: %v", err)
	}
}
