package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// curlPath is a curl that speaks HTTP/2.
func curlPath() (string, error) {
	path, err := exec.LookPath("curl")
	if err != nil {
		return "", fmt.Errorf("curl is %w: install curl", errMissing)
	}
	version, err := exec.Command(path, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", path, err)
	}
	if !strings.Contains(string(version), "HTTP2") {
		return "", fmt.Errorf("a curl with HTTP/2 is %w: install one that was built with nghttp2", errMissing)
	}
	return path, nil
}

// curled is what curl got.
type curled struct {
	version, status string // as its %{http_version} and %{http_code}
	head, body      string // head with trailers, of all answers
	exit            int
}

// curl asks c for path. Names lead to loopback, and the certificate is checked.
func (c *corp) curl(t testing.TB, cookie, path, stdin string, args ...string) curled {
	t.Helper()
	curl := need(t, curlPath)
	dir := t.TempDir()
	head, body := filepath.Join(dir, "head"), filepath.Join(dir, "body")
	_, host, _ := strings.Cut(c.url, "://")
	args = append([]string{"--silent", "--max-time", "30", "--noproxy", "*", "--cacert", need(t, world.cert).certFile,
		"--resolve", host + ":127.0.0.1", "--dump-header", head, "--output", body, "--write-out",
		"%{http_version} %{http_code}"}, args...)
	if cookie != "" {
		args = append(args, "--cookie", cookie)
	}
	cmd := exec.Command(curl, append(args, c.url+path)...)
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout = &out
	_ = cmd.Run() // its exit code is part of what is looked at
	got := curled{exit: cmd.ProcessState.ExitCode()}
	got.version, got.status, _ = strings.Cut(out.String(), " ")
	for name, to := range map[string]*string{head: &got.head, body: &got.body} {
		text, _ := os.ReadFile(name) // there is none where nothing came
		*to = string(text)
	}
	got.head = strings.ReplaceAll(got.head, "\r\n", "\n")
	return got
}

// curlUpload is how much curl sends from its standard input, in bytes.
const curlUpload = 8 << 20

func TestCurlThroughEveryProtocol(t *testing.T) {
	t.Parallel()
	secure, plain := theFront(t), thePlainFront(t)
	for _, front := range []struct {
		name    string
		c       *corp
		version string // that curl must have spoken
		args    []string
	}{
		{"TLS --http2", secure, "2", []string{"--http2"}},
		{"TLS --http1.1", secure, "1.1", []string{"--http1.1"}},
		// RFC 9113 §3.1: the upgrade from HTTP/1.1 is gone; who offers it gets HTTP/1.1.
		{"plain --http2", plain, "1.1", []string{"--http2"}},
		{"plain --http2-prior-knowledge", plain, "2", []string{"--http2-prior-knowledge"}},
		{"plain --http1.1", plain, "1.1", []string{"--http1.1"}},
	} {
		t.Run(front.name, func(t *testing.T) {
			t.Parallel()
			cookie := front.c.signIn(t, "mira")
			for _, kind := range []string{"http", "https", "h2c", "unix"} {
				t.Run(kind, func(t *testing.T) {
					ask := func(cookie, path, stdin string, args ...string) curled {
						got := front.c.curl(t, cookie, path, stdin, append(front.args, args...)...)
						if got.version != front.version || got.exit != 0 {
							t.Errorf("%s: curl spoke HTTP/%s and ended with %d", path, got.version, got.exit)
						}
						return got
					}
					curlAsks(t, kind, cookie, ask)
				})
			}
		})
	}
}

func curlAsks(t *testing.T, kind, cookie string, ask func(cookie, path, stdin string, args ...string) curled) {
	if got := ask("", "/"+kind+"/", ""); got.status != "401" || !strings.Contains(got.body, "login_url") {
		t.Errorf("without a session: %s %s", got.status, got.body)
	}
	if got := ask(cookie, "/"+kind+"/", ""); got.status != "200" || !strings.Contains(got.body, "corp:mira") {
		t.Errorf("with a session: %s %s", got.status, got.body)
	}
	if got := ask(cookie, "/"+kind+"/", "", "--head"); got.status != "200" || strings.Contains(got.body, "The app") {
		t.Errorf("HEAD: %s %q", got.status, got.body)
	}

	var want bytes.Buffer
	_, _ = want.ReadFrom(noise(curlUpload))
	got := ask(cookie, "/"+kind+"/up", want.String(), "--upload-file", "-") // of unknown length
	var up sum
	if err := json.Unmarshal([]byte(got.body), &up); err != nil || up.Bytes != curlUpload ||
		up.SHA256 != sha(want.Bytes()) {
		t.Errorf("the app took in %+v, %v", up, err)
	}

	// of a short one HTTP/2 apps tell the length, and then curl hears no trailer
	for _, n := range []int{0, curlUpload} {
		got = ask(cookie, fmt.Sprintf("/%s/down?bytes=%d", kind, n), "")
		if m := trailer.FindStringSubmatch(got.head); m == nil || m[1] != sha(want.Bytes()[:n]) ||
			sha([]byte(got.body)) != m[1] {
			t.Errorf("%d bytes arrived of %d, and the trailer is not there, or not right:\n%s", len(got.body), n,
				got.head)
		}
	}

	got = ask(cookie, "/"+kind+"/file", "", "--range", "100-199")
	if got.status != "206" || got.body != file()[100:200] ||
		!strings.Contains(strings.ToLower(got.head), fmt.Sprintf("content-range: bytes 100-199/%d\n", len(file()))) {
		t.Errorf("a range: %s %q\n%s", got.status, got.body, got.head)
	}
	got = ask(cookie, "/"+kind+"/file", "", "--range", "0-4,10-14")
	if got.status != "206" || !strings.Contains(strings.ToLower(got.head), "content-type: multipart/byteranges") {
		t.Errorf("two ranges: %s\n%s", got.status, got.head)
	}
	if got = ask(cookie, "/"+kind+"/packed", "", "--compressed"); got.body != file() {
		t.Errorf("unpacked, %d bytes arrived of %d", len(got.body), len(file()))
	}
	if got = ask(cookie, "/"+kind+"/packed", ""); got.body != string(packed(file())) {
		t.Error("a packed body did not arrive as it was sent")
	}
}

var trailer = regexp.MustCompile(`(?im)^x-sum: ([0-9a-f]{64})$`)

// Without listen.h2c the preface of HTTP/2 is a request that nobody understands.
func TestCurlPriorKnowledgeIsRefusedWhereItIsNotAskedFor(t *testing.T) {
	t.Parallel()
	c := theCorp(t)
	got := c.curl(t, "", "/", "", "--http2-prior-knowledge")
	if got.exit == 0 || got.version == "2" {
		t.Errorf("curl got HTTP/%s %s", got.version, got.status)
	}
	if got := c.curl(t, "", "/", "", "--http2"); got.version != "1.1" || got.status != "401" {
		t.Errorf("and an upgrade: HTTP/%s %s", got.version, got.status)
	}
}
