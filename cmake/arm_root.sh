#!/bin/sh
# arm_root.sh FOLDER VERSION: unpacks Debian's arm64 Python VERSION (3.11, say), with its headers and all that it and torch
# link, into FOLDER, and nothing of it into this system. Needs apt-get and dpkg-deb, no root. QEMU runs it:
# qemu-aarch64-static -L FOLDER FOLDER/usr/bin/python3.11
set -eu
root=$1 version=$2

rm -rf "$root"
mkdir -p "$root/.apt/lists/partial" "$root/.apt/archives/partial"
# apt as it would be on an empty arm64 Debian with this one's sources: it finds out what depends on what, and keeps its
# state in FOLDER/.apt.
cat > "$root/.apt/apt.conf" << END
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Debug::NoLocking "true";
Dir::State "$root/.apt";
Dir::State::Lists "$root/.apt/lists";
Dir::State::Status "/dev/null";
Dir::Cache "$root/.apt";
END
export APT_CONFIG="$root/.apt/apt.conf"
apt-get -qq update
if ! apt-get -qq --yes --download-only install "python$version" "libpython$version-dev" libstdc++6 libgomp1; then
  echo "No arm64 python$version in this Debian: .venv must have the version of its python3. Remove .venv, and try again with" \
    "PYTHON=/usr/bin/python3" >&2
  exit 1
fi
for package in "$root"/.apt/archives/*.deb; do
  dpkg-deb --extract "$package" "$root"
done
test -e "$root/lib" || ln -s usr/lib "$root/lib" # since Debian 13 a package of its own makes this link
rm -rf "$root/.apt"
touch "$root/.unpacked"
