package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// command is one of W3C WebDriver's, which Marionette has under another name.
type command struct{ marionette, method, path string }

// wire brings commands to a browser. The parameter "id", where there is one, is
// an element, and stands in WebDriver's path.
type wire interface {
	call(c command, params map[string]any) (json.RawMessage, error)
}

// session is a browser that is driven by WebDriver or by Marionette. Commands go
// to one tab at a time.
type session struct {
	wire
	current string
}

// remoteTab is a tab of such a browser.
type remoteTab struct {
	session *session
	handle  string
}

// firstTab sets how long the browser may take, and takes the tab that it began with.
func firstTab(w wire) (remoteTab, error) {
	s := &session{wire: w}
	ms := enginePatience.Milliseconds()
	// WebKit sometimes never answers a script in a page that is just being replaced by the
	// next one. Callers ask again.
	const script = 2000
	if _, err := s.call(command{"WebDriver:SetTimeouts", http.MethodPost, "/timeouts"},
		map[string]any{"script": script, "pageLoad": ms, "implicit": 0}); err != nil {
		return remoteTab{}, err
	}
	raw, err := s.call(command{"WebDriver:GetWindowHandle", http.MethodGet, "/window"}, nil)
	if err == nil {
		err = json.Unmarshal(raw, &s.current)
	}
	return remoteTab{s, s.current}, err
}

func (p remoteTab) do(c command, params map[string]any) (json.RawMessage, error) {
	if p.session.current != p.handle {
		_, err := p.session.call(command{"WebDriver:SwitchToWindow", http.MethodPost, "/window"},
			map[string]any{"handle": p.handle})
		if err != nil {
			return nil, err
		}
		p.session.current = p.handle
	}
	return p.session.call(c, params)
}

func (p remoteTab) open(url string) error {
	_, err := p.do(command{"WebDriver:Navigate", http.MethodPost, "/url"}, map[string]any{"url": url})
	return err
}

func (p remoteTab) click(css string) error { return p.clickOn("css selector", css) }

func (p remoteTab) press(words string) error {
	return p.clickOn("xpath", controlWith(words))
}

func (p remoteTab) clickOn(using, what string) error {
	raw, err := p.do(command{"WebDriver:FindElement", http.MethodPost, "/element"},
		map[string]any{"using": using, "value": what})
	if err != nil {
		return err
	}
	var element map[string]string // one entry, whose name the standard gives
	if err := json.Unmarshal(raw, &element); err != nil {
		return err
	}
	for _, id := range element {
		_, err = p.do(command{"WebDriver:ElementClick", http.MethodPost, "/element/{id}/click"},
			map[string]any{"id": id})
	}
	return err
}

func (p remoteTab) look() (view, error) {
	var v view
	err := p.script(look, &v)
	return v, err
}

func (p remoteTab) script(expression string, result any) error {
	raw, err := p.do(command{"WebDriver:ExecuteScript", http.MethodPost, "/execute/sync"},
		map[string]any{"script": "return " + expression, "args": []any{}})
	if err != nil || result == nil {
		return err
	}
	return json.Unmarshal(raw, result)
}

func (p remoteTab) cookies() ([]string, error) {
	raw, err := p.do(command{"WebDriver:GetCookies", http.MethodGet, "/cookie"}, nil)
	if err != nil {
		return nil, err
	}
	var cookies []struct{ Name string }
	err = json.Unmarshal(raw, &cookies)
	var names []string
	for _, c := range cookies {
		names = append(names, c.Name)
	}
	return names, err
}

func (p remoteTab) forget() error {
	_, err := p.do(command{"WebDriver:DeleteAllCookies", http.MethodDelete, "/cookie"}, nil)
	return err
}

func (p remoteTab) newTab() (webPage, error) {
	raw, err := p.do(command{"WebDriver:NewWindow", http.MethodPost, "/window/new"}, map[string]any{"type": "tab"})
	if err != nil {
		return nil, err
	}
	var window struct{ Handle string }
	err = json.Unmarshal(raw, &window)
	return remoteTab{p.session, window.Handle}, err
}

func (p remoteTab) close() error {
	_, err := p.do(command{"WebDriver:CloseWindow", http.MethodDelete, "/window"}, nil)
	p.session.current = ""
	return err
}

// webDriver is the wire of W3C WebDriver: JSON over HTTP.
type webDriver struct {
	client *http.Client
	url    string // of the driver, then of the session
}

func (w *webDriver) call(c command, params map[string]any) (json.RawMessage, error) {
	path := c.path
	if id, ok := params["id"].(string); ok {
		path = strings.ReplaceAll(path, "{id}", id)
	}
	var body io.Reader
	if c.method == http.MethodPost {
		text, err := json.Marshal(params)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	r, err := http.NewRequest(c.method, w.url+path, body)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := w.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var answer struct{ Value json.RawMessage }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s %s: %s", c.method, c.path, answer.Value)
	}
	return answer.Value, nil
}

// startWebKit starts MiniBrowser, WebKitGTK's own small browser, on a screen
// that nobody sees.
func startWebKit(t *testing.T) webPage {
	t.Helper()
	driver := need(t, func() (string, error) { return find("WebKitWebDriver", "webkit2gtk-driver", "WebKitWebDriver") })
	browser := need(t, func() (string, error) {
		return find("WebKit's MiniBrowser", "webkit2gtk-driver", "/usr/lib/*/webkit2gtk-4.1/MiniBrowser",
			"/usr/libexec/webkit2gtk-4.1/MiniBrowser", "MiniBrowser")
	})
	xvfb := need(t, func() (string, error) { return find("Xvfb", "xvfb", "Xvfb") })

	screen := exec.Command(xvfb, "-displayfd", "3", "-screen", "0", "1280x1024x24", "-nolisten", "tcp")
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	screen.ExtraFiles = []*os.File{write}
	startGroup(t, screen)
	write.Close()
	_ = read.SetReadDeadline(time.Now().Add(enginePatience))
	var display int
	if _, err := fmt.Fscan(read, &display); err != nil {
		t.Fatalf("Xvfb names no display: %v", err)
	}

	address := need(t, freeAddress)
	cmd := exec.Command(driver, "--port="+strings.TrimPrefix(portOf(address), ":"))
	cmd.Env = []string{fmt.Sprintf("DISPLAY=:%d", display), "GDK_BACKEND=x11", "WAYLAND_DISPLAY=", "NO_AT_BRIDGE=1",
		"LIBGL_ALWAYS_SOFTWARE=1",
		"DBUS_SESSION_BUS_ADDRESS=disabled:", "GSETTINGS_BACKEND=memory", "WEBKIT_DISABLE_DMABUF_RENDERER=1"}
	startGroup(t, cmd)
	w := &webDriver{client: &http.Client{Timeout: enginePatience + 5*time.Second}, url: "http://" + address}
	t.Cleanup(w.client.CloseIdleConnections)
	eventually(t, "WebKitWebDriver", func() bool {
		_, err := w.call(command{"", http.MethodGet, "/status"}, nil)
		return err == nil
	})
	raw, err := w.call(command{"", http.MethodPost, "/session"},
		map[string]any{"capabilities": map[string]any{"alwaysMatch": map[string]any{
			"webkitgtk:browserOptions": map[string]any{"binary": browser, "args": []string{"--automation"}}}}})
	if err != nil {
		t.Fatal(err)
	}
	var made struct{ SessionID string }
	if err := json.Unmarshal(raw, &made); err != nil {
		t.Fatal(err)
	}
	w.url += "/session/" + made.SessionID
	first, err := firstTab(w)
	if err != nil {
		t.Fatal(err)
	}
	return first
}
