#!/usr/bin/env bash
# Other MCP gateways, installed and started in front of one upstream, for `provost bench suite` to measure beside Provost.
#
#   scripts/bench_peers.sh install    each in an environment of its own below DIR, at the version that is pinned here
#   scripts/bench_peers.sh start      what is missing is installed; then the upstream and each peer, which is asked one call
#   scripts/bench_peers.sh env        for the shell: the flags of the suite for those that answered, and their versions
#   scripts/bench_peers.sh stop       ends what was started
#
#   scripts/bench_peers.sh start && eval "$(scripts/bench_peers.sh env)"
#   provost bench suite $BENCH_PEERS_FLAGS; scripts/bench_peers.sh stop
#
# Each runs one worker, asks nobody for a token, logs nothing of a call and limits no rate: the least that it does for a
# call. What else it does is its default.
#
#   contextforge   mcp-contextforge-gateway: registers the upstream, SQLite, cache in memory
#   litellm        the MCP gateway of litellm[proxy], without a database and without a master key
#   fastmcp        `fastmcp run URL`: a proxy with a session of its own with the upstream for each call
#   mcp-proxy      Streamable HTTP in front of a stdio server, which is `provost bridge` before the same upstream
#
# A peer that cannot be installed, or does not answer in time, is named on stderr and left out: exit code 0 if one is there.
#
# Environment: DIR ($XDG_CACHE_HOME/provost-bench-peers), PEERS ("contextforge litellm fastmcp mcp-proxy"), PORT (19000 for the
# upstream, and the one after it for each peer), PROVOST (the program), PYTHON (3.12 or 3.13; default: the first found),
# START_SECONDS (180, each). It needs bash, curl, setsid and Python; uv is used where it is on PATH.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

dir=${DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/provost-bench-peers}
read -ra peers <<<"${PEERS:-contextforge litellm fastmcp mcp-proxy}"
port=${PORT:-19000}
provost=${PROVOST:-${CARGO_TARGET_DIR:-target}/release/provost}
start_seconds=${START_SECONDS:-180}
runs=$dir/run
upstream=http://127.0.0.1:$port/mcp
# What a peer calls the upstream.
name=up

declare -A package=(
  [contextforge]=mcp-contextforge-gateway [litellm]=litellm [fastmcp]=fastmcp [mcp-proxy]=mcp-proxy
)
declare -A extra=([litellm]='[proxy]')
declare -A version=([contextforge]=1.1.0 [litellm]=1.106.2 [fastmcp]=4.1.2 [mcp-proxy]=0.13.0)
declare -A at=([contextforge]=1 [litellm]=2 [fastmcp]=3 [mcp-proxy]=4)
# Under which name a peer has the upstream's tool.
declare -A tool=([contextforge]=$name-echo [litellm]=$name-echo [fastmcp]=echo [mcp-proxy]=echo)

say() { echo "bench_peers: $*" >&2; }
fail() {
  say "$*"
  exit 1
}

for peer in "${peers[@]}"; do
  [[ -n ${package[$peer]:-} ]] || fail "there is no peer $peer: PEERS is some of ${!package[*]}"
done

peer_port() { echo $((port + at[$1])); }
peer_url() { echo "http://127.0.0.1:$(peer_port "$1")/mcp"; }
# A peer's environment, and a program in it.
place() { echo "$dir/${package[$1]}"; }

python() {
  local found
  for found in ${PYTHON:+"$PYTHON"} python3.13 python3.12 python3; do
    # A launcher of another interpreter may be there and not run.
    if "$found" -c 'import sys; sys.exit(not (3, 12) <= sys.version_info < (3, 14))' 2>/dev/null; then
      echo "$found"
      return
    fi
  done
  fail "no Python 3.12 or 3.13 is found: name it with PYTHON"
}

is_installed() {
  compgen -G "$(place "$1")/lib/python3*/site-packages/${package[$1]//-/_}-${version[$1]}.dist-info" >/dev/null
}

