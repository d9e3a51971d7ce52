#!/bin/bash
# One member of the cluster: start, wait, test, stop. Ports differ by node, so that several may share one machine.
set -eu
export ETCDCTL_API=3

client_port() { echo $((23790 + 10 * $1)); }
peer_port() { echo $((23791 + 10 * $1)); }
url() { local host="TESTBED_HOST_$1"; echo "http://${!host}:$2"; }

self=$TESTBED_INDEX
name=$TESTBED_NODE
me=$(url "$self" "$(client_port "$self")")

members() {
    local index=0 node list=
    for node in $TESTBED_NODES; do
        list+=${list:+,}$node=$(url "$index" "$(peer_port "$index")")
        index=$((index + 1))
    done
    echo "$list"
}

# etcdctl waits up to the given time for a leader; it needs no loop.
ask() { etcdctl --endpoints "$me" --dial-timeout 60s --command-timeout 60s "$@"; }

start() {
    etcd --name "$name" --data-dir data \
        --listen-client-urls "$me" --advertise-client-urls "$me" \
        --listen-peer-urls "$(url "$self" "$(peer_port "$self")")" \
        --initial-advertise-peer-urls "$(url "$self" "$(peer_port "$self")")" \
        --initial-cluster "$(members)" --initial-cluster-token "$TESTBED_RUN" > etcd.log 2>&1 &
    echo $! > pid
}

wait_for_all() {
    ask put "up/$name" yes
    testbed set "up.$name" yes
    for node in $TESTBED_NODES; do testbed get --block "up.$node" --timeout 90s; done
}

leads() { [[ $(ask endpoint status --write-out fields) =~ '"MemberID" : '([0-9]+).*'"Leader" : '([0-9]+) ]] &&
    [[ ${BASH_REMATCH[1]} == "${BASH_REMATCH[2]}" ]]; }

run_test() {
    # Everybody looks before anybody kills.
    local role=follower
    if leads; then role=leader; fi
    echo "$name is the $role"
    testbed set "role.$name" "$role"
    local leaders=0
    for node in $TESTBED_NODES; do
        if [ "$(testbed get --block "role.$node" --timeout 60s)" = leader ]; then leaders=$((leaders + 1)); fi
    done
    [ "$leaders" -eq 1 ] || { echo "the cluster has $leaders leaders" >&2; exit 1; }

    if [ "$role" = leader ]; then
        kill -9 "$(cat pid)"
        testbed set leader.killed "$name"
        for node in $TESTBED_NODES; do
            [ "$node" = "$name" ] || testbed get --block "served.$node" --timeout 90s
        done
    else
        echo "$(testbed get --block leader.killed --timeout 60s) was killed"
        # A write that was on its way to the dead leader is lost: it is not waited for until the server refuses it.
        put() { ask put "after/$name" "still serving" "$@"; }
        put --command-timeout 2s || put || put
        [ "$(ask get --print-value-only "after/$name")" = "still serving" ]
        testbed set "served.$name" yes
    fi
}

# Nothing of the cluster is kept, so no leader has to look for another first, which takes 7 s where all stop at once.
stop() { kill -9 "$(cat pid)" 2>/dev/null || true; }

case $1 in
    start) start ;;
    wait) wait_for_all ;;
    test) run_test ;;
    stop) stop ;;
    *) echo "usage: member.sh start|wait|test|stop" >&2; exit 2 ;;
esac
