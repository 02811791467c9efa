#!/usr/bin/env bash
# Builds the example plugin in Python and prints where its component is: `python_guest.sh`.
#
# Once for each state of its sources and of the contract: what is built twice differs by some bytes, and compiling it for
# a machine takes long. componentize-py, in the version that the example's README names, goes into the user's cache.
# Needs python3 with venv. PROVOST_GUEST_CACHE says where both are kept.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

example=examples/plugins/python-stats
contract=$PWD/data-plane/wasm/wit
cache=${PROVOST_GUEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/provost/guests}
pin=$(grep -om1 'componentize-py==[0-9.]*' "$example/README.md")
sources=$(cat "$example/app.py" "$example/build.sh" "$example"/wit/*.wit "$contract"/*.wit | sha256sum | cut -c1-16)
tools=$cache/$pin
component=$cache/stats-${pin#*==}-$sources.wasm
mkdir -p "$cache"

# One process at a time; what was left half done is done again.
exec 9>"$cache/lock"
flock 9
if [[ ! -e $tools/.done ]]; then
  rm -rf "$tools"
  python3 -m venv "$tools" >&2
  "$tools/bin/pip" install --quiet --disable-pip-version-check "$pin" >&2
  touch "$tools/.done"
fi
if [[ ! -e $component ]]; then
  PATH=$tools/bin:$PATH PROVOST_WIT=$contract "$example/build.sh" "$component.new" >&2
  mv "$component.new" "$component"
fi
echo "$component"
