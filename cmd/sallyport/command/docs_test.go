package command

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/assemble"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/connector/apikey"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/login"
)

const root = "../../.."

// documents are the texts people follow.
func documents(t *testing.T) []string {
	t.Helper()
	var guides []string
	for _, pattern := range []string{"/docs/*.md", "/docs/providers/*.md", "/docs/fronts/*.md", "/docs/connectors/*.md"} {
		found, err := filepath.Glob(root + pattern)
		if err != nil {
			t.Fatal(err)
		}
		guides = append(guides, found...)
	}
	return append(guides, root+"/README.md", root+"/CONTRIBUTING.md", root+"/ARCHITECTURE.md", root+"/SECURITY.md")
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// loadConfig is console.loadConfig of Sallyport itself.
func loadConfig(file string) (*config.Config, *assemble.Policy, error) {
	return (&console{}).loadConfig(file)
}

// blocks returns the fenced code of one language.
func blocks(text, language string) []string {
	var found []string
	for _, m := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(text, -1) {
		found = append(found, m[1])
	}
	return found
}

func TestEveryConfigurationInTheDocumentsIsValid(t *testing.T) {
	n := 0
	for _, file := range documents(t) {
		for _, block := range blocks(read(t, file), "yaml") {
			n++
			if _, _, err := parseConfig(filepath.Base(file), []byte(block)); err != nil {
				t.Errorf("%v\nin\n%s", err, block)
			}
		}
	}
	if n < 4 {
		t.Errorf("found only %d configurations; the documents have more", n)
	}
	if _, _, err := loadConfig(root + "/config.example.yaml"); err != nil {
		t.Errorf("config.example.yaml: %v", err)
	}
	readme := blocks(read(t, root+"/README.md"), "yaml")
	if lines := strings.Count(readme[0], "\n"); lines != 12 {
		t.Errorf("the README promises a configuration of 12 lines; it has %d", lines)
	}
}

// TestEveryProviderHasItsGuide: each type, and each quirk with its price.
func TestEveryProviderHasItsGuide(t *testing.T) {
	for _, kind := range login.Types() {
		text := read(t, root+"/docs/providers/"+kind+".md")
		if len(blocks(text, "yaml")) == 0 || !strings.Contains(text, "type: "+kind+"\n") {
			t.Errorf("the guide of %s shows no configuration", kind)
		}
	}
	for _, q := range login.AllQuirks() {
		if !strings.Contains(read(t, root+"/docs/providers/oidc.md"), "| `"+q.Name+"` | "+q.Weakens+" |") {
			t.Errorf("docs/providers/oidc.md does not say of %s: %s", q.Name, q.Weakens)
		}
	}
}

// TestEveryKnownKeyHasItsGuide: a section with a whole configuration for each.
func TestEveryKnownKeyHasItsGuide(t *testing.T) {
	all := blocks(read(t, root+"/docs/connectors/keys.md"), "yaml")
	for _, k := range apikey.All() {
		if !slices.ContainsFunc(all, func(text string) bool {
			cfg, _, err := parseConfig("keys.md", []byte(text))
			return err == nil && cfg.Grants.Connectors[0].Type == k.Type
		}) {
			t.Errorf("docs/connectors/keys.md shows no configuration of %s", k.Type)
		}
	}
}

func TestEveryCommandInTheDocumentsExists(t *testing.T) {
	commands := map[string]bool{"completion": true}
	for _, c := range newRoot(&console{}).Commands() {
		commands[c.Name()] = true
	}
	targets := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z0-9-]+):`).FindAllStringSubmatch(read(t, root+"/Makefile"), -1) {
		targets[m[1]] = true
	}
	code := regexp.MustCompile("(?s)```sh\n.*?```|`[^`\n]+`")
	for _, file := range documents(t) {
		for _, snippet := range code.FindAllString(read(t, file), -1) {
			for _, m := range regexp.MustCompile(`sallyport (?:-[^ ]+ )*([a-z]+)\b`).FindAllStringSubmatch(snippet,
				-1) {
				if !commands[m[1]] {
					t.Errorf("%s: there is no command %q (in %s)", file, m[1], snippet)
				}
			}
			for _, m := range regexp.MustCompile(`\bmake ([a-z0-9-]+)`).FindAllStringSubmatch(snippet, -1) {
				if !targets[m[1]] {
					t.Errorf("%s: the Makefile has no %q", file, m[1])
				}
			}
		}
	}
}

