package command

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/assemble"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/asynclog"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/reload"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/server"
	"github.com/sallyport-proxy/sallyport/session"
)

// endpointMeans says what is below the prefix; the test holds its keys to what
// proxy/own.go answers.
var endpointMeans = map[string]string{
	"callback/": "GET, with the provider's id behind it: where a provider sends the browser back. The " +
		"redirect URI to register",
	"login":  "GET: begins a sign-in; `return_to`, `provider`, `login_hint` and `switch` say which",
	"logout": "GET: asks whether to sign out; POST: does it, and with `everywhere=1` ends all sessions of the person",
	"account": "GET: who Sallyport takes the person for, where else they are signed in, and for operators what " +
		"providers are asked for",
	"sessions/end": "POST, where there is a store: ends one of the person's own sessions, `session`, from the list " +
		"on the account page",
	"organization": "GET: the organizations to choose from; POST: chooses one",
	"handoff":      "GET: a step of the hand-off that gives another host a session of its own",
	"renew": "GET: renews the session of a page that another proxy serves, as opening a page does here, and leads " +
		"back to `return_to`",
	"session":   "GET: whether there is a session, and until when, as JSON",
	"jwks.json": "GET: the public keys of the assertion, for apps",
	"backchannel-logout/": "POST, with the provider's id behind it, where there is a store: where a provider says " +
		"who signed out there. The back-channel logout URI to register",
	"connect/": "Where grants are configured. GET, with a connector's id behind it: the page that asks whether an " +
		"app may use an account elsewhere; `app`, `access`, `return_to` and `for` say which. POST: the answer. With " +
		"`/callback` behind the id: where the third party sends the browser back, the redirect URI to register there",
	"disconnect/": "POST, with a connector's id behind it, where grants are configured: ends a grant, or with `app` " +
		"what that app may do with it",
	"directory/": "Where a provider has `directory`. POST, with the provider's id behind it: sends an administrator to " +
		"the provider, who lets Sallyport read once what it says of their organization. With `/callback` behind the " +
		"id: where the provider sends the browser back, a redirect URI to register there too",
	"webhooks/": "POST, with a connector's id behind it, where it has `signing_secrets`: where a third party sends " +
		"what it has signed. The address to enter there",
	"logo": "GET: the picture of `pages.logo`, if there is one",
}

