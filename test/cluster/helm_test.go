package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	action3 "helm.sh/helm/v3/pkg/action"
	chart3 "helm.sh/helm/v3/pkg/chart"
	loader3 "helm.sh/helm/v3/pkg/chart/loader"
	action4 "helm.sh/helm/v4/pkg/action"
	chart4 "helm.sh/helm/v4/pkg/chart/v2"
	loader4 "helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/kube"
	"sigs.k8s.io/yaml"
)

const (
	chartDir     = "../../charts/sallyport"
	appDir       = "../charts/testdata/app"
	strangersDir = "../charts/testdata/strangers"
	release      = "web"
	patience     = time.Minute
)

// releases are what helm does with one release of a team.
type releases interface {
	install(dir string, values map[string]any) error
	upgrade(dir string, values map[string]any) error
	rollback(revision int) error
	test() error
	uninstall() error
}

// helms are the versions of Helm.
func helms() map[string]func(t *testing.T, w *team) releases {
	return map[string]func(t *testing.T, w *team) releases{"helm-3": newHelm3, "helm-4": newHelm4}
}

type helm3 struct {
	namespace string
	config    *action3.Configuration
}

func newHelm3(t *testing.T, w *team) releases {
	t.Helper()
	config := new(action3.Configuration)
	if err := config.Init(w.getter, w.namespace, "secrets", func(string, ...any) {}); err != nil {
		t.Fatal(err)
	}
	return &helm3{w.namespace, config}
}

// load3 reads a chart. Those of apps have Sallyport's as a dependency, which `helm dependency
// build` would put into their folders.
func load3(dir string) (*chart3.Chart, error) {
	chart, err := loader3.Load(dir)
	if err != nil || dir == chartDir {
		return chart, err
	}
	dependency, err := loader3.Load(chartDir)
	if err != nil {
		return nil, err
	}
	chart.AddDependency(dependency)
	return chart, nil
}

func (h *helm3) install(dir string, values map[string]any) error {
	chart, err := load3(dir)
	if err != nil {
		return err
	}
	install := action3.NewInstall(h.config)
	install.ReleaseName, install.Namespace, install.Timeout = release, h.namespace, patience
	_, err = install.Run(chart, values)
	return err
}

func (h *helm3) upgrade(dir string, values map[string]any) error {
	chart, err := load3(dir)
	if err != nil {
		return err
	}
	upgrade := action3.NewUpgrade(h.config)
	upgrade.Namespace, upgrade.Timeout = h.namespace, patience
	_, err = upgrade.Run(release, chart, values)
	return err
}

func (h *helm3) rollback(revision int) error {
	rollback := action3.NewRollback(h.config)
	rollback.Version, rollback.Timeout = revision, patience
	return rollback.Run(release)
}

func (h *helm3) test() error {
	test := action3.NewReleaseTesting(h.config)
	test.Namespace, test.Timeout = h.namespace, patience
	_, err := test.Run(release)
	return err
}

func (h *helm3) uninstall() error {
	uninstall := action3.NewUninstall(h.config)
	uninstall.Timeout = patience
	_, err := uninstall.Run(release)
	return err
}

type helm4 struct {
	namespace string
	config    *action4.Configuration
	// serverSide is what --server-side is of an upgrade: auto, unless it is given.
	serverSide string
	// force is --force-conflicts.
	force bool
}

func newHelm4(t *testing.T, w *team) releases {
	t.Helper()
	config := action4.NewConfiguration()
	if err := config.Init(w.getter, w.namespace, "secrets"); err != nil {
		t.Fatal(err)
	}
	return &helm4{w.namespace, config, "auto", false}
}

func load4(dir string) (*chart4.Chart, error) {
	chart, err := loader4.Load(dir)
	if err != nil || dir == chartDir {
		return chart, err
	}
	dependency, err := loader4.Load(chartDir)
	if err != nil {
		return nil, err
	}
	chart.AddDependency(dependency)
	return chart, nil
}

func (h *helm4) install(dir string, values map[string]any) error {
	chart, err := load4(dir)
	if err != nil {
		return err
	}
	install := action4.NewInstall(h.config)
	install.ReleaseName, install.Namespace, install.Timeout = release, h.namespace, patience
	install.WaitStrategy = kube.HookOnlyStrategy
	_, err = install.Run(chart, values)
	return err
}

func (h *helm4) upgrade(dir string, values map[string]any) error {
	chart, err := load4(dir)
	if err != nil {
		return err
	}
	upgrade := action4.NewUpgrade(h.config)
	upgrade.Namespace, upgrade.Timeout, upgrade.ServerSideApply = h.namespace, patience, h.serverSide
	upgrade.WaitStrategy, upgrade.ForceConflicts = kube.HookOnlyStrategy, h.force
	_, err = upgrade.Run(release, chart, values)
	return err
}

func (h *helm4) rollback(revision int) error {
	rollback := action4.NewRollback(h.config)
	rollback.Version, rollback.Timeout, rollback.WaitStrategy = revision, patience, kube.HookOnlyStrategy
	rollback.ForceConflicts = h.force
	return rollback.Run(release)
}

func (h *helm4) test() error {
	test := action4.NewReleaseTesting(h.config)
	test.Namespace, test.Timeout = h.namespace, patience
	_, shutdown, err := test.Run(release)
	if err != nil {
		return err
	}
	return shutdown()
}

func (h *helm4) uninstall() error {
	uninstall := action4.NewUninstall(h.config)
	uninstall.Timeout, uninstall.WaitStrategy = patience, kube.HookOnlyStrategy
	_, err := uninstall.Run(release)
	return err
}

// valuesOf are the values of a way of use, with a change of the configuration if there is one.
func valuesOf(t *testing.T, way, change string) map[string]any {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(chartDir, "ci", way+"-values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	values, changed := map[string]any{}, map[string]any{}
	if err := yaml.Unmarshal(text, &values); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte(change), &changed); err != nil {
		t.Fatal(err)
	}
	mergeInto(values, changed)
	return values
}

func mergeInto(into, from map[string]any) {
	for key, value := range from {
		below, deeper := value.(map[string]any)
		if there, both := into[key].(map[string]any); both && deeper {
			mergeInto(there, below)
			continue
		}
		into[key] = value
	}
}

// ways are the ways of use that the chart has values for.
func ways(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(chartDir + "/ci/*-values.yaml")
	if err != nil || len(files) < 7 {
		t.Fatalf("%d files of values (%v)", len(files), err)
	}
	names := make([]string, 0, len(files))
	for _, file := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(file), "-values.yaml"))
	}
	return names
}

// each runs a test with each version of Helm, in a namespace of its own.
func each(t *testing.T, name, level string, f func(t *testing.T, w *team, r releases)) {
	t.Helper()
	for version, newHelm := range helms() {
		t.Run(fmt.Sprintf("%s/%s", version, name), func(t *testing.T) {
			w := newTeam(t, version+"-"+name, level)
			f(t, w, newHelm(t, w))
		})
	}
}
