# nametag: two commands do everything. `make demo` shows the main job, `make test` runs every tier.
# Both install what they need; neither asks for anything to be configured.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

BIN := bin
CACHE := .cache
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
GOLANGCI_LINT_VERSION := v2.15.0
GOLANGCI_LINT := $(CACHE)/bin/golangci-lint-$(GOLANGCI_LINT_VERSION)

# What ships is static, stripped and free of paths. The metadata service speaks HTTP/1.1: a node needs no HTTP/2.
BUILD := CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags '-s -w -X main.version=$(VERSION)'
NODE_BUILD := $(BUILD) -tags nethttpomithttp2

# The modules whose code is ours; the tests of each are a tier of the suite.
MODULES := . cluster cluster/deploy internal/testvm/controlplane internal/release/dist internal/release/packages examples/talos examples/systems

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

.PHONY: build
build: ## bin/nametag (for nodes) and bin/nametagctl (for workstations)
	$(NODE_BUILD) -o $(BIN)/nametag ./cmd/nametag
	$(BUILD) -o $(BIN)/nametagctl ./cmd/nametagctl

.PHONY: demo
demo: ## two boots on an embedded fake Hetzner network: without nametag, then with it
	@echo 'demo: building nametagctl (the first time this takes a few minutes)'
	@$(BUILD) -o $(BIN)/nametagctl ./cmd/nametagctl
	@$(BIN)/nametagctl demo

.PHONY: deps
deps: ## installs and fetches what the tests use: Debian packages, other DHCP clients, QEMU, a kernel for it
	@hack/deps
	@hack/clients-deps
	@hack/vm-deps

# Each tier says when it begins and ends, and a red one does not hide the next; the counts come last.
SUITE := go run ./internal/testvm/suite

.PHONY: test
test: deps ## every tier: unit, fuzz seeds, network namespaces, virtual machines
	@$(SUITE)

.PHONY: test-unit
test-unit: ## all tiers but the virtual machines
	@$(SUITE) unit

.PHONY: test-vm
test-vm: ## the tier of virtual machines
	@$(SUITE) vm

.PHONY: test-os
test-os: deps ## boots of a Debian with its own systemd, dracut, networkd …; N=all or by name, TIMES=10 of each; IMAGE=… boots an image of yours
	@for file in $(IMAGE) $(CONFIG); do test -f "$$file" || { echo "test-os: $$file is not there; docs/systems.md says what IMAGE= and CONFIG= are" >&2; exit 2; }; done
	NAMETAG_TEST_OS='$(if $(IMAGE),,$(or $(N),essential))' \
	  NAMETAG_TEST_OS_IMAGE='$(if $(IMAGE),$(abspath $(IMAGE)))' NAMETAG_TEST_OS_CONFIG='$(if $(CONFIG),$(abspath $(CONFIG)))' NAMETAG_TEST_OS_UEFI='$(UEFI)' NAMETAG_TEST_OS_KVM='$(KVM)' \
	  go test -count=$(or $(TIMES),1) -timeout $(if $(IMAGE)$(TIMES),0,60m) -v $(if $(IMAGE),-run '^TestAnImage$$',$(if $(TIMES),-run '^Test(RealSystems|ABootableDebian|Ignition)$$')) ./internal/testvm/systems

.PHONY: test-kube
test-kube: deps ## a control plane of the real etcd, kube-apiserver and kubelet on the fake cloud, as root; they are built from their sources, once
	cd internal/testvm/controlplane && NAMETAG_TEST_KUBE=1 go test -count=1 -timeout 40m -v .

.PHONY: test-talos
test-talos: deps ## a Talos of yours, with and without nametag: DIR has vmlinuz, initramfs.xz and a machine configuration, config.yaml; KVM=1
	@test -f '$(DIR)/vmlinuz' -o -f '$(DIR)/vmlinuz-amd64' || { echo 'test-talos: DIR=$(DIR) has no vmlinuz; docs/boot.md says where the files come from' >&2; exit 2; }
	@test -f '$(DIR)/initramfs.xz' -o -f '$(DIR)/initramfs-amd64.xz' -o -f '$(DIR)/initramfs' || { echo 'test-talos: DIR=$(DIR) has no initramfs.xz; docs/boot.md says where the files come from' >&2; exit 2; }
	NAMETAG_TEST_KVM='$(KVM)' NAMETAG_TEST_TALOS='$(abspath $(DIR))' go test -count=1 -timeout 60m -v -run '^TestARealTalos$$' ./internal/testvm/talos

