#!/usr/bin/env bash
# Reads an exported Parquet file with a foreign library: `read.sh FILE`. Prints rows and checks that
# each row's record has the row's leaf hash. The library is pinned and installed once into the user's
# cache, keyed by the pin. Needs python3 with venv; `make test` installs it.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/provost/parquet
dir=$cache/$(sha256sum "$here/requirements.txt" | cut -c1-12)
mkdir -p "$cache"
(
  flock 9
  [[ -e $dir/.done ]] && exit 0
  rm -rf "$dir"
  python3 -m venv "$dir"
  "$dir/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
  touch "$dir/.done"
) 9>"$dir.lock"
exec "$dir/bin/python" "$here/read.py" "$1"
