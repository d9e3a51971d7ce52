#!/bin/sh
# The first process of a practice host, started by `unshare` in new network, host name, process and mount namespaces:
#     init.sh NAME STATE ADDRESS/PREFIX      (stdin: closed when the network card is there; stdout: what happens)
# Killing it is pulling the plug: the kernel ends every process of the host and takes its mounts and its network card.
set -eu
name=$1 state=$2 address=$3
files=$state/hosts/$name

# /proc still shows the machine's own process numbers: this line tells who to kill, and when it started
read -r self </proc/self/stat
echo "$self" >"$files/init"
trap 'echo "failed $name"' EXIT
echo "born $name"
read -r _ || :
[ -e "$files/init" ]

echo "$name" >/proc/sys/kernel/hostname
mount -n -t proc proc /proc
for folder in /root /home /tmp /var/tmp /dev/shm; do
    mount -n -t tmpfs -o "mode=$(stat -c %a "$folder"),size=2g" tmpfs "$folder"
done
# an own /run that holds this host's files only, built aside because the files lie in the /run that it covers
mkdir /tmp/run
mount -n -t tmpfs -o mode=755,size=256m tmpfs /tmp/run
mkdir -p /tmp/run/sshd /tmp/run/lock "/tmp/run/host"
mount -n --bind "$files" /tmp/run/host
mount -n --bind "$state/etc/hosts" /etc/hosts
for file in passwd shadow sudoers; do
    if [ -e "$state/etc/$file" ]; then mount -n --bind "$state/etc/$file" "/etc/$file"; fi
done
mount -n --move /tmp/run /run
rmdir /tmp/run
for account in lab-user lab-admin; do
    mkdir -m 700 "/home/$account"
    chown "$account:" "/home/$account"
done

ip link set lo up
ip address add "$address" dev eth0
ip link set eth0 up

cd /
/usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    "$(command -v sshd)" -D -e -f /run/host/sshd_config </dev/null 2>&1 | {
    ready=
    while [ -z "$ready" ] && read -r line; do
        echo "$line" >>/run/host/sshd.log
        case $line in "Server listening on "*) ready=yes ;; esac
    done
    if [ -n "$ready" ]; then echo "ready $name"; else echo "failed $name"; fi
    exec >>/run/host/sshd.log 2>&1
    exec cat
} &
trap - EXIT
exec </dev/null >/dev/null 2>&1
wait
# sshd is gone, the host is not
exec sleep infinity
