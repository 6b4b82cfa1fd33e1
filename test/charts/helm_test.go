package charts

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	chart3 "helm.sh/helm/v3/pkg/chart"
	loader3 "helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	engine3 "helm.sh/helm/v3/pkg/engine"
	lint3 "helm.sh/helm/v3/pkg/lint"
	support3 "helm.sh/helm/v3/pkg/lint/support"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chart4 "helm.sh/helm/v4/pkg/chart/v2"
	lint4 "helm.sh/helm/v4/pkg/chart/v2/lint"
	support4 "helm.sh/helm/v4/pkg/chart/v2/lint/support"
	loader4 "helm.sh/helm/v4/pkg/chart/v2/loader"
	engine4 "helm.sh/helm/v4/pkg/engine"
	"sigs.k8s.io/yaml"
)

const (
	chartDir  = "../../charts/sallyport"
	appDir    = "testdata/app"
	release   = "web"
	namespace = "team"
	// kubernetes is the cluster that Helm is told of: without a word it takes the version of
	// the libraries that it was built with, or an old one.
	kubernetes = "v1.37.2"
)

// helm is one version of Helm, as a library.
type helm struct {
	name string
	// lint returns what `helm lint --strict` would fail for.
	lint func(t *testing.T, values map[string]any) []string
	// renderApp renders the chart of an app that has this one as a dependency.
	renderApp func(t *testing.T, values map[string]any) (map[string]string, error)
	// renderStrangers renders the apps of others, into whose pods a chart puts this one.
	renderStrangers func(t *testing.T) (map[string]string, error)
	// render returns the text of each template by its path in the chart, or why there is none.
	render func(t *testing.T, values map[string]any, upgrade bool) (map[string]string, error)
}

func helms() []helm {
	return []helm{
		{"helm 3", lintWith3, renderAppWith3, renderStrangersWith3, renderWith3},
		{"helm 4", lintWith4, renderAppWith4, renderStrangersWith4, renderWith4},
	}
}

func lintWith3(t *testing.T, values map[string]any) []string {
	t.Helper()
	version, err := chartutil.ParseKubeVersion(kubernetes)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, m := range lint3.AllWithKubeVersion(chartDir, values, namespace, version).Messages {
		if m.Severity >= support3.WarningSev {
			found = append(found, m.Error())
		}
	}
	return found
}

func lintWith4(t *testing.T, values map[string]any) []string {
	t.Helper()
	version, err := common.ParseKubeVersion(kubernetes)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, m := range lint4.RunAll(chartDir, values, namespace, lint4.WithKubeVersion(version)).Messages {
		if m.Severity >= support4.WarningSev {
			found = append(found, m.Error())
		}
	}
	return found
}

func renderWith3(t *testing.T, values map[string]any, upgrade bool) (map[string]string, error) {
	t.Helper()
	return renderChartWith3(t, load3(t, chartDir), values, upgrade)
}

func renderAppWith3(t *testing.T, values map[string]any) (map[string]string, error) {
	t.Helper()
	app := load3(t, appDir)
	app.AddDependency(load3(t, chartDir))
	return renderChartWith3(t, app, values, false)
}

func renderStrangersWith3(t *testing.T) (map[string]string, error) {
	t.Helper()
	strangers := load3(t, strangersDir)
	strangers.AddDependency(load3(t, chartDir))
	return renderChartWith3(t, strangers, map[string]any{}, false)
}

func load3(t *testing.T, dir string) *chart3.Chart {
	t.Helper()
	chart, err := loader3.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return chart
}

func renderChartWith3(t *testing.T, chart *chart3.Chart, values map[string]any, upgrade bool) (map[string]string,
	error) {
	t.Helper()
	version, err := chartutil.ParseKubeVersion(kubernetes)
	if err != nil {
		t.Fatal(err)
	}
	capabilities := chartutil.DefaultCapabilities.Copy()
	capabilities.KubeVersion = *version
	all, err := chartutil.ToRenderValues(chart, values, chartutil.ReleaseOptions{Name: release, Namespace: namespace,
		Revision: 1, IsInstall: !upgrade, IsUpgrade: upgrade}, capabilities)
	if err != nil {
		return nil, err
	}
	return engine3.Render(chart, all)
}

func renderWith4(t *testing.T, values map[string]any, upgrade bool) (map[string]string, error) {
	t.Helper()
	return renderChartWith4(t, load4(t, chartDir), values, upgrade)
}

func renderAppWith4(t *testing.T, values map[string]any) (map[string]string, error) {
	t.Helper()
	app := load4(t, appDir)
	app.AddDependency(load4(t, chartDir))
	return renderChartWith4(t, app, values, false)
}

func renderStrangersWith4(t *testing.T) (map[string]string, error) {
	t.Helper()
	strangers := load4(t, strangersDir)
	strangers.AddDependency(load4(t, chartDir))
	return renderChartWith4(t, strangers, map[string]any{}, false)
}

func load4(t *testing.T, dir string) *chart4.Chart {
	t.Helper()
	chart, err := loader4.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return chart
}

func renderChartWith4(t *testing.T, chart *chart4.Chart, values map[string]any, upgrade bool) (map[string]string,
	error) {
	t.Helper()
	version, err := common.ParseKubeVersion(kubernetes)
	if err != nil {
		t.Fatal(err)
	}
	capabilities := common.DefaultCapabilities.Copy()
	capabilities.KubeVersion = *version
	all, err := util.ToRenderValues(chart, values, common.ReleaseOptions{Name: release, Namespace: namespace,
		Revision: 1, IsInstall: !upgrade, IsUpgrade: upgrade}, capabilities)
	if err != nil {
		return nil, err
	}
	return engine4.Render(chart, all)
}

// parseValues reads values as Helm reads those of `-f`: YAML 1.1, and every number is a
// float64.
func parseValues(t *testing.T, text []byte) map[string]any {
	t.Helper()
	values := map[string]any{}
	if err := yaml.Unmarshal(text, &values); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return values
}

// waysOfUse are the values files of the chart, by what they are for.
func waysOfUse(t *testing.T) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob(chartDir + "/ci/*-values.yaml")
	if err != nil || len(files) < 4 {
		t.Fatalf("%d values files (%v); there are four ways of use at least", len(files), err)
	}
	ways := map[string][]byte{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		ways[strings.TrimSuffix(filepath.Base(file), "-values.yaml")] = text
	}
	return ways
}
