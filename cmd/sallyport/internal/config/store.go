package config

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/yamltable"
	"github.com/sallyport-proxy/sallyport/store/postgres"
)

// Store is where replicas share, and a restart keeps, what ended before its time.
// Zero: nowhere, in the memory of each process.
type Store struct {
	URL         Ref // "sqlite:/path" or "postgres://…"
	CA          Ref // PEM, who may vouch for the server; zero is whom the system trusts
	NoNotify    bool
	Connections int
}

// IsZero reports whether there is none.
func (s Store) IsZero() bool { return s.URL.IsZero() }

// SameAccess reports whether it is reached as before, once references are resolved.
func (s Store) SameAccess(before Store) bool {
	return s.URL.Value() == before.URL.Value() && s.CA.Value() == before.CA.Value()
}

// differs reports whether it is another one than before, or is asked in another way. Another user,
// password or authority is none of these.
func (s Store) differs(before Store) bool {
	if s.NoNotify != before.NoNotify || s.Connections != before.Connections {
		return true
	}
	is, err := postgres.ParseAddress(s.URL.Value())
	was, errWas := postgres.ParseAddress(before.URL.Value())
	if err != nil || errWas != nil {
		return s.URL.Value() != before.URL.Value()
	}
	return !is.SameDatabase(was)
}

// SQLite is the path of its file; "" for another kind of database.
func (s Store) SQLite() string {
	file, _ := strings.CutPrefix(s.URL.Value(), sqliteScheme)
	if file == s.URL.Value() {
		return ""
	}
	return file
}

const (
	sqliteScheme = "sqlite:"
	storeForms   = "sqlite:/path, postgres://user@host/database, env:NAME or file:/path"
)

func storeShape() yamltable.Shape[Store] {
	address, place := storeURL(), func(s *Store) *Ref { return &s.URL }
	full := yamltable.Object[Store]{Keys: []yamltable.Entry[Store]{
		yamltable.Field("url", "The database: "+storeForms+".", address, place).Required(),
		yamltable.Field("ca", "Who may vouch for a PostgreSQL server, PEM; whom this system trusts if left out.",
			authorities(), func(s *Store) *Ref { return &s.CA }),
		yamltable.Field("notify", "How to hear of what other servers write to PostgreSQL: auto listens (LISTEN), and "+
			"asks four times a second where nothing is heard, as behind some poolers; false only asks.",
			autoOrFalse(), func(s *Store) *bool { return &s.NoNotify }).Or("auto"),
		yamltable.Field("connections", "How many connections to PostgreSQL there are at most, one more for LISTEN "+
			"aside. Of 3 and more, half answer who asks, and wait for nobody who writes.",
			yamltable.Number(2, 100), func(s *Store) *int { return &s.Connections }).Or("4"),
	}}.Shape()
	// The short form is the URL with the defaults of the long one.
	short := yamltable.Within(address, place)
	read := short.Read
	short.Read = func(w *yamltable.Walker, at yamltable.Place, into *Store) {
		read(w, at, into)
		into.Connections = 4
	}
	return yamltable.Either(storeForms+"; or a mapping with a url", short, yamltable.Mapping, full)
}

// storeURL is where a database is. With a password it must stand elsewhere.
func storeURL() yamltable.Shape[Ref] {
	s := yamltable.ValueOrSecret(storeForms, `^(sqlite:(/[^/?]+)+|postgres(ql)?://.+)$`,
		func(v string, here bool) error {
			if strings.HasPrefix(v, sqliteScheme) || path.IsAbs(v) {
				return checkSQLite(v)
			}
			if scheme, _, found := strings.Cut(v, "://"); !found || scheme != "postgres" && scheme != "postgresql" {
				return yamltable.Unquoted{Complaint: errors.New("must be " + storeForms)}
			}
			a, err := postgres.ParseAddress(v)
			if err == nil && a.Secret && here {
				err = errors.New("must be env:NAME or file:/path where there is a password in it: a secret does not " +
					"belong here")
			}
			if err != nil {
				return yamltable.Unquoted{Complaint: err}
			}
			return nil
		})
	read := s.Read
	s.Read = func(w *yamltable.Walker, at yamltable.Place, into *Ref) {
		// A file that holds an address has no such name: it is the database itself.
		if form, name, _ := yamltable.SplitRef(at.Node.Value); form == yamltable.FormFile {
			switch path.Ext(name) {
			case ".db", ".sqlite", ".sqlite3":
				w.Suggest(at, sqliteScheme+name, "must be a file that holds the address of a database, which this is "+
					"not by its name")
				return
			}
		}
		read(w, at, into)
	}
	return s
}

