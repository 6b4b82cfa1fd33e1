package cluster

import (
	"testing"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// TestWhatKustomizeMakesIsTakenTwice, as `kubectl apply --server-side -k` sends it: pods are
// let in, and the second time changes nothing.
func TestWhatKustomizeMakesIsTakenTwice(t *testing.T) {
	for _, name := range []string{"proxy", "sidecar"} {
		t.Run(name, func(t *testing.T) {
			built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).
				Run(filesys.MakeFsOnDisk(), "../charts/testdata/kustomize/"+name)
			if err != nil {
				t.Fatal(err)
			}
			text, err := built.AsYaml()
			if err != nil {
				t.Fatal(err)
			}
			w := newTeam(t, "kustomize-"+name, "restricted")
			w.apply(t, string(text))
			if pods := w.settled(t); pods != 1 {
				t.Errorf("%d pods", pods)
			}
			first := w.live(t)
			w.apply(t, string(text))
			w.settled(t)
			same(t, "the second time", first, w.live(t))
		})
	}
}
