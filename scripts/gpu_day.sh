#!/usr/bin/env bash
# Shows on a machine with a CUDA device what only a device can show, and writes it down as rows for docs/performance.md.
# Usage: scripts/gpu_day.sh [DEVICE [MIB [SECONDS]]], by default cuda:0, models of 4096 MiB, 600 seconds of evictions.
# Needs a driver for CUDA 13 (580 or later), room for three such models in the host's memory and on its disk, and what
# `make dev` needs. Exit code 2: there is no driver here.
set -euo pipefail
cd "$(dirname "$0")/.."

device=${1:-cuda:0} mib=${2:-4096} seconds=${3:-600}
rows=out/gpu-day.md

# Whether the loader finds a driver. In a container it may lie where only LD_LIBRARY_PATH says; ldconfig may be off a user's PATH.
has_driver() {
  PATH=$PATH:/usr/sbin:/sbin ldconfig -p 2>/dev/null | grep 'libcuda\.so' >/dev/null && return 0
  local folder folders
  IFS=: read -ra folders <<<"${LD_LIBRARY_PATH:-}"
  for folder in "${folders[@]}"; do
    [[ ! -e $folder/libcuda.so.1 ]] || return 0
  done
  return 1
}

if ! has_driver; then
  echo "gpu_day: no CUDA driver is installed here: there is no libcuda.so" >&2
  exit 2
fi

scripts/setup.sh cuda
ROCKSDB_STATIC=1 ROCKSDB_LIB_DIR=$(scripts/rocksdb.sh)
export ROCKSDB_STATIC ROCKSDB_LIB_DIR
environment=$(cargo xtask cuda-toolchain)
eval "$environment"
export LD_LIBRARY_PATH="$PROVOST_CUDA_LIBRARIES${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
mkdir -p out

echo "== pools, pieces and copies (tests of the driver; cuda:0)"
tests=$(cargo xtask cuda-build test --release --package provost-gpu-infer --lib device::cuda -- --nocapture 2>&1 | tee >(cat >&2))
if grep -q 'skipped: no CUDA device' <<<"$tests"; then
  echo "gpu_day: the driver is there, and the device cannot be used: see above" >&2
  exit 1
fi

echo "== numbers against transformers, batch against single, paged against contiguous, GGUF against safetensors"
PROVOST_TEST_DEVICE=$device cargo xtask cuda-build test --release --package provost-gpu-infer \
  --test decoder_numerics --test paged --test gguf --test adapters --test chat

echo "== rates, switches, evictions"
cargo xtask cuda-build run --release --package provost-gpu-serve --example gpu_day -- "$device" "$mib" "$seconds" | tee "$rows"

echo "== a driver that has no device: the processor computes"
LD_LIBRARY_PATH=$PROVOST_CUDA_STUBS cargo xtask cuda-build test --release --package provost-gpu-infer --lib device::tests

echo "== the binary: it starts, and is linked with nothing of CUDA"
cargo xtask cuda-build
binary=${CARGO_TARGET_DIR:-target}/cuda/release/provost
"$binary" --version
if ldd "$binary" | grep -E 'libcu(da|dart|blas|rand)|libnvrtc'; then
  echo "gpu_day: the binary does not start where these are not" >&2
  exit 1
fi

echo "gpu_day: all of it holds; the rows are in $rows"
