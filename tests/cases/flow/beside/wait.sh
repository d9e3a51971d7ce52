#!/bin/bash
set -e
testbed get --block "round.$1"
testbed get --block missing.key
