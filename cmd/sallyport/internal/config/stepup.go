package config

import (
	"slices"
	"time"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/yamltable"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/login"
)

// proofKeys are the keys of a route about how people must have proved who they are.
func proofKeys() []yamltable.Entry[Route] {
	return []yamltable.Entry[Route]{
		yamltable.Field("max_age", "How long ago at most somebody must have proved to the provider who they are, "+
			"at least 1m: else they do so again before they get in. The provider has to say when (auth_time).",
			yamltable.Duration(time.Minute, 720*time.Hour), func(r *Route) *time.Duration { return &r.Proof.MaxAge }),
		yamltable.Field("acr", "By which means somebody must have proved to the provider who they are, any of these, "+
			"as the provider calls them in the claim acr; else they do so again.",
			acrValues(), func(r *Route) *[]string { return &r.Proof.ACR }),
	}
}

// acrValues is a list of what may stand in acr_values of a request and of a challenge:
// between blanks, in quotes (RFC 9470 §3).
func acrValues() yamltable.Shape[[]string] {
	const most = 16
	values := yamltable.List(yamltable.Pattern("a value of acr: 1 to 128 letters, digits and signs, without blanks, "+
		"quotes and backslashes", `^[!#-\[\]-~]{1,128}$`), 1)
	read := values.Read
	values.Read = func(w *yamltable.Walker, at yamltable.Place, into *[]string) {
		read(w, at, into)
		if len(*into) > most {
			w.Fault(at, "must not have more than %d values", most)
		}
	}
	values.Schema["maxItems"] = most
	return values
}

// ACR are the values of acr that routes ask for, and that sessions have to hold.
func (c *Config) ACR() []string {
	all := []string{}
	for _, r := range c.Routes {
		for _, acr := range r.Proof.ACR {
			if !slices.Contains(all, acr) {
				all = append(all, acr)
			}
		}
	}
	return all
}

// proofWarnings tell of routes that ask for what a provider is known never to say.
func (c *Config) proofWarnings() Faults {
	var faults Faults
	for i, r := range c.Routes {
		for _, p := range c.Providers {
			if p.Use == login.UseTokens {
				continue
			}
			if why := neverSays(p, r.Proof); why.key != "" {
				at := yamltable.Join(yamltable.Index("routes", i), why.key)
				faults = append(faults, c.doc.FaultAt(at, "%s", why.text))
			}
		}
	}
	return faults
}

// checkProofs: a route that asks for what none of the providers ever says is for nobody.
// GitHub is the only one that says neither when nor how somebody signed in.
func (c *Config) checkProofs() Faults {
	if slices.ContainsFunc(c.Providers, func(p Provider) bool {
		return p.Use != login.UseTokens && p.Type != login.TypeGitHub
	}) {
		return nil
	}
	var faults Faults
	for i, r := range c.Routes {
		key := "acr"
		if r.Proof.MaxAge > 0 {
			key = "max_age"
		}
		if len(c.Providers) > 0 && (r.Proof.MaxAge > 0 || len(r.Proof.ACR) > 0) {
			faults = append(faults, c.doc.FaultAt(yamltable.Join(yamltable.Index("routes", i), key),
				"lets nobody in: type github says neither when nor how somebody signed in"))
		}
	}
	return faults
}

func neverSays(p Provider, asked identity.Proof) (why struct{ key, text string }) {
	switch {
	case len(asked.ACR) > 0 &&
		slices.Contains([]string{login.TypeGoogle, login.TypeMicrosoft, login.TypeSlack, login.TypeGitHub}, p.Type):
		why.key = "acr"
		why.text = "nobody who signed in with provider " + p.ID + " gets in: type " + p.Type + " never sends acr"
	case asked.MaxAge > 0 && p.Type == login.TypeGitHub:
		why.key = "max_age"
		why.text = "nobody who signed in with provider " + p.ID + " gets in: type github never says when " +
			"somebody signed in"
	case asked.MaxAge > 0 && p.Type == login.TypeSlack:
		why.key = "max_age"
		why.text = "proves nothing of those who signed in with provider " + p.ID + ": the auth_time of type " + p.Type +
			" is the moment of each answer, whether or not the person was asked"
	}
	return why
}
