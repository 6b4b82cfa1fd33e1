package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// program finds the first of names that is installed. Debian keeps servers off the PATH.
func program(names ...string) (string, bool) {
	for _, name := range names {
		for _, path := range []string{name, "/usr/sbin/" + name} {
			if found, err := exec.LookPath(path); err == nil {
				return found, true
			}
		}
	}
	return "", false
}

// startNginx starts one worker that passes all on. header is what it adds to requests, line by
// line as `Name: value`; with some it also writes a log like ours.
func startNginx(c cores, binary, dir, name, upstream string, header []string) (*process, string, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, "", err
	}
	log, set := "access_log off;", ""
	if len(header) > 0 {
		log = jsonLog
		for _, line := range header {
			name, value, _ := strings.Cut(line, ": ")
			set += fmt.Sprintf("      proxy_set_header %s \"%s\";\n", name, strings.ReplaceAll(value, `"`, `\"`))
		}
	}
	// The user matters to root alone, whose workers would be another's otherwise.
	user := ""
	if os.Getuid() == 0 {
		user = "user root;"
	}
	text := fmt.Sprintf(`%[6]s
worker_processes 1;
pid %[1]s/%[2]s.pid;
error_log /dev/null;
events { worker_connections 4096; }
http {
  %[3]s
  client_body_temp_path %[1]s/%[2]s-body;
  proxy_temp_path %[1]s/%[2]s-proxy;
  fastcgi_temp_path %[1]s/%[2]s-fastcgi;
  uwsgi_temp_path %[1]s/%[2]s-uwsgi;
  scgi_temp_path %[1]s/%[2]s-scgi;
  keepalive_requests 1000000000;
  tcp_nodelay on;
  upstream app { server %[4]s; keepalive 256; keepalive_requests 1000000000; }
  server {
    listen %[5]s;
    location / {
      proxy_pass http://app;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto http;
%[7]s    }
  }
}
`, dir, name, log, upstream, address, user, set)
	file := filepath.Join(dir, name+".conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, "", err
	}
	if out, err := exec.Command(binary, "-t", "-c", file).CombinedOutput(); err != nil {
		return nil, "", fmt.Errorf("nginx refuses its configuration: %w\n%s", err, out)
	}
	p, err := launch(c, name, exec.Command(binary, "-c", file, "-g", "daemon off;"), address)
	return p, address, err
}

// jsonLog is a line with what ours has of a request, written as ours is: many at a time.
const jsonLog = `log_format line escape=json '{"time":"$time_iso8601","level":"INFO","msg":"request",'
    '"request_id":"$request_id","method":"$request_method","host":"$http_host","path":"$uri",'
    '"route":"app","status":$status,"client":"$remote_addr","user":"sso:ann","org":"sso:acme",'
    '"decision":"forward","duration":$request_time,"upstream_duration":"$upstream_header_time",'
    '"bytes_in":$request_length,"bytes_out":$body_bytes_sent,"user_agent":"$http_user_agent"}';
  access_log /dev/null line buffer=32k flush=1s;`

// startHAProxy starts one thread that passes all on.
func startHAProxy(c cores, binary, dir, upstream string) (*process, string, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, "", err
	}
	text := fmt.Sprintf(`global
  nbthread 1
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
  option forwardfor
listen app
  bind %s
  server app %s pool-max-conn 256
`, address, upstream)
	file := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, "", err
	}
	if out, err := exec.Command(binary, "-c", "-f", file).CombinedOutput(); err != nil {
		return nil, "", fmt.Errorf("HAProxy refuses its configuration: %w\n%s", err, out)
	}
	p, err := launch(c, "HAProxy", exec.Command(binary, "-db", "-f", file), address)
	return p, address, err
}

// peer is somebody else's proxy, that runs already and passes requests on to our upstream.
type peer struct {
	name, address, path, cookie string
	pid                         int
}

// listener finds the process that listens at an address: the socket in net/tcp, and who has it open.
func listener(address string) (pid int, err error) {
	at, err := net.ResolveTCPAddr("tcp4", address)
	if err != nil {
		return 0, err
	}
	inodes := map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(table)
		if err != nil {
			continue // a system without IPv6
		}
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if len(fields) > 9 && fields[3] == "0A" && strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", at.Port)) {
				inodes["socket:["+fields[9]+"]"] = true
			}
		}
	}
	found, _ := filepath.Glob("/proc/[0-9]*/fd/*") // the pattern is one
	for _, fd := range found {
		if target, err := os.Readlink(fd); err == nil && inodes[target] {
			_, err := fmt.Sscanf(fd, "/proc/%d/", &pid)
			return pid, err
		}
	}
	return 0, fmt.Errorf("no process that may be looked at listens on %s", address)
}
