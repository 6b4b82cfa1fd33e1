package e2e

import (
	"encoding/xml"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// h2spec is built from its module; where that cannot be had, it is missing.
func (s *shared) buildH2spec() (string, error) {
	path := filepath.Join(s.dir, "h2spec")
	if out, err := exec.Command("go", "build", "-o", path,
		"github.com/summerwind/h2spec/cmd/h2spec").CombinedOutput(); err != nil {
		return "", fmt.Errorf("h2spec is %w: its modules cannot be had: %v\n%s", errMissing, err, out)
	}
	return path, nil
}

// h2spec returns what failed, as "section: what it is about".
func h2spec(t *testing.T, tool, address, path string) (failed []string, total int) {
	report := filepath.Join(t.TempDir(), "report.xml")
	host, port, _ := strings.Cut(address, ":")
	out, err := exec.Command(tool, "--tls", "--insecure", "--host", host, "--port", port, "--path", path,
		"--timeout", "2", "--junit-report", report).CombinedOutput()
	text, readErr := os.ReadFile(report)
	if readErr != nil {
		t.Errorf("h2spec: %v, %v\n%s", err, readErr, out)
		return nil, 0
	}
	var suites struct {
		Suites []struct {
			Cases []struct {
				Package string    `xml:"package,attr"`
				Name    string    `xml:"classname,attr"`
				Failure *struct{} `xml:"failure"`
				Error   *struct{} `xml:"error"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(text, &suites); err != nil {
		t.Errorf("%v\n%s", err, text)
	}
	for _, s := range suites.Suites {
		for _, c := range s.Cases {
			total++
			if c.Failure != nil || c.Error != nil {
				failed = append(failed, c.Package+": "+c.Name)
			}
		}
	}
	slices.Sort(failed)
	return failed, total
}

// netHTTPFails are the cases in which net/http's server, which speaks before any code
// of ours does, decides otherwise than h2spec would have it.
var netHTTPFails = map[string]string{
	"http2/4.2: Sends a large size HEADERS frame that exceeds the " +
		"SETTINGS_MAX_FRAME_SIZE": "h2spec sends 20 kB and takes that to be too much; " +
		"net/http allows frames of 1 MiB, and says so",
	"http2/6.5.3: Sends multiple values of " +
		"SETTINGS_INITIAL_WINDOW_SIZE": "one setting twice in a frame " +
		"closes the connection",
	`http2/8.1.2.2: Sends a HEADERS frame that contains the TE header field with any value other than "trailers"`: "answers 400 instead of resetting the stream",
	"http2/8.1.2.2: Sends a HEADERS frame that contains the connection-specific " +
		"header field": "answers 400 instead of resetting the stream",
}

func TestH2specFindsNothingThatIsNotNetHTTPs(t *testing.T) {
	t.Parallel()
	tool, w := need(t, world.h2spec), need(t, world.upstreams)
	address := need(t, freeAddress)
	s := setup{PublicURL: "https://" + address, Address: address} // h2spec knows no other name
	s.Routes = []string{fmt.Sprintf("{name: app, path: /, upstream: %s, public: true}", w.app["http"])}
	ownCorp(t, s)

	cert := need(t, world.cert)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bare := &http.Server{Handler: wayApp{}, ErrorLog: log.New(io.Discard, "", 0)}
	t.Cleanup(func() { _ = bare.Close() })
	go func() { _ = bare.ServeTLS(l, cert.certFile, cert.keyFile) }()

	// The answer takes a while, so that the stream is open when the frames come
	// that h2spec sends behind the request.
	const path = "/open-http/wait?for=30ms"
	theirs := make(chan []string)
	go func() {
		failed, _ := h2spec(t, tool, l.Addr().String(), path)
		theirs <- failed
	}()
	failed, total := h2spec(t, tool, address, path)
	t.Logf("%d of %d cases fail", len(failed), total)
	if total < 140 {
		t.Errorf("only %d cases were run", total)
	}
	bareFailed := <-theirs
	for _, name := range failed {
		if netHTTPFails[name] == "" {
			t.Errorf("fails, and is not on the list: %s", name)
		}
		if !slices.Contains(bareFailed, name) {
			t.Errorf("fails here and not at a bare net/http server: %s", name)
		}
	}
	for name := range netHTTPFails {
		if !slices.Contains(failed, name) {
			t.Errorf("no longer fails, so take it off the list: %s", name)
		}
	}
}
