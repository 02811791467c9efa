#!/usr/bin/env bash
# Makes stats.wasm of app.py: `build.sh [OUT]`. Needs componentize-py (`pip install componentize-py==0.25.1`).
# PROVOST_WIT is the folder of the contract, if this one lies elsewhere.
#
# The standard library of Python asks for WASI at its start. `--stub-wasi` runs that start now, and leaves traps in
# the place of whatever would ask for it later: the component imports the contract and nothing else.
set -euo pipefail
out=$(realpath "${1:-$(dirname "${BASH_SOURCE[0]}")/stats.wasm}")
cd "$(dirname "${BASH_SOURCE[0]}")"

contract=${PROVOST_WIT:-../../../data-plane/wasm/wit}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/wit/deps"
cp wit/world.wit "$work/wit/"
cp "$contract"/*.wit "$work/wit/deps/"
componentize-py --wit-path "$work/wit" --world plugin componentize --stub-wasi app --output "$out"
echo "$out: $(stat -c %s "$out") bytes"
