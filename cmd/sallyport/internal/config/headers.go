package config

import (
	"regexp"
	"slices"
	"strings"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/yamltable"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/login"
)

// Headers says what the app is told. Set comes in the order of the file and
// adds to the preset.
type Headers struct {
	Preset string
	Set    []identity.Field
	Keep   []string // what passes although it is stripped elsewhere
	Basic  Basic
}

// Basic are credentials for an app that knows no other way to be told who somebody is:
// with the name that Claim has, or with Account. The zero Basic: there are none.
type Basic struct {
	Claim    identity.Claim
	Account  string
	Password Ref
}

func headersShape() yamltable.Shape[Headers] {
	return yamltable.Object[Headers]{Instead: among("preset", identity.Presets()...), Keys: []yamltable.Entry[Headers]{
		yamltable.Field("preset", "A set of header names that apps know.", yamltable.OneOf("", identity.Presets()...),
			func(h *Headers) *string { return &h.Preset }).Or(identity.PresetForwarded),
		yamltable.Field("set", "Headers beside the preset: a name, and the claim it carries.", headerFields(),
			func(h *Headers) *[]identity.Field { return &h.Set }),
		yamltable.Field("keep", "Headers that pass although they are stripped elsewhere: those of other proxies, from "+
			"trusted_proxies only; method overrides and Destination, from everybody.",
			yamltable.List(yamltable.Pattern("the name of a header", headerPattern),
				1), func(h *Headers) *[]string { return &h.Keep }),
		yamltable.Field("basic", "An Authorization header with a user name and a password (HTTP Basic), for apps that "+
			"know nothing else. The client's own does not reach the app then. The password is the same in all "+
			"requests, so the app and all that can read its requests can be anybody there.",
			basicShape(), func(h *Headers) *Basic { return &h.Basic }),
	}, Unknown: func(key string) string {
		if !strings.Contains(key, "-") || !regexp.MustCompile(headerPattern).MatchString(key) {
			return ""
		}
		return "the name of a header stands in set: headers: {set: {" + key + ": email}}"
	}}.Shape()
}

func basicShape() yamltable.Shape[Basic] {
	names := slices.DeleteFunc(identity.Claims(), func(c identity.Claim) bool {
		b := identity.Basic{Claim: c}
		return b.Check() != nil
	})
	return yamltable.Object[Basic]{Keys: []yamltable.Entry[Basic]{
		yamltable.Field("username", "The claim whose value is the user name. Who has none, or one with a colon, "+
			"comes without the header.", yamltable.OneOf("", names...),
			func(b *Basic) *identity.Claim { return &b.Claim }),
		yamltable.Field("account", "A user name that is the same for everybody.", exact("a user name without a colon"),
			func(b *Basic) *string { return &b.Account }),
		yamltable.Field("password", "The password.",
			yamltable.SecretRef(yamltable.FormFile, yamltable.FormEnv, yamltable.FormLiteral),
			func(b *Basic) *Ref { return &b.Password }).Required(),
	}, Choices: []yamltable.Choice{{Names: []string{"username", "account"}, None: "needs `username`, a claim, or " +
		"`account`, a name that is the same for everybody"}}, Check: checkBasic}.Shape()
}

func checkBasic(w *yamltable.Walker, at yamltable.Place, b *Basic) {
	credentials := b.Credentials()
	if b.Account != "" && credentials.Check() != nil {
		w.FaultAt(at.Path+".account", "must have no colon and no control (RFC 7617 §2)")
	}
}

// Credentials are what the app is given; the password is a stand-in until the references
// are resolved.
func (b *Basic) Credentials() identity.Basic {
	return identity.Basic{Claim: b.Claim, Account: b.Account, Password: known(b.Password)}
}

// IsZero reports whether there are none.
func (b *Basic) IsZero() bool { return b.Claim == "" && b.Account == "" }

