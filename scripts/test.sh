#!/usr/bin/env bash
# Every check that needs no GPU and no Docker, in the order in which a mistake shows cheapest.
#
# One target directory, one profile and one feature set throughout, so that a dependency is compiled
# once for the tests and its metadata once for clippy. Each step prints how long it took. The runner's
# summary and the attack matrix come last.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cache=${XDG_CACHE_HOME:-$HOME/.cache}/provost
export PROVOST_TEST_MODELS=${PROVOST_TEST_MODELS:-$cache/models}
# A colour code in a log file helps nobody.
[[ -t 1 ]] || export CARGO_TERM_COLOR=never CARGO_TERM_PROGRESS_WHEN=never

timings=()

# step NAME COMMAND...: runs it, stops at the first failure, remembers the time.
step() {
  local name=$1 began=$SECONDS
  shift
  echo "== $name"
  "$@" || {
    local status=$?
    echo "== $name FAILED after $((SECONDS - began)) s" >&2
    exit "$status"
  }
  timings+=("$(printf '%5d s  %s' $((SECONDS - began)) "$name")")
}

print_timings() {
  echo "== time per step"
  printf '%s\n' "${timings[@]}"
}

run_tests() {
  if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked --workspace --profile "${NEXTEST_PROFILE:-ci}"
  else
    cargo test --locked --workspace --bins --lib --tests -- --test-threads=1
  fi
}

# The same library for every cargo command of a person or of CI: another value would build it again.
rocksdb() {
  ROCKSDB_LIB_DIR=$(scripts/rocksdb.sh) && export ROCKSDB_LIB_DIR ROCKSDB_STATIC=1
}

# Rows of an earlier run must not stand for this one's.
forget_attack_rows() { rm -rf "${CARGO_TARGET_DIR:-target}/tmp/attack-matrix"; }

models() { python3 scripts/fetch_minilm.py "$PROVOST_TEST_MODELS"; }

deny() {
  if cargo deny --version >/dev/null 2>&1; then
    scripts/deny.sh
  else
    echo "cargo-deny is not installed: licences and advisories not checked (cargo install cargo-deny --locked)"
  fi
}

step "set-up" scripts/setup.sh test
step "format" cargo fmt --all --check
step "RocksDB" rocksdb
step "arrows" cargo xtask arrows
step "licences and advisories" deny
step "alerts and dashboards" python3 scripts/check_observability.py
step "walls of containers" python3 scripts/check_compose.py
step "model for real embeddings" models
step "build" cargo build --locked --workspace --bins
step "clippy" cargo clippy --locked --workspace --all-targets -- -D warnings
step "compile tests" cargo test --locked --workspace --no-run --quiet
step "forget old attack rows" forget_attack_rows
print_timings
# The table is shown even when a test failed: it says which attack was not stopped.
tests_status=0
run_tests || tests_status=$?
echo "== attack matrix"
cargo xtask attack-matrix || tests_status=$((tests_status == 0 ? 1 : tests_status))
exit "$tests_status"
