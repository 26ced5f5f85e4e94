#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# tools/test-nova.sh VERSION...
#
# Run the tests beside these releases of Nova, one after the other. A release whose Python is not installed is left
# out (see tools/setup-nova.sh).

set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

result=0
summary=$(mktemp)
trap 'rm -f "$summary"' EXIT
for version in "$@"; do
    tools/setup-nova.sh "$version"
    case $? in
        0) ;;
        3) continue ;;
        *) result=1; echo "FAILED: the installation of Nova $version" >&2; continue ;;
    esac
    if [ "${version%%.*}" -ge 33 ]; then  # tests/nova/cloud.py
        tools/setup-cloud.sh "$version" || { result=1; echo "FAILED: the installation of Placement" >&2; continue; }
    fi
    echo "Tests beside Nova $version"
    CONSOLED_REQUIRE_SERVICES=1 CONSOLED_TEST_NOVA=$version CONSOLED_SUMMARY_FILE=$summary CONSOLED_COVERAGE='' \
        tools/run-tests.sh '^tests\.nova\.' || result=1
done

if [ -n "${CONSOLED_SUMMARY_FILE:-}" ]; then
    cat "$summary" >>"$CONSOLED_SUMMARY_FILE"
elif [ -s "$summary" ]; then
    tools/summary.sh "$summary"
fi
exit "$result"
