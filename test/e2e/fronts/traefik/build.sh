#!/usr/bin/env bash
# build.sh PROGRAM: builds Traefik out of its Go module, for the tests of its guide.
#
# As it is published the module cannot be built: the folder that its go.mod names in place of
# github.com/traefik/traefik/dynamic/ext, and the pages of its dashboard, are not in it. Nor
# would anybody want to wait for the clients of two hundred clouds. So a copy is built in
# which the following is left out, and all else is as published, entry points, routers,
# middlewares, the proxy and the provider "file" among it:
#   - the providers Docker, Swarm, ECS, Kubernetes, Knative, Consul, Nomad, etcd, Redis, ZooKeeper
#   - the providers of ACME's DNS challenge
#   - plugins in Go, for which an interpreter with the whole standard library is linked
#   - what OpenTelemetry is told of the pod, and the dashboard's pages
set -euo pipefail
program=$(realpath -m "$1")
version=v3.7.13
export GOFLAGS=-mod=mod GOWORK=off

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
module=$(cd "$dir" && go mod download -json "github.com/traefik/traefik/v3@$version" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
cp -r "$module" "$dir/traefik"
cd "$dir/traefik"
chmod -R u+w .
find . -name '*_test.go' -delete

mkdir -p pkg/config/dynamic/ext webui/static
printf 'module github.com/traefik/traefik/dynamic/ext\n' >pkg/config/dynamic/ext/go.mod
printf 'package ext\n\ntype HTTP struct{}\n\ntype Router struct{}\n' >pkg/config/dynamic/ext/ext.go
echo '<!doctype html><title>left out</title>' >webui/static/index.html

# without FOLDER PACKAGE NAME TYPES: a provider that fails where it is asked for. TYPES are
# those of it that the configuration names, the last one a Provider.
without() {
  rm -rf "pkg/provider/$1"
  mkdir -p "pkg/provider/$1"
  cat >"pkg/provider/$1/left_out.go" <<EOF
package $2

import (
	"errors"

	"github.com/traefik/paerser/types"
	"github.com/traefik/traefik/v3/pkg/config/dynamic"
	"github.com/traefik/traefik/v3/pkg/safe"
)

const ProviderName = "$3"

type leftOut struct{ Name string }

func (leftOut) Init() error { return errors.New("left out of this build") }

func (leftOut) Provide(chan<- dynamic.Message, *safe.Pool) error { return nil }

type Seconds = types.Duration

$4
EOF
}
built='type Provider struct{ leftOut }
type ProviderBuilder struct{ Name string }
func (ProviderBuilder) BuildProviders() []*Provider { return []*Provider{{}} }'
plain='type Provider struct{ leftOut }'
without docker docker docker 'const DockerName, SwarmName = "docker", "swarm"
type Provider struct { leftOut; HTTPClientTimeout Seconds }
type SwarmProvider struct { leftOut; HTTPClientTimeout, RefreshSeconds Seconds }'
without ecs ecs ecs "$plain"
without kubernetes/crd crd kubernetescrd "$plain
func (Provider) FillExtensionBuilderRegistry(any) {}"
without kubernetes/gateway gateway kubernetesgateway 'type Entrypoint struct { Address string; HasHTTPTLSConf bool }
type Provider struct { leftOut; EntryPoints map[string]Entrypoint `file:"-" label:"-"` }'
without kubernetes/ingress ingress kubernetes 'type Provider struct { leftOut; DefaultRuleSyntax string }'
without kubernetes/ingress-nginx ingressnginx kubernetesingressnginx 'type Provider struct {
	leftOut
	NonTLSEntryPoints []string
	WatchNamespace, WatchNamespaceSelector string
}'
without kubernetes/knative knative knative "$plain"
without kv/consul consul consul "$built"
without kv/etcd etcd etcd "$plain"
without kv/redis redis redis "$plain"
without kv/zk zk zookeeper "$plain"
without consulcatalog consulcatalog consulcatalog "$built"
without nomad nomad nomad "$built"

# The clients of DNS providers.
sed -i '/lego\/v5\/providers\/dns"/d; s/provider, err = dns\.NewDNSChallengeProviderByName(.*/err = errors.New("left out of this build")/' \
  pkg/provider/acme/provider.go

# The fork of go-http-auth that Traefik 3.6 was built with: that of 3.7.13 is not to be had.
go mod edit -replace github.com/abbot/go-http-auth=github.com/containous/go-http-auth@v0.4.1-0.20200324110947-a37a7636d23e

# What OpenTelemetry is told of the pod.
cat >pkg/types/k8sdetector.go <<'EOF'
package types

import (
	"context"

	"go.opentelemetry.io/otel/sdk/resource"
)

type K8sAttributesDetector struct{}

func (K8sAttributesDetector) Detect(context.Context) (*resource.Resource, error) { return resource.Empty(), nil }
EOF

# Plugins in Go.
yaegi=pkg/plugins/middlewareyaegi.go
sed -i -e '/yaegi\/stdlib/d; /"os"$/d; /rs\/zerolog/d; /observability\/logs"/d' \
  -e '/^func newInterpreter(/,$d' "$yaegi"
cat >>"$yaegi" <<'EOF'
func newInterpreter(context.Context, string, *Manifest, Settings) (*interp.Interpreter, error) {
	return nil, errors.New("left out of this build")
}
EOF

go build -p "${JOBS:-2}" -o "$program" ./cmd/traefik
