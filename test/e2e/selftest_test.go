package e2e

import (
	"cmp"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// selftestCase is one case of `sallyport selftest --format json`.
type selftestCase struct {
	Name, Request, Result, Saw string
	Fix                        map[string]string
}

// selftestRoutes are the routes that `sallyport selftest --echo` prints, to be put at the end
// of a configuration.
func selftestRoutes(host, echo string) string {
	var lines string
	for _, route := range []string{"{name: selftest, path: /.sallyport-selftest, allow: authenticated",
		"{name: selftest-public, path: /.sallyport-selftest/public, public: {methods: [GET]}",
		"{name: selftest-from, path: /.sallyport-selftest/from, public: {from: [192.0.2.1]}"} {
		lines += "  - " + route + ", host: \"" + host + "\", upstream: \"http://" + echo + "\", websocket: true}\n"
	}
	return lines
}

// selftestOf runs `sallyport selftest` against the front at url, with the session cookie of
// somebody who is signed in ("name=value"), and returns how many cases there were and those
// that are not ok. To use it in the test of a front:
//
//   - take echo := need(t, freeAddress), and let the front pass requests to http://<echo> as
//     to its app: nothing needs to listen there before
//   - append selftestRoutes(publicHost, echo) to the end of Sallyport's configuration, whose
//     last key is then routes
//   - wantSelftestGreen(t, url, echo, cookie), and for a configuration without one of its
//     lines wantSelftestRed(t, url, echo, cookie, "nginx", whether an advice names the line)
func selftestOf(t *testing.T, url, echo, cookie string, args ...string) (int, []selftestCase) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "cookie")
	if err := os.WriteFile(file, []byte(cookie), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(world.binary, append([]string{"selftest", url, "--echo", echo, "--cookie", "file:" + file,
		"--format", "json"}, args...)...)
	cmd.Stderr = &strings.Builder{}
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if _, secret, _ := strings.Cut(cookie, "="); strings.Contains(string(out), secret) {
		t.Error("selftest printed the session cookie")
	}
	var report struct{ Cases []selftestCase }
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatalf("selftest of %s: %v\n%s\n%s", url, err, out, cmd.Stderr)
	}
	var faults []selftestCase
	for _, c := range report.Cases {
		if c.Result != "ok" {
			faults = append(faults, c)
		}
	}
	if (err == nil) != (len(faults) == 0) {
		t.Errorf("selftest ended with %v, and has %d faults", err, len(faults))
	}
	return len(report.Cases), faults
}

// throughTLS are the arguments for a front at an address, which has the test's certificate.
func throughTLS(t *testing.T, address string) []string {
	t.Helper()
	return []string{"--connect", address, "--ca", need(t, world.cert).certFile}
}

// wantSelftestGreen fails for each case that is not ok.
func wantSelftestGreen(t *testing.T, url, echo, cookie string, args ...string) {
	t.Helper()
	n, faults := selftestOf(t, url, echo, cookie, args...)
	if n < 380 {
		t.Errorf("selftest had only %d cases", n)
	}
	for _, c := range faults {
		t.Errorf("%s  %s  %s (%s)  %v", c.Result, c.Name, c.Request, c.Saw, c.Fix)
	}
}

// wantSelftestRed fails unless a case is not ok whose advice for the front names what is
// missing.
func wantSelftestRed(t *testing.T, url, echo, cookie, front string, names func(advice string) bool, args ...string) {
	t.Helper()
	_, faults := selftestOf(t, url, echo, cookie, args...)
	for _, c := range faults {
		if names(c.Fix[front]) {
			return
		}
	}
	t.Error("nothing says what is missing")
	for _, c := range faults {
		t.Errorf("%s  %s  %s (%s)  %s", c.Result, c.Name, c.Request, c.Saw, c.Fix[front])
	}
}

// Through Sallyport as the proxy itself nothing leaks, over HTTP/2 either.
func TestSelftestThroughSallyportItself(t *testing.T) {
	t.Parallel()
	for name, over := range map[string]func(string) setup{"http": overHTTP, "TLS": overTLS} {
		t.Run(name, func(t *testing.T) {
			echo, address := need(t, freeAddress), need(t, freeAddress)
			s := over(address)
			host := "localhost"
			if name == "TLS" {
				host = publicHost
			}
			for line := range strings.Lines(selftestRoutes(host, echo)) {
				s.Routes = append(s.Routes, strings.TrimPrefix(strings.TrimSpace(line), "- "))
			}
			c := ownCorp(t, s)
			wantSelftestGreen(t, c.url, echo, c.signIn(t, "mira"), throughTLS(t, address)...)
		})
	}
}

