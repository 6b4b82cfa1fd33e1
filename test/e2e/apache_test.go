package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// apacheGuide is the page whose configurations these tests run, with other addresses.
const apacheGuide = "../../docs/fronts/apache.md"

func apacheProgram() (string, error) { return program("apache2", "apache2", "/usr/sbin/apache2")() }

// environment is a CGI program (RFC 3875) that shows what it is told, and how much it was sent.
const environment = `#!/bin/sh
case "$QUERY_STRING" in
status=*) printf 'Status: %s As Asked\n' "${QUERY_STRING#status=}" ;;
to=*) printf 'Location: https://elsewhere.example/%s\n\n' "${QUERY_STRING#to=}"; exit ;;
esac
printf 'Content-Type: text/plain\n\n'
printf 'BYTES=%s\n' "$(wc -c)"
env
`

// apache is a running Apache of the guide.
type apache struct{ dir, address string }

// startApache runs it until the test ends, with Debian's modules and what Debian's own
// configuration says of files. extra stands before the guide's lines.
func startApache(t *testing.T, extra string, replace ...string) apache {
	t.Helper()
	return startApacheWith(t, extra, readdressed(t, guideBlock(t, apacheGuide, "apache"), replace...))
}

// startApacheWith is startApache with other lines than the guide's.
func startApacheWith(t *testing.T, extra, block string) apache {
	t.Helper()
	program := need(t, apacheProgram)
	dir, err := os.MkdirTemp("", "sallyport-apache-") // not below world.dir: programs run as another user
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	a := apache{dir, need(t, freeAddress)}
	block = strings.ReplaceAll(readdressed(t, block, "127.0.0.1:8080", a.address, "/srv/app", dir+"/app",
		"app.example.com", publicHost), "/var/log/apache2", dir)
	config := "ServerRoot " + dir + "\nDefaultRuntimeDir " + dir + "\nPidFile apache.pid\nErrorLog /dev/stderr\n" +
		"ServerName " + publicHost + "\n"
	for _, name := range []string{"mpm_event", "authz_core", "authz_host", "setenvif", "env", "alias", "mime", "cgid",
		"remoteip", "rewrite"} {
		config += fmt.Sprintf("LoadModule %s_module /usr/lib/apache2/modules/mod_%s.so\n", name, name)
	}
	config += "ScriptSock cgi.sock\nTypesConfig /dev/null\n<Directory />\n  Require all denied\n</Directory>\n" +
		"<FilesMatch \"^\\.ht\">\n  Require all denied\n</FilesMatch>\n"
	if os.Getuid() == 0 { // Apache refuses to serve as root
		config += "User www-data\nGroup www-data\n"
	}
	write := func(name, text string, mode os.FileMode) error {
		file := filepath.Join(dir, name)
		return errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), mode))
	}
	if err := errors.Join(os.Chmod(dir, 0o755), write("apache.conf", config+extra+block, 0o644),
		write("app/cgi-bin/env", environment, 0o755), write("app/htdocs/page.txt", "a file", 0o644),
		write("app/htdocs/.htpasswd", "a secret", 0o644),
		write("app/htdocs/open/page.txt", "an open file", 0o644)); err != nil {
		t.Fatal(err)
	}
	p, err := start(dir, program, "-f", filepath.Join(dir, "apache.conf"), "-DFOREGROUND")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	p.showIfFailed(t)
	p.listens(t, a.address)
	return a
}

// inFrontOfApache is a site whose app is Apache, as the guide says.
func inFrontOfApache(t *testing.T, a apache) *corp {
	t.Helper()
	cert, at := need(t, world.cert), need(t, freeAddress)
	return serveGuide(t, t.TempDir(), apacheGuide, "https://"+publicHost+portOf(at), "", `":443"`,
		fmt.Sprintf("%q", at), "/etc/ssl/app.crt", cert.certFile, "/etc/ssl/app.key", cert.keyFile,
		"127.0.0.1:8080", a.address)
}

// text is the status and body of an answer.
func text(resp *http.Response) (int, string) {
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body)
}

// past asks Apache itself, from an address of this machine.
func (a apache) past(t *testing.T, from, target string, lines ...string) (int, string) {
	t.Helper()
	conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}).Dial("tcp", a.address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n%s\r\n", target, publicHost,
		strings.Join(append(lines, ""), "\r\n"))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	return text(resp)
}

// told is whether a CGI program's environment has these lines.
func told(environment string, lines ...string) bool {
	all := strings.Split(environment, "\n")
	return !slices.ContainsFunc(lines, func(line string) bool { return !slices.Contains(all, line) })
}