func headerFieldShape() yamltable.Shape[identity.Field] {
	claim := yamltable.OneOf("", identity.Claims()...)
	full := yamltable.Object[identity.Field]{Keys: []yamltable.Entry[identity.Field]{
		yamltable.Field("claim", "What the header carries.", claim,
			func(f *identity.Field) *identity.Claim { return &f.Claim }).Required(),
		yamltable.Field("join", "What stands between two groups.",
			yamltable.OneOf(yamltable.QuotedList(identity.Joins()),
				identity.Joins()...), func(f *identity.Field) *string { return &f.Join }).Or(`","`),
		yamltable.Field("encoding", "How letters beyond ASCII are written.",
			yamltable.OneOf("", identity.Encodings()...),
			func(f *identity.Field) *identity.Encoding { return &f.Encoding }).Or(string(identity.EncodePercent)),
	}, Check: checkHeaderField}.Shape()
	// The short form is the claim with the defaults of the long one.
	short := yamltable.Within(claim, func(f *identity.Field) *identity.Claim {
		f.Join, f.Encoding = ",", identity.EncodePercent
		return &f.Claim
	})
	return yamltable.Either("a claim or a mapping with a claim", short, yamltable.Mapping, full)
}

// headerFields reads a mapping of header names. Which names are reserved and
// which are the same to an app, identity knows.
func headerFields() yamltable.Shape[[]identity.Field] {
	value := headerFieldShape()
	name := regexp.MustCompile(headerPattern)
	s := yamltable.Schema{"type": "object", "propertyNames": yamltable.Schema{"pattern": headerPattern},
		"additionalProperties": value.Schema}
	return yamltable.Shape[[]identity.Field]{Want: "a mapping", Schema: s,
		Read: func(w *yamltable.Walker, at yamltable.Place, into *[]identity.Field) {
			if !w.Expect(at, yamltable.Mapping, "a mapping of header names", false) {
				return
			}
			*into = make([]identity.Field, len(at.Node.Content)/2)
			for i := range *into {
				key, node := at.Node.Content[2*i], at.Node.Content[2*i+1]
				here := yamltable.Place{Node: node, Path: yamltable.Join(at.Path, key.Value)}
				if yamltable.IsText(key) && (!name.MatchString(key.Value) || strings.Contains(key.Value, "*")) {
					w.Fault(yamltable.Place{Node: key, Path: here.Path}, "is not the name of a header")
				}
				if strings.EqualFold(key.Value, "authorization") {
					w.Fault(yamltable.Place{Node: key, Path: here.Path}, "carries credentials: they are headers.basic")
				}
				(*into)[i].Header = key.Value
				yamltable.Take(w, value, here, &(*into)[i])
			}
		}}
}

func checkHeaderField(w *yamltable.Walker, at yamltable.Place, f *identity.Field) {
	if f.Claim != identity.ClaimGroups && w.Has(at.Path+".join") {
		w.FaultAt(at.Path+".join", "has a meaning for groups only")
	}
}

// nameWarnings tell of apps that know people by a name which people of two providers can
// both have.
func (c *Config) nameWarnings() Faults {
	signIn := 0
	for _, p := range c.Providers {
		if p.Use != login.UseTokens {
			signIn++
		}
	}
	var warnings Faults
	for i, r := range c.Routes {
		if claim := r.Headers.sharedName(); claim != "" && signIn > 1 {
			warnings = append(warnings, c.doc.FaultAt(yamltable.Index("routes", i)+".headers",
				"tell the app a %s and not the claim user: two people of different providers with the same %s are one "+
					"to it", claim, claim))
		}
	}
	return warnings
}

// sharedName is a claim that names people to the app and is unique only at one provider;
// "" where the app is told something else that tells them apart.
func (h *Headers) sharedName() identity.Claim {
	fields, _ := identity.Preset(h.Preset)
	told := map[identity.Claim]bool{h.Basic.Claim: true}
	for _, f := range fields {
		if !slices.ContainsFunc(h.Set, func(own identity.Field) bool {
			return strings.EqualFold(own.Header, f.Header)
		}) {
			told[f.Claim] = true
		}
	}
	for _, f := range h.Set {
		told[f.Claim] = true
	}
	switch {
	case h.Basic.Claim == identity.ClaimUsername || h.Basic.Claim == identity.ClaimSubject:
		return h.Basic.Claim
	case told[identity.ClaimUser] || told[identity.ClaimProvider]:
		return ""
	case told[identity.ClaimUsername]:
		return identity.ClaimUsername
	case told[identity.ClaimSubject]:
		return identity.ClaimSubject
	}
	return ""
}
