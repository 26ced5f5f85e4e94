#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Style and types, the unit tests with the branches they cover, then the functional and end-to-end tests. All of them
# run; it fails if anything failed. The last line has the counts, as that of tools/run-tests.sh.

set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

result=0
summary=$(mktemp)
trap 'rm -f "$summary"' EXIT

tools/check.sh || result=1
CONSOLED_SUMMARY_FILE=$summary CONSOLED_COVERAGE=1 tools/run-tests.sh '^tests\.unit\.' || result=1
CONSOLED_SUMMARY_FILE=$summary tools/run-tests.sh '^tests\.(functional|e2e)\.' || result=1

if [ -n "${CONSOLED_SUMMARY_FILE:-}" ]; then
    cat "$summary" >>"$CONSOLED_SUMMARY_FILE"
else
    tools/summary.sh "$summary"
fi
exit "$result"
