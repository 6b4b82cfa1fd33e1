package config

import (
	"errors"
	"regexp"
	"strings"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/yamltable"
	"github.com/sallyport-proxy/sallyport/internal/hostname"
)

// Directory says who may have the directory of their own organization be read, of a provider.
type Directory struct {
	ManagedBy []string // verified e-mail addresses, and ids of people as apps are told them; nil: nobody
	BaseURL   string   // instead of Google's own origins; "": those
}

// IsZero reports whether no directory is read.
func (d Directory) IsZero() bool { return d.ManagedBy == nil }

// Rules are who may have it read, as rules.
func (d Directory) Rules() (rules []Rule) {
	var people Rule
	for _, who := range d.ManagedBy {
		if strings.Contains(who, ":") {
			people.Subjects = append(people.Subjects, who)
		} else {
			rules = append(rules, Rule{Emails: []string{who}})
		}
	}
	if people.Subjects != nil {
		rules = append(rules, people)
	}
	return rules
}

func directoryShape() yamltable.Shape[Directory] {
	return yamltable.Object[Directory]{Keys: []yamltable.Entry[Directory]{
		yamltable.Field("managed_by", "Who may have it read, if Google shows it to them: verified e-mail addresses, "+
			"or ids as apps are told them, such as google:104. To list somebody here is your approval.",
			yamltable.List(manager(), 1),
			func(d *Directory) *[]string { return &d.ManagedBy }).Required(),
		yamltable.Field("base_url", "An origin that answers as Google's Directory API and revocation endpoint, for "+
			"tests. Google's own if left out.", urlText(parseBaseURL),
			func(d *Directory) *string { return &d.BaseURL }),
	}}.Shape()
}

// manager is a person: an address, which has no colon, or an id, which has one.
func manager() yamltable.Shape[string] {
	const form = `^([^@\s"(),:;<>\[\]\\*{}^|]+@[^@\s:]+|[a-z0-9][a-z0-9-]{0,31}:[^*\s]+)$`
	want := "an address such as ann@example.com, or an id such as google:104"
	outline := regexp.MustCompile(form)
	return yamltable.Scalar(want, yamltable.Schema{"pattern": form}, func(v string) (string, error) {
		_, domain, ok := strings.Cut(v, "@")
		if !outline.MatchString(v) || ok && !strings.Contains(v, ":") && !hostname.IsDomain(strings.ToLower(domain)) {
			return "", errors.New("must be " + want)
		}
		return v, nil
	})
}

// checkDirectories: what is read is kept in the store, and ids are those of the same provider.
func (c *Config) checkDirectories() (faults Faults) {
	for i, p := range c.Providers {
		if p.Directory.IsZero() {
			continue
		}
		at := yamltable.Index("providers", i) + ".directory"
		if !c.doc.Has("store") {
			faults = append(faults, c.doc.FaultAt(at, "needs a `store`: what is read is kept there; for one machine, "+
				"`store: sqlite:/var/lib/sallyport/sallyport.db`"))
		}
		for n, who := range p.Directory.ManagedBy {
			if provider, _, ok := strings.Cut(who, ":"); ok && provider != p.ID {
				faults = append(faults, c.doc.FaultAt(yamltable.Index(at+".managed_by", n),
					"is somebody of the provider %q, and this is %s: nobody else has an organization there", provider,
					p.ID))
			}
		}
	}
	return faults
}
