package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/assemble"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/asynclog"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/server"
	"github.com/sallyport-proxy/sallyport/internal/observe"
)

func serveCommand(c *console) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "serve [FILE]",
		Short: "Run the proxy",
		Long:  "Run the proxy. SIGTERM and Ctrl-C stop it in order; a second one stops it at once.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneFile(cmd, args, &path); err != nil {
				return err
			}
			cfg, _, err := loadConfig(path)
			if err != nil {
				return err
			}
			log := asynclog.Open(c.stdout, c.stderr, logLevel(cfg.Log.Level), cfg.Log.Format)
			defer log.Close()
			for _, w := range warnings(cfg) {
				log.Warn("configuration", "warning", w.Error())
			}
			return serve(cmd.Context(), c, cfg, log)
		},
	}
	configFlag(cmd, &path)
	return cmd
}

// serve runs a configuration until ctx is done.
func serve(ctx context.Context, c *console, cfg *config.Config, log *asynclog.Log) error {
	sec, err := assemble.Resolve(cfg, c.env)
	if err != nil {
		return asUsage(err)
	}
	cert, err := newCertificate(cfg, log.Logger)
	if err != nil {
		return err
	}
	reg := newRegistry()
	log.Measure(reg)
	observers := []observe.Observer{observe.Log{Logger: log.Logger}}
	audit, closeAudit, err := openAudit(c, cfg.Log.Audit, reg, log.Logger)
	if err != nil {
		return err
	}
	defer closeAudit()
	if audit != nil {
		observers = append(observers, audit)
	}
	process := assemble.NewProcess(reg, log.Logger, observers...)
	runtime, err := process.Build(cfg, sec)
	if err != nil {
		return asUsage(err)
	}
	process.Swap(runtime)
	ready := &atomic.Bool{}
	s := &server.Server{
		Listeners: []*server.Listener{publicListener(cfg, process, cert, log)},
		Front:     process, DrainDelay: cfg.Stop.DrainDelay, StopTimeout: cfg.Stop.Timeout, Log: log.Logger, Ready: ready,
	}
	if cfg.Listen.Admin.Address != "" {
		s.Listeners = append(s.Listeners, adminListener(cfg, reg, ready, log, audit))
	}
	if cert != nil {
		cert.Measure(reg)
	}
	if err := s.Open(ctx); err != nil {
		return err
	}
	if cert != nil {
		go cert.Watch(ctx, server.CertificatePoll)
	}
	logStart(log.Logger, cfg, s.Listeners)
	return s.Run(ctx)
}

// publicListener is the one for browsers and programs; cert is nil for plain http.
func publicListener(cfg *config.Config, front http.Handler, cert *server.Certificate,
	log *asynclog.Log) *server.Listener {
	limits := server.Limits{Header: int(cfg.Limits.Header), KeepAlive: cfg.Listen.KeepAlive, H2C: cfg.Listen.H2C}
	l := &server.Listener{Key: "listen.http", Address: cfg.Listen.HTTP,
		HTTP: server.NewPublicHTTP(front, limits, log.Logger)}
	if cert != nil {
		l.Key, l.Address = "listen.https.address", cfg.Listen.HTTPS.Address
		l.HTTP.TLSConfig = cert.Config()
	}
	return l
}

// adminListener is the one for operators, which answers until the others have stopped.
func adminListener(cfg *config.Config, metrics prometheus.Gatherer, ready *atomic.Bool,
	log *asynclog.Log, audit *observe.Audit) *server.Listener {
	host, _, _ := net.SplitHostPort(cfg.Listen.Admin.Address) // the configuration has judged it
	admin := server.NewAdmin(server.AdminOptions{Metrics: metrics, Ready: ready, Level: log.Level, Log: log.Logger,
		Probes: probes(cfg), Name: host, Did: audit.Operator})
	return &server.Listener{Key: "listen.admin", Address: cfg.Listen.Admin.Address,
		HTTP: server.NewAdminHTTP(admin, log.Logger), Last: true}
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
		name := "listen"
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
	reg.MustRegister(info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg
}

func logLevel(name string) slog.Level {
	var level slog.Level
	_ = level.UnmarshalText([]byte(name)) // the configuration allows only its names
	return level
}

// newCertificate takes the pair that cfg has resolved; nil for plain http.
func newCertificate(cfg *config.Config, log *slog.Logger) (*server.Certificate, error) {
	https := cfg.Listen.HTTPS
	if https.Address == "" {
		return nil, nil
	}
	root := os.DirFS("/")
	reread := func() (string, string, error) {
		cert, certErr := https.Cert.Reread(root)
		key, keyErr := https.Key.Reread(root)
		return cert, key, errors.Join(certErr, keyErr)
	}
	c, err := server.NewCertificate(https.Cert.Value(), https.Key.Value(), reread, log)
	if err != nil {
		return nil, configFaults(config.Faults{cfg.Fault("listen.https",
			"the certificate and its key do not work together: %v", err)})
	}
	return c, nil
}
