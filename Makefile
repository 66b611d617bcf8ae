# `make` lists the targets. Tools come through go.mod and tools/go.mod; the only thing installed on the machine is PostgreSQL, where there is none.

GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
FUZZTIME ?= 10s
MINUTES ?= 30

# The version is passed on below: asking git once more fails where the tree belongs to another user.
export GOFLAGS := $(shell $(GO) env GOFLAGS) -buildvcs=false

# The race detector needs a C compiler. Without one the tests run all the same, and say so.
CC_FOUND := $(shell command -v "$$($(GO) env CC)" 2>/dev/null)
RACE := $(if $(CC_FOUND),-race)

.DEFAULT_GOAL := help
.PHONY: help demo test race build lint security bench chaos soak fuzz mutations stream clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-9s  %s\n", $$1, $$2}' Makefile

demo: build ## watch it work: stand-in vendor, private Postgres, three months, a night, and the proof
	@if [ -z "$$SDR_SYNC_POSTGRES_URL$$SDR_SYNC_POSTGRES_URL_FILE" ]; then scripts/ensure-postgres; fi
	bin/sdr-sync demo

test: ## run every test, those against a real Postgres included
	@scripts/ensure-postgres
	@$(if $(RACE),:,echo "no C compiler: the race detector is off (apt-get install gcc libc6-dev)")
	$(GO) test $(RACE) -timeout 20m $$($(GO) list ./... | grep -vE '/cmd/|/sink/parquet$$')
	$(GO) test -timeout 20m ./sink/parquet ./cmd/...

race: ## run the tests that take too long under the race detector for make test under it (half an hour)
	@scripts/ensure-postgres
	$(GO) test -race -timeout 60m ./sink/parquet ./cmd/...

build: ## build bin/sdr-sync
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-X main.version=$(VERSION)" -o bin/sdr-sync ./cmd/sdr-sync

lint: ## go vet, staticcheck, gofumpt, and who may import whom
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	@files=$$($(GO) tool gofumpt -l .) || exit 1; \
	if [ -n "$$files" ]; then echo "run: go tool gofumpt -w" $$files; exit 1; fi
	$(GO) tool depguard ./...
	@$(MAKE) --no-print-directory security

security: ## gosec, and govulncheck where its database can be reached
	@if ! $(GO) tool -modfile=tools/go.mod -n gosec >/dev/null; then echo "gosec, govulncheck: NOT CHECKED, they can't be fetched or built here"; exit 0; fi; \
	echo "gosec ./..."; $(GO) tool -modfile=tools/go.mod gosec -quiet -conf .gosec.json ./... || exit 1; \
	GO="$(GO)" scripts/check-vulnerabilities

bench: build ## measure: the packages' benchmarks, then the whole program against the stand-in vendor (minutes)
	@scripts/ensure-postgres
	$(GO) test -run '^$$' -bench . -benchmem ./...
	$(GO) run ./bench

chaos: ## crash every failpoint once, one cell of each fault, 50 random cycles (minutes)
	@scripts/ensure-postgres
	$(GO) test -timeout 30m -run Chaos ./cmd/...

soak: build ## break the program for MINUTES (30): the whole matrix of faults, then random cycles; DuckDB reads along where it builds
	@scripts/ensure-postgres
	@if (cd chaos/duckdb && $(GO) build -o ../../bin/chaos-duckdb .); then (cd chaos/duckdb && $(GO) test ./...) || exit 1; checker="--checker bin/chaos-duckdb"; \
	else echo "DuckDB does not build here (it needs a C++ compiler's runtime and the module proxy): the lake is read by the harness alone"; fi; \
	bin/sdr-sync chaos --matrix --minutes $(MINUTES) $$checker

fuzz: ## fuzz each decoder for FUZZTIME (10s)
	@grep -rlE --include='*_test.go' '^func Fuzz' . | while read -r file; do \
		sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' "$$file" | while read -r name; do \
			echo "== $$(dirname "$$file") $$name"; \
			$(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$(dirname "$$file")" </dev/null || exit 1; \
		done || exit 1; \
	done

mutations: ## plant bugs one by one and see that the suite catches each (a quarter of an hour)
	@scripts/ensure-postgres
	GO="$(GO)" mutations/run

stream: ## write the migration of a stream: make stream NAME=audit_logs
	@test -n "$(NAME)" || { echo "say which: make stream NAME=audit_logs (the name of a file in schemas/)"; exit 2; }
	$(GO) run ./migrations/generate "$(NAME)"
	$(GO) test ./schemas -run 'Streams' -update

clean: ## remove what make built, and the demo's folder
	rm -rf bin demo
