#!/usr/bin/env bash
# What an operator looks at, with programs that are not ours: `scripts/test_observability.sh [dashboards] [trace] [pages]`,
# all three without an argument. Each says in one line what it lacks, and skips.
#
#   dashboards   a cluster of processes under load is scraped by Prometheus (Debian: prometheus); each query of each dashboard
#                has data, each panel is drawn in headless Chromium, each alert is evaluated and looks at series that there are
#   trace        a trace from a client over a node to an upstream is one trace in a collector (Rotel, of PyPI)
#   pages        pages that we make, the report of `provost bench suite` and the node's own, in headless Chromium
#
# Environment: PROVOST_BINARY (else the binary of the target folder that was built last), KEEP=1 (leave the data and logs of the
# cluster there), PICTURES=DIR (keep pictures of the dashboards and pages).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tests=tests/observability
cache=${XDG_CACHE_HOME:-$HOME/.cache}/provost/observability
wanted=("$@")
((${#wanted[@]})) || wanted=(dashboards trace pages)

# The collector and OpenTelemetry's SDK go here, once for these pins; a half-done folder is redone.
dir=$cache/python-$(sha256sum "$tests/requirements.txt" | cut -c1-12)
environment() {
  mkdir -p "$cache"
  (
    flock 9
    [[ -e $dir/.done ]] && exit 0
    rm -rf "$dir"
    python3 -m venv "$dir" && "$dir/bin/pip" install --quiet --disable-pip-version-check --retries 2 --only-binary :all: \
      -r "$tests/requirements.txt" && touch "$dir/.done"
  ) 9>"$dir.lock" >"$dir.log" 2>&1
}

trace() {
  if environment; then
    "$dir/bin/python" -B "$tests/trace.py"
  else
    echo "trace: SKIPPED, the collector cannot be installed: $(tail -n 1 "$dir.log")"
  fi
}

command -v python3 >/dev/null || { echo "test-observability: SKIPPED, python3 is missing"; exit 0; }
failed=0
for one in "${wanted[@]}"; do
  case $one in
    dashboards | pages) python3 -B "$tests/$one.py" || failed=1 ;;
    trace) trace || failed=1 ;;
    *) echo "test-observability: there is no $one; there are dashboards, trace and pages" >&2 && exit 2 ;;
  esac
done
exit "$failed"
