package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/constant"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// logKey is how the log writes the names of what it says.
var logKey = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// TestKeysOfTheLogAreSpelledAlike: who searches the log writes `request_id`, and need not know
// which part of the program wrote a line. So every key that is handed to slog is in lower case,
// with underscores, and so are the members of what is handed to it as a whole.
func TestKeysOfTheLogAreSpelledAlike(t *testing.T) {
	keys := 0
	eachTypedPackage(t, func(set *token.FileSet, files []*ast.File, info *types.Info) {
		found := logKeysOf(info, files)
		keys += len(found)
		for _, k := range found {
			if !logKey.MatchString(k.name) {
				t.Errorf("%s: the log has the key %q", set.Position(k.at), k.name)
			}
		}
	})
	if keys < 200 {
		t.Errorf("only %d keys of the log were found", keys)
	}
}

func TestKeysOfTheLogAreFound(t *testing.T) {
	const source = `package p
import "log/slog"
type form struct {
	Name string
	From string ` + "`json:\"from,omitempty\"`" + `
	Left string ` + "`json:\"-\"`" + `
	quiet string
}
func f(log *slog.Logger, given []any) {
	log.With("One", 1).Info("message", "two", []form{}, "Three", "Value", slog.Int("Four", 4))
	given = append(given, "Five", "Value", "six", 6)
	log.Info("message", append([]any{"Seven", 7}, given...)...)
	log.Info("message", given...)
	slog.Warn("message", "eight", map[string]*form{})
}`
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, "p.go", source, 0)
	if err != nil {
		t.Fatal(err)
	}
	files := []*ast.File{file}
	info := typesOf(t, set, "p", files, importerOf(set, exportedPackages(t, "log/slog")))
	var names []string
	for _, k := range logKeysOf(info, files) {
		names = append(names, k.name)
	}
	slices.Sort(names)
	if want := "Five Four Name Name One Seven Three eight from from six two"; strings.Join(names, " ") != want {
		t.Errorf("found %q, not %s", names, want)
	}
}

// namedKey is a key of the log, or a member of a value that has some.
type namedKey struct {
	name string
	at   token.Pos
}

// logKeysOf are the keys that files hand to slog, to what hands them on, and to lists that are
// made for that.
func logKeysOf(info *types.Info, files []*ast.File) (found []namedKey) {
	for _, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CompositeLit:
				if isAnyList(info.TypeOf(n)) {
					found = append(found, pairs(info, n.Elts)...)
				}
			case *ast.CallExpr:
				found = append(found, keysOfCall(info, n)...)
			}
			return true
		})
	}
	return found
}

func keysOfCall(info *types.Info, call *ast.CallExpr) []namedKey {
	name, ok := ast.Unparen(call.Fun).(*ast.Ident)
	if selector, is := ast.Unparen(call.Fun).(*ast.SelectorExpr); is {
		name, ok = selector.Sel, true
	}
	if !ok {
		return nil
	}
	switch callee := info.Uses[name].(type) {
	case *types.Builtin:
		if callee.Name() == "append" && isAnyList(info.TypeOf(call.Args[0])) && !call.Ellipsis.IsValid() {
			return pairs(info, call.Args[1:])
		}
	case *types.Func:
		takes := callee.Signature().Params()
		if takes.Len() == 0 || callee.Pkg() == nil {
			return nil
		}
		first, last := takes.At(0).Name(), takes.Len()-1
		switch path := callee.Pkg().Path(); {
		case path == "log/slog", path == module+"internal/observe":
		case strings.HasPrefix(path, module) && first == "message": // it hands them on
		default:
			return nil
		}
		switch open := callee.Signature().Variadic() && isAnyList(takes.At(last).Type()); {
		case first == "key" && open: // slog.Group
			return append(pairs(info, call.Args[:1]), pairs(info, call.Args[1:])...)
		case first == "key" && len(call.Args) == 2 && isText(info, call.Args[0]):
			return pairs(info, call.Args)
		case open && !call.Ellipsis.IsValid():
			return pairs(info, call.Args[last:])
		}
	}
	return nil
}

