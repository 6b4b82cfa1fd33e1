package command

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/asynclog"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
)

// TestHealthcheckAsksWhereTheConfigurationListens: on every kind of listener, also where there is
// no admin listener, and also when the file has a fault by now, which the process has refused. A
// container would be killed otherwise.
func TestHealthcheckAsksWhereTheConfigurationListens(t *testing.T) {
	files := &testenv.TLSFiles{T: t, Dir: t.TempDir()}
	files.Swap(testenv.NewKeyPair(t, "app.example", time.Now().Add(time.Hour)))
	for name, listeners := range map[string]func(public, admin string) string{
		"admin": func(public,
			admin string) string {
			return `{http: "` + public + `", admin: "` + admin + `"}`
		},
		"admin everywhere": func(public,
			admin string) string {
			return `{http: "` + public + `", admin: ":` + portIn(admin) + `"}`
		},
		"admin by its name": func(public, admin string) string {
			return `{http: "` + public + `", admin: "localhost:` + portIn(admin) + `"}`
		},
		"no admin": func(public, _ string) string { return `{http: "` + public + `", admin: ""}` },
		"no admin, and this machine is a proxy of the listener": func(public, _ string) string {
			return `{http: {address: "` + public + `", proxy_protocol: [127.0.0.1]}, admin: ""}`
		},
		"no admin, anywhere": func(public,
			_ string) string {
			return `{http: "0.0.0.0:` + portIn(public) + `", admin: ""}`
		},
		"no admin, https": func(public, _ string) string {
			return `{https: {address: "` + public + `", cert: "file:` + files.Dir + `/tls.crt", key: "file:` +
				files.Dir + `/tls.key"}, admin: ""}`
		},
	} {
		t.Run(name, func(t *testing.T) {
			public, err := testenv.UnusedAddress()
			if err != nil {
				t.Fatal(err)
			}
			admin, err := testenv.UnusedAddress()
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "config.yaml")
			write(t, file, "version: 1\npublic_url: https://app.example.com\nlisten: "+listeners(public, admin)+"\n"+
				"session: {keys: [\"literal:"+session.NewKey(time.Unix(1.7e9, 0)).Text()+"\"]}\n"+
				"providers: [{id: sso, type: oidc, issuer: \"http://127.0.0.1:1\", client_id: a, client_secret: "+
				"\"literal:0123456789abcdef\"}]\n"+
				"routes: [{name: app, path: /, host: 127.0.0.1, upstream: \"http://127.0.0.1:1\", public: true}]\n")
			check := func() (int, string) {
				var out bytes.Buffer
				c := &console{stdout: &out, stderr: &out, env: os.LookupEnv}
				return run([]string{"healthcheck", "-c", file}, c), out.String()
			}
			if code, said := check(); code != exitFailed || !strings.Contains(said, "not healthy") {
				t.Errorf("before it serves: %d, %s", code, said)
			}
			cfg, _, err := loadConfig(file)
			if err != nil {
				t.Fatal(err)
			}
			log := asynclog.Open(io.Discard, io.Discard, slog.LevelInfo, "json")
			defer log.Close()
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- serve(ctx, &console{env: os.LookupEnv}, cfg, log) }()
			testenv.Eventually(t, "healthy",
				func() bool { code, said := check(); return code == exitOK && said == "healthy\n" })
			write(t, file, read(t, file)+"sesion: {}\n")
			if code, said := check(); code != exitOK {
				t.Errorf("while it runs with the file of before: %d, %s", code, said)
			}
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

func portIn(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

// TestHealthcheckSaysWhenItGuessed: without a configuration the default address is
// asked, and who has the file elsewhere reads what to do.
func TestHealthcheckSaysWhenItGuessed(t *testing.T) {
	asked, err := configuredHealth(&console{}, filepath.Join(t.TempDir(), "none.yaml"), false, readyPath)
	if err != nil {
		t.Fatal(err)
	}
	asked.url = "http://127.0.0.1:1/readyz" // nobody answers here
	err = asked.ask(t.Context(), &console{stdout: io.Discard, stderr: io.Discard})
	if err == nil || !strings.HasPrefix(err.Error(), "not healthy: ") ||
		!strings.HasSuffix(err.Error(), "none.yaml cannot be used: name the configuration with -c") {
		t.Errorf("it says %v", err)
	}
}

// TestHealthcheckOfAFileWithoutListeners asks at the default address, and says why.
func TestHealthcheckOfAFileWithoutListeners(t *testing.T) {
	for _, text := range []string{"routes: [", "listen: {admin: 4181}\n", "prefix: a\n", ""} {
		file := filepath.Join(t.TempDir(), "config.yaml")
		write(t, file, text)
		asked, err := configuredHealth(&console{}, file, true, readyPath)
		if err != nil || asked.url != "http://127.0.0.1:4181/readyz" ||
			!strings.HasPrefix(asked.hint, "; this is the default address, because of "+file+":") {
			t.Errorf("%q: %+v, %v", text, asked, err)
		}
	}
	missing := filepath.Join(t.TempDir(), "none.yaml")
	if _, err := configuredHealth(&console{}, missing, true, readyPath); !errors.As(err, &usageError{}) {
		t.Errorf("a file that was named and is not there: %v", err)
	}
}
