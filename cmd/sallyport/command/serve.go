package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/assemble"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/asynclog"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/reload"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/server"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/systemd"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/watch"
	"github.com/sallyport-proxy/sallyport/gateway"
	"github.com/sallyport-proxy/sallyport/internal/observe"
)

func serveCommand(c *console) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "serve [FILE]",
		Short: "Run the proxy",
		Long: "Run the proxy. SIGHUP reads the configuration again. SIGTERM and Ctrl-C stop it in order;\n" +
			"a second one stops it at once.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneFile(cmd, args, &path); err != nil {
				return err
			}
			return serveFile(cmd.Context(), c, path)
		},
	}
	configFlag(cmd, &path)
	return cmd
}

// serveFile runs the configuration in a file, and follows it, until ctx is done.
func serveFile(ctx context.Context, c *console, path string) error {
	hangups := make(chan os.Signal, 1) // one that comes while the process begins is not lost, and does not end it
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	first, err := reload.Read(path, c.types, c.env)
	if faults, ok := errors.AsType[config.Faults](err); ok {
		return configFaults(faults)
	}
	if err != nil {
		return cannotRead(path, err)
	}
	log := asynclog.Open(c.stdout, c.stderr, logLevel(first.Config.Log.Level), first.Config.Log.Format)
	defer log.Close()
	limitMemory(c.env, memlimit.FromCgroup, log.Logger)
	logWarnings(log.Logger, warnings(first.Config), nil)
	s, err := start(ctx, c, first.Config, first.Secrets, log)
	if err != nil {
		return err
	}
	defer s.close()
	manager := c.serviceManager(log.Logger)
	following, stopFollowing := context.WithCancel(ctx)
	loop := reload.NewLoop(reload.Options{Path: path, Types: c.types, Env: c.env, First: first, Apply: s.apply,
		Watcher: watch.Start(following, watch.Look, log.Logger), Manager: manager, Log: log.Logger,
		Registerer: s.metrics})
	manager.Ready("serving")
	defer context.AfterFunc(ctx, manager.Stopping)()
	var loops sync.WaitGroup
	defer loops.Wait() // before close: nothing is replaced any more
	defer stopFollowing()
	loops.Go(func() { loop.Run(following, hangups) })
	return s.run(ctx)
}

// serviceManager is who started this process, where they want to be told how it fares.
func (c *console) serviceManager(log *slog.Logger) *systemd.Notifier {
	socket, _ := c.env("NOTIFY_SOCKET")
	return systemd.NewNotifier(socket, func(err error) {
		log.Warn("the service manager could not be told", "error", err.Error())
	})
}

// serve runs the demo's configuration until ctx is done. That its secrets stand in it is no
// news: its people and their accounts are invented.
func serve(ctx context.Context, c *console, cfg *config.Config, log *asynclog.Log) error {
	sec, err := assemble.Resolve(cfg, c.env)
	if err != nil {
		return asUsage(err)
	}
	s, err := start(ctx, c, cfg, sec, log)
	if err != nil {
		return err
	}
	defer s.close()
	return s.run(ctx)
}

// serving is a running Sallyport: what listens, and all that follows a change of the
// configuration.
type serving struct {
	log     *asynclog.Log
	metrics *prometheus.Registry
	process *assemble.Process
	server  *server.Server
	certs   []certified // of listeners with TLS
	audit   *auditStream
	admin   adminHandler
	ready   *atomic.Bool
}

// start makes what serves a configuration, and opens its listeners. Nothing is
// answered before run.
func start(ctx context.Context, c *console, cfg *config.Config, sec *assemble.Secrets,
	log *asynclog.Log) (_ *serving, err error) {
	s := &serving{log: log, metrics: newRegistry(), ready: &atomic.Bool{}}
	log.Measure(s.metrics)
	s.audit = &auditStream{console: c, log: log.Logger, lost: auditLost(s.metrics)}
	audit, err := s.audit.open(cfg.Log.Audit)
	if err != nil {
		return nil, err
	}
	s.audit.replace(audit)
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	s.process = assemble.NewProcess(s.metrics, log.Logger, requestLog(log), s.audit)
	s.process.AuditGrants(s.audit.Grant)
	if err := s.process.Open(ctx, cfg, version()); err != nil {
		return nil, asUsage(err)
	}
	runtime, err := s.process.Build(cfg, sec)
	if err != nil {
		return nil, asUsage(err)
	}
	s.process.Swap(runtime)
	if s.certs, err = newCertificates(cfg, log.Logger); err != nil {
		return nil, err
	}
	var certificates server.Certificates
	for _, c := range s.certs {
		certificates = append(certificates, c.Certificate)
	}
	s.metrics.MustRegister(certificates)
	s.server = &server.Server{
		Listeners: []*server.Listener{publicListener(cfg, s.process, s.certificate(httpsKey), log)},
		Front:     s.process, DrainDelay: cfg.Stop.DrainDelay, StopTimeout: cfg.Stop.Timeout, Log: log.Logger,
		Ready: s.ready,
	}
	s.server.Listeners = append(s.server.Listeners,
		externalAuthListeners(cfg, s.process, s.certificate(externalAuthKey), log)...)
	s.server.Listeners = append(s.server.Listeners,
		grantsListeners(cfg, s.process, s.certificate(grantsKey), log)...)
	if cfg.Listen.Admin.Address != "" {
		s.admin.replace(s.newAdmin(cfg))
		s.server.Listeners = append(s.server.Listeners, &server.Listener{Key: "listen.admin",
			Address: cfg.Listen.Admin.Address, HTTP: server.NewAdminHTTP(&s.admin, log.Logger), Last: true})
	}
	s.server.Measure(s.metrics)
	if err := s.server.Open(ctx); err != nil {
		return nil, err
	}
	logStart(log.Logger, cfg, s.server.Listeners)
	return s, nil
}

