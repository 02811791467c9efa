#!/usr/bin/env bash
# Puts packages into a signed APT repository, a folder of files for any web server:
# `scripts/apt_repo.sh --key KEY --out DIR [--suite NAME] [--valid-days N] PACKAGE.deb…`.
#
# KEY is one of the caller's GnuPG keyring (a fingerprint; GNUPGHOME is honoured); it never leaves that. Packages that the
# repository has stay in it: who wants an older one finds it. Run it again to sign anew.
# Lists are found by their hash (Acquire-By-Hash), and what is signed is replaced in one step: who reads meanwhile finds all of the
# old state or all of the new one. Two runs for one folder go one after the other.
set -euo pipefail
# A web server reads it, as whatever user.
umask 022
# Longer than one run takes to put in packages and to sign.
lock_limit_s=${PROVOST_APT_LOCK_SECONDS:-300}

key='' out='' suite=stable valid_days='' packages=()
usage() { sed -n '2,3s/^# \?//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
while (($#)); do
  case $1 in
    --key) key=${2:-} && shift ;;
    --out) out=${2:-} && shift ;;
    --suite) suite=${2:-} && shift ;;
    --valid-days) valid_days=${2:-} && shift ;;
    -*) usage ;;
    *) packages+=("$1") ;;
  esac
  shift
done
[[ -n $key && -n $out && $suite =~ ^[a-z0-9.-]+$ && $valid_days =~ ^[0-9]*$ ]] || usage

fail() { echo "apt_repo: $*" >&2; exit 1; }
for command in apt-ftparchive dpkg-deb flock gpg; do
  command -v "$command" >/dev/null || fail "$command is missing: apt-get install apt-utils gnupg util-linux"
done
gpg --batch --quiet --list-secret-keys "$key" >/dev/null 2>&1 || fail "there is no secret key $key in the keyring"

mkdir -p "$out"
out=$(cd "$out" && pwd)
# Both would list what the other has not put there yet, and the last one's lists would stay. The file is left there: without it
# a third run could hold another one than the second, which waits. It has nothing in it.
exec 9>"$out/.lock"
flock --timeout "$lock_limit_s" 9 || fail "another run has held $out/.lock for $lock_limit_s s"
for package in "${packages[@]}"; do
  name=$(dpkg-deb --field "$package" Package)
  version=$(dpkg-deb --field "$package" Version)
  architecture=$(dpkg-deb --field "$package" Architecture)
  kept=$out/pool/main/${name:0:1}/$name/${name}_${version#*:}_$architecture.deb
  # One version is one file for ever: caches and those who verified it rely on that.
  if [[ -e $kept ]] && ! cmp -s "$package" "$kept"; then
    fail "$name $version is there already, with other contents: give it another version"
  fi
  install -D -m 0644 "$package" "$kept"
done

mapfile -t architectures < <(find "$out/pool" -name '*.deb' | sed 's/.*_\(.*\)\.deb$/\1/' | sort -u)
((${#architectures[@]})) || fail "no package is given, and $out has none"
work=$(mktemp -d "$out/.new-XXXXXX")
trap 'rm -rf "$work"' EXIT
for architecture in "${architectures[@]}"; do
  dir=$work/main/binary-$architecture
  mkdir -p "$dir"
  (cd "$out" && apt-ftparchive --arch "$architecture" packages pool) >"$dir/Packages"
  gzip -9kn "$dir/Packages"
done
options=(
  -o "APT::FTPArchive::Release::Origin=Provost" -o "APT::FTPArchive::Release::Label=Provost"
  -o "APT::FTPArchive::Release::Suite=$suite" -o "APT::FTPArchive::Release::Codename=$suite"
  -o "APT::FTPArchive::Release::Acquire-By-Hash=true" -o "APT::FTPArchive::Release::Components=main"
  -o "APT::FTPArchive::Release::Architectures=${architectures[*]}"
)
if [[ -n $valid_days ]]; then
  # Somebody in between can then not show an old list for longer; sign anew before it ends.
  options+=(-o "APT::FTPArchive::Release::ValidTime=$((valid_days * 86400))")
fi
apt-ftparchive "${options[@]}" release "$work" >"$work.release"
mv "$work.release" "$work/Release"
gpg --batch --quiet --yes --local-user "$key" --armor --detach-sign --output "$work/Release.gpg" "$work/Release" 9>&-
gpg --batch --quiet --yes --local-user "$key" --clearsign --output "$work/InRelease" "$work/Release" 9>&-
gpg --batch --export "$key" >"$work/provost.gpg"

target=$out/dists/$suite
mkdir -p "$target"
for architecture in "${architectures[@]}"; do
  dir=main/binary-$architecture
  for list in "$work/$dir"/Packages*; do
    # apt asks by the strongest that the signed list names.
    for hash in sha256 sha512; do
      install -D -m 0644 "$list" "$target/$dir/by-hash/${hash^^}/$("${hash}sum" "$list" | cut -d' ' -f1)"
    done
  done
done
for file in Release Release.gpg InRelease; do
  mv "$work/$file" "$target/$file"
done
# For those who do not ask by hash.
cp -r "$work/main" "$target/"
install -m 0644 "$work/provost.gpg" "$out/provost.gpg"
echo "$target/InRelease"
