package command

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// inNamespace runs a script of the shell as somebody who may mount file systems that
// nobody else sees.
func inNamespace(script string, env ...string) *exec.Cmd {
	cmd := exec.Command("unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", script)
	cmd.Env = append(os.Environ(), env...)
	return cmd
}

// A start whose store cannot be written ends with exit code 1 and one line that says what
// to do about it. Each disk is a real one: of 64 KiB and full, or mounted read-only.
func TestAStartSaysWhyItsStoreCannotBeWritten(t *testing.T) {
	if out, err := inNamespace("mount -t tmpfs none " + t.TempDir()).CombinedOutput(); err != nil {
		t.Skipf("no file systems can be mounted here: %v %s", err, out)
	}
	self, err := os.Executable()
	testenv.Check(t, err)
	const disk, fill = "mount -t tmpfs -o size=64k none $DISK; ", "cat /dev/zero >$DISK/rest 2>/dev/null || true; "
	for name, tt := range map[string]struct{ prepare, says string }{
		"the disk is full": {disk + fill, "(the disk is full: make room)"},
		"the disk becomes full while tables are made": {disk + "head -c 40k /dev/zero >$DISK/rest; ",
			"(the disk is full: make room)"},
		"the file system is read-only": {disk + "mount -o remount,ro $DISK; ",
			"read-only file system (the file system is read-only: give it another directory)"},
		"the file is on a file system that became read-only": {
			disk + "touch $DISK/sallyport.db; mount -o remount,ro $DISK; ",
			"read-only file system (the file system is read-only: give it another directory)"},
		"the directory is somebody else's": {"chmod 500 $DISK; DROP=-dac_override; ",
			"permission denied (let the user that Sallyport runs as write to the file and to its directory)"},
		"the file is somebody else's": {"touch $DISK/sallyport.db; chmod 400 $DISK/sallyport.db; DROP=-dac_override; ",
			"permission denied (let the user that Sallyport runs as write to the file and to its directory)"},
		"files cannot be made beside it": {"touch $DISK/sallyport.db; chmod 600 $DISK/sallyport.db; " +
			"chmod 500 $DISK; DROP=-dac_override; ",
			"(let the user that Sallyport runs as write to the file and to its directory, where files are made " +
				"beside it)"},
		"everybody can read the file": {"touch $DISK/sallyport.db; chmod 644 $DISK/sallyport.db; ",
			"(mode 0644): run chmod o-rwx it"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			config, mounted := filepath.Join(dir, "config.yaml"), filepath.Join(dir, "disk")
			testenv.Check(t, os.Mkdir(mounted, 0o700))
			t.Cleanup(func() { _ = os.Chmod(mounted, 0o700) })
			write(t, config, `version: 1
public_url: http://localhost:4180
listen: {http: "127.0.0.1:0", admin: ""}
session: {keys: ["literal:sallyport-key-1 2026-01-02T09:00:00Z AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"]}
store: sqlite:`+filepath.Join(mounted, "sallyport.db")+`
providers: [{id: sso, type: oidc, issuer: "http://localhost:1", client_id: c, client_secret: "literal:s"}]
routes: [{name: app, path: /, upstream: "http://127.0.0.1:1", allow: authenticated}]
`)
			cmd := inNamespace(tt.prepare+
				`exec setpriv --bounding-set "$DROP" --inh-caps "$DROP" "$SELF" serve "$CONFIG"`,
				"DROP=-mac_admin", "DISK="+mounted, "CONFIG="+config, "SELF="+self, mainVariable+"=1")
			var out, errs bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errs
			err := cmd.Run()
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.ExitCode() != 1 {
				t.Errorf("it ended with %v", err)
			}
			text := strings.ReplaceAll(errs.String(), filepath.Join(mounted, "sallyport.db"), "it")
			if !strings.HasPrefix(text, "sallyport: open store") || !strings.HasSuffix(text, tt.says+"\n") ||
				strings.Count(text, "\n") != 1 {
				t.Errorf("it said\n%s%s", text, out.String())
			}
			if strings.Contains(out.String(), `"msg":"serving"`) {
				t.Errorf("it served:\n%s", out.String())
			}
		})
	}
}