// TestTheReferenceDocumentIsComplete: docs/reference.md is made from the tables and the
// code. UPDATE_REFERENCE=1 (`make reference`) writes it.
func TestTheReferenceDocumentIsComplete(t *testing.T) {
	const file = root + "/docs/reference.md"
	want := reference(t)
	if os.Getenv("UPDATE_REFERENCE") != "" {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got := read(t, file); got != want {
		t.Error("docs/reference.md is not what the code says; `make reference` writes it anew")
	}
}

func reference(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("# Reference\n\nMade from the code by `make reference`. What it all is for stands in the " +
		"[guide](guide.md).\n\n" +
		"- [Configuration](#configuration)\n- [Endpoints](#endpoints)\n- [Metrics](#metrics)\n- [The " +
		"log](#the-log)\n- [Exit codes](#exit-codes)\n")
	b.WriteString("\n## Configuration\n\n`[]` is each entry of a list.\n\n| key | must be | default | required | " +
		"|\n|---|---|---|---|---|\n")
	for _, k := range config.Keys() {
		row(&b, "`"+k.Path+"`", k.Type, code(k.Default), requirement(k), k.Doc)
	}
	b.WriteString("\n## Endpoints\n\nBelow `prefix` (`/.sallyport`), on the host of `public_url`:\n\n| endpoint | " +
		"|\n|---|---|\n")
	own := read(t, root+"/proxy/own.go")
	found := matches(own, `(?:\t\t|endpoint)\{path: "([a-z./-]+)`)
	for _, name := range found {
		if endpointMeans[name] == "" {
			t.Errorf("say in endpointMeans what %q is", name)
		}
		row(&b, "`"+name+"`", endpointMeans[name])
	}
	if len(found) != len(endpointMeans) {
		t.Errorf("endpointMeans has %d endpoints, proxy/own.go %d", len(endpointMeans), len(found))
	}
	b.WriteString("\nOn the hosts of routes that take access tokens: `" + admission.ResourcePath +
		"`, with the path of the route behind it: GET: who issues them, as JSON (RFC 9728).\n")
	b.WriteString("\nFor other proxies, at `listen.external_auth`: `/verify`, `/forward` and `/envoy/…`, and over gRPC " +
		"`envoy.service.auth.v3.Authorization/Check` and `grpc.health.v1.Health/Check`; " +
		"[what they read and answer](external-auth.md). With `compat`: `/oauth2/auth`, and for browsers `/oauth2/start`, " +
		"`sign_in`, `sign_out`, `userinfo` and `callback`; [what they do](fronts/oauth2-proxy.md).\n")
	b.WriteString("\nFor apps, at `listen.grants`: `/gateway/…`, `/v1/grants`, `/v1/leases`, `/v1/token` and " +
		"`/v1/openapi.json`, which describes them; [how apps use them](grants.md#using-what-was-lent).\n")
	b.WriteString("\nOn the admin listener (`listen.admin`): `/healthz`, `/readyz`, `/metrics`, `/log-level`, and " +
		"`app_probes`.\n")
	b.WriteString("\n## Metrics\n\n| metric | labels | |\n|---|---|---|\n")
	for _, m := range metricsOf(t) {
		row(&b, m...)
	}
	b.WriteString("\nBeside them the `go_` and `process_` metrics of the Prometheus client.\n")
	b.WriteString("\n## The log\n\nOne line `request` for each request. Its fields, those that are empty left out:\n\n")
	for _, name := range matches(read(t, root+"/internal/observe/log.go"),
		`(?:f\.(?:text|number|float)|add)\("([a-z_0-9]+)"`) {
		fmt.Fprintf(&b, "- `%s`\n", name)
	}
	b.WriteString("\nWith `log.audit` there is an audit stream: a line of JSON for each of the events below, never " +
		"dropped " +
		"silently. Its members, those that are empty left out:\n\n| member | |\n|---|---|\n")
	for _, m := range regexp.MustCompile("`json:\"([a-z_]+)(?:,omitempty)?\"`(?: "+
		"*// (.*))?").FindAllStringSubmatch(read(t, root+"/internal/observe/audit.go"), -1) {
		row(&b, "`"+m[1]+"`", m[2])
	}
	b.WriteString("\n`event` is one of:\n\n| event | |\n|---|---|\n")
	for _, m := range regexp.MustCompile(`(?:Action\s+|[eE]vent\w+\s+)= "(\w+)"(?:\s+// (.*))?`).FindAllStringSubmatch(
		read(t, root+"/internal/observe/event.go")+read(t, root+"/internal/observe/audit.go")+
			read(t, root+"/grant/metrics.go"), -1) {
		if m[2] == "" {
			t.Errorf("what the event %s is stands nowhere: a comment on its line in internal/observe says so", m[1])
		}
		row(&b, "`"+m[1]+"`", m[2])
	}
	b.WriteString("\n`reason` is one of:\n\n| reason | |\n|---|---|\n")
	for _, m := range regexp.MustCompile(`Reason\w+\s+Reason = "(\w+)"\s+// (.*)`).FindAllStringSubmatch(read(t,
		root+"/authz/decide.go"), -1) {
		row(&b, "`"+m[1]+"`", m[2])
	}
	fmt.Fprintf(&b, "\n## Exit codes\n\n| code | |\n|---|---|\n| %d | well |\n| %d | failed; for `explain --expect`, "+
		"the answer is not the expected one |\n| %d | wrong usage or configuration |\n", exitOK, exitFailed, exitConfig)
	return b.String()
}

func row(b *strings.Builder, cells ...string) {
	for _, c := range cells {
		b.WriteString("| " + strings.NewReplacer("|", `\|`, "\n", " ").Replace(c) + " ")
	}
	b.WriteString("|\n")
}

func code(v string) string {
	if v == "" || v == "{}" {
		return ""
	}
	return "`" + v + "`"
}

func requirement(k config.Key) string {
	switch {
	case k.Required:
		return "yes"
	case len(k.OneOf) > 0:
		return "one of `" + strings.Join(k.OneOf, "`, `") + "`"
	}
	return ""
}

// matches returns the first group of each match, once.
func matches(text, pattern string) []string {
	var found []string
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		if !slices.Contains(found, m[1]) {
			found = append(found, m[1])
		}
	}
	return found
}

// metricNotes is a Registerer that notes what is registered.
type metricNotes struct {
	prometheus.Registerer
	collectors []prometheus.Collector
}

func (n *metricNotes) MustRegister(cs ...prometheus.Collector) {
	n.collectors = append(n.collectors, cs...)
	n.Registerer.MustRegister(cs...)
}

func (n *metricNotes) Register(c prometheus.Collector) error {
	n.collectors = append(n.collectors, c)
	return n.Registerer.Register(c)
}

// metricsOf asks everything that serve measures to describe itself.
func metricsOf(t *testing.T) [][]string {
	t.Helper()
	notes := &metricNotes{Registerer: newRegistry()}
	cfg, _, err := parseConfig("reference.yaml", []byte(blocks(read(t, root+"/docs/guide.md"), "yaml")[0]))
	if err != nil {
		t.Fatal(err)
	}
	ring, err := session.NewKeyring([]session.Key{session.NewKey(time.Now())})
	if err != nil {
		t.Fatal(err)
	}
	for i := range cfg.Providers {
		cfg.Providers[i].ClientAuth = "none"
	}
	if _, err := newFrontDoor(cfg, &assemble.Secrets{Keys: ring}, notes, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	log := asynclog.Open(io.Discard, io.Discard, slog.LevelError, "json")
	defer log.Close()
	log.Measure(notes)
	notes.MustRegister(server.Certificates{})
	(&server.Server{}).Measure(notes)
	auditLost(notes)
	reload.Measure(notes)
	form := regexp.MustCompile(`fqName: "([^"]+)", help: "([^"]*)".*variableLabels: \{([^}]*)\}`)
	rows := [][]string{{"`sallyport_build_info`", "", "Always 1; the labels say what is running."}}
	for _, c := range notes.collectors {
		descs := make(chan *prometheus.Desc, 64)
		c.Describe(descs)
		close(descs)
		for d := range descs {
			if m := form.FindStringSubmatch(d.String()); m != nil {
				rows = append(rows, []string{"`" + m[1] + "`", strings.ReplaceAll(m[3], ",", ", "), m[2]})
			}
		}
	}
	slices.SortFunc(rows, slices.Compare)
	return slices.CompactFunc(rows, slices.Equal)
}
