#!/usr/bin/env bash
# Builds the plugins of this repository and puts the components where they are kept: `build_guests.sh [--check]`.
#
# With rustup the result is the same, byte for byte, on every machine: the compiler is pinned, the lock files are
# kept, and everything is compiled in one folder, because paths are a part of what a compiler hashes. `--check`
# fails where a component that is kept is not what its source gives. Where rustup has no target for WebAssembly,
# PROVOST_WASM_RUSTC names a compiler that has its library in source (Debian: rustc-web, rust-web-src): the
# components work, and differ.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

check=
[[ ${1:-} == --check ]] && check=1
target=wasm32-unknown-unknown
# The same everywhere, unlike a folder below the home of whoever builds.
build=/tmp/provost-guests

flags=(--release --target "$target")
if [[ -n ${PROVOST_WASM_RUSTC:-} ]]; then
  export RUSTC=$PROVOST_WASM_RUSTC RUSTC_BOOTSTRAP=1
  export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=${PROVOST_WASM_LINKER:-rust-lld}
  flags+=(-Zbuild-std=std,panic_abort)
else
  rustup target list --installed | grep -qx "$target" || rustup target add "$target"
fi
export CARGO_TARGET_DIR=$build/target

rm -rf "$build/src"
mkdir -p "$build/src/data-plane/wasm" "$build/src/examples"
cp -r plugins "$build/src/"
cp -r examples/plugins "$build/src/examples/"
cp -r data-plane/wasm/wit "$build/src/data-plane/wasm/"
cp rust-toolchain.toml "$build/src/"

# Panics name the files of dependencies. Where a registry's sources lie is the builder's own affair.
for folder in plugins examples/plugins/rust-text; do (cd "$build/src/$folder" && cargo fetch --quiet --locked); done
RUSTFLAGS=
for sources in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/; do
  RUSTFLAGS+=" --remap-path-prefix=${sources%/}=/registry"
done
export RUSTFLAGS

# component FOLDER CRATE KEPT: compiles the crate and wraps it as a component.
component() {
  local folder=$1 crate=$2 kept=$3 made
  (cd "$build/src/$folder" && cargo build --locked "${flags[@]}" --package "$crate")
  made=$build/$crate.wasm
  "$wrap" "$build/target/$target/release/$crate.wasm" "$made"
  if [[ -z $check ]]; then
    cp "$made" "$kept"
    echo "$kept: $(stat -c %s "$kept") bytes"
  elif ! cmp "$made" "$kept"; then
    echo "$kept is not what its source gives: run scripts/build_guests.sh" >&2
    exit 1
  fi
}

# For this machine, so without what is set for guests.
(cd plugins && env -u RUSTFLAGS -u RUSTC -u RUSTC_BOOTSTRAP cargo build --locked --package provost-component)
wrap=$build/target/debug/provost-component

# What `provost plugin new` starts is a plugin as well. Its component is kept nowhere.
sed 's/^name = "text"$/name = "plugin-name"/' examples/plugins/rust-text/Cargo.lock >"$build/src/plugins/template/Cargo.lock"
(cd "$build/src/plugins/template" && cargo build "${flags[@]}")
"$wrap" "$build/target/$target/release/plugin_name.wasm" "$build/template.wasm"
echo "plugins/template: $(stat -c %s "$build/template.wasm") bytes"

component examples/plugins/rust-text text examples/plugins/rust-text/text.wasm
component plugins hostile data-plane/wasm/tests/guests/hostile.wasm
component plugins caller data-plane/wasm/tests/guests/caller.wasm
component plugins library data-plane/wasm/tests/guests/library.wasm
