#!/bin/bash
# Take studies until every modality has sent its own; end at once if the server process dies.
set -eu

mkdir -p received
storescp --fork --output-directory received --exec-on-reception ./arrived.sh "$TESTBED_PARAM_PORT" &
scp=$!
echo "$scp" > pid
testbed set server.ready "$TESTBED_NODE"

all_sent() {
    for node in $TESTBED_NODES; do
        case $node in modality-*) testbed get --block "sent.$node" --timeout 15m ;; esac
    done
}
all_sent &
sent=$!

wait -n "$scp" "$sent" || true
if ! kill -0 "$scp" 2>/dev/null; then
    echo "storescp died after $(find received -type f | wc -l) studies" >&2
    exit 1
fi
./count.sh