.PHONY: busy-test
busy-test: deps ## the suite twice, beside twice as many busy processes as there are processors
	@$(SUITE) -busy -times 2

# The auditor is a module of its own: its clients are large, and nobody who uses the library is to have them.
.PHONY: audit
audit: ## bin/nametag-audit: compares names in the cloud, etcd, Kubernetes and Cluster API; nametagctl audit and pin are it
	cd cluster && $(BUILD) -o $(CURDIR)/$(BIN)/nametag-audit ./cmd/nametag-audit

.PHONY: audit-image
audit-image: ## bin/nametag-audit.oci: the auditor as a container image for both architectures; ARGS='-arch amd64' and the like
	cd cluster && go run ./cmd/audit-image -version $(VERSION) -o $(CURDIR)/$(BIN)/nametag-audit.oci $(ARGS)

.PHONY: demo-audit
demo-audit: ## the auditor at work on a broken control plane: a real etcd, a fake cloud, no configuration; ARGS="-page 127.0.0.1:9477" to look at its page
	@cd cluster && go run ./cmd/audit-demo $(ARGS)

.PHONY: demo-cluster
demo-cluster: deps ## from nothing to a control plane of three, with and without nametag: a real etcd, API server and kubelet (as root; a minute, once these are built)
	@cd internal/testvm/controlplane && go run ./demo

.PHONY: test-cluster
test-cluster: ## the tests of the auditor, with real etcd clusters
	cd cluster && go vet ./... && go test -timeout 10m ./...
	cd cluster/deploy && go vet ./... && go test -timeout 10m ./...

.PHONY: fuzz
fuzz: ## each fuzz target for T (default 30s)
	@hack/fuzz $(or $(T),30s)

.PHONY: stress
stress: deps ## N boots (default 50) by each way of the handover, all with the right first name
	NAMETAG_STRESS=$(or $(N),50) go test -timeout 0 -run '^TestStress$$' -v ./internal/node/boot

.PHONY: later-boots
later-boots: deps ## boots of a node that has booted before: every disk and service of the table, and N (default 10) of those that are timed
	NAMETAG_LATER_BOOTS=$(or $(N),10) go test -count=1 -timeout 0 -run '^(TestLaterBoots|TestANodeThatHasBootedNeedsNoService|TestASystemThatIsNotTalosGoesOnUnderTheNameInItsRoot|TestHowLongALaterBootTakes)$$' -v ./internal/node/boot

.PHONY: chaos
chaos: deps ## N runs (default 2000) in virtual time, a tenth over real links, a twentieth with strangers on the link, 1 in 200 as a boot; SEED=… N=1 replays one
	NAMETAG_CHAOS_SEED=$(SEED) NAMETAG_CHAOS_N=$(or $(N),2000) go test -count=1 -timeout 0 -run '^TestChaos$$' -v ./identity
	NAMETAG_CHAOS_SEED=$(SEED) NAMETAG_CHAOS_N=$$(( ($(or $(N),2000)+9)/10 )) go test -count=1 -timeout 0 -run '^TestChaos$$' -v ./internal/testvm/chaos
	NAMETAG_CHAOS_SEED=$(SEED) NAMETAG_CHAOS_N=$$(( ($(or $(N),2000)+19)/20 )) go test -count=1 -timeout 0 -run '^TestHostile$$' -v ./internal/testvm/chaos
	NAMETAG_CHAOS_SEED=$(SEED) NAMETAG_CHAOS_N=$$(( ($(or $(N),2000)+199)/200 )) go test -count=1 -timeout 0 -run '^TestChaos$$' -v ./internal/node/boot

.PHONY: herd
herd: ## ten thousand servers at one moment, simulated; writes docs/retry.md (about 10 min)
	go test ./identity -count=1 -timeout 40m -run '^TestHerdReport$$' -update-retry $(CURDIR)/docs/retry.md -v

.PHONY: attacks
attacks: deps ## how long a name takes while others on the link attack, 20 times each; writes a table of docs/network.md (about 10 min)
	go test ./internal/testvm/scenarios -count=1 -timeout 0 -run '^TestAttackTable$$' -update-attacks $(CURDIR)/docs/network.md -v

.PHONY: bench
bench: deps ## nametag beside other clients, in the lab; writes docs/bench (QUICK=1: a look in a minute or two; BEFORE=file: beside another nametag, writes nothing)
	@go run ./internal/testvm/bench $(if $(QUICK),-quick -out '') $(if $(BEFORE),-before $(abspath $(BEFORE)))

