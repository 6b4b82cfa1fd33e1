package command

import (
	"bufio"
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
)

// lockedBuffer is what a process writes, to be read while it runs.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// TestServingOutlivesTheReaderOfTheLog: "sallyport serve | head -1" goes on
// answering, and tells on stderr and in the metrics that its lines are lost.
func TestServingOutlivesTheReaderOfTheLog(t *testing.T) {
	public, err := testenv.UnusedAddress()
	if err != nil {
		t.Fatal(err)
	}
	admin, err := testenv.UnusedAddress()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "config.yaml")
	write(t, file, "version: 1\npublic_url: http://"+public+"\nlisten: {http: \""+public+"\", admin: \""+admin+"\"}\n"+
		"log: {format: json}\nsession: {keys: [\"literal:"+session.NewKey(time.Unix(1.7e9, 0)).Text()+"\"]}\n"+
		"providers: [{id: sso, type: oidc, issuer: \"http://127.0.0.1:1\", client_id: a, client_secret: "+
		"\"literal:0123456789abcdef\"}]\n"+
		"routes: [{name: app, path: /, upstream: \"http://127.0.0.1:1\", allow: authenticated}]\n")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	said := &lockedBuffer{}
	cmd := exec.Command(self, "serve", "-c", file)
	cmd.Env, cmd.Stderr = append(os.Environ(), mainVariable+"=1"), said
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "ready", func() bool { return testenv.StatusOf("http://"+admin+"/readyz") == http.StatusOK })
	if err := stdout.Close(); err != nil { // head -1 ends
		t.Fatal(err)
	}
	for range 20 {
		if got := testenv.StatusOf("http://" + public + "/"); got != http.StatusUnauthorized {
			t.Fatalf("after its log's reader went away it answers %d", got)
		}
	}
	testenv.Eventually(t, "counted lines", func() bool {
		text := testenv.BodyOf("http://" + admin + "/metrics")
		return strings.Contains(text, "\nsallyport_log_lines_dropped_total ") &&
			!strings.Contains(text, "\nsallyport_log_lines_dropped_total 0\n")
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if got := said.String(); strings.Count(got, `"level":"ERROR","msg":"the log cannot be written; `) != 1 ||
		!strings.Contains(got, "broken pipe") {
		t.Errorf("on stderr it said %q", got)
	}
}