// Through nginx as its guide has it nothing leaks.
func TestSelftestThroughNginx(t *testing.T) {
	t.Parallel()
	echo := need(t, freeAddress)
	c, at := behindNginxWith(t, echo, selftestRoutes(publicHost, echo))
	wantSelftestGreen(t, c.url, echo, c.signIn(t, "mira"), throughTLS(t, at.front)...)
}

// Why nothing leaks without a line of nginx's guide, where selftest names none.
const (
	itself      = "" // selftest names it
	refuses     = "nginx does not start without it"
	nothing     = "nothing passes without it"
	onlyLog     = "what it changes is in Sallyport's log alone"
	unread      = "Sallyport reads nothing of it"
	onlyID      = "without it nobody reads the request id"
	onlyCost    = "without it each question opens a connection"
	sameDefault = "what nginx does without it is the same here"
)

// nginxLines are the lines of nginx's guide by their location, each with what selftest says
// that is missing when the line is, or why it says nothing.
var nginxLines = map[string]map[string]string{
	"server": {
		"large_client_header_buffers 4 32k;": itself,
		"proxy_buffer_size 32k;":             itself,
		"proxy_buffers 8 32k;":               refuses,
		"proxy_busy_buffers_size 64k;":       sameDefault,
		"proxy_http_version 1.1;":            itself,
	},
	"/.sallyport/": {
		"proxy_pass http://127.0.0.1:4180;":              "location /.sallyport/ { proxy_pass http://127.0.0.1:4180; }",
		"proxy_set_header Host $http_host;":              sameDefault,
		"proxy_set_header X-Forwarded-For $remote_addr;": onlyLog,
		"proxy_set_header X-Forwarded-Proto $scheme;":    itself,
		"proxy_set_header X-Forwarded-Host $http_host;":  itself,
	},
	"= /_sallyport": {
		"internal;": itself,
		"proxy_pass http://sallyport_asked/verify;":                         nothing,
		"proxy_set_header Connection \"\";":                                 onlyCost,
		"proxy_pass_request_body off;":                                      unread,
		"proxy_set_header Content-Length \"\";":                             unread,
		"client_max_body_size 0;":                                           sameDefault,
		"error_page 599 /;":                                                 sameDefault,
		"proxy_cache off;":                                                  sameDefault,
		"proxy_set_header Host sallyport;":                                  unread,
		"proxy_set_header X-Original-URL $scheme://$http_host$request_uri;": itself,
		"proxy_set_header X-Original-Method $request_method;":               itself,
		"proxy_set_header X-Forwarded-For $remote_addr;":                    itself,
		"proxy_set_header Upgrade $http_upgrade;":                           itself,
	},
	"/": {
		"auth_request /_sallyport;":                                                 itself,
		"error_page 401 = @signin;":                                                 itself,
		"auth_request_set $asker $upstream_http_x_sallyport_asker;":                 refuses,
		"auth_request_set $signin $upstream_http_location;":                         refuses,
		"error_page 403 = @refused;":                                                onlyID,
		"auth_request_set $asked_as $upstream_http_x_request_id;":                   refuses,
		"proxy_set_header X-Request-Id $asked_as;":                                  onlyID,
		"auth_request_set $user $upstream_http_x_forwarded_user;":                   refuses,
		"auth_request_set $email $upstream_http_x_forwarded_email;":                 refuses,
		"auth_request_set $username $upstream_http_x_forwarded_preferred_username;": refuses,
		"auth_request_set $name $upstream_http_x_forwarded_name;":                   refuses,
		"auth_request_set $groups $upstream_http_x_forwarded_groups;":               refuses,
		"auth_request_set $org_id $upstream_http_x_forwarded_org_id;":               refuses,
		"auth_request_set $org_name $upstream_http_x_forwarded_org_name;":           refuses,
		"auth_request_set $org_domain $upstream_http_x_forwarded_org_domain;":       refuses,
		"auth_request_set $assertion $upstream_http_x_sallyport_assertion;":         refuses,
		"auth_request_set $cookies $upstream_http_cookie;":                          refuses,
		"proxy_set_header X-Forwarded-User $user;":                                  itself,
		"proxy_set_header X-Forwarded-Email $email;":                                itself,
		"proxy_set_header X-Forwarded-Preferred-Username $username;":                itself,
		"proxy_set_header X-Forwarded-Name $name;":                                  itself,
		"proxy_set_header X-Forwarded-Groups $groups;":                              itself,
		"proxy_set_header X-Forwarded-Org-Id $org_id;":                              itself,
		"proxy_set_header X-Forwarded-Org-Name $org_name;":                          itself,
		"proxy_set_header X-Forwarded-Org-Domain $org_domain;":                      itself,
		"proxy_set_header X-Sallyport-Assertion $assertion;":                        itself,
		"proxy_set_header Cookie $cookies;":                                         itself,
		"proxy_set_header Host $http_host;":                                         itself,
		"proxy_set_header X-Forwarded-For $remote_addr;":                            itself,
		"proxy_set_header X-Forwarded-Proto $scheme;":                               itself,
		"proxy_set_header X-Forwarded-Host $http_host;":                             itself,
		"proxy_set_header X-Real-IP \"\";":                                          itself,
		"proxy_set_header Forwarded \"\";":                                          itself,
		"proxy_set_header X-Forwarded-Port \"\";":                                   itself,
		"proxy_set_header X-Forwarded-Prefix \"\";":                                 itself,
		"proxy_set_header X-Forwarded-Server \"\";":                                 itself,
		"proxy_set_header X-Forwarded-Uri \"\";":                                    itself,
		"proxy_set_header X-Forwarded-Method \"\";":                                 itself,
		"proxy_set_header X-Forwarded-Path \"\";":                                   itself,
		"proxy_set_header X-Original-URL \"\";":                                     itself,
		"proxy_set_header X-Original-URI \"\";":                                     itself,
		"proxy_set_header X-Original-Method \"\";":                                  itself,
		"proxy_set_header X-Original-Host \"\";":                                    itself,
		"proxy_set_header X-Rewrite-URL \"\";":                                      itself,
		"proxy_set_header Upgrade $http_upgrade;":                                   itself,
		"proxy_set_header Connection $connection_upgrade;":                          itself,
		"proxy_pass http://127.0.0.1:8080;":                                         nothing,
	},
	"@signin": {
		"if ($asker = navigation) { return 302 $signin; }": itself,
		"return 401;": itself,
	},
	"@refused": {
		"default_type text/html;": onlyID,
		"return 403 \"<h1>403 Forbidden</h1><p>Tell the people who run this site the request id: " +
			"$asked_as</p>\\n\";": onlyID,
	},
}