.PHONY: lint
lint: $(GOLANGCI_LINT) ## vet, staticcheck, gofumpt and the rest of .golangci.yml, in every module
	@echo 'lint: from a cold cache this takes a few minutes'
	@failed=; for module in $(MODULES); do \
	  echo "lint: $$module"; (cd $$module && $(abspath $(GOLANGCI_LINT)) run --allow-parallel-runners --config $(CURDIR)/.golangci.yml ./...) || failed+=" $$module"; \
	done; [ -z "$$failed" ] || { echo "lint: issues in:$$failed"; exit 1; }

$(GOLANGCI_LINT):
	@mkdir -p $(dir $@)
	@echo 'lint: building golangci-lint $(GOLANGCI_LINT_VERSION), once: about two minutes'
	GOBIN=$(abspath $(dir $@)) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	@mv $(dir $@)golangci-lint $@

.PHONY: cross
cross: ## both commands for both architectures of Hetzner Cloud
	for arch in amd64 arm64; do \
	  GOARCH=$$arch $(NODE_BUILD) -o $(BIN)/$$arch/nametag ./cmd/nametag; \
	  GOARCH=$$arch $(BUILD) -o $(BIN)/$$arch/nametagctl ./cmd/nametagctl; \
	done

.PHONY: workstations
workstations: ## nametagctl for macOS and Windows, where it edits images and has no lab: bin/darwin, bin/windows
	for system in darwin windows; do GOOS=$$system $(BUILD) -o $(BIN)/$$system/ ./cmd/nametagctl; done

# With the flags of a release, whose builds these find in the cache. What is for any system is run on one that is not Linux: Node.js.
.PHONY: elsewhere
elsewhere: ## macOS and Windows: everything builds and is vetted, the tests too
	@export CGO_ENABLED=0; for target in darwin/arm64 windows/amd64; do \
	  echo "elsewhere: $$target"; export GOOS=$${target%/*} GOARCH=$${target#*/}; \
	  go build -trimpath ./...; go vet -trimpath ./...; \
	done
	@command -v node >/dev/null || { echo 'elsewhere: node is missing: apt-get install nodejs' >&2; exit 1; }
	@PATH="$$PATH:$$(go env GOROOT)/lib/wasm" GOOS=js GOARCH=wasm go test -count=1 -run 'OnAnySystem|ItsContext|NotLinux|LinuxOnly' ./earlynet ./identity

.PHONY: extension
extension: ## bin/nametag.oci: the system extension for Talos' imager; ARGS='--talos 1.9 --wait 2m' and the like go to nametagctl
	for arch in amd64 arm64; do GOARCH=$$arch $(NODE_BUILD) -o $(BIN)/$$arch/nametag ./cmd/nametag; done
	$(BUILD) -o $(BIN)/nametagctl ./cmd/nametagctl
	$(BIN)/nametagctl extension --helper $(BIN) --oci $(BIN)/nametag.oci --force $(ARGS)

.PHONY: release
release: ## dist/: binaries, SBOMs, licences, man pages, completions, extensions, images, provenance, checksums; built twice and compared; KEY=… signs; AUDITOR=own is quicker
	@go build -C internal/release/dist -o $(CURDIR)/$(BIN)/release .
	$(BIN)/release -o dist -version $(VERSION) -check -auditor $(or $(AUDITOR),all) $(if $(KEY),-sign $(KEY))

.PHONY: mutants
mutants: deps ## breaks the code on purpose, one promise at a time, and says whether the tests notice (about 10 min)
	@go run ./internal/testvm/mutants

.PHONY: docs
docs: ## writes what the documentation takes from the code; a test says where the two differ
	go test ./cmd/nametag -count=1 -run '^TestThePageListsTheVariables$$' -update-docs
	go test ./internal/node/boot -count=1 -run '^TestThePageListsWhatBecomesOfEachMachine$$' -update-docs
	go run ./internal/testvm/bench -render

# Its packages are those of the lock file; npm runs no script of theirs.
.PHONY: site
site: build audit ## dist/site: the documentation as a static site, with search
	@command -v npm >/dev/null || { echo 'site: npm is missing: apt-get install npm (Node.js 20 or later)' >&2; exit 1; }
	@echo 'site: fetching VitePress, as site/package-lock.json has it'
	@cd site && npm ci --ignore-scripts --no-audit --no-fund --silent && npm run --silent build

.PHONY: test-site
test-site: site ## the site in a headless Chromium: links, anchors, a phone's width, contrast, search
	@hack/chromium
	@cd site && npm run --silent test

.PHONY: clean
clean: ## removes what was built; the cache of downloads stays
	rm -rf $(BIN) dist