// requestLog writes to log.
func requestLog(log *asynclog.Log) observe.Log {
	l := observe.Log{Logger: log.Logger}
	if out := log.JSON(); out != nil {
		l.Lines = observe.NewLines(out)
	}
	return l
}

// run answers until ctx is done.
func (s *serving) run(ctx context.Context) error {
	for _, c := range s.certs {
		go c.Watch(ctx, server.CertificatePoll)
	}
	go debug.FreeOSMemory() // what reading and building the configuration took: a quarter of what the process has
	return s.server.Run(ctx)
}

// close comes when nothing is answered any more.
func (s *serving) close() {
	if s.process != nil {
		if err := s.process.Close(); err != nil {
			s.log.Error("the store was not closed in order", "error", err)
		}
	}
	s.audit.replace(nil)
}

// apply takes another configuration into use: first all that can fail, then the change
// itself, which cannot. What may be refused from outside comes before what is made: it is
// tried again and again.
func (s *serving) apply(ctx context.Context, old, next *reload.Reading) error {
	was, is := old.Config, next.Config
	changeStore, err := s.process.ChangeStore(ctx, was, is)
	if err != nil {
		return err
	}
	var audit *openAudit
	if is.Log.Audit != was.Log.Audit {
		if audit, err = s.audit.open(is.Log.Audit); err != nil {
			return err
		}
	}
	runtime, err := s.process.Build(is, next.Secrets)
	if err != nil {
		audit.close()
		return err
	}
	if err := s.replaceCertificates(is); err != nil {
		runtime.Release()
		audit.close()
		return err
	}
	changeStore()
	s.process.Swap(runtime)
	s.server.SetStop(is.Stop.DrainDelay, is.Stop.Timeout)
	if s.admin.serves() {
		s.admin.replace(s.newAdmin(is))
	}
	if is.Log.Level != was.Log.Level { // else what an operator has set stays
		s.log.Level.Set(logLevel(is.Log.Level))
	}
	// The stream of before is told, if there was one, so that none is taken away without a word.
	changed := is.Changed(was)
	s.tellChange(changed)
	if is.Log.Audit != was.Log.Audit {
		s.audit.replace(audit)
	}
	if was.Log.Audit == "" {
		s.tellChange(changed)
	}
	logWarnings(s.log.Logger, warnings(is), warnings(was))
	return nil
}

// tellChange tells the audit stream, if there is one, which keys of the configuration have
// another value now. Who changed them is not known.
func (s *serving) tellChange(keys []string) {
	if len(keys) > 0 { // else it was a comment
		s.audit.Operator("", "the configuration was changed: "+strings.Join(keys, ", "))
	}
}

// logWarnings tells of what should not stay so, but for what was told before.
func logWarnings(log *slog.Logger, now, before []config.Fault) {
	for _, w := range now {
		if !slices.Contains(before, w) {
			log.Warn("configuration", "warning", w.Error())
		}
	}
}

// readHeader is how many times limits.header is read of a header. What is longer than that limit is
// answered with a page and an id, and logged; what net/http refuses, with a line of text alone.
const readHeader = 2

