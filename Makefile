# What you can do here. `make` alone prints this list.
.DEFAULT_GOAL := help
SHELL := /bin/sh

# The race detector needs cgo and a C compiler; where one is missing, say so.
RACE := $(shell if [ "$$(go env CGO_ENABLED)" = 1 ] && command -v "$$(go env CC)" >/dev/null 2>&1; then echo -race; fi)
# A program with the race detector waits a second when it ends, unless told otherwise; the tests start hundreds.
export GORACE ?= atexit_sleep_ms=0
TOOL := go tool -modfile=tools/go.mod

.PHONY: help
help: ## print this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## run the demo: provider, app and Sallyport on this machine
	go run ./cmd/sallyport demo

.PHONY: build
build: ## build bin/sallyport, static
	CGO_ENABLED=0 go build -trimpath -o bin/sallyport ./cmd/sallyport

.PHONY: test
test: ## run all tests (with -race where there is a C compiler)
	@if [ -z "$(RACE)" ]; then echo "note: no cgo or no C compiler, so the tests run without -race"; fi
	@command -v chromium >/dev/null 2>&1 || command -v "$$CHROMIUM" >/dev/null 2>&1 || echo "note: no Chromium, so the browser tests are skipped"
	@command -v firefox-esr >/dev/null 2>&1 || command -v firefox >/dev/null 2>&1 || command -v "$$FIREFOX" >/dev/null 2>&1 || echo "note: no Firefox, so the main stories are not tested in it"
	@{ command -v WebKitWebDriver && command -v Xvfb; } >/dev/null 2>&1 || echo "note: no WebKitWebDriver or no Xvfb, so the main stories are not tested in WebKit"
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null 2>&1 || echo "note: no PostgreSQL, so the store is not tested in it"
	@command -v haproxy >/dev/null 2>&1 || echo "note: no HAProxy, so the tests behind it are skipped"
	@command -v apache2 >/dev/null 2>&1 || [ -x /usr/sbin/apache2 ] || echo "note: no Apache, so the tests with it as an app are skipped"
	@command -v nginx >/dev/null 2>&1 || echo "note: no nginx, so the tests in which it asks are skipped"
	@command -v caddy >/dev/null 2>&1 || echo "note: no Caddy, so the tests in which it asks are skipped"
	@{ command -v radicale && command -v gunicorn; } >/dev/null 2>&1 || echo "note: no Radicale or no gunicorn, so the tests with them as apps are skipped"
	@command -v curl >/dev/null 2>&1 || echo "note: no curl, so the tests with it are skipped"
	@[ -d test/e2e/node_modules ] || echo "note: no npm packages in test/e2e, so the tests that need them are skipped; \`make e2e\` installs them"
	go test $(RACE) -timeout 20m ./...
	SALLYPORT_TEST_LANE=1 go test -timeout 20m ./proxy ./cmd/sallyport/internal/server
	cd test/plugin && go test -count=1 ./...
	cd test/bench && go test -count=1 ./...
	test/e2e/run

.PHONY: e2e
e2e: ## only the tests from outside: a real browser, provider, gRPC, WebSockets, curl
	cd test/e2e && npm ci --no-audit --no-fund --silent && go test -count=1 -timeout 30m -v ./...

.PHONY: charts
charts: ## the Helm chart: Helm 3 and 4 lint and render it, Kubernetes' own types and judges take it
	cd test/charts && go vet ./... && go test -count=1 -timeout 20m ./...

.PHONY: cluster
cluster: ## the chart and deploy/kustomize on Kubernetes' control plane without nodes, which is built for it
	cd test/cluster && go vet ./... && go test -count=1 -timeout 30m ./...

.PHONY: check
check: ## everything a change must pass: format, vet, staticcheck, other systems, tests, chart, known vulnerabilities
	@unformatted="$$(gofmt -l $$(git ls-files '*.go'))"; if [ -n "$$unformatted" ]; then echo "not gofmt-clean:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	cd test/e2e && go vet ./...
	cd test/plugin && go vet ./...
	cd test/bench && go vet ./...
	$(TOOL) staticcheck ./...
	$(MAKE) elsewhere
	$(MAKE) test
	$(MAKE) charts
	$(MAKE) vuln

.PHONY: elsewhere
elsewhere: ## see that program and tests build for macOS and Windows too
	GOOS=darwin go vet ./...
	GOOS=windows go vet ./...

.PHONY: vuln
vuln: ## look for known vulnerabilities, where their database can be reached
	@if out="$$($(TOOL) govulncheck ./... 2>&1)"; then echo "$$out"; \
	elif echo "$$out" | grep -q 'fetching vulnerabilities'; then echo "govulncheck: its database cannot be reached from here; not checked"; \
	else echo "$$out"; exit 1; fi

.PHONY: bench
bench: build ## measure what a request costs beside others, into docs/performance.md; BENCH has flags
	cd test/bench && go run . rounds $(BENCH)

.PHONY: bench-scaling
bench-scaling: build ## measure how that grows with routes, groups, sessions, connections and bytes, into the same
	cd test/bench && go run . scaling $(BENCH)

.PHONY: microbench
microbench: ## run the benchmarks of the packages
	go test -run '^$$' -bench . -benchmem ./...

FUZZTIME ?= 10m
.PHONY: campaigns
campaigns: fuzz cluster ## run what takes hours: every fuzz target, the long forms of the tests under load, and the cluster
	SALLYPORT_CAMPAIGN=1 go test -count=1 -timeout 1h -v -run UnderLoad ./cmd/sallyport/command
	SALLYPORT_CAMPAIGN=1 go test -count=1 -timeout 1h -v -run TestP23 ./internal/lean
	SALLYPORT_CAMPAIGN=1 go test -count=1 -timeout 1h -run 'Any|NearlyGood' ./internal/lane
	SALLYPORT_CAMPAIGN=1 go test -count=1 -timeout 4h -v -run 'TestP14|TestWhatAGrantTakes' ./store/sqlite ./store/postgres
	cd test/e2e && SALLYPORT_CAMPAIGN=1 go test -count=1 -timeout 1h -v ./...
	cd test/e2e && SALLYPORT_TEST_LANE=1 go test -count=1 -timeout 1h ./...

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (10m each)
	@targets="$$(git grep -o '^func Fuzz[A-Za-z0-9_]*' -- '*_test.go' ':!test')" || exit 1; \
	echo "$$targets" | while IFS=: read -r file target; do \
	  pkg="./$$(dirname "$$file")"; target="$${target#func }"; \
	  echo "$$pkg $$target"; go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$pkg" || exit 1; \
	done

.PHONY: schema
schema: ## write config.schema.json anew
	go run ./cmd/sallyport schema > config.schema.json

.PHONY: reference
reference: schema ## write config.schema.json, docs/reference.md and the chart's values.schema.json anew
	UPDATE_REFERENCE=1 go test -count=1 -run '^(TestTheReferenceDocumentIsComplete|TestTheChartsSchemaHasTheConfigurations)$$' ./cmd/sallyport/command
