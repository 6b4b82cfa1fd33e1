package importer

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// rank orders where a setting stands: flags count before variables of the environment, and
// these before the file. https://oauth2-proxy.github.io/oauth2-proxy/configuration/overview
type rank int

const (
	fromFile rank = iota
	fromEnv
	fromFlag
)

// setting is one option with its values, as an input has it.
type setting struct {
	name   string // of the flag
	key    string // as the input spells it
	values []string
	rank   rank
	file   string
	line   int

	// variable is that of the environment in which the value stands; "" if it stands in the
	// input. missing: the value is not known here, only where it stands.
	variable string
	missing  bool
	judged   bool

	alpha bool // it stands in an alpha configuration
	quiet bool // nobody wrote it: no line says that something else counts
}

// value is the last one, or "".
func (s *setting) value() string {
	if s == nil || len(s.values) == 0 {
		return ""
	}
	return s.values[len(s.values)-1]
}

func (s *setting) place() string { return fmt.Sprintf("%s:%d", printable(s.file), s.line) }

// sources are what all inputs say.
type sources struct {
	settings  []*setting
	upstreams []upstream // of an alpha configuration
	headers   []header   // the same
	emails    []string   // of files that hold addresses
	emailFile string     // the name of such a file; "" if none was given
	ingresses []ingress
	hosts     []string // under which oauth2-proxy itself is served
	variables bool     // a file of variables was given
	alpha     bool     // an alpha configuration was given
	chart     bool     // values of the Helm chart were given
	proxies   int      // oauth2-proxies in manifests
	lines     []Line
	unseen    bool            // something may let fewer people in, and is not known here
	seen      map[string]bool // ConfigMaps and Secrets that were given
	elsewhere []elsewhere
}

// elsewhere is where a manifest says that more variables are.
type elsewhere struct {
	file string
	line int
	key  string
	name string // of what was given, if it was; "" for a file of variables
}

// add keeps a setting by the name in which its input has it.
func (s *sources) add(set setting) {
	set.name = canonical(set.key, set.rank)
	s.settings = append(s.settings, &set)
}

// report keeps a line for what is no option.
func (s *sources) report(file string, line int, key string, v Verdict, text string) {
	s.lines = append(s.lines, Line{file, line, key, v, text})
}

// unknown is for what could be anything, also what lets fewer people in: then nobody may pass
// until somebody has looked.
func (s *sources) unknown(file string, line int, key, text string) {
	s.unseen = true
	s.report(file, line, key, Refused, text)
}

// canonical is the name of the flag for a key: "" if there is none.
func canonical(key string, from rank) string {
	key = strings.TrimLeft(key, "-")
	switch from {
	case fromEnv:
		name, ours := strings.CutPrefix(key, envPrefix)
		if !ours {
			return ""
		}
		key = strings.ToLower(name)
	case fromFlag:
		key = strings.ReplaceAll(key, "_", "-") // pflag does not; the chart's values have both
		if _, ok := known()[key]; ok {
			return key
		}
		return ""
	}
	for name, o := range known() {
		// With the flag's name in a file oauth2-proxy does not start. A variable of that name, such
		// as OAUTH2_PROXY_EMAIL_DOMAIN, it passes over, so what that says must open nothing here.
		if o.file == key || slices.Contains(o.also, key) ||
			from == fromFile && strings.ReplaceAll(name, "-", "_") == key {
			return name
		}
	}
	return ""
}

const envPrefix = "OAUTH2_PROXY_"

// effective leaves, of each option, the settings that count: those of the highest rank, all of
// a list and the last of anything else. The others are judged here.
func (m *mapping) effective() {
	m.set, m.same = map[string]*setting{}, map[*setting][]*setting{}
	for _, s := range m.settings {
		if s.name == "" {
			m.unseen = true
			m.refuse(s, "is no option of oauth2-proxy that is known here")
			continue
		}
		if m.alpha && !s.alpha && notBesideAlpha(s.name) {
			m.not(s, "does not count beside an alpha configuration")
			continue
		}
		before, there := m.set[s.name]
		switch {
		case !there:
			m.take(s)
		case s.rank < before.rank:
			m.outranked(s, before)
		case s.rank > before.rank:
			for _, old := range m.same[before] {
				m.outranked(old, s)
			}
			delete(m.same, before)
			m.take(s)
		case known()[s.name].kind == list && !s.missing && !before.missing:
			before.values = append(slices.Clone(before.values), s.values...)
			m.same[before] = append(m.same[before], s)
		default:
			for _, old := range m.same[before] {
				m.not(old, "stands once more at "+s.place()+", and the last one counts")
			}
			delete(m.same, before)
			m.take(s)
		}
	}
}

// notBesideAlpha are options that an alpha configuration takes the place of.
func notBesideAlpha(name string) bool {
	for _, option := range alphaNames() {
		if name == option || name == option+"-file" {
			return true
		}
	}
	return slices.Contains([]string{optUpstream, "upstream-timeout", "flush-interval", "pass-host-header",
		"proxy-websockets", "ssl-upstream-insecure-skip-verify", "pass-basic-auth", "pass-access-token",
		"pass-user-headers", "pass-authorization-header", "set-basic-auth", "set-xauthrequest",
		"set-authorization-header", "prefer-email-to-user", "basic-auth-password", "skip-auth-strip-headers", "prompt",
		"approval-prompt", "acr-values"}, name)
}

// take makes s the one that counts; those of a list are added to a copy of it.
func (m *mapping) take(s *setting) {
	one := *s
	m.set[s.name] = &one
	m.same[&one] = []*setting{s}
}

func (m *mapping) outranked(s, by *setting) {
	if s.quiet {
		s.judged = true
		return
	}
	m.not(s, fmt.Sprintf("%s says it too, and flags count before variables, and variables before files", by.place()))
}

// Variables that a shell, Kubernetes or a template fills in.
var (
	wholeVariable = regexp.MustCompile(`^\$(?:\(([A-Za-z_][A-Za-z0-9_]*)\)|\{([A-Za-z_][A-Za-z0-9_]*)\}|` +
		`([A-Za-z_][A-Za-z0-9_]*))$`)
	anyVariable = regexp.MustCompile(`\$\([A-Za-z_]|\$\{|\$[A-Za-z_]|\{\{|^<[^>]*>$`)
)

// variableOf is the name of the variable that a value is nothing but.
func variableOf(v string) (string, bool) {
	parts := wholeVariable.FindStringSubmatch(v)
	if parts == nil {
		return "", false
	}
	return parts[1] + parts[2] + parts[3], true
}

// filledIn reports whether a part of a value stands elsewhere.
func filledIn(v string) bool { return anyVariable.MatchString(v) }

// looksLikeRef reports whether one of our configurations would read a text as a reference.
func looksLikeRef(v string) bool {
	form, _, ok := strings.Cut(v, ":")
	return ok && slices.Contains([]string{"env", "file", "dir", "literal"}, form)
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
