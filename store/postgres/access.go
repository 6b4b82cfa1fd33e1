package postgres

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

const (
	// connectTime bounds each attempt to connect, where the address says nothing else.
	connectTime = 5 * time.Second
	// severalTime is what the servers of an address share, so that the last of them is reached
	// before a call is given up (store.Options.Timeout), though those before it say nothing, as
	// machines without power do.
	severalTime = 4800 * time.Millisecond
)

// Access is where a database is, with which user and password it is reached, and which authorities
// may vouch for its servers. All but the first may change while a store is open: open connections
// stay, and further ones are made with what is new.
type Access struct {
	config atomic.Pointer[pgx.ConnConfig]
}

// NewAccess reads the URL of a database or a list of key=value. roots vouch for its servers; nil:
// whom the system trusts.
func NewAccess(address string, roots *x509.CertPool) (*Access, error) {
	config, err := connConfig(address, roots)
	if err != nil {
		return nil, err
	}
	a := &Access{}
	a.config.Store(config)
	return a, nil
}

func connConfig(address string, roots *x509.CertPool) (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(address)
	if err != nil { // its text has no password
		return nil, fmt.Errorf("open store: %w", err)
	}
	trust(config, roots)
	primaryOnly(config)
	// Prepared statements belong to a connection, and behind a pooler the next
	// transaction may have another one.
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	_, notIP := netip.ParseAddr(config.Host)
	name := notIP != nil && !strings.HasPrefix(config.Host, "/")
	switch n := servers(config); {
	case n > 1:
		config.ConnectTimeout = min(cmp.Or(config.ConnectTimeout, connectTime),
			max(severalTime/time.Duration(n), time.Second))
	case config.ConnectTimeout == 0 && name: // it may have two addresses, as of IPv6 and IPv4
		config.ConnectTimeout = severalTime / 2
	case config.ConnectTimeout == 0:
		config.ConnectTimeout = connectTime
	}
	return config, nil
}

// servers is how many an address names.
func servers(config *pgx.ConnConfig) int {
	type server struct {
		host string
		port uint16
	}
	all := map[server]bool{{config.Host, config.Port}: true}
	for _, other := range config.Fallbacks { // the same one again, too, without TLS
		all[server{other.Host, other.Port}] = true
	}
	return len(all)
}

// reachTime is how long it takes at most until each of the servers had its time, or each of two
// addresses of one name.
func reachTime(config *pgx.ConnConfig) time.Duration {
	return time.Duration(max(servers(config), 2)) * config.ConnectTimeout
}

// Change connects once with another address of the same database, or with other roots, and returns
// what takes them into use. It is an error if the database refuses the user or password, or a
// server cannot prove who it is. A database that does not answer says nothing against them.
func (a *Access) Change(ctx context.Context, address string, roots *x509.CertPool) (take func(), err error) {
	config, err := connConfig(address, roots)
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, reachTime(config))
	defer cancel()
	conn, err := pgx.ConnectConfig(limited, config)
	if err == nil {
		_ = conn.Close(limited)
	}
	if refusesAccess(err) {
		return nil, err
	}
	return func() { a.config.Store(config) }, nil
}

// refusesAccess reports whether a server has refused who connects (class 28 of SQLSTATE), or has not
// proved who it is.
func refusesAccess(err error) bool {
	if said, ok := errors.AsType[*pgconn.PgError](err); ok {
		return strings.HasPrefix(said.Code, "28")
	}
	_, unproven := errors.AsType[*tls.CertificateVerificationError](err)
	return unproven
}

// pool has so many connections at most, each made with what is current then.
func (a *Access) pool(connections int, options ...stdlib.OptionOpenDB) *sql.DB {
	options = append(options, stdlib.OptionBeforeConnect(func(_ context.Context, config *pgx.ConnConfig) error {
		*config = *a.config.Load().Copy()
		return nil
	}))
	db := stdlib.OpenDB(*a.config.Load(), options...)
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	db.SetConnMaxLifetime(30 * time.Minute) // so that a change of address is noticed
	return db
}

// connect makes a connection apart from the pools.
func (a *Access) connect(ctx context.Context) (*pgx.Conn, error) {
	return pgx.ConnectConfig(ctx, a.config.Load())
}
