# One command runs it, one verifies it, one fixes it. Each works on a bare Debian 12 with rustup's Rust.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help dev test test-long test-cluster test-observability test-packages test-helm deb fix bench instructions deny cuda

ARGS ?=
# One RocksDB for all profiles, built once into the user's cache.
ROCKSDB := export ROCKSDB_STATIC=1; ROCKSDB_LIB_DIR=$$(scripts/rocksdb.sh); export ROCKSDB_LIB_DIR;

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

dev: ## install what is missing, build the release binary, run a node here (ARGS="--http 127.0.0.1:0 …")
	@scripts/setup.sh build
	@$(ROCKSDB) cargo run --locked --release --package provost -- dev $(ARGS)

test: ## every check and test that needs no GPU and no Docker
	@scripts/test.sh

test-long: ## what takes a release build, valgrind, root or a Docker Engine; each part skips, with a line, what it lacks
	@scripts/setup.sh build
	@$(ROCKSDB) cargo build --locked --release --package provost
	@scripts/test_helm.sh --binary $${CARGO_TARGET_DIR:-target}/release/provost
	@for part in instructions test-observability test-packages test-cluster; do $(MAKE) --no-print-directory $$part; done

test-cluster: ## the tests that need a Docker Engine (skips without one)
	@scripts/test-cluster.sh

test-observability: ## dashboards, a trace and pages in programs of others (skips what is not installed)
	@scripts/test_observability.sh

test-packages: ## a package's life in a booted Debian (root, a release binary; skips where a tool is missing)
	@scripts/test_packages.sh

test-helm: ## lint, render and check the Helm chart (without helm: with its library, from PyPI)
	@scripts/test_helm.sh

deb: ## a Debian package of the release binary, into out/
	@scripts/setup.sh build
	@$(ROCKSDB) cargo build --locked --release --package provost
	@scripts/package_deb.sh

fix: ## format, and apply the lints that can be applied
	@scripts/setup.sh build
	@$(ROCKSDB) cargo clippy --locked --workspace --all-targets --fix --allow-dirty --allow-staged
	@cargo fmt --all

bench: ## criterion benches of the hot paths; `provost bench` loads a running node
	@scripts/setup.sh build
	@$(ROCKSDB) cargo bench --locked --package provost-bench $(ARGS)

instructions: ## instruction counts of hot paths against bench/instructions.json (needs valgrind; ARGS=--write)
	@scripts/setup.sh build
	@$(ROCKSDB) cargo build --locked --release --package provost-bench --bin instructions
	@scripts/check_instructions.py $${CARGO_TARGET_DIR:-target}/release/instructions $(ARGS)

cuda: ## the release binary with code for CUDA devices, into target/cuda (downloads a toolchain; needs no device)
	@scripts/setup.sh cuda
	@$(ROCKSDB) cargo xtask cuda-build

deny: ## licences, bans, registries, advisories (needs cargo-deny)
	@scripts/deny.sh