// namesLine reports whether an advice for nginx has the line of a location in it; the name
// of a variable is the operator's.
func namesLine(advice, location, line string) bool {
	if i := strings.Index(line, " $"); i >= 0 && location == "/" {
		line = line[:i+2]
	}
	if location == "= /_sallyport" || location == "/.sallyport/" {
		line += " in location " + location
	}
	return strings.Contains(advice, line)
}

// Each line of nginx's guide is taken out in turn, and selftest says which it is.
func TestSelftestNamesEachMissingLineOfNginx(t *testing.T) {
	t.Parallel()
	echo := need(t, freeAddress)
	c, at := behindNginxWith(t, echo, selftestRoutes(publicHost, echo))
	cookie := c.signIn(t, "mira")
	block := guideBlock(t, nginxGuide, "nginx")
	lines := strings.SplitAfter(block, "\n")
	location, seen := "server", 0
	for i, line := range lines {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "location "); ok {
			location = strings.TrimSuffix(name, " {")
		}
		if !strings.HasPrefix(lines[i], "    ") || strings.HasPrefix(line, "#") || !strings.Contains(line, ";") ||
			strings.HasPrefix(line, "listen ") || strings.HasPrefix(line, "server_name ") ||
			strings.HasPrefix(line, "ssl_certificate") {
			continue
		}
		want, ok := nginxLines[location][line]
		if !ok {
			t.Errorf("nothing is said of %q in %s", line, location)
			continue
		}
		seen++
		t.Run(location+" "+line, func(t *testing.T) {
			one := at
			one.front = need(t, freeAddress)
			n := runNginx(t, one, strings.Join(append(slices.Clone(lines[:i]), lines[i+1:]...), ""))
			defer n.stop()
			if n.ended() {
				if want != refuses {
					t.Error("nginx does not start without it")
				}
				return
			}
			switch want {
			case refuses:
				t.Error("nginx starts without it")
			case onlyLog, onlyID, unread, onlyCost, sameDefault:
				wantSelftestGreen(t, c.url, echo, cookie, throughTLS(t, one.front)...)
			case nothing:
				_, faults := selftestOf(t, c.url, echo, cookie, throughTLS(t, one.front)...)
				for _, fault := range faults {
					if fault.Result == "LEAK" {
						t.Errorf("%+v", fault)
					}
				}
			default:
				wantSelftestRed(t, c.url, echo, cookie, "nginx", func(advice string) bool {
					return strings.Contains(advice, cmp.Or(want, "\x00")) || namesLine(advice, location, line)
				}, throughTLS(t, one.front)...)
			}
		})
	}
	spoken := 0
	for _, of := range nginxLines {
		spoken += len(of)
	}
	if seen != spoken {
		t.Errorf("%d lines are spoken of, and %d stand in the guide", spoken, seen)
	}
}

