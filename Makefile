# nodeagent: "make help" lists the targets. Everything that a target needs beyond
# a shell, make and Go it installs by itself ("make deps"; DEPS=0 forbids it).

GO      ?= $(shell hack/go)
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
# Without gRPC's pages of traces, which nothing here serves: with them the linker
# must keep every method, a third of the shim, of which one runs per pod.
TAGS    := grpcnotrace
DEPS    ?= 1
export PATH := $(dir $(GO)):$(PATH)

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/nodeagent and the shim, bin/containerd-shim-nodeagent-v1 and bin/nodeagent-shim
	CGO_ENABLED=0 $(GO) build -trimpath -tags $(TAGS) -ldflags '$(LDFLAGS)' -o bin/ ./cmd/nodeagent ./cmd/containerd-shim-nodeagent-v1 ./cmd/nodeagent-shim

run: deps build ## run the example pods on a private node until Ctrl-C (root; ONCE=1: until all are Ready)
	@CGO_ENABLED=0 $(GO) build -trimpath -o bin/test/run ./test/run
	@exec bin/test/run $(if $(filter 1,$(ONCE)),-once)

cluster: deps build ## run a control plane of Kubernetes with one node, CoreDNS and a kubectl until Ctrl-C (root; ONCE=1: until a name is found; the first time: long)
	@CGO_ENABLED=0 $(GO) build -trimpath -o bin/test/cluster ./test/cluster/run
	@exec bin/test/cluster $(if $(filter 1,$(ONCE)),-once)

deps: ## install what is missing: Debian packages, and Go into the cache (DEPS=0: only tell)
	@DEPS=$(DEPS) hack/deps

test: test-host test-machine ## everything that proves the project: on this machine, and in Debian guests with systemd

test-host: deps ## vet, unit, architecture, kernel and simulation tests, and the API server as an oracle
	@$(GO) run ./test/runner

test-machine: deps ## what needs a machine of its own, in Debian guests with systemd (root; ARCH=arm64; FULL=1: everything)
	@DEPS=$(DEPS) $(GO) run ./test/machine/run $(if $(ARCH),-arch $(ARCH)) $(if $(value RUN),-run '$(value RUN)')

test-cluster: deps ## the node on a real control plane, built from its Go modules (the first time: long; RACE=1: under the race detector)
	$(GO) test ./test/cluster -v -count=1 -timeout 60m $(if $(filter 1,$(RACE)),-race) $(if $(value RUN),-run '$(value RUN)')

e2e: deps ## Kubernetes' own end-to-end suite against a node in a bed (root; FOCUS='\[NodeConformance\]', SKIP=, AGENT=kubelet, PROXY=kube-proxy, PROCS=4)
	@DEPS=$(DEPS) hack/deps mmdebstrap bash-static
	@CGO_ENABLED=0 $(GO) build -trimpath -o bin/test/e2e ./test/e2e
	@exec bin/test/e2e $(if $(value FOCUS),-focus '$(value FOCUS)') $(if $(value SKIP),-skip '$(value SKIP)') $(if $(AGENT),-agent $(AGENT)) $(if $(PROXY),-proxy $(PROXY)) $(if $(PROCS),-procs $(PROCS))

bench: deps build ## one table: our times over those of containerd and runc alone (root)
	@CGO_ENABLED=0 $(GO) build -trimpath -o bin/test/ ./test/bench ./test/floor
	@exec bin/test/bench -floor bin/test/floor

bench-cluster: deps build ## one table: our times over those of kubelet on the same control plane (root; ALONE=1: ours by stage, without kubelet; the first time: long)
	@CGO_ENABLED=0 $(GO) build -trimpath -o bin/test/bench-cluster ./test/cluster/bench
	@exec bin/test/bench-cluster $(if $(filter 1,$(ALONE)),-alone)

bench-services: deps build ## one table: our service rules beside kube-proxy's on the same control plane (root; MODE=iptables; SERVICES=1000; ONLY=nodeagent or kube-proxy; the first time: long)
	@CGO_ENABLED=0 $(GO) build -trimpath -o bin/test/bench-services ./test/cluster/benchservices
	@exec bin/test/bench-services $(if $(MODE),-mode $(MODE)) $(if $(SERVICES),-services $(SERVICES)) $(if $(ONLY),-only $(ONLY))

soak: deps ## churn pods and inject faults for TIME (default 10m), then look for leaks (root)
	SOAK=$(or $(TIME),10m) $(GO) test ./test/soak -run TestSoak -v -count=1 -timeout 0
	PODS=100 $(GO) test ./test/node -run TestStuckPods -v -count=1
	EXECS=10000 $(GO) test ./test/node -run TestExecProbesLeakNothing -v -count=1 -timeout 0
	STREAMS=10000 RESETS=100000 $(GO) test ./internal/server -run 'TestBrokenStreamsLeaveNothing|TestRapidReset' -v -count=1 -timeout 0
	PATHS=1000000 $(GO) test ./cmd/nodeagent -run TestMadeUpPathsMakeNoSeries -v -count=1

lint: ## gofmt, go vet and staticcheck
	@test -z "$$(gofmt -l cmd internal test)" || { gofmt -l cmd internal test; echo 'run gofmt -w on these'; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

clean: ## remove what make built here (the cache of tools stays)
	rm -rf bin

# One after the other: both hold times against limits.
.NOTPARALLEL:

.PHONY: help build run cluster deps test test-host test-machine test-cluster e2e bench bench-cluster bench-services soak lint clean
