package importer

import (
	"encoding/csv"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// read takes an input by what is in it.
func (s *sources) read(in Input) error {
	body := strings.TrimPrefix(string(in.Data), "\ufeff")
	if !utf8.ValidString(body) {
		return fault{in.Name, 1, "is not UTF-8 text"}
	}
	for i, line := range strings.Split(body, "\n") {
		if strings.ContainsFunc(strings.TrimSuffix(line, "\r"), func(r rune) bool {
			return unicode.IsControl(r) && r != '\t'
		}) {
			return fault{in.Name, i + 1, "has a control character"}
		}
	}
	body = strings.ReplaceAll(body, "\r\n", "\n")
	switch form := formOf(body); {
	case in.Env, form == formEnv:
		return s.readEnv(in.Name, body)
	case form == formEmails:
		return s.readEmails(in.Name, body)
	case form == formFlags:
		return s.readCommand(in.Name, body)
	case form == formTOML:
		return s.readTOML(in.Name, body, 0)
	default:
		return s.readYAML(in.Name, body)
	}
}

type form int

const (
	formYAML form = iota
	formEnv
	formEmails
	formFlags
	formTOML
)

var (
	envLine   = regexp.MustCompile(`^(export\s+)?[A-Z][A-Z0-9_]*=`)
	emailLine = regexp.MustCompile(`^[^@\s:="'{}\[\]]+@[^@\s:="'{}\[\]]+$`)
	flagLine  = regexp.MustCompile(`^--?[A-Za-z]`)
	program   = regexp.MustCompile(`(?m)(^|[\s/"=])oauth2[-_]proxy([:@]\S+)?["']?([ \t]*\\?$|\s+-)`)
	// The program's name is a usual client id, and that of releases and images.
	oneValue = regexp.MustCompile(`^(export\s+)?["']?[A-Za-z0-9_.-]+["']?\s*` +
		`(=\s*("[^"]*"|'[^']*'|\S*)|:(\s.*)?)\s*(#.*)?$`)
	notShell = regexp.MustCompile(`^(-\s|FROM\s)`)
	tomlLine = regexp.MustCompile(`^["']?[A-Za-z0-9_-]+["']?\s*=`)
)

// startsProgram reports whether a line is a command, and no value, entry of a list or Dockerfile.
func startsProgram(line string) bool {
	return program.MatchString(line) && !oneValue.MatchString(line) && !notShell.MatchString(line)
}

// formOf tells the forms apart by the lines that say something.
func formOf(body string) form {
	var all, env, email, toml int
	var noCommand bool
	for line := range strings.Lines(body) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		switch {
		case flagLine.MatchString(line) && all == 0, all == 0 && startsProgram(line),
			strings.HasPrefix(line, "ExecStart=") && program.MatchString(line),
			line == "[Service]" && program.MatchString(body):
			return formFlags
		case envLine.MatchString(line):
			env++
		case emailLine.MatchString(line):
			email++
		case tomlLine.MatchString(line) && (all == toml):
			toml++
		}
		noCommand = noCommand || all == 0 && notShell.MatchString(line)
		all++
	}
	switch {
	case all == 0:
		return formYAML
	case env == all:
		return formEnv
	case email == all:
		return formEmails
	case toml > 0 || strings.HasPrefix(strings.TrimSpace(body), "[") && regexp.MustCompile(
		`(?m)^\[[A-Za-z0-9_.-]+\]\s*$`).MatchString(body):
		return formTOML
	}
	// A command whose first lines are something else, as in a unit of systemd or a script.
	yamlKey := regexp.MustCompile(`(?m)^\s*[A-Za-z0-9_.-]+:(\s|$)`)
	if !noCommand && program.MatchString(body) && !yamlKey.MatchString(body) {
		return formFlags
	}
	return formYAML
}

// readEnv reads lines of NAME=value; variables that are not oauth2-proxy's are others'.
func (s *sources) readEnv(name, body string) error {
	n := 0
	s.variables = true
	for line := range strings.Lines(body) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		line = strings.TrimSpace(strings.TrimPrefix(line, "export "))
		key, value, ok := strings.Cut(line, "=")
		if !ok || !variableName.MatchString(key) {
			return fault{name, n, "is not NAME=value"}
		}
		s.addVariable(name, n, key, unquoted(value))
	}
	return nil
}

// unquoted is a value without the quotes around it.
func unquoted(v string) string {
	for _, q := range []string{`"`, `'`} {
		if len(v) >= 2 && strings.HasPrefix(v, q) && strings.HasSuffix(v, q) {
			return v[1 : len(v)-1]
		}
	}
	return v
}

// addVariable keeps a variable, if it is one of oauth2-proxy's.
func (s *sources) addVariable(file string, line int, key, value string) {
	if strings.HasPrefix(key, envPrefix) {
		s.add(setting{key: key, values: s.split(key, fromEnv, value), rank: fromEnv, file: file, line: line,
			variable: key})
	}
}

