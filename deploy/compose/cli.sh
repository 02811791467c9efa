#!/usr/bin/env bash
# The command line within docker-compose.yml, as the administrator and as the first agent.
#
#   cli.sh COMMAND…       any command of `provost`
#   cli.sh backup         writes a backup to stdout
#   cli.sh secrets-key    writes the key that wraps secrets to stdout: needed to restore, to be kept elsewhere
#   cli.sh agent-token, cli.sh admin-token
set -euo pipefail
. /etc/provost/common.sh

# A backup, a key or a token on a terminal is a mistake, or is meant.
not_a_terminal() {
  if [[ -t 1 ]]; then
    echo "cli: give -T and redirect it: docker compose run --rm -T cli $1 > FILE" >&2
    exit 2
  fi
}

wait_for "$KEYS/ca.pem" "the container setup" >&2
PROVOST_ADMIN_TOKEN=$(<"$ADMIN/admin-token")
export PROVOST_ADMIN_TOKEN
[[ ! -s $ADMIN/agent-token || -n ${PROVOST_TOKEN:-} ]] || export PROVOST_TOKEN_FILE=$ADMIN/agent-token
case ${1:-} in
  backup)
    not_a_terminal backup
    provost cluster backup /tmp/backup.pvb "${@:2}" >&2
    cat /tmp/backup.pvb
    ;;
  secrets-key)
    not_a_terminal secrets-key
    cat "$KEYS/secrets.key"
    ;;
  agent-token) cat "$ADMIN/agent-token" ;;
  admin-token) cat "$ADMIN/admin-token" ;;
  *) exec provost "$@" ;;
esac
