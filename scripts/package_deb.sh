#!/usr/bin/env bash
# Makes a Debian package of a binary that is built: `scripts/package_deb.sh [--binary FILE] [--version V] [--out DIR]`.
#
# The version is the binary's own unless given (1.2.0-rc.1 becomes 1.2.0~rc.1). The same binary, version and
# SOURCE_DATE_EPOCH (default: the last commit's time) give the same package, byte by byte.
# PROVOST_DEB_COMPRESS: xz (default), zstd or gzip (quick, for tests).
set -euo pipefail
# Folders of the package are as they are made here: everybody may look into them, whoever builds it.
umask 022
cd "$(dirname "${BASH_SOURCE[0]}")/.."

binary=${CARGO_TARGET_DIR:-target}/release/provost
version=
out=out
# Of the package, not of the program: raised when only the packaging changes.
revision=1
while (($#)); do
  case $1 in
    --binary) binary=$2 ;;
    --version) version=$2 ;;
    --out) out=$2 ;;
    *) echo "usage: $0 [--binary FILE] [--version V] [--out DIR]" >&2 && exit 2 ;;
  esac
  shift 2
done

fail() { echo "package_deb: $*" >&2; exit 1; }
for command in dpkg-deb dpkg-shlibdeps strip gzip; do
  command -v "$command" >/dev/null || fail "$command is missing: apt-get install dpkg-dev binutils"
done
[[ -x $binary ]] || fail "$binary is not there: cargo build --locked --release, or name one with --binary"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
deb=deploy/deb

[[ -n $version ]] || version=$("$binary" --version | awk '{ print $2 }')
[[ $version =~ ^[0-9][0-9A-Za-z.+~-]*$ ]] || fail "\`$version\` is no version"
# Debian sorts `~` before everything: a release candidate comes before its release.
version=${version/-/'~'}-$revision
architecture=$(dpkg --print-architecture)

put() { install -D -m "${3:-0644}" "$1" "$root/$2"; }
zipped() { gzip -9n <"$1" >"$work/zipped" && put "$work/zipped" "$2.gz"; }

put "$binary" usr/bin/provost 0755
strip --strip-unneeded "$root/usr/bin/provost"
put $deb/provost.service usr/lib/systemd/system/provost.service
put $deb/provost.toml etc/provost/provost.toml
put $deb/copyright usr/share/doc/provost/copyright
zipped CHANGELOG.md usr/share/doc/provost/changelog
put examples/server/provost.toml usr/share/doc/provost/examples/provost.toml
for file in examples/quickstart/*; do
  put "$file" "usr/share/doc/provost/examples/quickstart/$(basename "$file")"
done

mkdir "$work/man"
"$binary" man "$work/man" || fail "$binary writes no man pages: is it older than these packages?"
for page in "$work/man"/*.1; do
  zipped "$page" "usr/share/man/man1/$(basename "$page")"
done
for place in bash:bash-completion/completions/provost zsh:zsh/vendor-completions/_provost \
  fish:fish/vendor_completions.d/provost.fish; do
  "$binary" completions "${place%%:*}" >"$work/script"
  put "$work/script" "usr/share/${place#*:}"
done

# Which versions of libc and the like the binary needs, by the symbols that it uses.
mkdir "$work/debian"
printf 'Source: provost\n\nPackage: provost\nArchitecture: any\n' >"$work/debian/control"
libraries=$(cd "$work" && dpkg-shlibdeps -O "$root/usr/bin/provost" 2>/dev/null | sed -n 's/^shlibs:Depends=//p')
[[ -n $libraries ]] || fail "what the binary depends on is not known"

install -d "$root/DEBIAN"
for script in postinst prerm postrm; do
  install -m 0755 "$deb/$script" "$root/DEBIAN/$script"
done
echo /etc/provost/provost.toml >"$root/DEBIAN/conffiles"
cat >"$root/DEBIAN/control" <<CONTROL
Package: provost
Version: $version
Architecture: $architecture
Maintainer: The Provost maintainers <maintainers@provost.invalid>
Installed-Size: $(du -k -s --apparent-size --exclude=DEBIAN "$root" | cut -f1)
Depends: $libraries, adduser, init-system-helpers
Recommends: ca-certificates
Section: net
Priority: optional
Description: gateway that runs an organisation's MCP
 Agents connect to any node; every call to a tool or a model passes one policy
 and leaves one provable record.
 .
 One binary holds all roles of a cluster: control plane, audit log, data plane
 and inference. Read /etc/provost/provost.toml before the first start.
CONTROL
(cd "$root" && find . -type f -not -path './DEBIAN/*' -printf '%P\n' | LC_ALL=C sort | xargs md5sum) >"$root/DEBIAN/md5sums"

SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH
# dpkg-deb clamps only what is younger than that.
find "$root" -print0 | xargs -0 touch --no-dereference --date="@$SOURCE_DATE_EPOCH"
case ${PROVOST_DEB_COMPRESS:-xz} in
  xz) compress=(-Zxz -z6) ;;
  zstd) compress=(-Zzstd -z19) ;;
  gzip) compress=(-Zgzip -z1) ;;
  *) fail "PROVOST_DEB_COMPRESS is neither xz, zstd nor gzip" ;;
esac
mkdir -p "$out"
file=$out/provost_${version}_$architecture.deb
dpkg-deb --root-owner-group "${compress[@]}" --build "$root" "$file" >/dev/null
echo "$file"
