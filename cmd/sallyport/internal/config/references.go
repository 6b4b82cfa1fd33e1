package config

import (
	"io/fs"
	"strings"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/yamltable"
)

// KeyText is the text of one key, and where it came from.
type KeyText struct {
	Path string // "session.keys[0]", for Config.Fault
	File string // "" if it is not from a file
	text Ref
}

// Text is the secret itself.
func (k KeyText) Text() string { return k.text.Value() }

// Resolve reads what the references stand for: variables through env, files
// through fsys, whose root is that of the file system (os.DirFS("/")). It is
// the only part of this package that looks outside the file. Whatever it
// returns as faults, the Config must not be used.
func (c *Config) Resolve(env func(string) (string, bool), fsys fs.FS) Faults {
	if faults := c.doc.Resolve(env, fsys, func(string) bool { return true }); len(faults) > 0 {
		return c.doc.Finish(faults)
	}
	c.Session.KeyTexts = keyTexts("session.keys", c.Session.Keys)
	c.Grants.KeyTexts = keyTexts("grants.encryption_keys", c.Grants.Keys)
	return c.doc.Finish(append(c.settleHosts(), c.storeFaults()...))
}

// ResolveGrants is Resolve for the store and the keys that seal what is lent, and where third
// parties are to be asked, for the connectors: who sees to grants needs no session key, and no
// secret of a provider.
func (c *Config) ResolveGrants(env func(string) (string, bool), fsys fs.FS, connectors bool) Faults {
	wanted := func(path string) bool {
		return ofStore(path) || strings.HasPrefix(path, "grants.encryption_keys") ||
			connectors && strings.HasPrefix(path, "grants.connectors")
	}
	if faults := c.doc.Resolve(env, fsys, wanted); len(faults) > 0 {
		return c.doc.Finish(faults)
	}
	c.Grants.KeyTexts = keyTexts("grants.encryption_keys", c.Grants.Keys)
	return c.doc.Finish(c.storeFaults())
}

// ResolvePublicURL is Resolve for public_url alone: what is asked about rules
// needs no secret.
func (c *Config) ResolvePublicURL(env func(string) (string, bool), fsys fs.FS) Faults {
	if faults := c.doc.Resolve(env, fsys, func(path string) bool { return path == "public_url" }); len(faults) > 0 {
		return c.doc.Finish(faults)
	}
	return c.doc.Finish(c.settleHosts())
}

// ResolveStore is Resolve for the store alone: who lists or ends sessions needs no
// other secret.
func (c *Config) ResolveStore(env func(string) (string, bool), fsys fs.FS) Faults {
	if faults := c.doc.Resolve(env, fsys, ofStore); len(faults) > 0 {
		return c.doc.Finish(faults)
	}
	return c.doc.Finish(c.storeFaults())
}

func ofStore(path string) bool { return path == "store" || strings.HasPrefix(path, "store.") }

func keyTexts(key string, refs []Ref) []KeyText {
	var texts []KeyText
	for i, r := range refs {
		for _, l := range r.Loaded() {
			texts = append(texts, KeyText{Path: yamltable.Index(key, i), File: l.File, text: l.Value})
		}
	}
	return texts
}