// split is a value as a list, if the option is one: pflag reads CSV, others cut at commas.
func (s *sources) split(key string, from rank, value string) []string {
	if known()[canonical(key, from)].kind != list {
		return []string{value}
	}
	if from == fromFlag {
		if fields, err := csv.NewReader(strings.NewReader(value)).Read(); err == nil {
			return fields
		}
		return []string{value}
	}
	return strings.Split(value, ",")
}

// readEmails reads a file of addresses, one on each line, as authenticated_emails_file names it.
func (s *sources) readEmails(name, body string) error {
	for line := range strings.Lines(body) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "#") {
			s.emails = append(s.emails, strings.ToLower(line))
		}
	}
	s.emailFile = name
	return nil
}

// word is one word of a command, and the line where it begins.
type word struct {
	text  string
	line  int
	first bool // of a line that does not go on from the one before
}

// words takes a command apart as a shell does, as far as people write commands for
// oauth2-proxy: quotes, backslashes, and comments.
func words(body string) []word {
	var all []word
	var cur strings.Builder
	line, begun, inWord, first := 1, 1, false, true
	var quoted rune
	flush := func() {
		if inWord {
			all = append(all, word{cur.String(), begun, first})
			first = false
		}
		cur.Reset()
		inWord = false
	}
	start := func() {
		if !inWord {
			inWord, begun = true, line
		}
	}
	runes := []rune(body)
	for i := 0; i < len(runes); i++ {
		r := runes[i]
		if n := substitution(runes[i:]); n > 0 && quoted != '\'' {
			start()
			for _, r := range runes[i : i+n] {
				line += btoi(r == '\n')
				cur.WriteRune(r)
			}
			i += n - 1
			continue
		}
		switch {
		case r == '\n' && quoted == 0:
			line++
			flush()
			first = true
		case quoted != 0 && r == quoted:
			quoted = 0
		case quoted == '\'' || quoted == '"' && r != '\\':
			if r == '\n' {
				line++
			}
			cur.WriteRune(r)
		case r == '\\' && i+1 < len(runes):
			i++
			if runes[i] == '\n' {
				line++
				continue // the line goes on
			}
			start()
			if quoted == '"' && !strings.ContainsRune("\"\\$`", runes[i]) {
				cur.WriteRune('\\')
			}
			cur.WriteRune(runes[i])
		case r == '"' || r == '\'':
			start()
			quoted = r
		case unicode.IsSpace(r):
			flush()
		case r == '#' && !inWord:
			for i+1 < len(runes) && runes[i+1] != '\n' {
				i++
			}
		default:
			start()
			cur.WriteRune(r)
		}
	}
	flush()
	return all
}

// substitution is the length of what a shell or a template fills in: $(…), `…` or {{…}}. It may
// have blanks and bars in it, which end no word and no command. 0: none begins here.
func substitution(runes []rune) int {
	switch {
	case hasPrefix(runes, "{{"):
		for i := 2; i < len(runes); i++ {
			if hasPrefix(runes[i:], "}}") {
				return i + 2
			}
		}
	case hasPrefix(runes, "`"):
		if i := slices.Index(runes[1:], '`'); i >= 0 {
			return i + 2
		}
	case hasPrefix(runes, "$("):
		depth := 0
		for i, r := range runes {
			depth += btoi(r == '(') - btoi(r == ')')
			if r == ')' && depth == 0 {
				return i + 1
			}
		}
	}
	return 0
}

func hasPrefix(runes []rune, s string) bool {
	return len(runes) >= len(s) && string(runes[:len(s)]) == s
}

// startKey is what stands before a command in a unit of systemd and in a program of supervisord.
var startKey = regexp.MustCompile(`(?m)(^[ \t]*ExecStart=)|(^[ \t]*command[ \t]*=)[ \t]*([^"'\s]\S*[ \t]+-)`)

// readCommand reads flags, each on a line or in one command.
func (s *sources) readCommand(name, body string) error {
	all := words(startKey.ReplaceAllString(body, "$1$2 $3"))
	found := commands(all)
	var with []command
	for _, c := range found {
		if c.says {
			with = append(with, c)
		}
	}
	switch {
	case len(with) > 1:
		return fault{name, all[with[1].begin-1].line, "is a second oauth2-proxy: import one at a time"}
	case len(with) == 1:
		found = with
	case len(found) == 0: // flags alone
		found = []command{{begin: 0, end: len(all)}}
	}
	last := found[len(found)-1]
	s.around(name, all, last.begin, last.end)
	for _, c := range found {
		s.addFlags(name, all[c.begin:c.end])
	}
	return nil
}

// command is one that starts oauth2-proxy, with all[begin:end] as its arguments.
type command struct {
	begin, end int
	says       bool // an option, or a variable before the program
}

