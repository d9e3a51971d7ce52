#!/bin/sh
# Called by storescp after every study. With die_after set, the server dies without a word, as in life.
[ "$TESTBED_PARAM_DIE_AFTER" -gt 0 ] || exit 0
[ "$(find received -type f | wc -l)" -lt "$TESTBED_PARAM_DIE_AFTER" ] || kill -9 "$(cat pid)" 2>/dev/null
