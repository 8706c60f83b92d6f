# Two commands matter: `make run` and `make test`. Both work on a clean Debian 12 that has only git, make, Go and root, and
# bring what is missing. `make` alone lists the rest.

GO       ?= go
CACHE    := $(or $(AMBIT_CACHE_DIR),$(if $(filter 0,$(shell id -u)),/var/cache/ambit,$(HOME)/.cache/ambit))
TOOLS    := $(CACHE)/tools
PACKAGES ?= ./...
FUZZTIME ?= 20s
BINARIES := ./cmd/ambit ./cmd/ambit-guest ./cmd/ambit-node

# Development tools, pinned. Each lies in a folder named by its version, so that a change of it here is a change of it there.
GOLANGCI_LINT := $(TOOLS)/golangci-lint-v2.15.0/golangci-lint
GOFUMPT       := $(TOOLS)/gofumpt-v0.12.0/gofumpt
SQLC          := $(TOOLS)/sqlc-v1.31.1/sqlc
TEMPL         := $(TOOLS)/templ-v0.3.1001/templ
GOTESTSUM     := $(TOOLS)/gotestsum-v1.13.0/gotestsum

.DEFAULT_GOAL := help
.PHONY: help run build test test-race unit e2e faults proof-money bench generate verify verify-format verify-generated lint fuzz db/new clean test-engines

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9\/-]+:.*## / { printf "  \033[1m%-18s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build ## obtain what is missing and run all of Ambit here (Ctrl-C stops it)
	@exec bin/ambit up

build: ## build the binaries into bin/
	@tools/build bin $(BINARIES)

test: test-engines $(GOTESTSUM) ## run every test, on the real engines, with the race detector
	@$(MAKE) --no-print-directory test-race

test-engines: build ## obtain the engines, and what only tests need
	@bin/ambit engines --tests --quiet

test-race: build $(GOTESTSUM) ## the same, without looking for the engines first
	@CGO_ENABLED=1 $(GOTESTSUM) --format pkgname-and-test-fails --format-hide-empty-pkg -- -race -timeout 30m $(PACKAGES)

unit: ## run the tests of PACKAGES (all but test/) without the race detector: fast
	@$(GO) test $$($(GO) list $(PACKAGES) | grep -v /test/)

e2e: build ## run the end-to-end tests only
	@$(GO) test -count=1 -timeout 30m ./test/e2e/...

faults: build ## run the fault tests only: kill -9, outages, bad answers
	@$(GO) test -count=1 -timeout 30m ./test/faults/...

proof-money: test-engines ## prove that nothing is spent unheld: 600 callers, and kill -9 at each place that an effect passes
	@set -o pipefail; PROOF=full $(GO) test -count=1 -timeout 30m -v ./test/proof ./test/controls 2>&1 | grep -E '^(=== RUN|---|    ---|    money_test|ok|FAIL|PASS|panic)|Error'

bench: test-engines ## measure, with the floor beside each figure (BENCH=pattern, BENCHTIME=1s)
	@grep -rl --include='*_test.go' '^func Benchmark' . | xargs -n1 dirname | sort -u | \
	  xargs $(GO) test -p 1 -run '^$$' -bench '$(or $(BENCH),.)' -benchtime $(or $(BENCHTIME),1s) -timeout 30m | \
	  grep -Ev '^(PASS|goos|goarch|ok |cpu)'

generate: $(SQLC) $(TEMPL) ## make the generated code anew (queries, templates)
	@$(SQLC) generate
	@$(TEMPL) generate -log-level error
	@$(GO) generate ./...

verify: verify-format verify-generated ## check formatting, generated code and go vet
	@$(GO) vet ./...

verify-format:
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "not formatted (make lint tells more):"; echo "$$unformatted"; exit 1; }

verify-generated: $(SQLC) $(TEMPL)
	@$(SQLC) diff
	@before=$$(git status --porcelain -- '*_templ.go'); $(TEMPL) generate -log-level error; after=$$(git status --porcelain -- '*_templ.go'); \
	  [ "$$before" = "$$after" ] || { echo "templates changed without make generate:"; echo "$$after"; exit 1; }

lint: $(GOLANGCI_LINT) $(GOFUMPT) ## run the linters
	@unformatted=$$($(GOFUMPT) -l $$(git ls-files '*.go' | grep -v _templ.go)); [ -z "$$unformatted" ] || { echo "gofumpt would change:"; echo "$$unformatted"; exit 1; }
	@$(GOLANGCI_LINT) run

fuzz: ## fuzz each parser for FUZZTIME (20s)
	@grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u | while read -r dir; do \
	  for f in $$(grep -h '^func Fuzz' "$$dir"/*_test.go | sed 's/func \([A-Za-z0-9_]*\).*/\1/'); do \
	    echo "$$dir $$f"; $(GO) test "$$dir" -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) || exit 1; done; done

db/new: ## start a migration: make db/new NAME=what_it_does [DB=postgres|clickhouse]
	@[ -n "$(NAME)" ] || { echo "usage: make db/new NAME=what_it_does [DB=postgres|clickhouse]"; exit 2; }
	@dir=migrations/$(or $(DB),postgres); last=$$(ls $$dir | grep -o '^[0-9]\{5\}' | sort | tail -n 1); \
	  file=$$dir/$$(printf '%05d' $$((10#$${last:-0} + 1)))_$(NAME).sql; \
	  printf -- '-- +goose Up\n\n-- +goose Down\n' > $$file; echo $$file

clean: ## remove the built binaries (the cache and the data stay)
	@rm -rf bin

$(GOLANGCI_LINT): PACKAGE := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
$(GOFUMPT):       PACKAGE := mvdan.cc/gofumpt@v0.12.0
$(SQLC):          PACKAGE := github.com/sqlc-dev/sqlc/cmd/sqlc@v1.31.1
$(TEMPL):         PACKAGE := github.com/a-h/templ/cmd/templ@v0.3.1001
$(GOTESTSUM):     PACKAGE := gotest.tools/gotestsum@v1.13.0
$(GOLANGCI_LINT) $(GOFUMPT) $(SQLC) $(TEMPL) $(GOTESTSUM):
	@echo "building $(PACKAGE) (once)"
	@GOBIN=$(@D) GOFLAGS=-buildvcs=false $(GO) install $(PACKAGE)

SHELL := /bin/bash
