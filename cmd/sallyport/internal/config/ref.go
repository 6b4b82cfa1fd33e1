package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Ref is a value that stands elsewhere: in a variable of the environment or in
// a file. However it is printed, a secret reads "<secret>".
type Ref struct{ sealed[refTarget] }

// sealed keeps a *T where fmt cannot print it: fmt calls no methods below an
// unexported field and follows pointers, but of a func it prints the address.
type sealed[T any] struct{ open func() *T }

func seal[T any](v *T) sealed[T] { return sealed[T]{func() *T { return v }} }

type refTarget struct {
	form, arg string
	secret    bool
	loaded    []loaded
}

// loaded is what was read; a directory may hold several.
type loaded struct{ value, file string }

// IsZero reports whether nothing was configured.
func (r Ref) IsZero() bool { return r.open == nil }

// Value is what the reference stands for; "" before Resolve.
func (r Ref) Value() string {
	if r.IsZero() || len(r.open().loaded) == 0 {
		return ""
	}
	return r.open().loaded[0].value
}

// Reread reads a file again, under the rules of Resolve, and returns what it
// holds now; r stays as it was. What is not from a file is as it was, too.
func (r Ref) Reread(fsys fs.FS) (string, error) {
	if r.IsZero() || r.open().form != formFile {
		return r.Value(), nil
	}
	again := &refTarget{form: formFile, arg: r.open().arg, secret: r.open().secret}
	if complaints := (pending{ref: again}).read(nil, fsys); len(complaints) > 0 {
		return "", errors.New(strings.Join(complaints, "; "))
	}
	return again.loaded[0].value, nil
}

// String is the reference itself, or "<secret>".
func (r Ref) String() string {
	switch {
	case r.IsZero():
		return ""
	case r.open().secret:
		return masked
	}
	return r.open().form + ":" + r.open().arg
}

// GoString keeps secrets out of %#v.
func (r Ref) GoString() string { return r.String() }

// MarshalText keeps secrets out of JSON.
func (r Ref) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// LogValue keeps secrets out of logs.
func (r Ref) LogValue() slog.Value { return slog.StringValue(r.String()) }

// KeyText is the text of one session key, and where it came from.
type KeyText struct {
	Path string // "session.keys[0]", for Config.Fault
	File string // "" if it is not from a file
	text Ref
}

// Text is the secret itself.
func (k KeyText) Text() string { return k.text.Value() }

// The forms of a reference: "env:NAME", "file:/path", "dir:/path", "literal:…".
const (
	formEnv     = "env"
	formFile    = "file"
	formDir     = "dir"
	formLiteral = "literal"
)

// Patterns of the forms, for the schema too.
const (
	patternEnv  = `[A-Za-z_][A-Za-z0-9_]*`
	patternPath = `/.+`
)

func formPattern(form string) string {
	switch form {
	case formEnv:
		return "env:" + patternEnv
	case formLiteral:
		return `literal:[\s\S]+`
	}
	return form + ":" + patternPath
}

// formSample is how a form is named to people.
func formSample(form string) string {
	switch form {
	case formEnv:
		return "env:NAME"
	case formLiteral:
		return "literal:…"
	}
	return form + ":/path"
}

// splitRef takes a reference apart. A complaint says what is wrong with a text
// that has one of the forms; form is "" for a text that has none.
func splitRef(v string) (form, arg, complaint string) {
	form, arg, _ = strings.Cut(v, ":")
	if !slices.Contains([]string{formEnv, formFile, formDir, formLiteral}, form) || !strings.Contains(v, ":") {
		return "", "", "no reference"
	}
	if regexp.MustCompile(`^` + formPattern(form) + `$`).MatchString(v) {
		return form, arg, ""
	}
	switch form {
	case formEnv:
		return form, arg, "env: must be followed by the name of a variable"
	case formLiteral:
		return form, arg, "literal: must be followed by the secret"
	}
	return form, arg, form + ": must be followed by an absolute path"
}

// pending is a reference that Resolve has to read.
type pending struct {
	at   pos
	path string
	ref  *refTarget
	// store, if any, takes the value; what it complains of does not repeat it.
	store func(value string) error
}

