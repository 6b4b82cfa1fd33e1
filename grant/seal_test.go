package grant

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const secretToken = "canary-access"

func sealingKey(id string, created time.Time) SealingKey {
	k := SealingKey{ID: id, Created: created}
	copy(k.Secret[:], bytes.Repeat([]byte(id), sealingKeyBytes))
	return k
}

func ring(t *testing.T, keys ...SealingKey) Keyring {
	t.Helper()
	k, err := NewKeyring(keys)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sealedRecord(t *testing.T, k Keyring) Record {
	t.Helper()
	r, err := k.Seal(Record{ID: "g1", Generation: 3, Key: Key{"calendar", Owner{OwnedByUser, "corp:ann"}}},
		Tokens{Access: secretToken, Refresh: "canary-refresh", Extra: map[string]string{"x": "canary-extra"}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestP13_WhatIsSealedBelongsToItsRowAlone(t *testing.T) {
	k := ring(t, sealingKey("a", time.Time{}))
	for name, change := range map[string]func(*Record){
		"another grant":       func(r *Record) { r.ID = "g2" },
		"another connector":   func(r *Record) { r.Connector = "pager" },
		"another person":      func(r *Record) { r.Owner.ID = "corp:bob" },
		"another kind":        func(r *Record) { r.Owner.Kind = OwnedByOrg },
		"an older generation": func(r *Record) { r.Generation = 2 },
		"borders moved":       func(r *Record) { r.ID, r.Connector = "g1c", "alendar" },
		"fields swapped":      func(r *Record) { r.Sealed, r.Wrapped = r.Wrapped, r.Sealed },
		"a bit changed":       func(r *Record) { r.Sealed[len(r.Sealed)-1] ^= 1 },
		"cut":                 func(r *Record) { r.Sealed = r.Sealed[:4] },
		"empty":               func(r *Record) { r.Sealed, r.Wrapped = nil, nil },
	} {
		r := sealedRecord(t, k)
		if got, err := k.Open(r); err != nil || got.Access != secretToken || got.Extra["x"] != "canary-extra" {
			t.Fatal(err)
		}
		change(&r)
		if _, err := k.Open(r); !errors.Is(err, ErrSealed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestP13_ARowOfAnotherGenerationDoesNotOpenWithTheKeyOfItsGrant(t *testing.T) {
	k := ring(t, sealingKey("a", time.Time{}))
	old := sealedRecord(t, k)
	next := old
	next.Generation++
	next, err := k.Seal(next, Tokens{Access: "next"})
	if err != nil || !bytes.Equal(next.Wrapped, old.Wrapped) {
		t.Fatal("a grant keeps its own key", err)
	}
	next.Sealed = old.Sealed
	if _, err := k.Open(next); !errors.Is(err, ErrSealed) {
		t.Errorf("an older credential in a newer row: %v", err)
	}
}

func TestP13_ANewKeySealsWhenAllReplicasKnowIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := ring(t, sealingKey("a", time.Now().Add(-time.Hour)))
		r := sealedRecord(t, old)
		both := ring(t, sealingKey("b", time.Now()), sealingKey("a", time.Now().Add(-time.Hour)))
		if both.NeedsRewrap(r) || sealedRecord(t, both).KeyID != "a" {
			t.Error("a key seals before other replicas can know it")
		}
		time.Sleep(keyRest)
		wrapped, id, changed, err := both.Rewrap(r)
		if err != nil || !changed || id != "b" {
			t.Fatal(id, changed, err)
		}
		r.Wrapped, r.KeyID = wrapped, id
		if got, err := both.Open(r); err != nil || got.Access != secretToken {
			t.Error("after a rewrap:", err)
		}
		if _, _, changed, _ := both.Rewrap(r); changed {
			t.Error("wrapped twice")
		}
		if _, err := old.Open(r); !errors.Is(err, ErrKeyUnknown) {
			t.Errorf("a replica without the new key: %v", err)
		}
	})
}

func TestP15_AKeyringNeedsAKeyAndNoTwins(t *testing.T) {
	for name, keys := range map[string][]SealingKey{
		"none": nil, "no name": {{}}, "twins": {sealingKey("a", time.Time{}), sealingKey("a", time.Time{})},
	} {
		if _, err := NewKeyring(keys); err == nil {
			t.Error(name)
		}
	}
}

func TestP08_NoVerbPrintsACredentialOrAKey(t *testing.T) {
	tokens := Tokens{Access: "canary", Refresh: "canary"}
	key := sealingKey("id", time.Time{})
	copy(key.Secret[:], "canary")
	values := []any{tokens, &tokens, Result{Tokens: tokens}, key, ring(t, key), []Tokens{tokens}}
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
			text := fmt.Sprintf(verb, v)
			if strings.Contains(text, "canary") || strings.Contains(text, "63616e617279") {
				t.Errorf("%s of %T: %s", verb, v, text)
			}
		}
	}
	text, err := json.Marshal(Result{Tokens: tokens})
	if err != nil || strings.Contains(string(text), "canary") {
		t.Errorf("as JSON: %s, %v", text, err)
	}
}

func FuzzOpen(f *testing.F) {
	// The key is random: a fuzzing worker is a process of its own, and would open the seeds
	// of another one that has the same key.
	secret := SealingKey{ID: "a"}
	rand.Read(secret.Secret[:])
	k, err := NewKeyring([]SealingKey{secret})
	if err != nil {
		f.Fatal(err)
	}
	r, err := k.Seal(Record{ID: "g"}, Tokens{Access: "a"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(r.Sealed, r.Wrapped)
	f.Fuzz(func(t *testing.T, sealed, wrapped []byte) {
		changed := r
		changed.Sealed, changed.Wrapped = sealed, wrapped
		same := bytes.Equal(sealed, r.Sealed) && bytes.Equal(wrapped, r.Wrapped)
		if _, err := k.Open(changed); (err == nil) != same {
			t.Errorf("other bytes opened, or the same did not: %v", err)
		}
	})
}

func TestP13_ARingSaysWhichKeySealsAndFromWhenOthersDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		uses := ring(t, sealingKey("new", now), sealingKey("now", now.Add(-time.Hour)), sealingKey("old",
			now.Add(-48*time.Hour))).Uses()
		if len(uses) != 3 || uses[0].ID != "old" || uses[1].ID != "now" || uses[2].ID != "new" ||
			uses[0].Seals || !uses[1].Seals || uses[2].Seals || !uses[2].SealsFrom.Equal(now.Add(keyRest)) {
			t.Errorf("%+v", uses)
		}
	})
}