// commands finds them. The program's name is that of folders, users and containers too, as in
// `docker run --name oauth2-proxy …` or WorkingDirectory=/opt/oauth2-proxy: the program is the last
// such word before the first option.
func commands(all []word) []command {
	var found []command
	from := 0
	for i, w := range all {
		if i < from {
			continue
		}
		if w.endsCommand() {
			from = i
		}
		if !w.isProgram() {
			continue
		}
		c := command{begin: i + 1, end: i + 1}
		for c.end < len(all) && !all[c.end].endsCommand() {
			c.end++
		}
		for j := c.begin; j < c.end && !all[j].isOption(); j++ {
			if all[j].isProgram() {
				c.begin = j + 1
			}
		}
		c.says = slices.ContainsFunc(all[c.begin:c.end], word.isOption) ||
			slices.ContainsFunc(all[from:c.begin], func(w word) bool { return strings.Contains(w.text, envPrefix) })
		found = append(found, c)
		from = c.end
	}
	return found
}

// assigned is NAME=value, as in a script or a unit of systemd.
var assigned = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*=.`)

func (w word) isProgram() bool {
	base := w.text[strings.LastIndex(w.text, "/")+1:]
	if i := strings.IndexAny(base, ":@"); i >= 0 { // of an image, with its tag or digest
		base = base[:i]
	}
	return (base == "oauth2-proxy" || base == "oauth2_proxy") && !strings.HasPrefix(w.text, "-") &&
		!assigned.MatchString(w.text)
}

// isOption reports whether a word is an option of oauth2-proxy's.
func (w word) isOption() bool {
	key, _, _ := strings.Cut(w.text, "=")
	return flagLine.MatchString(w.text) && canonical(key, fromFlag) != ""
}

// endsCommand reports whether the command before w has ended.
func (w word) endsCommand() bool {
	return w.first && !flagLine.MatchString(w.text) || slices.Contains([]string{"&", "&&", "||", ";", "|", ">",
		"2>&1"}, w.text)
}

// around reads what stands before and behind the command, from begin to end: variables of a
// script, of docker run (-e NAME=value, or -e NAME) and of a unit of systemd.
func (s *sources) around(file string, all []word, begin, end int) {
	for i, w := range all {
		text := w.text
		for _, before := range []string{"Environment=", "--env=", "-e="} {
			text = strings.TrimPrefix(text, before)
		}
		passed := i > 0 && (all[i-1].text == "-e" || all[i-1].text == "--env") || strings.HasPrefix(w.text, "--env=")
		switch {
		case i >= begin && i < end:
		case strings.HasPrefix(text, envPrefix) && (passed || strings.Contains(text, "=")):
			s.variableWord(file, word{text: text, line: w.line})
		case i < begin && strings.HasPrefix(text, "--env-file"):
			s.elsewhere = append(s.elsewhere, elsewhere{file, w.line, "--env-file", ""})
		case strings.HasPrefix(text, "environment=") && strings.Contains(text, envPrefix): // of supervisord
			s.unknown(file, w.line, "environment", "is not read here: give its variables too, each on a line of a file")
		case strings.HasPrefix(text, "EnvironmentFile="):
			s.elsewhere = append(s.elsewhere, elsewhere{file, w.line, "EnvironmentFile", ""})
		case i < begin && w.first && (text == "." || text == "source"):
			s.elsewhere = append(s.elsewhere, elsewhere{file, w.line, text, ""})
		case w.isOption():
			s.unknown(file, w.line, text, "is no part of the command that starts oauth2-proxy")
		}
	}
}

// variableWord keeps NAME=value; NAME alone stands elsewhere.
func (s *sources) variableWord(file string, w word) {
	key, value, here := strings.Cut(w.text, "=")
	switch {
	case !variableName.MatchString(key):
	case here:
		s.addVariable(file, w.line, key, value)
	default:
		s.add(setting{key: key, rank: fromEnv, file: file, line: w.line, variable: key, missing: true})
	}
}

// addFlags keeps the flags among the words of a command.
func (s *sources) addFlags(file string, all []word) {
	for i := 0; i < len(all); i++ {
		w := all[i]
		if !flagLine.MatchString(w.text) {
			switch w.text {
			case "&", "&&", "||", ";", "|", ">", "2>&1":
				return // another command
			}
			if w.text != "--" && w.text != "" {
				s.unknown(file, w.line, "(argument)", "is no flag, and says nothing that is known here")
			}
			continue
		}
		key, value, given := strings.Cut(w.text, "=")
		o := known()[canonical(key, fromFlag)]
		set := setting{key: key, rank: fromFlag, file: file, line: w.line}
		switch {
		case !given && o.kind == boolean && canonical(key, fromFlag) != "":
			value = "true"
			if i+1 < len(all) {
				if _, ok := truth(all[i+1].text); ok {
					i++
					s.report(file, all[i].line, "(argument)", NotMapped,
						"oauth2-proxy passes it over: "+key+" without = is true")
				}
			}
		case !given && i+1 < len(all) && !flagLine.MatchString(all[i+1].text):
			i++
			value = all[i].text
		}
		set.values = s.split(key, fromFlag, value)
		s.add(set)
	}
}