install() {
  local peer=$1 what=${package[$1]}${extra[$1]:-}==${version[$1]} log=$dir/${package[$1]}.log interpreter
  is_installed "$peer" && return
  say "installing $what"
  mkdir -p "$dir"
  interpreter=$(python) || return 1
  rm -rf "$(place "$peer")"
  if command -v uv >/dev/null; then
    uv venv --quiet --python "$interpreter" "$(place "$peer")" >"$log" 2>&1 &&
      uv pip install --python "$(place "$peer")/bin/python" "$what" >>"$log" 2>&1
  else
    "$interpreter" -m venv "$(place "$peer")" >"$log" 2>&1 &&
      "$(place "$peer")/bin/python" -m pip install --quiet "$what" >>"$log" 2>&1
  fi || {
    say "$peer is left out: it cannot be installed; see $log"
    return 1
  }
}

# launch NAME COMMAND...: in a process group of its own, so that all of it can be ended; its log beside its number.
launch() {
  local run=$runs/$1
  shift
  mkdir -p "$run"
  # With the time of its start, which tells it from another that gets the same number later.
  (cd "$run" && exec setsid "$@" </dev/null >log 2>&1) &
  echo "$! $(started "$!")" >"$run/pid"
}
started() { awk '{ sub(/.*\) /, ""); print $20 }' "/proc/$1/stat" 2>/dev/null || true; }
is_running() {
  local pid begun
  read -r pid begun <"$runs/$1/pid" 2>/dev/null && [[ -n $begun && $(started "$pid") == "$begun" ]]
}

end() {
  local pid begun tries
  is_running "$1" || return 0
  read -r pid begun <"$runs/$1/pid"
  kill -TERM -- "-$pid" 2>/dev/null || true
  for ((tries = 0; tries < 50; tries++)); do
    kill -0 -- "-$pid" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -KILL -- "-$pid" 2>/dev/null || true
}

