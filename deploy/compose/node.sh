#!/usr/bin/env bash
# Starts a node of docker-compose.yml: `node.sh control-plane | data-plane | gpu-node`. A node without an identity asks the
# registrar for a join token first: it puts NAME.request into the folder that both have, and gets NAME.token.
set -euo pipefail
umask 077
. /etc/provost/common.sh
kind=$1

# A data-plane node's container has a number that it keeps (PROJECT-data-plane-2). By it the node finds its folder in the
# volume, and others find the node: an address that a cluster was told once has to stay. The engine's name server knows it.
container_name() {
  local address name
  for address in $(hostname --all-ip-addresses); do
    name=$(getent -s hosts:dns hosts "$address" | sed -n '1s/^[^ ]* *\([^. ]*\).*/\1/p') || true
    if [[ $name =~ [-_]([0-9]+)$ ]]; then
      echo "$name"
      return
    fi
  done
  echo "node: this container has no name that ends in a number; start it with \`docker compose up\`" >&2
  return 1
}

case $kind in
  control-plane)
    host=$PROVOST_NODE
    mailbox=/srv/provost/join-control
    ;;
  data-plane)
    host=$(container_name)
    export PROVOST_NODE=dp-${host##*[-_]}
    mailbox=/srv/provost/join-data
    ;;
  gpu-node)
    host=$PROVOST_NODE
    mailbox=/srv/provost/join-gpu
    ;;
  *)
    echo "node: $kind is not a kind of node" >&2
    exit 2
    ;;
esac
export PROVOST_ADVERTISE=$host:8423 PROVOST_DATA_DIR=/var/lib/provost/$PROVOST_NODE PROVOST_CONFIG=/tmp/provost.toml
sed "s|@UPSTREAMS_SUBNET@|${PROVOST_UPSTREAMS_SUBNET:-}|" "/etc/provost/$kind.toml" > "$PROVOST_CONFIG"
# A GPU node has neither keys nor upstreams.
if [[ $kind != gpu-node ]]; then
  wait_for "$KEYS/ca.pem" "the container setup"
  # Upstreams may have certificates of the example's authority too; it certifies the one name `upstream`.
  cat /etc/ssl/certs/ca-certificates.crt "$KEYS/upstream-ca.pem" > /tmp/authorities.pem
  export SSL_CERT_FILE=/tmp/authorities.pem
fi

if [[ ! -e $PROVOST_DATA_DIR/identity/cert.pem ]]; then
  # One of an earlier start may be used or too old.
  rm -f "$mailbox/$PROVOST_NODE.token"
  echo "$kind" | replace "$mailbox/$PROVOST_NODE.request"
  wait_for "$mailbox/$PROVOST_NODE.token" "the container registrar to let $PROVOST_NODE in"
  export PROVOST_JOIN_TOKEN_FILE=$mailbox/$PROVOST_NODE.token
fi
# Nodes of one machine share the program's text; on huge pages each would have a copy of its own.
export PROVOST_HUGE_PAGES=${PROVOST_HUGE_PAGES:-0}
exec provost server
