package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// field is everything that `make bench` measures, and what that needs.
type field struct {
	cores    cores
	o        *options
	loop     *loop
	app      *upstream // behind the proxies
	third    *upstream // behind the gateway
	subjects []*subject
	direct   *subject // the upstream itself
	running  []*process
}

func (f *field) stop() {
	for i := len(f.running) - 1; i >= 0; i-- {
		f.running[i].stop()
	}
}

func (f *field) started(p *process) *process {
	f.running = append(f.running, p)
	return p
}

func (f *field) start() (err error) {
	if f.app, err = newUpstream(f.loop, f.o.upstream, f.o.size); err != nil {
		return err
	}
	if f.third, err = newUpstream(f.loop, "127.0.0.1:0", f.o.size); err != nil {
		return err
	}
	here := site{upstream: f.app.address,
		routes: fmt.Sprintf("  - {name: logo, path: /public, upstream: \"http://%s\", public: true}\n", f.app.address)}
	sp, err := startSallyport(f.cores, f.o.binary, f.o.dir, here)
	if err != nil {
		return err
	}
	f.started(sp.process)
	here.lane = true
	quick, err := startSallyport(f.cores, f.o.binary, f.o.dir, here)
	if err != nil {
		return err
	}
	f.started(quick.process)
	header, err := f.ourHeader(sp)
	if err != nil {
		return err
	}
	if err := f.startPlain(header); err != nil {
		return err
	}
	b, err := startBare(f.cores, f.app.address)
	if err != nil {
		return err
	}
	f.started(b.process)
	cookie := "theme=dark; " + sp.cookie
	f.proxy("bare", "bare `httputil.ReverseProxy`", b.process, b.proxy, request(b.proxy, reports, cookie), "")
	f.proxy("public", "Sallyport, a public route", sp.process, sp.public,
		request(sp.public, "/public"+reports, cookie), "")
	f.proxy("signed-in", "Sallyport, signed in", sp.process, sp.public, sp.signedIn(), "X-Forwarded-User: sso:ann\r\n")
	f.proxy("public-lane", "Sallyport, a public route, `lane`", quick.process, quick.public,
		request(quick.public, "/public"+reports, "theme=dark; "+quick.cookie), "")
	f.proxy("signed-in-lane", "Sallyport, signed in, `lane`", quick.process, quick.public, quick.signedIn(),
		"X-Forwarded-User: sso:ann\r\n")
	if err := f.startGateway(); err != nil {
		return err
	}
	for _, p := range f.o.peers {
		if err := f.addPeer(p); err != nil {
			return err
		}
	}
	empty := expected{"200", 0}
	f.add(&subject{key: "handler", name: "bare `net/http` handler", process: b.process, beside: "handler",
		dial: f.http(b.handler, sp.verify(), empty)})
	f.add(&subject{key: "verify", name: "Sallyport, `/verify`", process: sp.process, beside: "handler",
		dial: f.http(sp.asked, sp.verify(), empty)})
	f.add(&subject{key: "verify-lane", name: "Sallyport, `/verify`, `lane`", process: quick.process, beside: "handler",
		dial: f.http(quick.asked, quick.verify(), empty)})
	return f.addChecks(sp, b)
}

// startPlain starts those that sign nobody in, where they are installed.
func (f *field) startPlain(header []string) error {
	cookie := "theme=dark; " + strings.Repeat("x", 400) // as long as ours
	if binary, ok := program("nginx"); ok {
		for _, n := range []struct {
			key, name string
			header    []string
		}{{"nginx", "nginx", nil}, {"nginx-same", "nginx, our headers and a JSON log", header}} {
			p, address, err := startNginx(f.cores, binary, f.o.dir, n.key, f.app.address, n.header)
			if err != nil {
				return err
			}
			f.proxy(n.key, n.name, f.started(p), address, request(address, reports, cookie), "")
		}
	}
	if binary, ok := program("haproxy"); ok {
		p, address, err := startHAProxy(f.cores, binary, f.o.dir, f.app.address)
		if err != nil {
			return err
		}
		f.proxy("haproxy", "HAProxy", f.started(p), address, request(address, reports, cookie), "")
	}
	return nil
}

