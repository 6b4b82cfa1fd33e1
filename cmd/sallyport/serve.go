package main

import (
	"context"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/assemble"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/asynclog"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
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
			return serve(cmd.Context(), cfg, c.env, log)
		},
	}
	configFlag(cmd, &path)
	return cmd
}

// serve runs a configuration until ctx is done.
func serve(ctx context.Context, cfg *config.Config, env func(string) (string, bool), log *asynclog.Log) error {
	sec, err := assemble.Resolve(cfg, env)
	if err != nil {
		return asUsage(err)
	}
	cert, err := newCertificate(cfg, log.Logger)
	if err != nil {
		return err
	}
	reg := newRegistry()
	log.Measure(reg)
	process := assemble.NewProcess(reg, log.Logger, observe.Log{Logger: log.Logger})
	runtime, err := process.Build(cfg, sec)
	if err != nil {
		return asUsage(err)
	}
	process.Swap(runtime)
	ready := &atomic.Bool{}
	s := &server{
		public: newPublicServer(process, publicLimits{header: int(cfg.Limits.Header), keepAlive: cfg.Listen.KeepAlive,
			h2c: cfg.Listen.H2C}, log.Logger),
		admin: newAdminServer(newAdmin(adminOptions{metrics: reg, ready: ready, level: log.Level, log: log.Logger,
			probes: probes(cfg),
			name:   hostOf(cfg.Listen.Admin.Address)}), log.Logger),
		front:      process,
		drainDelay: cfg.Stop.DrainDelay, stopTimeout: cfg.Stop.Timeout, log: log.Logger, ready: ready,
	}
	key, address := "listen.http", cfg.Listen.HTTP
	if cert != nil {
		key, address = "listen.https.address", cfg.Listen.HTTPS.Address
		s.public.TLSConfig = cert.config()
		cert.measure(reg)
	}
	public, err := listen(ctx, key, address)
	if err != nil {
		return err
	}
	var admin net.Listener
	if cfg.Listen.Admin.Address != "" {
		if admin, err = listen(ctx, "listen.admin", cfg.Listen.Admin.Address); err != nil {
			_ = public.Close()
			return err
		}
	}
	if cert != nil {
		go cert.watch(ctx, certificatePoll)
	}
	logStart(log.Logger, cfg, public, admin)
	return s.run(ctx, public, admin)
}

func probes(cfg *config.Config) []probe {
	var out []probe
	for _, p := range cfg.Listen.Admin.Probes {
		out = append(out, probe(p))
	}
	return out
}

func logStart(log *slog.Logger, cfg *config.Config, public, admin net.Listener) {
	attrs := []any{"version", version(), "public_url", cfg.PublicURL.String(), "listen", public.Addr().String()}
	if admin != nil {
		attrs = append(attrs, "admin", admin.Addr().String())
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

func hostOf(address string) string {
	host, _, _ := net.SplitHostPort(address) // "" switches the listener off
	return host
}

func logLevel(name string) slog.Level {
	var level slog.Level
	_ = level.UnmarshalText([]byte(name)) // the configuration allows only its names
	return level
}
