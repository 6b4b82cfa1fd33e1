package assemble

import (
	"maps"
	"slices"
	"testing"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
)

// What the file may name there is a constructor for, and the other way round.
func TestEveryTypeOfConnectorHasAConstructor(t *testing.T) {
	named, made := slices.Sorted(slices.Values(config.ConnectorTypes())), slices.Sorted(maps.Keys(ConnectorTypes()))
	if !slices.Equal(named, made) {
		t.Errorf("the file may name %v, and there are constructors of %v", named, made)
	}
}