// Resolve reads what the references stand for: variables through env, files
// through fsys, whose root is that of the file system (os.DirFS("/")). It is
// the only part of this package that looks outside the file. Whatever it
// returns as faults, the Config must not be used.
func (c *Config) Resolve(env func(string) (string, bool), fsys fs.FS) Faults {
	if faults := c.read(env, fsys, func(pending) bool { return true }); len(faults) > 0 {
		return c.src.open().finish(faults)
	}
	c.Session.KeyTexts = keyTexts(c.Session.Keys)
	return c.src.open().finish(c.settleHosts())
}

// ResolvePublicURL is Resolve for public_url alone: what is asked about rules
// needs no secret.
func (c *Config) ResolvePublicURL(env func(string) (string, bool), fsys fs.FS) Faults {
	if faults := c.read(env, fsys, func(p pending) bool { return p.path == "public_url" }); len(faults) > 0 {
		return c.src.open().finish(faults)
	}
	return c.src.open().finish(c.settleHosts())
}

func (c *Config) read(env func(string) (string, bool), fsys fs.FS, wanted func(pending) bool) (faults Faults) {
	for _, p := range c.src.open().pending {
		if !wanted(p) {
			continue
		}
		p.ref.loaded = nil
		for _, complaint := range p.read(env, fsys) {
			faults = append(faults, c.src.open().fault(p.at, p.path, "%s", complaint))
		}
	}
	return faults
}

func keyTexts(refs []Ref) []KeyText {
	var texts []KeyText
	for i, r := range refs {
		for _, l := range r.open().loaded {
			one := Ref{seal(&refTarget{secret: true, loaded: []loaded{l}})}
			texts = append(texts, KeyText{Path: index("session.keys", i), File: l.file, text: one})
		}
	}
	return texts
}

// read reads one reference and stores the value; it returns what is wrong.
func (p pending) read(env func(string) (string, bool), fsys fs.FS) []string {
	switch p.ref.form {
	case formEnv:
		v, ok := env(p.ref.arg)
		if !ok {
			return []string{"variable " + p.ref.arg + " is not set"}
		}
		return p.take("variable "+p.ref.arg, v, "")
	case formFile:
		return p.readFile(fsys, p.ref.arg)
	case formDir:
		return p.readDir(fsys)
	}
	return p.take("literal:", p.ref.arg, "")
}

func (p pending) take(what, value, file string) []string {
	if line, cut := strings.CutSuffix(value, "\n"); cut { // most editors and `echo` add one
		value = strings.TrimSuffix(line, "\r")
	}
	if strings.TrimSpace(value) == "" {
		return []string{what + " is empty"}
	}
	p.ref.loaded = append(p.ref.loaded, loaded{value, file})
	if p.store == nil {
		return nil
	}
	if err := p.store(value); err != nil {
		return []string{"the value of " + what + " " + err.Error()}
	}
	return nil
}

// readFile follows links, as Kubernetes mounts need it, and reads nothing but
// regular files: a pipe or device could keep us waiting.
func (p pending) readFile(fsys fs.FS, name string) []string {
	inFS := strings.TrimPrefix(path.Clean(name), "/")
	info, err := fs.Stat(fsys, inFS)
	switch {
	case err != nil:
		return []string{"file " + name + " " + whyUnreadable(err)}
	case !info.Mode().IsRegular():
		return []string{name + " is not a regular file"}
	case info.Size() > maxFile:
		return []string{fmt.Sprintf("file %s is larger than %d bytes", name, maxFile)}
	case p.ref.secret && info.Mode().Perm()&0o004 != 0:
		return []string{fmt.Sprintf("everybody on this machine can read file %s (mode %04o): "+
			"run chmod o-r, or give the Kubernetes volume defaultMode 0440", name, info.Mode().Perm())}
	}
	data, err := readAll(fsys, inFS)
	if err != nil {
		return []string{"file " + name + " " + whyUnreadable(err)}
	}
	return p.take("file "+name, string(data), name)
}

func readAll(fsys fs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile))
}

// readDir reads every regular file, in the order of their names. Names that
// begin with a dot are Kubernetes' own ("..data").
func (p pending) readDir(fsys fs.FS) []string {
	dir := path.Clean(p.ref.arg)
	entries, err := fs.ReadDir(fsys, strings.TrimPrefix(dir, "/"))
	if err != nil {
		return []string{"directory " + dir + " " + whyUnreadable(err)}
	}
	var complaints []string
	found := false
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		info, err := fs.Stat(fsys, strings.TrimPrefix(name, "/"))
		if strings.HasPrefix(e.Name(), ".") || (err == nil && !info.Mode().IsRegular()) {
			continue
		}
		found = true
		complaints = append(complaints, p.readFile(fsys, name)...)
	}
	if !found {
		return []string{"directory " + dir + " has no files"}
	}
	return complaints
}

