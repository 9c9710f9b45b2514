# txlb. `make` lists the targets.
SHELL   := /bin/bash
# 0.5.0 on the tag v0.5.0, 0.5.0-12-g3416292 twelve commits later.
VERSION ?= $(patsubst v%,%,$(shell git describe --tags --match 'v[0-9]*' --always --dirty 2>/dev/null || echo unknown))
GO      ?= go
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.7.0
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@v1.9.0

# Tests and benchmarks run programs beside txlb. For root the targets that need
# them install what is missing from Debian; TXLB_INSTALL=no leaves it.
TXLB_INSTALL ?= $(if $(filter 0,$(shell id -u)),yes,no)
test bench bench-quick bench-tls bench-check counts soak fleet pictures: export TXLB_INSTALL := $(TXLB_INSTALL)

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/txlb
	$(GO) build -trimpath -ldflags "-X main.version=$(VERSION)" -o bin/txlb ./cmd/txlb

.PHONY: run
run: build ## build and run the demo: three web servers behind 127.0.0.1:8080
	./bin/txlb demo

.PHONY: test
test: lint ## every test: style, all systems, both engines, race detector, real programs
	$(GO) test -race -vet=off -timeout 40m -p $(PACKAGES) $(LONGEST) ./...
	$(GO) -C etc/package test -vet=off ./...

.PHONY: quick
quick: ## the tests without the long ones, in about a minute: installs nothing, needs no root
	TXLB_INSTALL=no $(GO) test -short -p $(PACKAGES) ./...

# The tests wait more than they work, so twice as many packages as processors run. The
# longest begin first. lint has looked at them with more of go vet than go test does.
PACKAGES = $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN))))
LONGEST  = ./cmd/txlb ./engine ./internal/packaging ./bench

.PHONY: lint
lint: ## gofmt, go vet, staticcheck, and that programs and tests compile for every system
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	cd examples && $(GO) vet ./...
	$(GO) run ./internal/systems $(SYSTEMS) linux/amd64/portable
	$(GO) -C etc/package vet ./...

# Beside the usual systems: 32 bits (arm, 386) and the other byte order (s390x).
SYSTEMS = linux/arm64 linux/riscv64 linux/ppc64le linux/s390x linux/arm linux/386 darwin/arm64 freebsd/amd64 windows/amd64

# lint type-checks for other systems. This is the whole compiler, ten times as slow:
# list -export compiles every package and links nothing.
.PHONY: systems
systems: ## compile programs and tests for every system and processor
	@for on in $(SYSTEMS); do echo "$$on: compiles"; GOOS=$${on%/*} GOARCH=$${on#*/} CGO_ENABLED=0 $(GO) list -export -test ./... >/dev/null || exit 1; done

.PHONY: vuln
vuln: ## known vulnerabilities of the libraries, as far as txlb calls them; needs the network
	$(GO) run $(GOVULNCHECK) ./...

.PHONY: test-arm64
test-arm64: ## the tests of the data plane for arm64, by qemu-user (Debian: qemu-user-static)
	@command -v $(QEMU) >/dev/null || { echo "$(QEMU) is missing: apt-get install qemu-user-static"; exit 1; }
	@set -e; mkdir -p bin; for p in splice sched internal/health engine engine/internal/core engine/internal/loops; do \
		echo "arm64: $$p"; GOARCH=arm64 CGO_ENABLED=0 $(GO) test -c -o bin/arm64.test ./$$p; \
		(cd $$p && $(QEMU) $(CURDIR)/bin/arm64.test -test.short -test.skip '$(QEMU_CANNOT)'); done; rm bin/arm64.test

QEMU ?= qemu-aarch64-static
# It takes every option of TCP for a number, so of the names of a congestion
# control only those of four letters can be set. It starts no copy of itself. Times
# of milliseconds prove nothing in it. It has no io_uring: those tests skip.
QEMU_CANNOT = ^(TestLoopbackIsNotPaced|TestZones|TestB69FirstAnswerOfTwoWrites)$$

.PHONY: fuzz
fuzz: ## fuzz every parser and state machine for a minute each
	$(foreach f,$(FUZZ),$(call fuzz-one,$(subst :, ,$(f))))

# Every function Fuzz… of the tests, as FOLDER:NAME.
FUZZ = $(sort $(shell grep -rE --include='*_test.go' '^func Fuzz' . | sed -E 's|^(.*)/[^/]*:func (Fuzz[A-Za-z0-9]+).*|\1:\2|'))
define fuzz-one
$(GO) test $(word 1,$(1)) -run '^$$' -fuzz '^$(word 2,$(1))$$' -fuzztime 60s

endef

.PHONY: pictures
pictures: ## take the pictures of the admin page in docs/images, with chromium
	$(GO) test ./internal/admin/web -run TestScreenshots -count 1 -screenshots $(CURDIR)/docs/images -shot-after 90s

# A longer time decides more: 2h visits each comparison five times.
TIME = 26m

