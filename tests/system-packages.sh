#!/bin/sh
# What the tests use of the system: the practice lab (real SSH hosts in network namespaces), DCMTK and etcd for the
# examples. As root on Debian or Ubuntu it is installed; otherwise a plain word says what will be skipped.
set -eu
export PATH="$PATH:/usr/sbin:/sbin"
missing=
while read -r program package; do
    command -v "$program" >/dev/null 2>&1 || missing="$missing $package"
done <<LIST
sshd openssh-server
ssh openssh-client
ip iproute2
unshare util-linux
nsenter util-linux
storescp dcmtk
etcd etcd-server
etcdctl etcd-client
faketime faketime
sudo sudo
LIST
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
    echo "tests that need these packages are skipped, since only root can install them:$missing"
    exit 0
fi
if ! command -v apt-get >/dev/null 2>&1; then
    echo "tests that need these packages are skipped, since there is no apt-get here:$missing"
    exit 0
fi
echo "installing for the tests:$missing"
# RUNLEVEL=1: the packages' services (sshd, etcd) are not started; the tests start their own.
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
log=$(mktemp)
# shellcheck disable=SC2086  the list is words
if ! { apt-get update -q && apt-get install -q -y --no-install-recommends $missing; } >"$log" 2>&1; then
    tail -n 20 "$log"
    echo "the packages could not be installed; tests that need them are skipped"
fi
rm -f "$log"
