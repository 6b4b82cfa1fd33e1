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
	s, _, err := openStore(ctx, cfg, o)
	return s, err
}

// openStore is OpenStore, and returns how a database on a network is reached; nil: it is none.
func openStore(ctx context.Context, cfg *config.Config, o store.Options) (*store.Store, *postgres.Access, error) {
	if cfg.Store.IsZero() {
		return nil, nil, nil
	}
	o.Max = cfg.Limits.Ended
	if file := cfg.Store.SQLite(); file != "" {
		s, err := sqlite.Open(ctx, file, o)
		return s, nil, advised(err, sqlite.Advice(err))
	}
	address, err := postgres.ParseAddress(cfg.Store.URL.Value())
	if err != nil {
		return nil, nil, config.Faults{cfg.Fault("store", "%v", err)}
	}
	access, err := postgres.NewAccess(address.URL(), cfg.Store.CA.Authorities())
	if err != nil {
		return nil, nil, err
	}
	// What takes longer goes on behind the open listeners.
	ctx, cancel := context.WithTimeout(ctx, storeStart)
	defer cancel()
	s, err := access.Open(ctx, postgres.Options{Options: o, Connections: cfg.Store.Connections,
		NoNotify: cfg.Store.NoNotify})
	return s, access, err
}

// ChangeStore tries how cfg reaches the store of p, if that is otherwise than before: with another
// user, password or authority. What it returns takes that into use; it does nothing otherwise.
func (p *Process) ChangeStore(ctx context.Context, before, cfg *config.Config) (take func(), err error) {
	if p.access == nil || cfg.Store.SameAccess(before.Store) {
		return func() {}, nil
	}
	address, err := postgres.ParseAddress(cfg.Store.URL.Value())
	if err != nil {
		return nil, config.Faults{cfg.Fault("store", "%v", err)}
	}
	if take, err = p.access.Change(ctx, address.URL(), cfg.Store.CA.Authorities()); err != nil {
		return nil, config.Faults{cfg.Fault("store", "is refused, and the old one goes on: %v", err)}
	}
	return take, nil
}

func advised(err error, advice string) error {
	if err == nil || advice == "" || errors.Is(err, store.ErrNewer) || errors.Is(err, store.ErrNoTables) {
		return err
	}
	return fmt.Errorf("%w (%s)", err, advice)
}