.PHONY: bench
bench: ## measure against HAProxy and nginx in 30 minutes (TIME=2h decides more); writes BENCHMARKS.md, bench/data and docs/charts
	$(GO) run ./bench counts -data bench/data
	$(GO) run ./bench -time $(TIME) -out BENCHMARKS.md -charts docs/charts -data bench/data

.PHONY: bench-quick
bench-quick: ## a part of it in two minutes, printed only
	$(GO) run ./bench -quick

.PHONY: bench-tls
bench-tls: ## measure TLS, package txlb and sessions on goroutines in 10 minutes; writes docs/benchmarks-tls.md and bench/data/tls
	$(GO) run ./bench counts -tls -rounds 1 -data bench/data/tls
	$(GO) run ./bench tls -time 7m -out docs/benchmarks-tls.md -data bench/data/tls

.PHONY: soak
soak: ## real clients for two minutes (SOAK=30s) while hosts are killed, drained and re-weighted
	$(GO) run ./soak -for $(SOAK)

SOAK ?= 2m

.PHONY: fleet
fleet: ## the proofs of a fleet with their full numbers: the current etcd, 1,000 changes, 10,000 hosts, 50 nodes, a minute without a quorum; as root
	$(GO) test ./internal/fleet -count 1 -v -timeout 30m -run '^(TestFleetOf50|TestHundredThousandHosts|TestCrowd)$$' -whole
	$(GO) -C internal/fleet/etcd/embedded vet ./...
	$(GO) test ./internal/fleet/etcd -count 1 -v -run '^(TestStore|TestB87ChangesAreLinearizable|TestChangeIsEverywhere)$$' -whole
	$(GO) test ./soak/fleet -count 1 -v -whole
	$(GO) run ./soak/fleet

.PHONY: bench-check
bench-check: ## does txlb ask more of the kernel than bench/expected.tsv says? As root (UPDATE=1 writes it)
	$(GO) run ./bench counts -check bench/expected.tsv $(if $(UPDATE),-update)

.PHONY: counts
counts: ## count system calls, segments, switches, bytes and memory of txlb and its peers, as root; writes bench/data
	$(GO) run ./bench counts -data bench/data

.PHONY: growth
growth: ## cost of a connection and a change with 1 to 10,000 hosts, services, listeners, sessions, as root; writes bench/data and docs/charts
	$(GO) run ./bench growth -data bench/data -charts docs/charts

.PHONY: micro
micro: ## micro-benchmarks of schedulers, engine, configuration, changes and checks
	$(GO) test -run '^$$' -bench . -benchmem ./sched ./engine/... ./config/... ./internal/director ./internal/health

.PHONY: install
install: build ## install the program, a sample config and the systemd unit (PREFIX, DESTDIR)
	install -Dm755 bin/txlb $(DESTDIR)$(PREFIX)/bin/txlb
	test -e $(DESTDIR)/etc/txlb/config.xml || install -Dm640 etc/config.xml $(DESTDIR)/etc/txlb/config.xml
	sed 's|/usr/local/bin/txlb|$(PREFIX)/bin/txlb|' etc/systemd/txlb.service | install -Dm644 /dev/stdin $(DESTDIR)/etc/systemd/system/txlb.service
	sed 's|/usr/local/bin/txlb|$(PREFIX)/bin/txlb|' etc/systemd/txlb-keeper.service | install -Dm644 /dev/stdin $(DESTDIR)/etc/systemd/system/txlb-keeper.service
	install -Dm644 etc/systemd/txlb.socket $(DESTDIR)/etc/systemd/system/txlb.socket
	install -Dm644 etc/sysusers.d/txlb.conf $(DESTDIR)/etc/sysusers.d/txlb.conf
	install -Dm644 etc/tmpfiles.d/txlb.conf $(DESTDIR)/etc/tmpfiles.d/txlb.conf
	test -n "$(DESTDIR)" || { systemd-sysusers && systemd-tmpfiles --create /etc/tmpfiles.d/txlb.conf; }

PREFIX ?= /usr/local

# What is released has the time of its commit, so that the same commit gives the same bytes.
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
ARCH  ?= amd64,arm64
IMAGE ?= $(CURDIR)/bin/image
DIST  ?= $(CURDIR)/dist
PACKAGER = GO=$(GO) $(GO) -C etc/package run . -version '$(VERSION)' -time $(SOURCE_DATE_EPOCH) -arch $(ARCH)

.PHONY: deb
deb: ## make the Debian packages dist/txlb_*.deb (ARCH=amd64 for one of them)
	$(PACKAGER) -out $(DIST) deb

.PHONY: release
release: ## from a tag: packages, archives, SBOM and checksums in dist
	$(PACKAGER) -out $(DIST) release

.PHONY: image
image: ## make what the Dockerfile copies into the container image, in IMAGE (ARCH=amd64)
	$(PACKAGER) -out $(IMAGE) image

.PHONY: clean
clean: ## remove what was built
	rm -rf bin dist