// A line of nginx's guide is another one, as it stands in many a configuration, and
// selftest says which it should be.
func TestSelftestNamesEachWrongLineOfNginx(t *testing.T) {
	t.Parallel()
	echo := need(t, freeAddress)
	c, at := behindNginxWith(t, echo, selftestRoutes(publicHost, echo))
	cookie := c.signIn(t, "mira")
	block := guideBlock(t, nginxGuide, "nginx")
	for name, tt := range map[string]struct{ old, now, says string }{
		"the path as nginx reads it": {"$http_host$request_uri", "$http_host$uri",
			"X-Original-URL $scheme://$http_host$request_uri;"},
		"the client's addresses, too": {"X-Forwarded-For $remote_addr;\n        proxy_set_header X-Forwarded-Proto " +
			"$scheme;\n        proxy_set_header X-Forwarded-Host $http_host;\n        #",
			"X-Forwarded-For $proxy_add_x_forwarded_for;\n        proxy_set_header X-Forwarded-Proto " +
				"$scheme;\n        proxy_set_header X-Forwarded-Host $http_host;\n        #",
			"proxy_set_header X-Forwarded-For $remote_addr;"},
		"everybody is sent to sign in": {"error_page 401 = @signin;", "error_page 401 =302 $signin;",
			"if ($asker = navigation) { return 302 $signin; }"},
		"either will do": {"auth_request /_sallyport;", "auth_request /_sallyport; satisfy any; allow all;",
			"auth_request /_sallyport;"},
		"every page may read": {"auth_request /_sallyport;",
			"auth_request /_sallyport; add_header Access-Control-Allow-Origin $http_origin always; " +
				"add_header Access-Control-Allow-Credentials true always;", "no add_header"},
		"the host of the app": {"proxy_set_header Host $http_host;\n        proxy_set_header X-Forwarded-For " +
			"$remote_addr;\n        proxy_set_header X-Forwarded-Proto $scheme;\n        proxy_set_header " +
			"X-Forwarded-Host $http_host;\n        #", "#", "proxy_set_header Host $http_host;"},
		// Of what these let in, Sallyport refuses all but X_Real_IP and X_Rewrite_URL.
		"underscores": {"    proxy_http_version 1.1;",
			"    underscores_in_headers on;\n    proxy_http_version 1.1;", "underscores_in_headers off;"},
		"names that are invalid": {"    proxy_http_version 1.1;",
			"    ignore_invalid_headers off;\n    proxy_http_version 1.1;", "ignore_invalid_headers on;"},
	} {
		t.Run(name, func(t *testing.T) {
			one := at
			one.front = need(t, freeAddress)
			n := runNginx(t, one, readdressed(t, block, tt.old, tt.now))
			defer n.stop()
			if text, _ := n.out.now(); n.ended() {
				t.Fatal(text)
			}
			wantSelftestRed(t, c.url, echo, cookie, "nginx", func(advice string) bool {
				return strings.Contains(advice, tt.says)
			}, throughTLS(t, one.front)...)
		})
	}
}

// Through the fronts that have a guide nothing leaks either, by TLS.
func TestSelftestThroughCaddy(t *testing.T) {
	t.Parallel()
	for name, find := range caddies() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			program := need(t, find)
			selftestBehind(t, caddyGuide, func(t *testing.T, at addresses) *process {
				return runCaddy(t, program, caddyfile(t, at), at)
			})
		})
	}
}

func TestSelftestThroughHAProxy(t *testing.T) {
	t.Parallel()
	need(t, haproxyProgram)
	selftestBehind(t, haproxyGuide, func(t *testing.T, at addresses) *process {
		return runHAProxy(t, at, inForeground)
	})
}

// selftestBehind is wantSelftestGreen through a front that runs starts.
func selftestBehind(t *testing.T, guide string, runs func(*testing.T, addresses) *process) {
	t.Helper()
	c, at, cookie := forSelftest(t, guide, runs)
	wantSelftestGreen(t, c.url, at.app, cookie, throughTLS(t, at.front)...)
}