// startGateway starts a second Sallyport, with a store and grants.
func (f *field) startGateway() error {
	sp, err := startSallyport(f.cores, f.o.binary, f.o.dir, site{upstream: f.app.address, third: f.third.address,
		store: "sqlite:" + filepath.Join(f.o.dir, "gateway.db"), person: ann()})
	if err != nil {
		return fmt.Errorf("with grants: %w", err)
	}
	f.started(sp.process)
	f.add(&subject{key: "gateway", name: "Sallyport, gateway (an app uses a grant)", process: sp.process,
		beside: "bare", reaches: f.third, sends: "Authorization: Bearer a-key-of-the-third-party\r\n",
		dial: func(ld *load) error {
			use, err := sp.use(f.loop, f.app)
			if err != nil {
				return err
			}
			return dialHTTP(f.loop, ld, sp.grants, use, expected{"200", f.o.size}, f.o.connections)
		}})
	return nil
}

// addPeer takes somebody else's process as it is, but for its core.
func (f *field) addPeer(p peer) error {
	pid, err := listener(p.address)
	if err != nil {
		return err
	}
	if pid == os.Getpid() {
		return fmt.Errorf("%s: that is the upstream", p.name)
	}
	proc := &process{name: p.name, pid: pid}
	for _, one := range proc.family() {
		if err := f.cores.pin(one); err != nil {
			return err
		}
	}
	cookie := "theme=dark"
	if p.cookie != "" {
		cookie += "; " + p.cookie
	}
	f.proxy("peer-"+p.name, p.name, proc, p.address, request(p.address, p.path, cookie), "")
	return nil
}

// addChecks has Envoy's questions: calls of gRPC over a few connections, as many at a time in
// all as there are connections of the others.
func (f *field) addChecks(sp *sallyport, b *bare) error {
	message, err := sp.check()
	if err != nil {
		return err
	}
	calls := min(8, f.o.connections)
	dial := func(address string, judge func([]byte) error) func(ld *load) error {
		return func(ld *load) error {
			return dialGRPC(f.loop, ld, address, message, judge, f.o.connections/calls, calls)
		}
	}
	f.add(&subject{key: "grpc-handler", name: "bare `net/http` handler, HTTP/2", process: b.process,
		beside: "grpc-handler", dial: dial(b.handler, func([]byte) error { return nil })})
	f.add(&subject{key: "grpc", name: "Sallyport, Envoy's check over gRPC", process: sp.process,
		beside: "grpc-handler", dial: dial(sp.grpc, passes)})
	self := &process{name: "upstream", pid: os.Getpid()}
	f.direct = &subject{key: "direct", name: "the upstream itself", process: self, reaches: f.app,
		dial: f.http(f.app.address, request(f.app.address, reports, "theme=dark"), expected{"200", f.o.size})}
	return nil
}

// ourHeader is what the upstream is sent by us and by nobody else, line by line.
func (f *field) ourHeader(sp *sallyport) (lines []string, err error) {
	head, err := seen(f.loop, f.app, sp.public, sp.signedIn())
	if err != nil {
		return nil, err
	}
	if headerValue(head, "X-Forwarded-User") != ann().ID() {
		return nil, fmt.Errorf("the upstream is not told who asks:\n%s", head)
	}
	for line := range strings.SplitSeq(strings.TrimSpace(string(head)), "\r\n") {
		if strings.HasPrefix(line, "X-") && !strings.HasPrefix(line, "X-Forwarded-For:") &&
			!strings.HasPrefix(line, "X-Forwarded-Proto:") {
			lines = append(lines, line)
		}
	}
	return lines, nil
}

func (f *field) add(s *subject) { f.subjects = append(f.subjects, s) }

// proxy adds one that passes requests on to the app.
func (f *field) proxy(key, name string, p *process, address string, request []byte, sends string) {
	f.add(&subject{key: key, name: name, process: p, beside: "bare", reaches: f.app, sends: sends,
		dial: f.http(address, request, expected{"200", f.o.size})})
}

func (f *field) http(address string, request []byte, want expected) func(ld *load) error {
	return func(ld *load) error { return dialHTTP(f.loop, ld, address, request, want, f.o.connections) }
}

// halfLoad are the subjects of which the added latency is measured.
func (f *field) halfLoad() []*subject {
	var some []*subject
	for _, s := range f.subjects {
		switch s.key {
		case "nginx", "haproxy", "bare", "public", "signed-in", "signed-in-lane":
			some = append(some, s)
		}
	}
	return some
}
