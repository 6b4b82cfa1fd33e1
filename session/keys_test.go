package session

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestKeyTextSurvivesTheRoundTrip(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 11, 12, 345, time.FixedZone("CET", 3600))
	k := NewKey(now)
	text := k.Text()
	if !strings.HasPrefix(text, "sallyport-key-1 2026-11-22T09:11:12Z ") || strings.ContainsAny(text, "\r\n=+/") {
		t.Errorf("text %q", text[:40])
	}
	for _, form := range []string{text, text + "\n", text + "\r\n", "  " + text, strings.ReplaceAll(text, " ", "\t")} {
		got, err := ParseKey(form)
		if err != nil || got != k {
			t.Errorf("%v: not the same key", err)
		}
	}
	if other := NewKey(now); other.secret == k.secret {
		t.Error("two keys are the same")
	}
}

func TestP15_ParseKeyRefusesWhatIsNoKey(t *testing.T) {
	const head = "sallyport-key-1 2026-11-22T09:00:00Z "
	secret := base64.RawURLEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))
	if _, err := ParseKey(head + secret); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty":             "",
		"only a password":   "hunter2hunter2hunter2hunter2hunter2",
		"only the secret":   secret,
		"no date":           "sallyport-key-1 " + secret,
		"later version":     strings.Replace(head, "-1", "-2", 1) + secret,
		"other case":        strings.ToUpper(head) + secret,
		"date without time": "sallyport-key-1 2026-11-22 " + secret,
		"date without zone": "sallyport-key-1 2026-11-22T09:00:00 " + secret,
		"impossible date":   "sallyport-key-1 2026-02-30T09:00:00Z " + secret,
		"more":              head + secret + " # my key",
		"two keys":          head + secret + "\n" + head + secret,
		"short":             head + secret[:42],
		"long":              head + secret + "AA",
		"padded":            head + secret + "=",
		"standard base64":   head + "+/" + secret[2:],
		"hex":               head + strings.Repeat("0a", 32),
		"stray bits":        head + secret[:42] + "Z",
		"all zero":          head + strings.Repeat("A", 43),
		"one byte":          head + base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("x", 32))),
	} {
		_, err := ParseKey(text)
		if !errors.Is(err, ErrKey) {
			t.Errorf("%s: %v", name, err)
		} else if strings.Contains(err.Error(), secret[:20]) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error tells the secret: %v", name, err)
		}
	}
}

func TestP18_KeysPrintAsSecret(t *testing.T) {
	k := keyOf('S', time.Now())
	r, err := NewKeyring([]Key{k})
	if err != nil {
		t.Fatal(err)
	}
	leaks := []string{string(k.secret[:]), base64.RawURLEncoding.EncodeToString(k.secret[:]),
		fmt.Sprint(k.secret[:])[1:40], fmt.Sprintf("%x", k.secret[:]), fmt.Sprintf("%#v", k.secret[:])[8:30]}
	for _, v := range []any{k, &k, r, &r, []Key{k}, Options{Keys: r}, struct{ K Key }{k}, map[string]Keyring{"r": r},
		fmt.Errorf("with %v", r)} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
			out := fmt.Sprintf(verb, v)
			for _, leak := range leaks {
				if strings.Contains(out, leak) {
					t.Errorf("%s of %T tells the secret", verb, v)
				}
			}
		}
	}
}

func TestKeyringRefusesNoneAndTwins(t *testing.T) {
	now := time.Now()
	if _, err := NewKeyring(nil); err == nil {
		t.Error("no keys")
	}
	a, b := keyOf(1, now), keyOf(2, now.Add(time.Hour))
	aAgain := keyOf(1, now.Add(2*time.Hour))
	for name, tc := range map[string]struct {
		keys []Key
		want TwinError
	}{
		"same":                 {[]Key{a, a}, TwinError{0, 1}},
		"same, not neighbours": {[]Key{aAgain, b, a}, TwinError{0, 2}},
	} {
		if _, err := NewKeyring(tc.keys); err != tc.want {
			t.Errorf("%s: %v, want %+v", name, err, tc.want)
		}
	}
	given := []Key{b, a}
	r, err := NewKeyring(given)
	if err != nil || r.All()[0] != a || r.All()[1] != b {
		t.Errorf("not oldest first: %v", err)
	}
	if given[0] != b {
		t.Error("the caller's list was sorted")
	}
	r.All()[0] = b
	if r.All()[0] != a {
		t.Error("All gives the list away")
	}
}

// The newest key that is ten minutes old signs, else the oldest: a replica that
// has not read the new file yet must be able to read what is signed.
func TestSigningKeyIsRestedElseTheOldest(t *testing.T) {
	now := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		name string
		ages []time.Duration // oldest first
		want int
	}{
		{"one, rested", []time.Duration{time.Hour}, 0},
		{"one, new", []time.Duration{time.Minute}, 0},
		{"one, of the future", []time.Duration{-time.Hour}, 0},
		{"both rested", []time.Duration{48 * time.Hour, time.Hour}, 1},
		{"exactly ten minutes", []time.Duration{time.Hour, 10 * time.Minute}, 1},
		{"a second less", []time.Duration{time.Hour, 10*time.Minute - time.Second}, 0},
		{"both new", []time.Duration{5 * time.Minute, time.Minute}, 0},
		{"newest of the future", []time.Duration{time.Hour, 20 * time.Minute, -time.Hour}, 1},
		{"all of the future", []time.Duration{-time.Minute, -time.Hour}, 0},
		{"three", []time.Duration{time.Hour, 30 * time.Minute, time.Minute}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var keys []Key
			for i, age := range tc.ages {
				keys = append([]Key{keyOf(byte(i+1), now.Add(-age))}, keys...) // order must not matter
			}
			r, err := NewKeyring(keys)
			if err != nil {
				t.Fatal(err)
			}
			if got := r.Signing(now); got != tc.want {
				t.Errorf("key %d signs, want %d", got, tc.want)
			}
		})
	}
}

func TestDerivedKeysDifferByPurposeAndKey(t *testing.T) {
	now := time.Now()
	seen := map[string]string{}
	for _, seed := range []byte{1, 2} {
		for _, purpose := range []string{"session mac", "session encryption", "flow state", "flow secrets",
			"assertion"} {
			k := keyOf(seed, now)
			d := string(k.Derive(purpose, 32))
			if other, dup := seen[d]; dup {
				t.Errorf("%s of key %d is %s", purpose, seed, other)
			}
			seen[d] = fmt.Sprint(purpose, seed)
			if d != string(keyOf(seed, now.Add(time.Hour)).Derive(purpose, 32)) {
				t.Errorf("%s depends on the date", purpose)
			}
			if len(k.Derive(purpose, 64)) != 64 {
				t.Errorf("%s: wrong length", purpose)
			}
		}
	}
}
