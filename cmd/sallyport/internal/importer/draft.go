package importer

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/assemble"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
)

// draft is one of our configurations while it is made.
type draft struct {
	publicURL string
	listen    []entry
	trusted   []string
	session   []entry
	provider  []entry
	routes    []route
	logo      string
}

// entry is a key and its value as YAML has it.
type entry struct{ key, value string }

// route is one of ours.
type route struct {
	host, path string
	exact      bool
	upstream   []entry // nil: another proxy passes its requests on
	sockets    bool
	public     string // as YAML has it; "" if it is not
	allow      access
	acr        []string
	headers    []appHeader // of a route that asks who somebody is
	from       []*setting
}

// appHeader is a header for the app.
type appHeader struct {
	name, claim string
	utf8        bool // letters beyond ASCII as they are, as oauth2-proxy writes them
}

// access says who may have a route.
type access struct {
	rules  []rule // of which one must match; none: everybody who is signed in
	closed bool   // nobody, until somebody decides
}

// rule matches a person of whom all that is given holds.
type rule struct{ emails, domains, groups []string }

// nobody is an address that no provider can vouch for (RFC 6761 §6.4).
const nobody = "nobody@closed.invalid"

func (d *draft) clone() *draft {
	c := *d
	c.listen, c.session, c.provider = slices.Clone(d.listen), slices.Clone(d.session), slices.Clone(d.provider)
	c.trusted, c.routes = slices.Clone(d.trusted), slices.Clone(d.routes)
	return &c
}

// put sets a key of a mapping, or takes it out if value is "".
func put(list *[]entry, key, value string) {
	i := slices.IndexFunc(*list, func(e entry) bool { return e.key == key })
	switch {
	case value == "" && i >= 0:
		*list = slices.Delete(*list, i, i+1)
	case value == "":
	case i >= 0:
		(*list)[i].value = value
	default:
		*list = append(*list, entry{key, value})
	}
}

func valueOf(list []entry, key string) string {
	for _, e := range list {
		if e.key == key {
			return e.value
		}
	}
	return ""
}

// plainText is what YAML 1.1 and 1.2 read as the same text without quotes.
var (
	plainText = regexp.MustCompile(`^[A-Za-z/][A-Za-z0-9/._@-]*(:[A-Za-z0-9/._@-]+)*$`)
	wordLike  = regexp.MustCompile(`^(?i:true|false|yes|no|on|off|null|y|n|nan|inf)$`)
)

// yamlText is a value in YAML.
func yamlText(v string) string {
	if plainText.MatchString(v) && !wordLike.MatchString(v) {
		return v
	}
	return strconv.QuoteToASCII(v)
}

func yamlList(list []string) string {
	quoted := make([]string, len(list))
	for i, v := range list {
		quoted[i] = yamlText(v)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

func yamlMapping(list []entry) string {
	var all []string
	for _, e := range list {
		all = append(all, yamlText(e.key)+": "+e.value)
	}
	return "{" + strings.Join(all, ", ") + "}"
}

// render writes the draft.
func (d *draft) render() []byte {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("# Made from a configuration of oauth2-proxy by `sallyport import`. What did not map is in the list")
	p("# that the import printed; `sallyport check` says what this means, and what to register.")
	p("version: 1")
	p("public_url: %s", yamlText(d.publicURL))
	if len(d.listen) > 0 {
		p("listen:")
		for _, e := range d.listen {
			p("  %s: %s", e.key, e.value)
		}
	}
	if len(d.trusted) > 0 {
		p("trusted_proxies: %s", yamlList(d.trusted))
	}
	p("session:")
	p("  keys: [env:%s]", sessionKeyVariable)
	for _, e := range d.session {
		p("  %s: %s", e.key, e.value)
	}
	p("providers:")
	for i, e := range d.provider {
		p("  %s%s: %s", [...]string{"- ", "  "}[min(i, 1)], e.key, e.value)
	}
	p("routes:")
	count := map[string]int{}
	for _, r := range d.routes {
		name := [...]string{"app", "open"}[btoi(r.public == "true")]
		if count[name]++; count[name] > 1 {
			name += "-" + strconv.Itoa(count[name])
		}
		r.render(p, name)
	}
	if d.logo != "" {
		p("pages:")
		p("  logo: %s", yamlText(d.logo))
	}
	return []byte(b.String())
}

func (r route) render(p func(string, ...any), name string) {
	p("  - name: %s", name)
	if r.host != "" {
		p("    host: %s", yamlText(r.host))
	}
	p("    %s: %s", [...]string{"path", "path_exact"}[btoi(r.exact)], yamlText(r.path))
	switch {
	case len(r.upstream) == 1:
		p("    upstream: %s", r.upstream[0].value)
	case len(r.upstream) > 1:
		p("    upstream: %s", yamlMapping(r.upstream))
	}
	if r.sockets {
		p("    websocket: true")
	}
	if r.public != "" {
		p("    public: %s", r.public)
	}
	if r.public == "true" {
		return
	}
	r.allow.render(p)
	if len(r.acr) > 0 {
		p("    acr: %s", yamlList(r.acr))
	}
	p("    headers:")
	p("      preset: none")
	if len(r.headers) > 0 {
		p("      set:")
	}
	for _, h := range r.headers {
		if h.utf8 {
			p("        %s: {claim: %s, encoding: utf8}", yamlText(h.name), h.claim)
		} else {
			p("        %s: %s", yamlText(h.name), h.claim)
		}
	}
}

func (a access) render(p func(string, ...any)) {
	switch {
	case a.closed:
		p("    # Nobody: something did not map that says, or may say, who may pass (`refused` in the " +
			"list). Say it here.")
		p("    allow: [{emails: [%s]}]", nobody)
	case len(a.rules) == 0:
		p("    allow: authenticated")
	default:
		p("    allow:")
		for _, r := range a.rules {
			p("      - %s", yamlMapping(r.entries()))
		}
	}
}

func (r rule) entries() []entry {
	var all []entry
	for _, e := range []struct {
		key  string
		list []string
	}{{"emails", r.emails}, {"email_domains", r.domains}, {"groups", r.groups}} {
		if len(e.list) > 0 {
			all = append(all, entry{e.key, yamlList(e.list)})
		}
	}
	return all
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// faults are what is wrong with a draft.
func (d *draft) faults() config.Faults {
	cfg, faults := config.Parse("import.yaml", d.render())
	if len(faults) > 0 {
		return faults
	}
	_, faults = assemble.NewPolicy(cfg)
	return faults
}

// trial is a route with which something is tried, as the only one: what r does not say has an
// app at every path.
func trial(r route) []route {
	r.path = cmp.Or(r.path, "/")
	r.upstream = []entry{{"url", "http://127.0.0.1:8080"}}
	return []route{r}
}

// wrong says what would be wrong with the draft after a change; "" if nothing.
func (m *mapping) wrong(change func(*draft)) string {
	d := m.draft.clone()
	if len(d.routes) == 0 {
		d.routes = trial(route{})
	}
	change(d)
	if faults := d.faults(); len(faults) > 0 {
		return faults[0].Message
	}
	return ""
}

// tryPut sets a key of the provider if the whole stays valid, and says why it cannot.
func (m *mapping) tryPut(key, value string) string {
	why := m.wrong(func(d *draft) { put(&d.provider, key, value) })
	if why == "" {
		put(&m.draft.provider, key, value)
	}
	return why
}
