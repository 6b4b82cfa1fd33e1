package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// marionette is Firefox's own way to be driven: messages of JSON over TCP, each
// after its length and a colon. geckodriver translates WebDriver into the same
// commands, and would be one more thing to install.
type marionette struct {
	conn net.Conn
	in   *bufio.Reader
	id   int
}

func (m *marionette) read(into any) error {
	_ = m.conn.SetReadDeadline(time.Now().Add(enginePatience + 5*time.Second))
	size, err := m.in.ReadString(':')
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.TrimSuffix(size, ":"))
	if err != nil || n > 64<<20 {
		return fmt.Errorf("a message of length %q: %w", size, err)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(m.in, text); err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

func (m *marionette) call(c command, params map[string]any) (json.RawMessage, error) {
	if params == nil {
		params = map[string]any{}
	}
	m.id++
	text, err := json.Marshal([]any{0, m.id, c.marionette, params})
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(m.conn, "%d:%s", len(text), text); err != nil {
		return nil, err
	}
	for {
		var kind, id int
		var failed *struct{ Error, Message string }
		var result json.RawMessage
		if err := m.read(&[]any{&kind, &id, &failed, &result}); err != nil {
			return nil, err
		}
		switch {
		case id != m.id: // the answer to a command that was given up
			continue
		case failed != nil:
			return nil, fmt.Errorf("%s: %s: %s", c.marionette, failed.Error, failed.Message)
		}
		var wrapped struct{ Value json.RawMessage } // as in WebDriver, but not always
		if json.Unmarshal(result, &wrapped) == nil && wrapped.Value != nil {
			return wrapped.Value, nil
		}
		return result, nil
	}
}

const firefoxPreferences = `
user_pref("marionette.port", %s);
user_pref("browser.startup.page", 0);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("app.update.disabledForTesting", true);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
// No other name leads anywhere: what is not on this machine goes to a proxy that
// is not there.
user_pref("network.proxy.type", 1);
user_pref("network.proxy.http", "127.0.0.1");
user_pref("network.proxy.http_port", 9);
user_pref("network.proxy.ssl", "127.0.0.1");
user_pref("network.proxy.ssl_port", 9);
user_pref("network.proxy.no_proxies_on", "localhost, 127.0.0.1");
`

func startFirefox(t *testing.T) webPage {
	t.Helper()
	path := need(t, func() (string, error) {
		return find("Firefox", "firefox-esr, or name one in FIREFOX", os.Getenv("FIREFOX"), "firefox-esr", "firefox")
	})
	address := need(t, freeAddress)
	profile := t.TempDir()
	preferences := fmt.Sprintf(firefoxPreferences, strings.TrimPrefix(portOf(address), ":"))
	if err := os.WriteFile(filepath.Join(profile, "user.js"), []byte(preferences), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "--headless", "--marionette", "--no-remote", "-profile", profile)
	cmd.Env = []string{"MOZ_CRASHREPORTER_DISABLE=1"}
	if os.Getuid() == 0 {
		cmd.Env = append(cmd.Env, "MOZ_DISABLE_CONTENT_SANDBOX=1") // it cannot be set up in every container
	}
	p := startGroup(t, cmd)
	m := &marionette{}
	eventually(t, "Firefox to listen", func() bool {
		select {
		case <-p.done:
			t.Fatal("Firefox has ended")
		default:
		}
		conn, err := net.DialTimeout("tcp", address, time.Second)
		m.conn = conn
		return err == nil
	})
	t.Cleanup(func() { m.conn.Close() })
	m.in = bufio.NewReader(m.conn)
	var hello struct{ MarionetteProtocol int }
	if err := m.read(&hello); err != nil || hello.MarionetteProtocol != 3 {
		t.Fatalf("Firefox speaks Marionette %d: %v", hello.MarionetteProtocol, err)
	}
	if _, err := m.call(command{marionette: "WebDriver:NewSession"}, nil); err != nil {
		t.Fatal(err)
	}
	first, err := firstTab(m)
	if err != nil {
		t.Fatal(err)
	}
	return first
}
