#!/usr/bin/env bash
# Side by side: llama.cpp (llama-cpp-python of PyPI) and Provost on the processor, on the same GGUF file, with as many threads.
#
#   scripts/compare_llama.sh
#
# Makes models of random weights (a qwen3 of 222 million parameters, Q8_0 and a mix of Q4_K and Q6_K as "medium" files have it)
# into CACHE, the same each time, and installs gguf and llama-cpp-python into a virtual environment there (compiled for this
# processor, which takes minutes, once; with compare_llama_amx.h, which keeps GCC 12 from compiling AMX wrongly). Then, each in
# turn, ROUNDS times: tokens a second of a prompt of PROMPT tokens and of an answer of ANSWER tokens after it; medians, of the
# ratios within each round too. Provost is measured twice: its engine alone (the example `speed`), which is what
# compares, and by the API of `provost dev` as clients have it, with policy and audit.
#
# Environment: ROUNDS (3), THREADS ("2 1"), KINDS ("q8_0 q4_k"), PROMPT (512), ANSWER (128), CACHE, SPEED and PROVOST (programs),
# LLAMA_PYTHON (an interpreter that has llama_cpp, gguf and numpy: nothing is installed then, and how it was compiled is yours to
# know), LLAMA_REPACK=0 (llama.cpp without layouts of weights of its own, for one that was compiled without that header and fails
# on AMX: it is slower so, and the figures say less), CMAKE_ARGS, CFLAGS and CXXFLAGS (of llama.cpp). It ends only what it started.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

rounds=${ROUNDS:-3}
read -ra threads <<<"${THREADS:-2 1}"
read -ra kinds <<<"${KINDS:-q8_0 q4_k}"
prompt=${PROMPT:-512}
answer=${ANSWER:-128}
cache=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/provost/compare-llama}
target=${CARGO_TARGET_DIR:-target}/release
speed=${SPEED:-$target/examples/speed}
provost=${PROVOST:-$target/provost}
python=${LLAMA_PYTHON:-$cache/venv/bin/python}
part=scripts/compare_llama.py
amx=$PWD/scripts/compare_llama_amx.h

fail() {
  echo "compare_llama: $*" >&2
  exit 1
}

command -v python3 >/dev/null || fail "python3 is missing"
[[ -x $speed ]] || fail "$speed is missing: cargo build --release -p provost-gpu-infer --example speed"
[[ -x $provost ]] || fail "$provost is missing: cargo build --release -p provost"
mkdir -p "$cache/models"
# What was compiled without the header as it is now is compiled again; so no package of an earlier time may be taken for it.
if [[ -z ${LLAMA_PYTHON:-} && ! $cache/venv/installed -nt $amx ]]; then
  command -v c++ >/dev/null || fail "a C++ compiler is missing. On Debian: apt-get install build-essential python3-venv"
  echo "installing llama-cpp-python, compiled for this processor; this takes minutes" >&2
  rm -rf "$cache/venv"
  python3 -m venv "$cache/venv"
  flags="-DCMAKE_C_FLAGS='${CFLAGS:-} -include $amx' -DCMAKE_CXX_FLAGS='${CXXFLAGS:-} -include $amx'"
  CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF $flags ${CMAKE_ARGS:-}" "$python" -m pip install --no-cache-dir \
    --no-binary llama-cpp-python numpy gguf llama-cpp-python >"$cache/install.log" 2>&1 || fail "it cannot be installed; see $cache/install.log"
  touch "$cache/venv/installed"
fi
for kind in "${kinds[@]}"; do
  [[ -e $cache/models/$kind.gguf ]] || "$python" "$part" make "$kind" "$cache/models/$kind.gguf"
done

dir=$(mktemp -d)
results=$dir/results.jsonl
: >"$results"
server=
stop_server() {
  [[ -z $server ]] || kill -TERM "$server" 2>/dev/null || true
  [[ -z $server ]] || wait "$server" 2>/dev/null || true
  server=
}
cleanup() {
  local status=$?
  trap - EXIT INT TERM
  stop_server
  if ((status == 0)); then rm -rf "$dir"; else echo "compare_llama: results and logs are in $dir" >&2; fi
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

start_server() {
  rm -rf "$dir/data"
  RAYON_NUM_THREADS=$1 PROVOST_GPU_MEMORY_MIB=8192 "$provost" dev --http 127.0.0.1:0 --data-dir "$dir/data" \
    --models "$cache/models" --config "$dir/state.yaml" >"$dir/provost.log" 2>&1 &
  server=$!
  local tries
  for ((tries = 0; tries < 600; tries++)); do
    [[ ! -s $dir/data/dev.json ]] || return 0
    sleep 0.1
  done
  fail "Provost does not start; see $dir/provost.log"
}

{
  echo "{ apiVersion: provost/v1, kind: Tenant, metadata: { name: acme }, spec: {} }"
  echo "---"
  echo "{ apiVersion: provost/v1, kind: Principal, metadata: { name: bot, tenant: acme }, spec: {} }"
  echo "---"
  echo "{ apiVersion: provost/v1, kind: Role, metadata: { name: ai, tenant: acme }, spec: { rules: [ { models: ['*'] } ] } }"
  echo "---"
  echo "{ apiVersion: provost/v1, kind: RoleBinding, metadata: { name: ai, tenant: acme }, spec: { role: ai, principals: [bot] } }"
} >"$dir/state.yaml"

# record WHO KIND THREADS: each line of standard input is what one round gave.
record() {
  local line
  while read -r line; do
    printf '{"who":"%s","kind":"%s","threads":%d,"result":%s}\n' "$1" "$2" "$3" "$line" | tee -a "$results" >&2
  done
}

for count in "${threads[@]}"; do
  for ((round = 1; round <= rounds; round++)); do
    for kind in "${kinds[@]}"; do
      model=$cache/models/$kind.gguf
      "$python" "$part" llama "$model" "$count" "$prompt" "$answer" | record llama.cpp "$kind" "$count"
      RAYON_NUM_THREADS=$count "$speed" "$model" "$prompt" "$answer" 1 | record engine "$kind" "$count"
      start_server "$count"
      "$python" "$part" api "$dir/data/dev.json" "$kind" "$prompt" "$answer" "$round" | record api "$kind" "$count"
      stop_server
    done
  done
done

"$provost" --version
"$python" -c 'import llama_cpp; print("llama-cpp-python", llama_cpp.__version__)'
"$python" -c 'import llama_cpp; print(llama_cpp.llama_print_system_info().decode())'
"$python" "$part" table "$results"
