package command

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/server"
)

func healthcheckCommand(c *console) *cobra.Command {
	var address, path string
	var live bool
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask a running Sallyport whether it is ready (for containers without a shell)",
		Long: "Ask a running Sallyport whether it is ready, at the address that its configuration names\n" +
			"(listen.admin), whatever else is wrong with the file. Where that is switched off, a public\n" +
			"listener that answers is healthy. With --live, so is a Sallyport that is not ready, because\n" +
			"it stops or has not read its store yet: a probe that restarts it asks so.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if address != "" && live {
				return usage("--live has no meaning with --url, which is the whole address")
			}
			asked := healthQuestion{url: address}
			if address == "" {
				at := readyPath
				if live {
					at = livePath
				}
				var err error
				if asked, err = configuredHealth(c, path, cmd.Flags().Changed("config"), at); err != nil {
					return err
				}
			}
			return asked.ask(cmd.Context(), c)
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().StringVar(&address, "url", "", "ask this address instead")
	cmd.Flags().BoolVar(&live, "live", false, "ask whether it lives, not whether it is ready")
	return cmd
}

// The paths of the admin listener that are asked.
const (
	readyPath = "/readyz"
	livePath  = "/healthz"
)

// healthQuestion is the address that is asked whether Sallyport is ready, or lives.
type healthQuestion struct {
	url    string
	public bool   // it is the public listener: any answer below 500 is healthy
	host   string // the Host of the request; "": that of url
	hint   string // what to do if there is no answer
	// proxies must begin their connections to it with a PROXY header; this machine may
	// be one of them.
	proxies []netip.Prefix
}

func (q healthQuestion) ask(ctx context.Context, c *console) error {
	u, err := url.Parse(q.url)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return usage("--url must be an http or https address, not %q", q.url)
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, q.url, nil)
	if err != nil {
		return usage("--url: %w", err)
	}
	req.Host = q.host
	client := &http.Client{Transport: &http.Transport{}}
	if q.public { // it is on this machine, its certificate has another name, and no secret is sent
		client.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				return server.DialLocal(ctx, network, address, q.proxies)
			}}
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("not healthy: %w%s", err, q.hint)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK && (!q.public || res.StatusCode >= http.StatusInternalServerError) {
		return fmt.Errorf("not healthy: %s answered %s%s", q.url, res.Status, q.reason(res.Body))
	}
	fmt.Fprintln(c.stdout, "healthy")
	return nil
}

// reason is what the admin listener says about not being ready; "" of another listener.
func (q healthQuestion) reason(body io.Reader) string {
	text, _ := io.ReadAll(io.LimitReader(body, 300))
	if said := strings.TrimSpace(string(text)); !q.public && said != "" {
		return fmt.Sprintf(": %q", said)
	}
	return ""
}

// configuredHealth returns the address that the configuration at path has, whatever else is
// wrong with the file: a process that runs goes on with what it has, and must not be killed
// because of it. If that cannot be read either, the default address is used, unless the file was
// named on the command line and is not there. at is the path of the admin listener.
func configuredHealth(c *console, path string, named bool, at string) (healthQuestion, error) {
	byDefault := healthQuestion{url: "http://127.0.0.1:4181" + at, hint: "; this is the default address, because "}
	data, err := os.ReadFile(path)
	switch {
	case err != nil && named:
		return healthQuestion{}, cannotRead(path, err)
	case err != nil:
		byDefault.hint += path + " cannot be used: name the configuration with -c"
		return byDefault, nil
	}
	cfg, faults := c.types.Listeners(path, data)
	switch {
	case len(faults) > 0:
		byDefault.hint += "of " + faults[0].Error()
		return byDefault, nil
	case cfg.Listen.Admin.Address != "":
		return healthQuestion{url: "http://" + reachable(cfg.Listen.Admin.Address) + at}, nil
	}
	scheme, address, host, proxies := "http", cfg.Listen.HTTP.Address, "", cfg.Listen.HTTP.ProxyProtocol
	if cfg.PublicURL != nil { // nil: it is a reference, which is not read here
		host = cfg.PublicURL.Host
	}
	if cfg.Listen.HTTPS.Address != "" {
		scheme, address, proxies = "https", cfg.Listen.HTTPS.Address, cfg.Listen.HTTPS.ProxyProtocol
	}
	jwks := scheme + "://" + reachable(address) + cfg.Prefix + "/jwks.json"
	return healthQuestion{url: jwks, public: true, host: host, proxies: proxies}, nil
}

// reachable returns an address of this machine at which a listener can be asked.
func reachable(listener string) string {
	host, port, _ := net.SplitHostPort(listener) // it was checked with the configuration
	switch host {
	case "", "0.0.0.0":
		host = "127.0.0.1"
	case "::":
		host = "::1"
	}
	return net.JoinHostPort(host, port)
}
