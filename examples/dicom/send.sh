#!/bin/sh
# Make studies of our own and push them to the server: send.sh HOST PORT STUDIES
set -eu
host=$1 port=$2 studies=$3
root=1.2.826.0.1.3680043.10.1338.$TESTBED_INDEX
n=0
while [ "$n" -lt "$studies" ]; do
    cat > study.dump <<DUMP
(0008,0016) UI =SecondaryCaptureImageStorage
(0008,0018) UI [$root.$n.1]
(0008,0020) DA [20260101]
(0008,0060) CS [OT]
(0010,0010) PN [Phantom^$TESTBED_NODE]
(0010,0020) LO [$TESTBED_NODE]
(0020,000d) UI [$root.$n]
(0020,000e) UI [$root.$n.0]
DUMP
    dump2dcm study.dump study.dcm
    if ! storescu "$host" "$port" study.dcm; then
        echo "study $n of $studies was not taken" >&2
        # If the server died, its own node knows why and aborts the run: let that be the first cause.
        testbed wait finalise --timeout 10s
        exit 1
    fi
    n=$((n + 1))
done
echo "sent $studies studies to $host"
