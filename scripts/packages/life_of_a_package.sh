# Part of test_packages.sh: what an operator does with a package, in the order of its life.

property() { inside systemctl show -P "$1" provost; }
stored() { inside dpkg-query -W -f '${Version}' provost; }
calls() { inside provost call echo.echo --arg "text=$1"; }
# The value of a metric of the node; nothing but bash is there to ask with.
metric() {
  inside bash -c 'exec 3<>/dev/tcp/127.0.0.1/8422; printf "GET /metrics HTTP/1.0\r\n\r\n" >&3; cat <&3' | grep -F "$1" | awk '{ print $NF }'
}

# Nothing that is not signed by the operator's key is believed.
for wrong in altered stranger; do
  inside ln -sfn "/srv/repositories/$wrong" /srv/apt
  refuses "" inside apt-get -qq update
  refuses "Unable to locate package" inside apt-get -qq -y install provost
done
inside ln -sfn /srv/repositories/apt /srv/apt
ok "apt refuses lists of a stranger, and altered ones"

apt update
apt install provost >/dev/null
[[ $(stored) == "$first-1" ]] || fail "$(stored) is installed"
wants "provost $("$binary" --version | awk '{ print $2 }')" inside provost --version
[[ $(inside systemctl is-enabled provost || true) == disabled ]] || fail "a node without a cluster is enabled"
[[ $(property ActiveState) == inactive ]] || fail "a node without a cluster was started"
[[ $(inside stat -c '%U %a' /var/lib/provost) == "provost 700" ]] || fail "others see /var/lib/provost"
for file in man/man1/provost.1.gz man/man1/provost-server.1.gz bash-completion/completions/provost \
  zsh/vendor-completions/_provost fish/vendor_completions.d/provost.fish doc/provost/examples/provost.toml; do
  inside test -s "/usr/share/$file" || fail "/usr/share/$file is missing"
done
# There is no `man` to look pages up with.
faults=$(inside systemd-analyze verify --man=no provost.service 2>&1) || fail "the unit cannot be used: $faults"
[[ $faults != *provost.service* ]] || fail "systemd finds fault with the unit: $faults"
exposure=$(inside systemd-analyze security --no-pager provost | awk '/Overall exposure/ { print $(NF - 2) }')
# 9.6 is a unit without any hardening. The ten points are systemd's own.
awk -v level="$exposure" 'BEGIN { exit !(level > 0 && level < 3.5) }' || fail "the unit's exposure is $exposure"
ok "install: a user, a folder, a unit that is neither enabled nor started (exposure $exposure)"

refuses "" inside systemctl start provost
wants "PV-" inside journalctl --no-pager -u provost
inside systemctl stop provost
made=$(inside runuser -u provost -- provost cluster init --config /etc/provost/provost.toml --cluster prod --json)
admin_token=$(sed -n 's/.*"admin_token":"\([^"]*\)".*/\1/p' <<<"$made")
[[ -n $admin_token ]] || fail "no administrator's token is printed"
inside systemctl enable --now provost 2>/dev/null
# Type=notify: what the unit says is what is served, without waiting.
[[ $(property ActiveState)/$(property Type)/$(property User) == active/notify/provost ]] || fail "the node does not run"
inside provost apply -f /srv/first.yaml >/dev/null
token=$(inside provost token create --principal ana 2>/dev/null)
eventually calls first
wants '"text": "first"' inside provost call echo.echo --arg text=first --show-meta
[[ -z $(inside find /var/lib/provost -not -user provost) ]] || fail "files of the node are not its own"
ok "first start, first call"

wants apart inside provost call apart.say --arg text=apart
for wall in network processes files user limits calls; do
  [[ $(metric "provost_plugin_wall{tenant=\"acme\",plugin=\"apart\",wall=\"$wall\"}") == 1 ]] || fail "under the unit the wall $wall is missing"
done
ok "walls of a stdio plugin stand under the unit"

before=$(property MainPID)
inside systemctl kill --signal=KILL --kill-who=main provost
comes_back() { local now; now=$(property MainPID) && ((now > 0 && now != before)) && calls again; }
eventually comes_back
ok "a node that dies comes back by itself"

# Edited, as operators do.
inside sed -i 's/^# A cluster of one node.*/# Ours./' /etc/provost/provost.toml
before=$(property MainPID)
scripts/apt_repo.sh --key "$key" --out "$work/srv/apt" "${debs[1]}" >/dev/null
apt update
apt install provost >/dev/null
[[ $(stored) == "$later-1" ]] || fail "$(stored) is installed, not the later one"
[[ $(property MainPID) != "$before" && $(property ActiveState) == active ]] || fail "the upgrade did not restart the node"
wants later calls later
inside grep -q '^# Ours\.' /etc/provost/provost.toml || fail "the upgrade wrote over the configuration"
ok "upgrade: restarted, same state, same configuration"

before=$(property MainPID)
apt install --allow-downgrades "provost=$first-1" >/dev/null
[[ $(stored) == "$first-1" ]] || fail "$(stored) is installed, not the earlier one"
[[ $(property MainPID) != "$before" && $(property ActiveState) == active ]] || fail "the downgrade did not restart the node"
wants earlier calls earlier
inside grep -q '^# Ours\.' /etc/provost/provost.toml || fail "the downgrade wrote over the configuration"
ok "downgrade: restarted, same state, same configuration"

apt remove provost >/dev/null
[[ $(inside systemctl is-active provost || true) == inactive ]] || fail "a removed node runs"
inside test -e /var/lib/provost/secrets.key || fail "remove took data away"
inside grep -q '^# Ours\.' /etc/provost/provost.toml || fail "remove took the configuration away"
apt install provost >/dev/null
[[ $(inside systemctl is-enabled provost) == enabled ]] || fail "a node that was enabled is no longer"
inside systemctl start provost
wants back calls back
ok "remove leaves configuration and data; installed again, the node goes on"

inside systemctl stop provost
inside mkdir -p /var/lib/provost/volume
inside mount -t tmpfs none /var/lib/provost/volume
inside touch /var/lib/provost/volume/kept
apt purge provost >/dev/null 2>&1
inside test -e /var/lib/provost/volume/kept || fail "purge reached into another file system"
[[ $(inside find /var/lib/provost -xdev -mindepth 1) == /var/lib/provost/volume ]] || fail "purge left data"
inside umount /var/lib/provost/volume
inside test ! -e /etc/provost || fail "purge left /etc/provost"
[[ -z $(inside find /etc/systemd /usr/lib/systemd /var/lib/systemd -name 'provost.service*') ]] || fail "purge left parts of the unit"
inside getent passwd provost >/dev/null || fail "purge took the user away while files of it were left"
apt install provost >/dev/null
[[ $(inside systemctl is-enabled provost || true) == disabled ]] || fail "after a purge a node is enabled"
apt purge provost >/dev/null
inside test ! -e /var/lib/provost || fail "purge left /var/lib/provost"
ok "purge leaves nothing but the user, and what lies on other file systems"
