package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// connectTime bounds each attempt to connect, where the address says nothing else.
const connectTime = 5 * time.Second

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
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTime
	}
	return config, nil
}

// Change connects once with another address of the same database, or with other roots, and returns
// what takes them into use. It is an error if the database refuses the user or password, or a
// server cannot prove who it is. A database that does not answer says nothing against them.
func (a *Access) Change(ctx context.Context, address string, roots *x509.CertPool) (take func(), err error) {
	config, err := connConfig(address, roots)
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, config.ConnectTimeout)
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
