#!/bin/sh
# arm_tools.sh COMMAND...: installs the Debian packages of those commands that this machine lacks: with apt-get, as root or
# where sudo asks for no password. Elsewhere it says what to install, and fails.
set -eu
packages=
for command in "$@"; do
  command -v "$command" > /dev/null && continue
  case $command in
    aarch64-linux-gnu-g++) packages="$packages g++-aarch64-linux-gnu" ;;
    qemu-aarch64-static) packages="$packages qemu-user-static" ;;
    qemu-aarch64) packages="$packages qemu-user" ;;
    llvm-mca*) packages="$packages llvm${command#llvm-mca}" ;;
    *) packages="$packages $command" ;;
  esac
done
test -n "$packages" || exit 0

if ! command -v apt-get > /dev/null; then
  echo "This needs what Debian calls$packages" >&2
  exit 1
fi
if [ "$(id -u)" = 0 ]; then
  sudo=
elif sudo -n true 2> /dev/null; then
  sudo=sudo
else
  echo "This needs root, to: apt-get install$packages" >&2
  exit 1
fi
echo "Installing$packages"
$sudo apt-get -qq update
# shellcheck disable=SC2086 # a list, and perhaps nothing
$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq --yes install $packages
