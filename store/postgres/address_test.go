package postgres

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestAServerOnANetworkIsVerifiedUnlessSaidOtherwise(t *testing.T) {
	for v, want := range map[string]Address{
		"postgres://u@db.example.com/s": {Proven: true,
			url: "postgres://u@db.example.com/s?sslmode=verify-full"},
		"postgresql://u@db.example.com/s?application_name=x": {Proven: true,
			url: "postgresql://u@db.example.com/s?application_name=x&sslmode=verify-full"},
		"postgres://u:p@db.example.com:6432/s": {Secret: true, Proven: true,
			url: "postgres://u:p@db.example.com:6432/s?sslmode=verify-full"},
		"postgres://u@db.example.com/s?password=p": {Secret: true, Proven: true,
			url: "postgres://u@db.example.com/s?password=p&sslmode=verify-full"},
		"postgres://u@db.example.com/s?sslmode=verify-ca":              {Proven: true},
		"postgres://u@db.example.com/s?sslmode=require":                {Exposed: true},
		"postgres://u@db.example.com/s?sslmode=disable":                {Exposed: true},
		"postgres://u@10.0.0.7/s?sslmode=disable":                      {Exposed: true},
		"postgres://u@db.example.com/s?sslmode=require&sslrootcert=/c": {},
		"postgres://u@localhost/s":                                     {},
		"postgres://u@127.0.0.1:5432/s?sslmode=prefer":                 {},
		"postgres://u@[::1]:5432/s":                                    {},
		"postgres:///s?host=/run/postgresql":                           {},
		"postgres://%2Frun%2Fpostgresql/s":                             {},
		"postgres://u@a.example.com,b.example.com/s?target_session_attrs=read-write": {Proven: true,
			url: "postgres://u@a.example.com,b.example.com/s?target_session_attrs=read-write&sslmode=verify-full"},
		"postgres://u@localhost,b.example.com/s": {Proven: true,
			url: "postgres://u@localhost,b.example.com/s?sslmode=verify-full"},
	} {
		if want.url == "" {
			want.url = v
		}
		got, err := ParseAddress(v)
		want.database = got.database // TestTheSameDatabase
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", v, got, err)
		}
		if _, err := pgx.ParseConfig(got.URL()); err != nil && !strings.Contains(v, "sslrootcert") {
			t.Errorf("%s: pgx: %v", got.URL(), err)
		}
	}
}

func TestAddressesThatAreRefused(t *testing.T) {
	for v, want := range map[string]string{
		"host=db user=u password=hunter2":                       "must be a URL",
		"mysql://u:hunter2@db/s":                                "must be a URL",
		"postgres://u@db/s#hunter2":                             "must be a URL",
		"postgres://u@db.example.com/s?sslmode=prefer":          "over a network",
		"postgres://u@db.example.com/s?sslmode=allow":           "over a network",
		"postgres://u@localhost,db.example.com/s?sslmode=allow": "over a network",
		"postgres:///s?host=db.example.com&sslmode=prefer":      "over a network",
		"postgres:///s":                                      "must name the server",
		"postgres://u:hunter2@:5432/s":                       "must name the server",
		"postgres://u@db,/s":                                 "must name the server",
		"postgres://u@db/s?sslmode=on":                       "as its sslmode",
		"postgres://u@db/s?sslmode=disable&sslmode=require":  "twice",
		"postgres://u@db/s?service=other":                    "service",
		"postgres://u@db:0/s":                                "port",
		"postgres://u@db:99999/s":                            "port",
		"postgres://u@db:/s":                                 "port",
		"postgres://u@fe80::1/s":                             "brackets",
		"postgres://u@db/s?%zz":                              "name=value",
		"postgres://u@a,b/s?target_session_attrs=hunter2":    "a standby cannot",
		"postgres://u@a,b/s?target_session_attrs=read-only":  "a standby cannot",
		"postgres://h/s?target_session_attrs=prefer-standby": "a standby cannot",
	} {
		_, err := ParseAddress(v)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") ||
			!strings.HasPrefix(err.Error(), "must ") {
			t.Errorf("%s: %v", v, err)
		}
	}
}

// What the environment says for other programs changes neither which servers are asked nor
// whether they prove who they are: the address was judged without it.
func TestP10_TheEnvironmentNamesNoServer(t *testing.T) {
	services := filepath.Join(t.TempDir(), "services")
	if err := os.WriteFile(services, []byte("[other]\nhost=other.example.com\nsslmode=disable\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, env := range map[string]map[string]string{
		"host":    {"PGHOST": "other.example.com", "PGSSLMODE": "disable"},
		"service": {"PGSERVICE": "other", "PGSERVICEFILE": services},
	} {
		t.Run(name, func(t *testing.T) {
			for key, value := range env {
				t.Setenv(key, value)
			}
			for _, v := range []string{"postgres:///s", "postgres://u@/s", "postgres://u:p@:5433/s", "postgres://,/s",
				"postgres://u@localhost/s", "postgres:///s?host=/run/postgresql", "postgres://u@db.example.com/s"} {
				a, err := ParseAddress(v)
				if err != nil {
					continue
				}
				config, err := pgx.ParseConfig(a.URL())
				if err != nil {
					t.Fatal(err)
				}
				if strings.Contains(config.Host, "other") || a.Proven == (config.TLSConfig == nil) {
					t.Errorf("%s: connects to %q, TLS: %t, exposed: %t", v, config.Host, config.TLSConfig != nil,
						a.Exposed)
				}
			}
		})
	}
}

func TestAuthoritiesVouchForEveryServer(t *testing.T) {
	a, err := ParseAddress("postgres://u@a.example.com,b.example.com/s")
	if err != nil {
		t.Fatal(err)
	}
	config, err := pgx.ParseConfig(a.URL())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	trust(config, roots)
	if config.TLSConfig == nil || config.TLSConfig.RootCAs != roots || config.TLSConfig.ServerName != "a.example.com" {
		t.Error("the first one is not verified by them")
	}
	if len(config.Fallbacks) != 1 || config.Fallbacks[0].TLSConfig.RootCAs != roots ||
		config.Fallbacks[0].TLSConfig.ServerName != "b.example.com" {
		t.Error("the other one is not verified by them")
	}
}

// Whatever is accepted, pgx reads without asking a server.
func FuzzParseAddress(f *testing.F) {
	for _, v := range []string{"postgres://u:p@h:1/d?sslmode=require", "postgresql://a,b/d", "postgres:///d?host=/s",
		"postgres://%2Fx/d", "postgres://[::1]:2/d"} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v string) {
		a, err := ParseAddress(v)
		if err != nil {
			return
		}
		if again, err := ParseAddress(a.URL()); err != nil || again != a {
			t.Errorf("%q became %q: %+v, %v", v, a.URL(), again, err)
		}
		config, err := pgx.ParseConfig(a.URL())
		if err != nil {
			return // what pgx refuses, Open refuses
		}
		if network := config.Host; a.Proven && config.TLSConfig == nil && network != "" && network[0] != '/' &&
			network[0] != '@' {
			t.Errorf("%q is not verified", v)
		}
	})
}
