package cluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// plane is a control plane: etcd and kube-apiserver, which listen on loopback, controllers in
// this process, and the folder with all that they keep.
type plane struct {
	dir     string
	config  *rest.Config // of somebody who may do anything
	running []*exec.Cmd
}

// token is what the API server knows its only user by.
const token = "of-the-tests"

// start builds the programs, runs them, and waits until the API server is ready.
func (p *plane) start(ctx context.Context) error {
	began := time.Now()
	programs, err := p.build()
	if err != nil {
		return err
	}
	built := time.Now()
	store, peers, port, err := freePorts()
	if err != nil {
		return err
	}
	if err := p.writeSecrets(); err != nil {
		return err
	}
	if err := p.run(filepath.Join(programs, "server"), "--data-dir="+p.file("etcd"), "--unsafe-no-fsync",
		"--listen-client-urls=http://"+store, "--advertise-client-urls=http://"+store,
		"--listen-peer-urls=http://"+peers, "--initial-advertise-peer-urls=http://"+peers,
		"--initial-cluster=default=http://"+peers, "--log-level=warn"); err != nil {
		return err
	}
	_, number, err := net.SplitHostPort(port)
	if err != nil {
		return err
	}
	if err := p.run(filepath.Join(programs, "kube-apiserver"), "--etcd-servers=http://"+store,
		"--bind-address=127.0.0.1", "--secure-port="+number, "--advertise-address=192.0.2.1",
		"--endpoint-reconciler-type=none", "--cert-dir="+p.file("certs"), "--token-auth-file="+p.file("tokens.csv"),
		"--authorization-mode=AlwaysAllow", "--service-cluster-ip-range=10.96.0.0/16",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file="+p.file("key.pem"),
		"--service-account-signing-key-file="+p.file("key.pem")); err != nil {
		return err
	}
	if err := p.ready(port); err != nil {
		return err
	}
	if err := p.control(ctx); err != nil {
		return err
	}
	fmt.Printf("built in %.0f s, ready after %.1f s\n", built.Sub(began).Seconds(), time.Since(built).Seconds())
	return nil
}

// build makes the programs, unless SALLYPORT_CLUSTER names a folder that has them. They are
// told their version, as Kubernetes' own build does: Helm compares it with the chart's.
func (p *plane) build() (string, error) {
	if dir := os.Getenv("SALLYPORT_CLUSTER"); dir != "" {
		return dir, nil
	}
	version, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes").Output()
	if err != nil {
		return "", fmt.Errorf("version of Kubernetes: %w", err)
	}
	flags := "-s -w -X k8s.io/component-base/version.gitVersion=" + strings.TrimSpace(string(version))
	out, err := exec.Command("go", "build", "-ldflags", flags, "-o", p.file("bin")+"/", "go.etcd.io/etcd/server/v3",
		"k8s.io/kubernetes/cmd/kube-apiserver").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the control plane: %w\n%s", err, out)
	}
	return p.file("bin"), nil
}

func (p *plane) file(name string) string { return filepath.Join(p.dir, name) }

// freePorts are addresses on which nobody listens: kube-apiserver takes no port 0.
func freePorts() (store, peers, server string, err error) {
	addresses := make([]string, 3)
	for i := range addresses {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", "", "", err
		}
		defer l.Close()
		addresses[i] = l.Addr().String()
	}
	return addresses[0], addresses[1], addresses[2], nil
}

// writeSecrets writes the user, and the key with which tokens of service accounts are signed.
func (p *plane) writeSecrets() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
	return errors.Join(os.WriteFile(p.file("key.pem"), text, 0o600),
		os.WriteFile(p.file("tokens.csv"), []byte(token+",tests,tests,system:masters\n"), 0o600))
}

// run starts a program, whose log is a file beside its data.
func (p *plane) run(program string, args ...string) error {
	log, err := os.Create(p.file(filepath.Base(program) + ".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = log, log, endsWithUs()
	if err := cmd.Start(); err != nil {
		return err
	}
	p.running = append(p.running, cmd)
	return nil
}

// ready waits for the certificate that the API server makes for itself, and then for its word.
func (p *plane) ready(address string) error {
	certificate := p.file("certs/apiserver.crt")
	var last error
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if _, last = os.Stat(certificate); last != nil {
			continue
		}
		config := api.NewConfig()
		config.Clusters["here"] = &api.Cluster{Server: "https://" + address, CertificateAuthority: certificate}
		config.AuthInfos["tests"] = &api.AuthInfo{Token: token}
		config.Contexts["here"] = &api.Context{Cluster: "here", AuthInfo: "tests"}
		config.CurrentContext = "here"
		if last = clientcmd.WriteToFile(*config, p.file("kubeconfig")); last != nil {
			return last
		}
		p.config, last = clientcmd.BuildConfigFromFlags("", p.file("kubeconfig"))
		if last != nil {
			continue
		}
		p.config.QPS = -1 // the client would wait between requests
		if last = p.asked("/readyz"); last == nil {
			return nil
		}
	}
	log, _ := os.ReadFile(p.file("kube-apiserver.log"))
	return fmt.Errorf("the API server is not ready: %w\n%s", last, log[max(0, len(log)-4096):])
}

func (p *plane) asked(path string) error {
	client, err := rest.UnversionedRESTClientFor(unversioned(p.config))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return client.Get().AbsPath(path).Do(ctx).Error()
}

func (p *plane) stop() {
	for i := len(p.running) - 1; i >= 0; i-- {
		_ = p.running[i].Process.Kill()
		_ = p.running[i].Wait()
	}
}