// pairs are the keys of keys and values that take turns; an attribute is both.
func pairs(info *types.Info, args []ast.Expr) (found []namedKey) {
	for i := 0; i < len(args); i++ {
		if !isText(info, args[i]) {
			continue
		}
		if key := info.Types[args[i]].Value; key != nil {
			found = append(found, namedKey{constant.StringVal(key), args[i].Pos()})
		}
		if i++; i < len(args) {
			for _, name := range members(info.TypeOf(args[i]), 0) {
				found = append(found, namedKey{name, args[i].Pos()})
			}
		}
	}
	return found
}

// members are the names that the JSON of a type has beside those of its data.
func members(t types.Type, depth int) (names []string) {
	if depth > 8 || speaksForItself(t) {
		return nil
	}
	switch t := t.Underlying().(type) {
	case *types.Pointer:
		return members(t.Elem(), depth+1)
	case *types.Slice:
		return members(t.Elem(), depth+1)
	case *types.Array:
		return members(t.Elem(), depth+1)
	case *types.Map:
		return members(t.Elem(), depth+1)
	case *types.Struct:
		for i := range t.NumFields() {
			name, _, _ := strings.Cut(reflect.StructTag(t.Tag(i)).Get("json"), ",")
			switch {
			case !t.Field(i).Exported() || name == "-":
				continue
			case name == "":
				name = t.Field(i).Name()
			}
			names = append(append(names, name), members(t.Field(i).Type(), depth+1)...)
		}
	}
	return names
}

// speaksForItself reports whether slog asks a value how it is to be shown.
func speaksForItself(t types.Type) bool {
	for _, how := range []string{"MarshalJSON", "MarshalText", "LogValue", "Error"} {
		if m, _, _ := types.LookupFieldOrMethod(t, true, nil, how); m != nil {
			return true
		}
	}
	return false
}

func isText(info *types.Info, e ast.Expr) bool {
	b, ok := info.TypeOf(e).Underlying().(*types.Basic)
	return ok && b.Info()&types.IsString != 0
}

func isAnyList(t types.Type) bool {
	list, ok := t.(*types.Slice)
	if !ok {
		return false
	}
	elem, ok := types.Unalias(list.Elem()).(*types.Interface)
	return ok && elem.Empty()
}

// exportedPackage is a package as the compiler left it, for go/types.
type exportedPackage struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
}

// exportedPackages are those that match, with all that they import.
func exportedPackages(t *testing.T, match string) map[string]exportedPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles", match)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v: %s", err, &stderr)
	}
	packages := map[string]exportedPackage{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p exportedPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages[p.ImportPath] = p
	}
}

func importerOf(set *token.FileSet, packages map[string]exportedPackage) types.Importer {
	return importer.ForCompiler(set, "gc", func(path string) (io.ReadCloser, error) {
		return os.Open(packages[path].Export)
	})
}

// eachTypedPackage shows every package of the product with what the compiler knows of it.
func eachTypedPackage(t *testing.T, show func(*token.FileSet, []*ast.File, *types.Info)) {
	t.Helper()
	touchSources(t)
	packages := exportedPackages(t, module+"...")
	set := token.NewFileSet()
	from := importerOf(set, packages)
	for path, p := range packages {
		if !strings.HasPrefix(path+"/", module) {
			continue
		}
		var files []*ast.File
		for _, name := range p.GoFiles {
			file, err := parser.ParseFile(set, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, file)
		}
		show(set, files, typesOf(t, set, path, files, from))
	}
}

func typesOf(t *testing.T, set *token.FileSet, path string, files []*ast.File, from types.Importer) *types.Info {
	t.Helper()
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}}
	if _, err := (&types.Config{Importer: from}).Check(path, set, files, info); err != nil {
		t.Fatal(err)
	}
	return info
}
