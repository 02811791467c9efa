#!/usr/bin/env bash
# Runs a foreign client against URL (and TOKEN): `run.sh python | hear | h3 | openai | typescript | all`.
#
# The SDKs are pinned here and installed once into the user's cache, keyed by the pins, so that a
# second run needs no network. Needs python3 with venv, and npm; `make test` installs both.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/provost/clients
: "${URL:?set URL to an MCP endpoint, such as http://127.0.0.1:8420/mcp/up, or to /v1 of a node}"
export URL TOKEN=${TOKEN:-}
mkdir -p "$cache"

pin() { sha256sum "$here/$1" | cut -c1-12; }

# installed DIR COMMAND...: runs `COMMAND... DIR` once, one process at a time; a half-done folder is redone.
installed() {
  local dir=$1
  shift
  (
    flock 9
    [[ -e $dir/.done ]] && exit 0
    rm -rf "$dir"
    mkdir -p "$dir"
    "$@" "$dir" >"$dir.log" 2>&1 || { cat "$dir.log" >&2; exit 1; }
    touch "$dir/.done"
  ) 9>"$dir.lock"
}

# install_python REQUIREMENTS DIR
install_python() {
  python3 -m venv "$2" && "$2/bin/pip" install --quiet --disable-pip-version-check -r "$here/$1"
}

install_typescript() {
  cp "$here/package.json" "$1/" && cd "$1" && npm install --no-package-lock --no-audit --no-fund
}

node22() {
  if [[ $(node --version 2>/dev/null | sed 's/^v\([0-9]*\).*/\1/') -ge 22 ]]; then
    node "$@"
  else
    npx -y -p node@22 node "$@"
  fi
}

run_python() {
  local dir
  dir=$cache/python-$(pin requirements.txt)
  installed "$dir" install_python requirements.txt
  "$dir/bin/python" "$here/${1:-client.py}"
}

# Its own environment: the OpenAI client shares nothing with those of MCP.
run_openai() {
  local dir
  dir=$cache/openai-$(pin openai.txt)
  installed "$dir" install_python openai.txt
  "$dir/bin/python" "$here/openai_client.py"
}

run_typescript() {
  local dir
  dir=$cache/typescript-$(pin package.json)
  installed "$dir" install_typescript
  # Modules resolve from the script's own folder: it runs beside its node_modules.
  script=$dir/client-$$.mjs
  trap 'rm -f "$script"' EXIT
  cp "$here/client.mjs" "$script"
  node22 "$script"
}

case ${1:-all} in
python) run_python ;;
hear) run_python hear_client.py ;;
h3) run_python h3_client.py ;;
openai) run_openai ;;
typescript) run_typescript ;;
all) (run_python) && (run_typescript) ;;
*)
  echo "usage: URL=… [TOKEN=…] $0 [python|hear|h3|openai|typescript|all]" >&2
  exit 2
  ;;
esac
