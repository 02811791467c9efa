#!/usr/bin/env bash
# Tests that need a Docker Engine. Skips with one clear line where there is none.
set -euo pipefail

if ! docker info >/dev/null 2>&1; then
  echo "test-cluster: SKIPPED, no Docker Engine answers here"
  exit 0
fi
if [[ ! -e "$(dirname "${BASH_SOURCE[0]}")/../deploy/compose.yaml" ]]; then
  echo "test-cluster: SKIPPED, this version has no deploy/compose.yaml: one node only"
  exit 0
fi
echo "test-cluster: deploy/compose.yaml exists but no test uses it" >&2
exit 1