// publicListener is the one for browsers and programs; cert is nil for plain http.
func publicListener(cfg *config.Config, front http.Handler, cert *server.Certificate,
	log *asynclog.Log) *server.Listener {
	limits := server.Limits{Header: readHeader * int(cfg.Limits.Header), KeepAlive: cfg.Listen.KeepAlive,
		H2C: cfg.Listen.H2C}
	l := &server.Listener{Key: "listen.http", Address: cfg.Listen.HTTP.Address, Lane: cfg.Listen.Lane,
		Proxies: cfg.Listen.HTTP.ProxyProtocol, HTTP: server.NewPublicHTTP(front, limits, log.Logger)}
	if cert != nil {
		l.Key, l.Address, l.Proxies = "listen.https.address", cfg.Listen.HTTPS.Address, cfg.Listen.HTTPS.ProxyProtocol
		l.HTTP.TLSConfig = cert.Config()
	}
	return l
}

// externalAuthListeners are those for other proxies that ask, over HTTP and over gRPC; cert
// is nil if they do without TLS.
func externalAuthListeners(cfg *config.Config, process *assemble.Process, cert *server.Certificate,
	log *asynclog.Log) (all []*server.Listener) {
	add := func(name, address, protocol string, answers *http.Server) {
		if address == "" {
			return
		}
		if cert != nil {
			answers.TLSConfig = cert.Config()
			answers.TLSConfig.NextProtos = []string{protocol}
		}
		all = append(all, &server.Listener{Key: externalAuthKey, Name: name, Address: address, HTTP: answers,
			Lane: cfg.Listen.Lane && answers.Protocols.HTTP1()})
	}
	e, keepAlive := cfg.Listen.ExternalAuth, cfg.Listen.KeepAlive
	add("external_auth", e.Address, "http/1.1",
		server.NewExternalAuthHTTP(http.HandlerFunc(process.ServeExternalAuth), keepAlive, log.Logger))
	add("external_auth_grpc", e.GRPC, "h2",
		server.NewExternalAuthGRPC(http.HandlerFunc(process.ServeExternalAuthGRPC), keepAlive, log.Logger))
	return all
}

// grantsListeners are those for apps, none where nothing is lent. cert is nil without TLS.
func grantsListeners(cfg *config.Config, process *assemble.Process, cert *server.Certificate,
	log *asynclog.Log) []*server.Listener {
	all := server.Grants{Key: grantsKey, Address: cfg.Listen.Grants.Address, Certificate: cert,
		KeepAlive: cfg.Listen.KeepAlive, Handler: http.HandlerFunc(process.ServeGrants), OnSocket: gateway.WithSocket}
	for i, a := range cfg.Grants.Apps {
		if a.Socket.Path != "" {
			all.Sockets = append(all.Sockets, server.AppSocket{Key: fmt.Sprintf("grants.apps[%d].socket", i), App: a.ID,
				Socket: server.Socket{Path: a.Socket.Path, UIDs: a.Socket.UIDs}})
		}
	}
	return all.Listeners(log.Logger)
}

// newAdmin answers operators, with the probes of a configuration.
func (s *serving) newAdmin(cfg *config.Config) http.Handler {
	host, _, _ := net.SplitHostPort(cfg.Listen.Admin.Address) // the configuration has judged it
	return server.NewAdmin(server.AdminOptions{Metrics: s.metrics, Ready: s.ready, Waits: s.process.Waits,
		Level: s.log.Level, Log: s.log.Logger, Probes: probes(cfg), Name: host, Did: s.audit.Operator})
}

// adminHandler is what answers operators now.
type adminHandler struct{ now atomic.Pointer[http.Handler] }

func (a *adminHandler) replace(h http.Handler) { a.now.Store(&h) }

func (a *adminHandler) serves() bool { return a.now.Load() != nil }

func (a *adminHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	(*a.now.Load()).ServeHTTP(w, r)
}

func probes(cfg *config.Config) []server.Probe {
	var out []server.Probe
	for _, p := range cfg.Listen.Admin.Probes {
		out = append(out, server.Probe(p))
	}
	return out
}

func logStart(log *slog.Logger, cfg *config.Config, listeners []*server.Listener) {
	attrs := []any{"version", version(), "public_url", cfg.PublicURL.String()}
	for _, l := range listeners {
		name := cmp.Or(l.Name, "listen")
		if l.Last {
			name = "admin"
		}
		attrs = append(attrs, name, l.Addr().String())
	}
	log.Info("serving", attrs...)
}

// newRegistry holds the metrics of this process, beginning with what every
// process tells about itself.
func newRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	info := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "sallyport_build_info",
		Help: "Always 1; the labels say what is running.", ConstLabels: prometheus.Labels{
			"version": version(), "go": strings.TrimPrefix(runtime.Version(), "go")}}, func() float64 { return 1 })
	reg.MustRegister(info, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg
}

func logLevel(name string) slog.Level {
	var level slog.Level
	_ = level.UnmarshalText([]byte(name)) // the configuration allows only its names
	return level
}