// checkSQLite judges sqlite:/path, and the path alone.
func checkSQLite(v string) error {
	file, scheme := strings.CutPrefix(v, sqliteScheme)
	switch {
	case !path.IsAbs(file):
		return errors.New("must be the absolute path of a file, such as sqlite:/var/lib/sallyport/sallyport.db")
	case strings.HasSuffix(file, "/"):
		return errors.New("must be a file and not a directory, such as sqlite:/var/lib/sallyport/sallyport.db")
	case strings.Contains(file, "?"):
		return errors.New("must be a path without parameters: Sallyport chooses them")
	case !scheme || path.Clean(file) != file: // sqlite:///path, as URLs have it
		return yamltable.Slip{Complaint: errors.New("must be sqlite: and a path"),
			Meant: sqliteScheme + path.Clean(file)}
	}
	return nil
}

// storeFaults judges what goes with which kind of database, once that is known. It
// runs beside other faults.
func (c *Config) storeFaults() (faults Faults) {
	v := c.Store.URL.Value()
	if v == "" {
		return nil
	}
	fault := func(key, format string, args ...any) {
		if c.doc.Has(key) {
			faults = append(faults, c.doc.FaultAt(key, format, args...))
		}
	}
	if c.Store.SQLite() != "" {
		for _, key := range []string{"store.ca", "store.notify", "store.connections"} {
			fault(key, "has a meaning for PostgreSQL only, and the url is a file of SQLite; leave it out")
		}
		return faults
	}
	a, err := postgres.ParseAddress(v)
	switch {
	case err != nil: // said before
	case !a.Proven:
		fault("store.ca", "has a meaning only where the server is verified; leave sslmode out of the url, or make it "+
			"verify-full")
	case strings.Contains(v, "sslrootcert="):
		fault("store.ca", "stands beside sslrootcert in the url, which is the same; leave one of them out")
	}
	return faults
}

// strict is how old what is known of other servers may be on a strict route: they
// know of each other's sign-outs within this time.
const strict = 2 * time.Second

// revocation is `strict` or `stale` and a duration.
func revocation() yamltable.Shape[time.Duration] {
	want := "strict, or stale and a duration such as stale 5m"
	form := yamltable.Schema{"pattern": `^(strict|stale ([0-9]+(\.[0-9]+)?(ms|s|m|h))+)$`}
	return yamltable.Scalar(want, form, func(v string) (time.Duration, error) {
		if v == "strict" {
			return strict, nil
		}
		text, ok := strings.CutPrefix(v, "stale ")
		d, err := time.ParseDuration(text)
		switch {
		case !ok || err != nil || text != strings.TrimLeft(text, "+-"):
			return 0, errors.New("must be " + want)
		case d < minStale || d > maxStale:
			return 0, fmt.Errorf("must be stale and from %s to %s", yamltable.Short(minStale),
				yamltable.Short(maxStale))
		}
		return d, nil
	})
}

const minStale, maxStale = 5 * time.Second, 24 * time.Hour

// revocationFaults are those of keys that say what holds without a store that there
// is not.
func (c *Config) revocationFaults() (faults Faults) {
	if c.doc.Has("store") {
		return nil
	}
	keys := []string{"session.revocation"}
	for i := range c.Routes {
		keys = append(keys, yamltable.Index("routes", i)+".revocation")
	}
	for _, key := range keys {
		if c.doc.Has(key) {
			faults = append(faults, c.doc.FaultAt(key, "says what holds while the store is away, and there is no "+
				"store; name one (`store:`), or leave this out"))
		}
	}
	return faults
}

// storeWarnings are of what is allowed and dangerous.
func (c *Config) storeWarnings() Faults {
	a, err := postgres.ParseAddress(c.Store.URL.Value())
	if err != nil || !a.Exposed {
		return nil
	}
	return Faults{c.doc.FaultAt("store", "the database is reached over a network and its certificate is not verified: "+
		"somebody on the way can sign in again who has signed out; leave sslmode out for verify-full")}
}
