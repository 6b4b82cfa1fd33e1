package yamltable

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
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

// Same reports whether two references are written alike. What they stand for is not asked.
func (r Ref) Same(other Ref) bool {
	return !r.IsZero() && !other.IsZero() && r.open().form == other.open().form && r.open().arg == other.open().arg
}

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
	if r.IsZero() || r.open().form != FormFile {
		return r.Value(), nil
	}
	again := &refTarget{form: FormFile, arg: r.open().arg, secret: r.open().secret}
	if complaints := (pending{ref: again}).read(nil, fsys); len(complaints) > 0 {
		return "", errors.New(strings.Join(complaints, "; "))
	}
	return again.loaded[0].value, nil
}

// Loaded is one of the values that a reference stands for: a directory may hold
// several.
type Loaded struct {
	File  string // "" if it is not from a file
	Value Ref
}

// Loaded are the values that Resolve read, each a secret.
func (r Ref) Loaded() []Loaded {
	var all []Loaded
	for _, l := range r.open().loaded {
		all = append(all, Loaded{l.file, Ref{seal(&refTarget{secret: true, loaded: []loaded{l}})}})
	}
	return all
}

// Path is that of the file it names; "" if it names none.
func (r Ref) Path() string {
	if r.IsZero() || r.open().form != FormFile {
		return ""
	}
	return r.open().arg
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

// The forms of a reference: "env:NAME", "file:/path", "dir:/path", "literal:…".
const (
	FormEnv     = "env"
	FormFile    = "file"
	FormDir     = "dir"
	FormLiteral = "literal"
)

// Patterns of the forms, for the schema too.
const (
	patternEnv  = `[A-Za-z_][A-Za-z0-9_]*`
	patternPath = `/.+`
)

func formPattern(form string) string {
	switch form {
	case FormEnv:
		return "env:" + patternEnv
	case FormLiteral:
		return `literal:[\s\S]+`
	}
	return form + ":" + patternPath
}

// formSample is how a form is named to people.
func formSample(form string) string {
	switch form {
	case FormEnv:
		return "env:NAME"
	case FormLiteral:
		return "literal:…"
	}
	return form + ":/path"
}

// SplitRef takes a reference apart. A complaint says what is wrong with a text
// that has one of the forms; form is "" for a text that has none.
func SplitRef(v string) (form, arg, complaint string) {
	form, arg, _ = strings.Cut(v, ":")
	if !slices.Contains([]string{FormEnv, FormFile, FormDir, FormLiteral}, form) || !strings.Contains(v, ":") {
		return "", "", "no reference"
	}
	if regexp.MustCompile(`^` + formPattern(form) + `$`).MatchString(v) {
		return form, arg, ""
	}
	switch form {
	case FormEnv:
		return form, arg, "env: must be followed by the name of a variable"
	case FormLiteral:
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

// Resolve reads those references whose paths are wanted: variables through env,
// files through fsys, whose root is that of the file system (os.DirFS("/")).
func (d Document) Resolve(env func(string) (string, bool), fsys fs.FS, wanted func(path string) bool) (faults Faults) {
	for _, p := range d.open().pending {
		if !wanted(p.path) {
			continue
		}
		p.ref.loaded = nil
		for _, complaint := range p.read(env, fsys) {
			faults = append(faults, d.open().fault(p.at, p.path, "%s", complaint))
		}
	}
	return faults
}

// InFile makes a fault of each secret that stands in the file itself.
func (d Document) InFile(message string) (faults Faults) {
	for _, p := range d.open().pending {
		if p.ref.form == FormLiteral {
			faults = append(faults, d.open().fault(p.at, p.path, "%s", message))
		}
	}
	return faults
}

// read reads one reference and stores the value; it returns what is wrong.
func (p pending) read(env func(string) (string, bool), fsys fs.FS) []string {
	switch p.ref.form {
	case FormEnv:
		v, ok := env(p.ref.arg)
		if !ok {
			return []string{"variable " + p.ref.arg + " is not set"}
		}
		return p.take("variable "+p.ref.arg, v, "")
	case FormFile:
		return p.readFile(fsys, p.ref.arg)
	case FormDir:
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
	case info.Size() > MaxFile:
		return []string{fmt.Sprintf("file %s is larger than %d bytes", name, MaxFile)}
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
	return io.ReadAll(io.LimitReader(f, MaxFile))
}

// readDir reads every file, in the order of their names. Names that begin with a
// dot are passed over: they are Kubernetes' own ("..data"), or a file that is still
// being written.
func (p pending) readDir(fsys fs.FS) (complaints []string) {
	dir := path.Clean(p.ref.arg)
	names, complaint := listDir(fsys, dir)
	// A file that goes while the others are read would be a fault that nobody finds
	// again; so a directory that has changed meanwhile is read again.
	for range 3 {
		if complaint != "" {
			return []string{complaint}
		}
		p.ref.loaded, complaints = nil, nil
		for _, name := range names {
			complaints = append(complaints, p.readFile(fsys, path.Join(dir, name))...)
		}
		before := names
		if names, complaint = listDir(fsys, dir); slices.Equal(before, names) {
			break
		}
	}
	return complaints
}

// listDir names the files of a directory, or says what is wrong with it.
func listDir(fsys fs.FS, dir string) (names []string, complaint string) {
	inFS := strings.TrimPrefix(dir, "/")
	if info, err := fs.Stat(fsys, cmp.Or(inFS, ".")); err == nil && !info.IsDir() {
		return nil, dir + " is not a directory; file: names a single file"
	}
	entries, err := fs.ReadDir(fsys, cmp.Or(inFS, "."))
	if err != nil {
		return nil, "directory " + dir + " " + whyUnreadable(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	switch {
	case len(names) == 0:
		return nil, "directory " + dir + " has no files"
	case len(names) > MaxDir:
		return nil, fmt.Sprintf("directory %s has more than %d files", dir, MaxDir)
	}
	return names, ""
}

func whyUnreadable(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "does not exist"
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("may not be read by this user (uid %d): give it to the user or a group of the user "+
			"that runs Sallyport, with chown or chgrp", os.Getuid())
	}
	return "cannot be read"
}

// SecretRef is a value that must not stand in the file: one of forms.
func SecretRef(forms ...string) Shape[Ref] { return refShape(true, forms) }

// FileRef is a reference to something that is not secret.
func FileRef(forms ...string) Shape[Ref] { return refShape(false, forms) }

func refShape(secret bool, forms []string) Shape[Ref] {
	want := "a reference: " + sampleList(forms)
	return Shape[Ref]{
		Want: want, secret: secret, guarded: !secret, sample: formSample(forms[0]),
		Schema: Schema{"type": "string", "pattern": refPattern(forms)},
		Read: func(w *Walker, at Place, into *Ref) {
			v, ok := w.reference(at, want, secret)
			if !ok {
				return
			}
			form, arg, complaint := SplitRef(v)
			switch {
			case !slices.Contains(forms, form):
				w.noReference(at, want, v, forms, secret)
			case complaint != "":
				w.Fault(at, "%s", complaint)
			default:
				*into = Ref{seal(&refTarget{form: form, arg: arg, secret: secret})}
				w.resolveLater(at, into.open(), nil)
			}
		},
	}
}

// reference reads a text that is a reference if it is as it should be. What else stands there
// may be a secret.
func (w *Walker) reference(at Place, want string, secret bool) (string, bool) {
	if at.Node.Kind != ScalarText {
		w.hideBelow(at.Node)
	}
	return w.Text(at, want, secret)
}

// noReference is the fault of a text that is no reference. One that only lacks
// its form is shown, because it says where a secret is and not what it is; all
// else may be the secret, or a private key in the place of a public one.
func (w *Walker) noReference(at Place, want, v string, forms []string, secret bool) {
	switch meant := MeantReference(v); {
	case strings.HasPrefix(v, FormDir+":/"):
		w.Fault(at, "%s", oneValue)
	case meant != "" && slices.ContainsFunc(forms,
		func(form string) bool { return strings.HasPrefix(meant, form+":") }):
		w.Suggest(at, meant, "must be %s", want)
	case secret:
		w.Fault(at, "must be %s; the secret itself does not belong here", want)
	default:
		w.src.hide(at.Node)
		w.Fault(at, "must be %s", want)
	}
}

// MeantReference is the reference that v is without its form: a path below a
// directory that systems have, or a variable as shells and templates write it.
// Random text does not look so; v is "" in all other cases.
func MeantReference(v string) string {
	switch {
	case strings.HasPrefix(v, "/"): // before anything is compiled: this is asked of every text of a file
		dirs := `app|config|data|etc|home|mnt|opt|root|run|secrets|srv|tmp|usr|var|vault`
		if regexp.MustCompile(`^/(` + dirs + `)(/[A-Za-z0-9._-]+)+$`).MatchString(v) {
			return FormFile + ":" + v
		}
	case strings.HasPrefix(v, "${"):
		if m := regexp.MustCompile(`^\$\{(` + patternEnv + `)\}$`).FindStringSubmatch(v); m != nil {
			return FormEnv + ":" + m[1]
		}
	}
	return ""
}

// ValueOrRef is a value that may stand here or elsewhere. parse says what is
// wrong with it in a sentence that begins with "must" and does not repeat it.
func ValueOrRef[T any](want, pattern string, parse func(string) (T, error)) Shape[T] {
	forms := []string{FormEnv, FormFile}
	return Shape[T]{
		Want: want,
		Schema: Schema{"type": "string", "anyOf": []any{Schema{"pattern": refPattern(forms)},
			Schema{"pattern": pattern}}},
		Read: func(w *Walker, at Place, into *T) {
			v, ok := w.Text(at, want, false)
			if !ok {
				return
			}
			switch form, arg, complaint := SplitRef(v); {
			case form == FormDir && complaint == "":
				w.Fault(at, "%s", oneValue)
			case strings.HasPrefix(MeantReference(v), FormEnv+":"): // also where any text would do, as in a client id
				w.Suggest(at, MeantReference(v), "must be %s; variables are not expanded in the file, but env: stands "+
					"for the whole value", want)
			case !slices.Contains(forms, form):
				Parsed(w, at, v, into, parse)
			case complaint != "":
				w.Fault(at, "%s", complaint)
			default:
				w.resolveLater(at, &refTarget{form: form, arg: arg}, func(value string) (err error) {
					*into, err = parse(value)
					return err
				})
			}
		},
	}
}

// oneValue is the fault of dir: in a place that takes no list.
const oneValue = "dir: stands for several values, one for each file, and one is wanted here; name it with file:/path"

// ValueOrSecret is a text that may stand here as long as it holds no secret, and
// elsewhere in any case; however it is printed, it reads "<secret>". judge says what
// is wrong with it as in Parsed; here means that it stands in the file.
func ValueOrSecret(want, pattern string, judge func(v string, here bool) error) Shape[Ref] {
	forms := []string{FormEnv, FormFile}
	return Shape[Ref]{
		Want: want, guarded: true,
		Schema: Schema{"type": "string", "anyOf": []any{Schema{"pattern": refPattern(forms)},
			Schema{"pattern": pattern}}},
		Read: func(w *Walker, at Place, into *Ref) {
			v, ok := w.reference(at, want, false)
			if !ok {
				return
			}
			switch form, arg, complaint := SplitRef(v); {
			case !slices.Contains(forms, form):
				Parsed(w, at, v, into, func(v string) (Ref, error) {
					if err := judge(v, true); err != nil {
						return Ref{}, err
					}
					return Ref{seal(&refTarget{secret: true, loaded: []loaded{{value: v}}})}, nil
				})
			case complaint != "":
				w.Fault(at, "%s", complaint)
			default:
				*into = Ref{seal(&refTarget{form: form, arg: arg, secret: true})}
				w.resolveLater(at, into.open(), func(v string) error { return judge(v, false) })
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

func (w *Walker) resolveLater(at Place, ref *refTarget, store func(value string) error) {
	if ref.form == FormLiteral {
		w.src.hide(at.Node)
	}
	w.src.pending = append(w.src.pending, pending{at: nodePos(at.Node), path: at.Path, ref: ref, store: store})
}

// Judged is a reference whose value Resolve has judged.
func Judged(s Shape[Ref], judge func(text string) error) Shape[Ref] {
	read := s.Read
	s.Read = func(w *Walker, at Place, into *Ref) {
		if read(w, at, into); !into.IsZero() {
			w.src.pending[len(w.src.pending)-1].store = judge
		}
	}
	return s
}