func TestEveryLinkInTheDocumentsLeadsSomewhere(t *testing.T) {
	for _, file := range documents(t) {
		text := read(t, file)
		for _, m := range regexp.MustCompile(`\]\(([^)#]*)(#[^)]*)?\)`).FindAllStringSubmatch(text, -1) {
			if m[1] == "" {
				heading := strings.ReplaceAll(strings.TrimPrefix(m[2], "#"), "-", "[^a-z0-9]+")
				if !regexp.MustCompile(`(?mi)^#+ ` + heading + `\W*$`).MatchString(text) {
					t.Errorf("%s: no heading for %s", file, m[2])
				}
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), m[1])); err != nil &&
				!strings.Contains(m[1], "://") {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
}

// TestEveryPromiseNamesTestsThatExist: SECURITY.md points at tests; a promise
// whose test was renamed away would be an empty one.
func TestEveryPromiseNamesTestsThatExist(t *testing.T) {
	var code strings.Builder
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, "_test.go") {
			code.WriteString(read(t, path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9_]+)`").FindAllStringSubmatch(read(t, root+"/SECURITY.md"),
		-1)
	if len(names) < 15 {
		t.Errorf("SECURITY.md names only %d tests", len(names))
	}
	for _, m := range names {
		if !strings.Contains(code.String(), "func "+m[1]+"(") {
			t.Errorf("SECURITY.md names %s, which does not exist", m[1])
		}
	}
}

// TestDockerfileBuildsFromWhatItCopies runs the Dockerfile's own build command
// on a copy of just the files that .dockerignore lets through.
func TestDockerfileBuildsFromWhatItCopies(t *testing.T) {
	dir := t.TempDir()
	for line := range strings.Lines(read(t, root+"/.dockerignore")) {
		if name, kept := strings.CutPrefix(strings.TrimSpace(line), "!"); kept {
			copyTree(t, filepath.Join(root, name), filepath.Join(dir, name))
		}
	}
	if err := os.RemoveAll(filepath.Join(dir, "internal", "testenv")); err != nil { // .dockerignore's last line of names
		t.Fatal(err)
	}
	dockerfile := read(t, root+"/Dockerfile")
	m := regexp.MustCompile(`(?m)^RUN (CGO_ENABLED=0 go build .*) -o (\S+) (\S+)$`).FindStringSubmatch(dockerfile)
	if m == nil {
		t.Fatal("the Dockerfile has no build command of the known form")
	}
	binary := filepath.Join(dir, "out")
	build := exec.Command("sh", "-c", m[1]+" -o "+binary+" "+m[3])
	build.Dir = dir
	build.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false", "VERSION=v1.2.3-test") // as ARG does
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", m[0], err, out)
	}
	for _, want := range []string{"COPY --from=build " + m[2] + " /sallyport", `ENTRYPOINT ["/sallyport"]`,
		"USER 65532:65532",
		"\nARG VERSION=\n", `CMD ["/sallyport", "healthcheck", `} {
		if !strings.Contains(dockerfile, want) {
			t.Errorf("the Dockerfile lacks %q", want)
		}
	}
	if out, err := exec.Command(binary, "version").CombinedOutput(); err != nil ||
		!strings.HasPrefix(string(out), "sallyport v1.2.3-test (") {
		t.Errorf("the built binary does not run: %v %s", err, out)
	}
}

// TestTheImageExposesWhereItListens by default: the admin listener is on loopback,
// so publishing its port would lead nowhere.
func TestTheImageExposesWhereItListens(t *testing.T) {
	cfg, _, err := parseConfig("c.yaml", []byte("version: 1\npublic_url: https://app.example.com\nsession: {keys: "+
		"[\"file:/k\"]}\nproviders: [{id: a, type: oidc, issuer: \"https://idp.example\", client_id: a, "+
		"client_secret: \"env:S\"}]\nroutes: [{name: app, path: /, upstream: \"http://127.0.0.1:1\", public: true}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, address := range []string{cfg.Listen.HTTP.Address, cfg.Listen.Admin.Address} {
		if host, port, err := net.SplitHostPort(address); err != nil {
			t.Error(err)
		} else if host == "" {
			want = append(want, port)
		}
	}
	m := regexp.MustCompile(`(?m)^EXPOSE (.*)$`).FindStringSubmatch(read(t, root+"/Dockerfile"))
	if m == nil || m[1] != strings.Join(want, " ") {
		t.Errorf("the image exposes %v, and listens on %v", m, want)
	}
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(from, path)
		target := filepath.Join(to, rel)
		switch {
		case d.IsDir() && d.Name() == "testdata":
			return filepath.SkipDir
		case d.IsDir():
			return os.MkdirAll(target, 0o755)
		case !strings.HasSuffix(path, "_test.go"):
			return os.WriteFile(target, []byte(read(t, path)), 0o644)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestTheReadmesFirstSiteDocumentRunsAsTyped: the commands, in an empty folder. Only
// the ports are others, because these may be taken.
func TestTheReadmesFirstSiteDocumentRunsAsTyped(t *testing.T) {
	var typed string
	for _, block := range blocks(read(t, root+"/README.md"), "sh") {
		if strings.Contains(block, "sallyport serve") {
			typed = block
		}
	}
	public, err := testenv.UnusedAddress()
	if err != nil {
		t.Fatal(err)
	}
	admin, err := testenv.UnusedAddress()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(public, ":")
	typed = strings.NewReplacer("127.0.0.1:4180", public, "127.0.0.1:4181", admin, "localhost:4180",
		"localhost:"+port).Replace(typed)
	bin, dir := t.TempDir(), t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\nexec env " + mainVariable + "=1 " + self + " \"$@\"\n"
	if err := os.WriteFile(filepath.Join(bin, "sallyport"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	// exec: the last command takes the shell's place, so that it is what is stopped.
	cmd := exec.CommandContext(ctx, "sh", "-e", "-c", strings.Replace(typed, "sallyport serve", "exec sallyport serve",
		1))
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for ctx.Err() == nil {
		if res, err := http.Get("http://" + admin + "/readyz"); err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				break
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "/.sallyport/callback/sso") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// What the pod of the guide gets is what the configuration beside it takes.
func TestThePodOfTheGrantsGuideIsTheAppOfItsConfiguration(t *testing.T) {
	_, section, _ := strings.Cut(read(t, root+"/docs/grants.md"), "\n### A Kubernetes service account instead of a token\n")
	files, pods := blocks(section, "yaml"), blocks(section, "kubernetes")
	if len(files) == 0 || len(pods) == 0 {
		t.Fatal("the guide has no configuration, or no pod")
	}
	cfg, _, err := parseConfig("grants.md", []byte(files[0]))
	if err != nil {
		t.Fatal(err)
	}
	of := func(pattern string) string {
		return strings.Join(matches(pods[0], pattern), " ")
	}
	bearer := cfg.Grants.Apps[0].Bearer
	if got := of(`audience: ([^,}]+)`); got != bearer.Audiences[0] {
		t.Errorf("the token of the pod is for %q", got)
	}
	account := "system:serviceaccount:" + of(`namespace: (\w+)`) + ":" + of(`serviceAccountName: (\w+)`)
	if account != bearer.Subjects[0] {
		t.Errorf("the pod is %s", account)
	}
	file := of(`mountPath: ([^,}]+)`) + "/" + of(`path: (\w+)`)
	if !strings.Contains(section, "`"+file+"`") {
		t.Errorf("the text does not name %s", file)
	}
}
