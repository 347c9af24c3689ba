# What there is to do with this tree. `make help` lists it.
#
# Everything needs Go; the tests, the benchmarks on veth and the demo also need root and the Debian
# packages of scripts/deps.sh, which they install when missing.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory

GO ?= go
ifeq ($(filter help clean,$(or $(MAKECMDGOALS),help)),)
ifeq ($(shell command -v $(GO)),)
$(error go is not in PATH: install Go 1.26 or later; where sudo does not find it: sudo env PATH=$$PATH make $(MAKECMDGOALS))
endif
endif
FUZZTIME ?= 30s
BENCH ?= pipeline crypto esp ike fib veth cluster health gap
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.7.0

# Packages with tests that need root. They run one after the other: a guest that is starved of
# processor time fails tests that have nothing wrong.
ROOT_PACKAGES = $(shell find . -name '*_root_test.go' -printf '%h\n' | sort -u)
UNIT_TESTS = $(GO) test -json -skip '^TestRoot'
ROOT_TESTS = $(GO) test -json -count=1 -p 1 -run '^TestRoot'
SHELL_SCRIPTS = $(shell find scripts .ci -name '*.sh') .ci/run

export CGO_ENABLED ?= 0

.PHONY: help
help: ## this list
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/\1\t\2/p' Makefile | expand -t 20

.PHONY: build
build: ## bin/causeway and bin/pktgen
	$(GO) build -trimpath -o bin/ ./cmd/...

.PHONY: cross
cross: ## the same and all tests compiled for amd64 and arm64, binaries in bin/<architecture>/
	for arch in amd64 arm64; do \
	  GOOS=linux GOARCH=$$arch $(GO) build -trimpath -o bin/$$arch/ ./cmd/...; \
	  GOOS=linux GOARCH=$$arch $(GO) vet ./...; \
	done

.PHONY: generate
generate: ## compile the XDP programs again (clang)
	$(GO) generate ./...

.PHONY: check-generated
check-generated: deps ## fail when a generated file is not current
	scripts/check-generated.sh

.PHONY: lint
lint: deps ## gofmt, go vet, staticcheck, shellcheck
	unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "gofmt would change:" $$unformatted; exit 1; }
	$(GO) vet ./... && $(GO) vet -tags previous ./cmd/causeway
	$(GO) run $(STATICCHECK) ./...
	shellcheck --external-sources --source-path=SCRIPTDIR $(SHELL_SCRIPTS)

.PHONY: test
test: root deps ## each feature and each failure once: vet, unit tests with fuzz corpora, root tests
	$(GO) vet ./...
	$(GO) run ./scripts/testsum -- $(UNIT_TESTS) -short ./... -- $(ROOT_TESTS) -short -timeout 45m $(ROOT_PACKAGES)

.PHONY: test-full
test-full: export CAUSEWAY_FULL = 1
test-full: export CAUSEWAY_FULL_TABLE = 1
test-full: root deps ## the same with the long tables
	$(GO) vet ./...
	$(GO) run ./scripts/testsum -- $(UNIT_TESTS) -timeout 30m ./... -- $(ROOT_TESTS) -timeout 120m $(ROOT_PACKAGES)

.PHONY: test-race
test-race: export CGO_ENABLED = 1
test-race: root deps ## make test under the race detector
	$(GO) run ./scripts/testsum -- $(UNIT_TESTS) -race -short ./... -- $(ROOT_TESTS) -race -short -timeout 30m $(ROOT_PACKAGES)

PREVIOUS ?= 7067157
.PHONY: test-previous
test-previous: root deps ## a node of the revision PREVIOUS and one of this in one cluster
	tree=$$(mktemp -d) && git archive $(PREVIOUS) | tar -x -C $$tree && (cd $$tree && $(GO) build -o $(CURDIR)/bin/causeway-previous ./cmd/causeway); rm -rf $$tree
	CAUSEWAY_PREVIOUS=$(CURDIR)/bin/causeway-previous $(GO) test -tags previous -count=1 -timeout 20m -v -run '^TestRootPrevious$$' ./cmd/causeway

.PHONY: test-arm64
test-arm64: deps ## unit tests of the rooms with assembly or shared rings, as arm64 code under qemu (no root)
	$(GO) run ./scripts/testsum -- env GOARCH=arm64 $(UNIT_TESTS) -short -timeout 30m -exec qemu-aarch64 ./pipeline ./pipeline/wire ./pipeline/reassembly ./xsk/...

PART ?= 0/1
.PHONY: test-mutants
test-mutants: root deps ## break the product on purpose, many times: each time a named test must turn red
	$(GO) run ./scripts/mutants -part $(PART)

.PHONY: fuzz
fuzz: deps ## every fuzz target for FUZZTIME (30s)
	scripts/fuzz.sh $(FUZZTIME)

.PHONY: bench
bench: root deps ## the scenarios in BENCH; go run ./bench says which there are
	for scenario in $(BENCH); do $(GO) run ./bench $$scenario; done

.PHONY: demo
demo: root deps build ## three anycast nodes behind bird, a Linux customer with strongSwan, 1 GB, the loss of a node and the draining of another: two minutes
	scripts/demo.sh

.PHONY: deps
deps:
	@scripts/deps.sh

.PHONY: root
root:
	@[ "$$(id -u)" = 0 ] || { echo "needs root: network namespaces, AF_XDP and packet capture; run: sudo make $(MAKECMDGOALS)"; exit 1; }

.PHONY: clean
clean: ## remove what was built
	rm -rf bin