// forSelftest is a site behind a front that runs starts, with an echo in the place of the
// app, and the cookie of somebody who is signed in.
func forSelftest(t *testing.T, guide string, runs func(*testing.T, addresses) *process) (
	c *corp, at addresses, cookie string,
) {
	t.Helper()
	echo := need(t, freeAddress)
	c = behindFrontWith(t, guide, echo, selftestRoutes(publicHost, echo), func(t *testing.T, its addresses) *process {
		at = its
		return runs(t, its)
	})
	return c, at, c.signIn(t, "mira")
}

// withoutLines takes each line of a table out of a front's configuration in turn, and
// wants that selftest says so, in the words of the table.
func withoutLines(t *testing.T, c *corp, at addresses, cookie, front string, lines map[string]string,
	runs func(t *testing.T, at addresses, line string) *process,
) {
	t.Helper()
	for line, says := range lines {
		t.Run(strings.TrimSpace(line), func(t *testing.T) {
			one := at
			one.front, one.dir = need(t, freeAddress), t.TempDir()
			p := runs(t, one, line)
			defer p.stop()
			p.listens(t, one.front)
			wantSelftestRed(t, c.url, at.app, cookie, front, func(advice string) bool {
				return strings.Contains(advice, says)
			}, throughTLS(t, one.front)...)
		})
	}
}

// A line of Caddy's guide is missing, and selftest says which it is.
func TestSelftestNamesMissingLinesOfCaddy(t *testing.T) {
	t.Parallel()
	program := need(t, caddyProgram)
	c, at, cookie := forSelftest(t, caddyGuide, func(t *testing.T, at addresses) *process {
		return runCaddy(t, program, caddyfile(t, at), at)
	})
	withoutLines(t, c, at, cookie, "Caddy", map[string]string{
		"\t\timport sallyport\n":                    "forward_auth",
		"\t\treverse_proxy 127.0.0.1:4180\n":        "handle /.sallyport/*",
		"\t\t\tCookie\n":                            "copy_headers Cookie",
		"\t\t\tX-Forwarded-User\n":                  "copy_headers X-Forwarded-User",
		"\t\t\tX-Forwarded-Groups\n":                "copy_headers X-Forwarded-Groups",
		"\t\t\tX-Sallyport-Assertion\n":             "copy_headers X-Sallyport-Assertion",
		"\theader_up X-Forwarded-User {header.X-F":  "header_up X-Forwarded-User",
		"\theader_up X-Sallyport-Assertion {header": "header_up X-Sallyport-Assertion",
		"\theader_up -Forwarded\n":                  "header_up -Forwarded",
		"\theader_up -X-Forwarded-Prefix\n":         "header_up -X-Forwarded-Prefix",
		"\theader_up -X-Original-*\n":               "header_up -X-Original-URL",
		"\theader_up -X-Rewrite-*\n":                "header_up -X-Rewrite-URL",
		"\theader_up -X-Real-*\n":                   "header_up -X-Real-IP",
		"\theader_up -X.*\n":                        "header_up -X.*",
		"\theader_up -X_*\n":                        "header_up -X_*",
	}, func(t *testing.T, at addresses, line string) *process {
		text := caddyfile(t, at)
		begin := strings.Index(text, strings.ReplaceAll(line, "127.0.0.1:4180", at.public))
		if begin < 0 {
			t.Fatalf("%q does not stand in\n%s", line, text)
		}
		_, rest, _ := strings.Cut(text[begin:], "\n")
		return runCaddy(t, program, text[:begin]+rest, at)
	})
}

// A line of HAProxy's guide is missing, and selftest says which it is.
func TestSelftestNamesMissingLinesOfHAProxy(t *testing.T) {
	t.Parallel()
	need(t, haproxyProgram)
	c, at, cookie := forSelftest(t, haproxyGuide, func(t *testing.T, at addresses) *process {
		return runHAProxy(t, at, inForeground)
	})
	withoutLines(t, c, at, cookie, "HAProxy", map[string]string{
		"    http-request set-header X-Forwarded-For %[src]\n": "http-request set-header X-Forwarded-For %[src]",
		"    http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]\n": "http-request set-header " +
			"X-Forwarded-Proto %[ssl_fc,iif(https,http)]",
		"    http-request set-header X-Forwarded-Host %[req.hdr(Host)]\n": "http-request set-header " +
			"X-Forwarded-Host %[req.hdr(Host)]",
		"    http-request lua.sallyport http://127.0.0.1:4182/forward if !own\n": "http-request lua.sallyport",
		"    use_backend sallyport if own\n":                                     "use_backend sallyport if",
	}, func(t *testing.T, at addresses, line string) *process {
		return runHAProxy(t, at, inForeground, line, "")
	})
}