// A CGI program behind Apache behind Sallyport knows who opens it, and is led astray by
// nobody.
func TestApacheTellsACGIProgramWhoItIs(t *testing.T) {
	t.Parallel()
	a := startApache(t, "")
	c := inFrontOfApache(t, a)
	b := newPerson(t)
	b.says(b.signInAtProvider(c.url+"/cgi-bin/env?a=b", "mira"), "REMOTE_USER=mira", "QUERY_STRING=a=b")
	b.open(c.url + "/.sallyport/account")
	b.says(b.heading("Your account"), "mira@corp.example")
	b.press("Sign out")
	b.heading("You are signed out")
	b.forget(c.provider.Issuer)
	b.says(b.signInAtProvider(c.url+"/cgi-bin/env", "tom"), "REMOTE_USER=tom")
	cookie := c.signIn(t, "mira")
	for _, line := range []string{"X-Forwarded-User: corp:evil", "X_Forwarded_User: corp:evil", "X.Forwarded.User: corp:evil",
		"X-Forwarded_User: corp:evil", "X-Forwarded-User: corp:evil\r\nX-Forwarded-User: corp:evil",
		"Connection: X-Forwarded-User", "Remote-User: evil", "REMOTE_USER: evil", "Proxy: http://evil", "Auth-Type: x"} {
		resp, _ := c.raw(t, c.writes("GET", "/cgi-bin/env", "Cookie: a=1; "+cookie, line))
		status, body := text(resp)
		if status != 200 || !told(body, "REMOTE_USER=mira", "HTTP_X_FORWARDED_USER=corp:mira", "HTTP_COOKIE=a=1",
			"HTTP_X_FORWARDED_EMAIL=mira@corp.example") || strings.Contains(body, "evil") {
			t.Errorf("%q: %d\n%s", line, status, body)
		}
		resp, _ = c.raw(t, c.writes("GET", "/open/page.txt", line))
		if status, body := text(resp); status != 200 || body != "an open file" {
			t.Errorf("%q, public: %d %s", line, status, body)
		}
	}
	long := strings.Repeat("a", 1<<20)
	for request, want := range map[string]string{
		c.writes("GET", "/page.txt", "Cookie: "+cookie):                                                 "200 a file",
		c.writes("GET", "/page.txt"):                                                                    "401 ",
		c.writes("GET", "/.htpasswd", "Cookie: "+cookie):                                                "403 ",
		c.writes("GET", "/open/../page.txt"):                                                            "400 ",
		c.writes("GET", "/cgi-bin/env?status=418", "Cookie: "+cookie):                                   "418 ",
		c.writes("GET", "/cgi-bin/env?to=x", "Cookie: "+cookie):                                         "302 ",
		c.writes("GET", "/cgi-bin/none", "Cookie: "+cookie):                                             "404 ",
		c.writes("POST", "/cgi-bin/env", "Cookie: "+cookie, "Content-Length: 1048576") + long:           "200 BYTES=1048576\n",
		c.writes("POST", "/cgi-bin/env", "Cookie: "+cookie, "Transfer-Encoding: chunked") + "0\r\n\r\n": "200 BYTES=0\n",
	} {
		resp, _ := c.raw(t, request)
		if status, body := text(resp); !strings.HasPrefix(fmt.Sprint(status, " ", body), want) {
			t.Errorf("%.100q: %d %.200s", request, status, body)
		}
	}
	log, err := os.ReadFile(filepath.Join(a.dir, "app.log"))
	if err != nil || !strings.Contains(string(log), "127.0.0.1 mira [") {
		t.Errorf("the log names nobody: %v\n%s", err, log)
	}
}

// Nextcloud's rules lead every address to one program, from its folder, so that Apache looks
// at the request a second time; and public routes name nobody, whom the program judges itself.
func TestApacheTellsAProgramBehindARewrite(t *testing.T) {
	t.Parallel()
	guide, err := os.ReadFile(appsGuide)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```nextcloud-apache\n(.*?)```").FindSubmatch(guide)
	if m == nil {
		t.Fatalf("%s has no settings of Apache", appsGuide)
	}
	a := startApacheWith(t, "", readdressed(t, string(m[1]), "/var/www/nextcloud", "/srv/app/htdocs", "cloud.example.com",
		"app.example.com", "AllowOverride All", "RewriteEngine On\n        RewriteRule ^index\\.php /cgi-bin/env")+
		"ScriptAlias /cgi-bin/ /srv/app/cgi-bin/\n<Directory /srv/app/cgi-bin>\n  Require ip 127.0.0.1\n</Directory>\n")
	for _, tt := range []struct {
		from, line, want string
		status           int
	}{
		{"127.0.0.1", "X-Forwarded-User: corp:mira", "REMOTE_USER=mira", 200},
		{"127.0.0.1", "Accept: */*", "REDIRECT_STATUS=200", 200},
		{"127.0.0.2", "X-Forwarded-User: corp:mira", "", 403},
	} {
		status, body := a.past(t, tt.from, "/index.php/x", tt.line, "X_Forwarded_User: corp:evil")
		named := strings.Contains(body, "\nREMOTE_USER=")
		if status != tt.status || status == 200 && !told(body, tt.want) || strings.Contains(body, "evil") ||
			named != strings.HasPrefix(tt.want, "REMOTE_USER") {
			t.Errorf("%s %s: %d\n%s", tt.from, tt.line, status, body)
		}
	}
}

