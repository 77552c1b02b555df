#!/bin/sh
# arm_root.sh FOLDER: unpacks Debian's arm64 Python with all that it links into FOLDER, and nothing of it into this system.
# Needs apt-get and dpkg-deb, no root. QEMU runs it: qemu-aarch64-static -L FOLDER FOLDER/usr/bin/python3.11
set -eu
root=$1
packages="python3.11 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libpython3.11-dev libc6 libgcc-s1
  libstdc++6 libgomp1 zlib1g libbz2-1.0 liblzma5 libffi8 libssl3 libsqlite3-0 libuuid1 libexpat1 libcrypt1 libdb5.3
  libncursesw6 libtinfo6 libreadline8 libnsl2 libtirpc3 libgssapi-krb5-2 libkrb5-3 libk5crypto3 libkrb5support0
  libcom-err2 libkeyutils1"

mkdir -p "$root/.apt/lists/partial" "$root/.apt/cache/archives/partial" "$root/.apt/packages"
# apt as it would be on an arm64 Debian with this one's sources: its state is kept in FOLDER/.apt.
cat > "$root/.apt/apt.conf" << END
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Sandbox::User "";
Dir::State::Lists "$root/.apt/lists";
Dir::State::Status "/dev/null";
Dir::Cache "$root/.apt/cache";
Acquire::Languages "none";
END
export APT_CONFIG="$root/.apt/apt.conf"
apt-get -qq update
cd "$root/.apt/packages"
# shellcheck disable=SC2086 # a list
apt-get -qq download $packages
for package in *.deb; do
  dpkg-deb --extract "$package" "$root"
done
cd "$root"
rm -rf .apt
touch .unpacked
