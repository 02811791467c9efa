#!/usr/bin/env bash
# Licences, bans, registries and advisories by cargo-deny, with the rules of deny.toml.
#
# The advisory database is fetched; where it cannot be reached everything else is still checked, and
# the line below says what was not. Rules that need no network never pass unchecked.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! cargo deny --version >/dev/null 2>&1; then
  echo "cargo-deny is not installed: cargo install cargo-deny --locked" >&2
  exit 1
fi
cargo deny --log-level error check bans licenses sources
if cargo deny fetch db >/dev/null 2>&1; then
  cargo deny --log-level error check --disable-fetch advisories
else
  echo "deny: the advisory database cannot be reached: advisories NOT checked" >&2
fi
