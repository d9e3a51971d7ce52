#!/bin/sh
# Count what arrived from each modality and say so in JUnit; fail unless everything did.
set -eu
expected=$TESTBED_PARAM_STUDIES
cases=$(mktemp -p .)
failures=0 tests=0
dcmdump --search PatientID received/* > patients
for node in $TESTBED_NODES; do
    case $node in modality-*) ;; *) continue ;; esac
    tests=$((tests + 1))
    count=$(grep -c "\[$node\]" patients || true)
    if [ "$count" -eq "$expected" ]; then
        echo "  <testcase classname=\"dicom.store\" name=\"studies of $node\"/>" >> "$cases"
    else
        failures=$((failures + 1))
        echo "  <testcase classname=\"dicom.store\" name=\"studies of $node\">" \
             "<failure message=\"$count of $expected arrived\"/></testcase>" >> "$cases"
    fi
    echo "$node: $count of $expected studies arrived"
done
{
    echo '<?xml version="1.0" encoding="UTF-8"?>'
    echo "<testsuite name=\"dicom-store\" tests=\"$tests\" failures=\"$failures\">"
    cat "$cases"
    echo '</testsuite>'
} > summary.xml
rm "$cases"
[ "$failures" -eq 0 ]