func whyUnreadable(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "does not exist"
	case errors.Is(err, fs.ErrPermission):
		return "may not be read by this user"
	}
	return "cannot be read"
}

// secretRef is a value that must not stand in the file: one of forms.
func secretRef(forms ...string) shape[Ref] { return refShape(true, forms) }

// fileRef is a reference to something that is not secret.
func fileRef(forms ...string) shape[Ref] { return refShape(false, forms) }

func refShape(secret bool, forms []string) shape[Ref] {
	want := "a reference: " + sampleList(forms)
	return shape[Ref]{
		want: want, secret: secret, sample: formSample(forms[0]),
		schema: schema{"type": "string", "pattern": refPattern(forms)},
		read: func(w *walker, at place, into *Ref) {
			v, ok := w.text(at, want, secret)
			if !ok {
				return
			}
			form, arg, complaint := splitRef(v)
			switch {
			case !slices.Contains(forms, form):
				w.noReference(at, want, v, forms, secret)
			case complaint != "":
				w.fault(at, "%s", complaint)
			default:
				*into = Ref{seal(&refTarget{form: form, arg: arg, secret: secret})}
				w.resolveLater(at, into.open(), nil)
			}
		},
	}
}

// noReference is the fault of a text that is no reference. One that only lacks
// its form is shown, because it says where a secret is and not what it is; all
// else may be the secret, or a private key in the place of a public one.
func (w *walker) noReference(at place, want, v string, forms []string, secret bool) {
	switch meant := meantReference(v); {
	case meant != "" && slices.ContainsFunc(forms, func(form string) bool { return strings.HasPrefix(meant, form+":") }):
		w.suggest(at, meant, "must be %s", want)
	case secret:
		w.fault(at, "must be %s; the secret itself does not belong here", want)
	default:
		w.src.hide(at.node)
		w.fault(at, "must be %s", want)
	}
}

// meantReference is the reference that v is without its form: a path below a
// directory that systems have, or a variable as shells and templates write it.
// Random text does not look so; v is "" in all other cases.
func meantReference(v string) string {
	dirs := `app|config|data|etc|home|mnt|opt|root|run|secrets|srv|tmp|usr|var|vault`
	if regexp.MustCompile(`^/(` + dirs + `)(/[A-Za-z0-9._-]+)+$`).MatchString(v) {
		return formFile + ":" + v
	}
	if m := regexp.MustCompile(`^\$\{(` + patternEnv + `)\}$`).FindStringSubmatch(v); m != nil {
		return formEnv + ":" + m[1]
	}
	return ""
}

// valueOrRef is a value that may stand here or elsewhere. parse says what is
// wrong with it in a sentence that begins with "must" and does not repeat it.
func valueOrRef[T any](want, pattern string, parse func(string) (T, error)) shape[T] {
	forms := []string{formEnv, formFile}
	return shape[T]{
		want:   want,
		schema: schema{"type": "string", "anyOf": []any{schema{"pattern": refPattern(forms)}, schema{"pattern": pattern}}},
		read: func(w *walker, at place, into *T) {
			v, ok := w.text(at, want, false)
			if !ok {
				return
			}
			switch form, arg, complaint := splitRef(v); {
			case !slices.Contains(forms, form):
				parsed(w, at, v, into, parse)
			case complaint != "":
				w.fault(at, "%s", complaint)
			default:
				w.resolveLater(at, &refTarget{form: form, arg: arg}, func(value string) (err error) {
					*into, err = parse(value)
					return err
				})
			}
		},
	}
}

func refPattern(forms []string) string {
	var alternatives []string
	for _, f := range forms {
		alternatives = append(alternatives, formPattern(f))
	}
	return "^(" + strings.Join(alternatives, "|") + ")$"
}

func sampleList(forms []string) string {
	var samples []string
	for _, f := range forms {
		samples = append(samples, formSample(f))
	}
	return orList(samples)
}

func (w *walker) resolveLater(at place, ref *refTarget, store func(value string) error) {
	if ref.form == formLiteral {
		w.src.hide(at.node)
	}
	w.src.pending = append(w.src.pending, pending{at: nodePos(at.node), path: at.path, ref: ref, store: store})
}
