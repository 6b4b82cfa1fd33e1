package assemble

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/store"
	"github.com/sallyport-proxy/sallyport/store/postgres"
	"github.com/sallyport-proxy/sallyport/store/sqlite"
)

// storeStart is how long a start waits for a database on a network.
const storeStart = 10 * time.Second

// OpenStore opens the store of a configuration whose references are resolved; nil
// where it has none. A database on a network that cannot be reached is no error:
// the store goes on trying.
func OpenStore(ctx context.Context, cfg *config.Config, o store.Options) (*store.Store, error) {
	if cfg.Store.IsZero() {
		return nil, nil
	}
	o.Max = cfg.Limits.Ended
	if file := cfg.Store.SQLite(); file != "" {
		s, err := sqlite.Open(ctx, file, o)
		return s, advised(err, sqlite.Advice(err))
	}
	address, err := postgres.ParseAddress(cfg.Store.URL.Value())
	if err != nil {
		return nil, config.Faults{cfg.Fault("store", "%v", err)}
	}
	// What takes longer goes on behind the open listeners.
	ctx, cancel := context.WithTimeout(ctx, storeStart)
	defer cancel()
	return postgres.Open(ctx, address.URL(), postgres.Options{Options: o, Roots: cfg.Store.CA.Authorities(),
		Connections: cfg.Store.Connections, NoNotify: cfg.Store.NoNotify})
}

func advised(err error, advice string) error {
	if err == nil || advice == "" || errors.Is(err, store.ErrNewer) || errors.Is(err, store.ErrNoTables) {
		return err
	}
	return fmt.Errorf("%w (%s)", err, advice)
}
