#!/usr/bin/env bash
# Serves everything.mjs: `run.sh --era modern|legacy --http 127.0.0.1:PORT` (0 takes a free port).
# The first line on stdout is `listening URL`.
#
# The SDK is pinned here and installed once into the user's cache, keyed by the pins, so that a
# second run needs no network. Needs npm; a node older than 22 is replaced through npx.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/provost/clients
dir=$cache/upstream-npm-$(sha256sum "$here/package.json" | cut -c1-12)
mkdir -p "$cache"

install() {
  rm -rf "$dir"
  mkdir -p "$dir"
  cp "$here/package.json" "$dir/"
  (cd "$dir" && npm install --no-package-lock --no-audit --no-fund) >"$dir.log" 2>&1 ||
    { cat "$dir.log" >&2; exit 1; }
  touch "$dir/.done"
}

# One process at a time; a half-done folder is redone.
(
  flock 9
  [[ -e $dir/.done ]] || install
) 9>"$dir.lock"

# Modules resolve from the script's own folder: it runs beside its node_modules, under a name that
# its content decides, so that nothing must be removed afterwards.
script=$dir/everything-$(sha256sum "$here/everything.mjs" | cut -c1-12).mjs
if [[ ! -e $script ]]; then
  cp "$here/everything.mjs" "$script.$$"
  mv "$script.$$" "$script"
fi

# `exec` to the end: whoever ends this process ends the server, not only a shell around it.
node=node
if [[ $(node --version 2>/dev/null | sed 's/^v\([0-9]*\).*/\1/') -lt 22 ]]; then
  node=$(npx -y -p node@22 -c 'command -v node')
fi
exec "$node" "$script" "$@"