stop() {
  local run
  for run in "$runs"/*/; do
    [[ ! -d $run ]] || end "$(basename "$run")"
  done
  rm -rf "$runs"
}

# What is written is read by a peer: made for this run.
start_contextforge() {
  local run=$runs/contextforge
  mkdir -p "$run"
  (umask 077 && "$(place contextforge)/bin/init-secrets" --stdout >"$run/.env")
  cat >>"$run/.env" <<END
AUTH_REQUIRED=false
MCP_REQUIRE_AUTH=false
ALLOW_UNAUTHENTICATED_ADMIN=true
SSRF_ALLOW_LOCALHOST=true
RATE_LIMITING_ENABLED=false
DATABASE_URL=sqlite:///$run/mcp.db
CACHE_TYPE=memory
LOG_LEVEL=ERROR
END
  launch contextforge "$(place contextforge)/bin/mcpgateway" --host 127.0.0.1 --port "$(peer_port contextforge)" \
    --no-access-log --log-level error
}
# It takes the upstream by its interface, once that serves.
register_contextforge() {
  local base body
  base=http://127.0.0.1:$(peer_port contextforge)
  body="{\"name\":\"$name\",\"url\":\"$upstream\",\"transport\":\"STREAMABLEHTTP\"}"
  [[ ! -e $runs/contextforge/registered ]] || return 0
  curl -fsS --max-time 5 "$base/health" >/dev/null || return 1
  curl -fsS --max-time 30 -H 'content-type: application/json' -d "$body" "$base/gateways" \
    >"$runs/contextforge/registered.new" || return 1
  mv "$runs/contextforge/registered.new" "$runs/contextforge/registered"
}

start_litellm() {
  mkdir -p "$runs/litellm"
  cat >"$runs/litellm/config.yaml" <<END
model_list: []
general_settings:
  dangerously_permit_weak_or_unset_master_key: true
litellm_settings:
  telemetry: false
mcp_servers:
  $name:
    url: $upstream
    transport: http
    allow_all_keys: true
END
  # Prices of models are not fetched for calls of tools.
  launch litellm env -u DATABASE_URL -u LITELLM_MASTER_KEY LITELLM_LOG=ERROR LITELLM_LOCAL_MODEL_COST_MAP=True \
    "$(place litellm)/bin/litellm" --config config.yaml --host 127.0.0.1 --port "$(peer_port litellm)" --num_workers 1
}

start_fastmcp() {
  launch fastmcp env FASTMCP_CHECK_FOR_UPDATES=off "$(place fastmcp)/bin/fastmcp" run "$upstream" --transport http \
    --host 127.0.0.1 --port "$(peer_port fastmcp)" --no-banner --log-level ERROR
}

start_mcp-proxy() {
  launch mcp-proxy "$(place mcp-proxy)/bin/mcp-proxy" --host 127.0.0.1 --port "$(peer_port mcp-proxy)" \
    --log-level ERROR -- "$(readlink -f "$provost")" bridge --url "$upstream"
}

# asks URL TOOL: one call of either era, and a tenth of a second of them, through the program that will measure.
asks() {
  local era
  for era in modern legacy; do
    env -u PROVOST_TOKEN -u PROVOST_TOKEN_FILE -u PROVOST_CA "$provost" bench --url "$1" --era "$era" --tool "$2" \
      --arg text=hi --expect hi --connections 1 --saturate --warmup 0s --duration 100ms >/dev/null 2>&1 && return
  done
  return 1
}

# until_asked NAME URL TOOL: waits until it answers, as long as it lives.
until_asked() {
  local began=$SECONDS
  while ((SECONDS - began < start_seconds)); do
    if [[ $1 != contextforge ]] || register_contextforge 2>>"$runs/contextforge/log"; then
      ! asks "$2" "$3" || return 0
    fi
    is_running "$1" || return 1
    sleep 1
  done
  return 1
}

start() {
  local peer there=()
  [[ -x $provost ]] || fail "$provost is missing: cargo build --release -p provost, or name it with PROVOST"
  provost=$(readlink -f "$provost")
  stop
  for peer in "${peers[@]}"; do
    ! install "$peer" || there+=("$peer")
  done
  # The upstream serves until its stdin ends.
  # shellcheck disable=SC2016 # these are the parameters of the inner shell
  launch upstream bash -c 'sleep infinity | "$1" bench upstream --http "$2"' upstream "$provost" "127.0.0.1:$port"
  until_asked upstream "$upstream" echo || fail "the upstream does not serve at $upstream; see $runs/upstream/log"
  local flags="--upstream $upstream --expect hi" answered=0
  local -a versions=()
  for peer in "${there[@]}"; do
    "start_$peer" || say "$peer: what it needs could not be written"
  done
  for peer in "${there[@]}"; do
    if until_asked "$peer" "$(peer_url "$peer")" "${tool[$peer]}"; then
      say "$peer ${version[$peer]} answers at $(peer_url "$peer")"
      flags+=" --peer $peer=$(peer_url "$peer")"
      [[ ${tool[$peer]} == echo ]] || flags+="#${tool[$peer]}"
      versions+=("PROVOST_BENCH_VERSION_$(tr a-z- A-Z_ <<<"$peer")=${version[$peer]}")
      answered=$((answered + 1))
    else
      say "$peer is left out: it answers no call of ${tool[$peer]} at $(peer_url "$peer"); see $dir/$peer.log"
      # What was started is removed, and its log is what says why.
      cp "$runs/$peer/log" "$dir/$peer.log" 2>/dev/null || true
      end "$peer"
    fi
  done
  {
    echo "export BENCH_PEERS_FLAGS='$flags'"
    printf 'export %s\n' "${versions[@]}"
  } >"$runs/env"
  ((answered > 0)) || fail "no peer answers"
}

case ${1:-} in
  install)
    failed=0
    for peer in "${peers[@]}"; do install "$peer" || failed=1; done
    exit "$failed"
    ;;
  start) start ;;
  env) cat "$runs/env" 2>/dev/null || fail "nothing was started: scripts/bench_peers.sh start" ;;
  stop) stop ;;
  *) fail "write install, start, env or stop; the head of this file says more" ;;
esac