// Each line of the guide that keeps others out does so: without it the test above would fail.
func TestApacheWithoutALineOfTheGuideLetsOthersIn(t *testing.T) {
	t.Parallel()
	for line, ask := range map[string]struct{ from, target, header string }{
		"            Require ip 127.0.0.1\n":    {"127.0.0.2", "/cgi-bin/env", "X-Forwarded-User: corp:mira"},
		"            Require env REMOTE_USER\n": {"127.0.0.1", "/cgi-bin/env", "Accept: */*"},
	} {
		a := startApache(t, "", line, "")
		if status, body := a.past(t, ask.from, ask.target, ask.header); status != 200 {
			t.Errorf("without %q: %d, so something else keeps people out\n%s", line, status, body)
		}
	}
}

// Who goes past Sallyport gets nothing, with the name of somebody or without; and what
// Sallyport would have removed makes no variables.
func TestApacheAnswersNobodyButSallyport(t *testing.T) {
	t.Parallel()
	a := startApache(t, "")
	for _, target := range []string{"/cgi-bin/env", "/page.txt", "/open/page.txt"} {
		for _, lines := range [][]string{{}, {"X-Forwarded-User: corp:mira"}, {"X-Forwarded-User: corp:mira",
			"X-Forwarded-For: 127.0.0.1", "X-Real-IP: 127.0.0.1", "Forwarded: for=127.0.0.1"}} {
			if status, body := a.past(t, "127.0.0.2", target, lines...); status != 403 {
				t.Errorf("%s %q past Sallyport: %d\n%s", target, lines, status, body)
			}
		}
	}
	// From Sallyport's own address the names count, and only as Sallyport writes them.
	for line, want := range map[string]int{"Accept: */*": 403, "X-Forwarded-User: mira": 403, "X-Forwarded-User: corp:": 403,
		"X_Forwarded_User: corp:evil": 403, "X.Forwarded.User: corp:evil": 403, "Remote-User: evil": 403} {
		if status, body := a.past(t, "127.0.0.1", "/cgi-bin/env", line); status != want {
			t.Errorf("%q: %d\n%s", line, status, body)
		}
	}
	status, body := a.past(t, "127.0.0.1", "/cgi-bin/env", "X-Forwarded-User: corp:mira", "X_Forwarded_User: corp:evil",
		"X.Forwarded.User: corp:evil", "X_Forwarded_Groups: evil", "REMOTE_USER: evil", "Proxy: evil")
	if status != 200 || !told(body, "REMOTE_USER=mira", "HTTP_X_FORWARDED_USER=corp:mira") ||
		strings.Contains(body, "evil") {
		t.Errorf("Apache makes variables of other spellings: %d\n%s", status, body)
	}
}

// Where the app knows people by the part of an address before the domain, another domain's
// address is nobody.
func TestApacheTakesNamesFromAddressesOfOneDomain(t *testing.T) {
	t.Parallel()
	guide, err := os.ReadFile(apacheGuide)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("`(SetEnvIf X-Forwarded-Email [^`]*)`").FindSubmatch(guide)
	if m == nil {
		t.Fatalf("%s says nothing of addresses", apacheGuide)
	}
	a := startApache(t, "", `SetEnvIf X-Forwarded-User "^[^:]+:(.+)$" REMOTE_USER=$1`, string(m[1]))
	for address, want := range map[string]int{"mira@example.com": 200, "mira@example.com.evil.example": 403,
		"mira@evil.example": 403, "mira@examplexcom": 403, "": 403} {
		status, body := a.past(t, "127.0.0.1", "/cgi-bin/env", "X-Forwarded-User: corp:7", "X-Forwarded-Email: "+address)
		if status != want || status == 200 && !told(body, "REMOTE_USER=mira") {
			t.Errorf("%q: %d\n%s", address, status, body)
		}
	}
}

// With mod_remoteip the address of the connection counts, as the guide writes it.
func TestApacheWithRemoteIPAnswersNobodyButSallyport(t *testing.T) {
	t.Parallel()
	guide, err := os.ReadFile(apacheGuide)
	if err != nil {
		t.Fatal(err)
	}
	_, expr, _ := strings.Cut(string(guide), "Then write `")
	expr, _, ok := strings.Cut(expr, "`")
	if !ok {
		t.Fatalf("%s says nothing of mod_remoteip", apacheGuide)
	}
	const remoteip = "RemoteIPHeader X-Forwarded-For\nRemoteIPInternalProxy 127.0.0.0/8\n"
	a := startApache(t, remoteip, "Require ip 127.0.0.1", expr)
	for from, want := range map[string]int{"127.0.0.1": 200, "127.0.0.2": 403} {
		status, body := a.past(t, from, "/cgi-bin/env", "X-Forwarded-User: corp:mira", "X-Forwarded-For: 192.0.2.7")
		if status != want || status == 200 && !told(body, "REMOTE_ADDR=192.0.2.7", "REMOTE_USER=mira") {
			t.Errorf("from %s: %d\n%s", from, status, body)
		}
		status, _ = a.past(t, "127.0.0.2", "/cgi-bin/env", "X-Forwarded-User: corp:mira", "X-Forwarded-For: 127.0.0.1")
		if status != 403 {
			t.Errorf("who says to be Sallyport is answered with %d", status)
		}
	}
}
