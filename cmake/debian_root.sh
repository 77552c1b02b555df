#!/bin/sh
# debian_root.sh FOLDER ARCHITECTURE SUITE PACKAGE...: unpacks those packages of Debian and all that they depend on into
# FOLDER, and nothing of it into this system. SUITE is the release that they come from (trixie, say), by the mirror that
# this Debian has, or `own` for this system's own sources. Needs apt-get and dpkg-deb, no root.
set -eu
root=$1 architecture=$2 suite=$3
shift 3

rm -rf "$root"
mkdir -p "$root/.apt/lists/partial" "$root/.apt/archives/partial"
# apt as it would be on an empty Debian of that architecture: it finds out what depends on what, and keeps its state in
# FOLDER/.apt.
cat > "$root/.apt/apt.conf" << END
APT::Architecture "$architecture";
APT::Architectures { "$architecture"; };
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
if [ "$suite" != own ]; then
  codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
  mirror=$(apt-cache policy base-files | awk -v own="$codename/main" '$3 == own { print $2; exit }')
  echo "deb $mirror $suite main" > "$root/.apt/sources.list"
  cat >> "$root/.apt/apt.conf" << END
Dir::Etc::SourceList "$root/.apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
END
  apt-get -qq update
fi
apt-get -qq --yes --download-only install "$@"
for package in "$root"/.apt/archives/*.deb; do
  dpkg-deb --extract "$package" "$root"
done
test -e "$root/lib" || ln -s usr/lib "$root/lib" # since Debian 13 a package of its own makes this link
rm -rf "$root/.apt"
touch "$root/.unpacked"
