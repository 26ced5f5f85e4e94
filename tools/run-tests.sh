#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# tools/run-tests.sh [--no-checks] [REGEX]
#
# Style, types, then the tests whose ids match REGEX (default: unit, functional, e2e), two at a time. The
# last line says how many, counted from stestr's own result; with CONSOLED_SUMMARY_FILE set it goes to that
# file instead. Fails if anything failed.

set -uo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"

checks=yes
if [ "${1:-}" = --no-checks ]; then
    checks=no
    shift
fi
regex=${1:-'^tests\.(unit|functional|e2e)\.'}
result=0

if [ "$checks" = yes ]; then
    tools/check.sh || result=1
fi

next_run() {
    cat .stestr/next-stream 2>/dev/null || echo 0
}

before=$(next_run)
stestr run --concurrency "${CONSOLED_TEST_WORKERS:-2}" "$regex" </dev/null || result=1

passed=0 failed=0 skipped=0
if [ "$(next_run)" != "$before" ]; then
    # "Passed: 7" and so on; an expected failure is a pass, an unexpected success is none
    read -r passed failed skipped < <(stestr last 2>/dev/null | awk '
        $1 == "-" && $2 == "Passed:"   { passed += $3 }
        $1 == "-" && $2 == "Expected"  { passed += $4 }
        $1 == "-" && $2 == "Failed:"   { failed += $3 }
        $1 == "-" && $2 == "Unexpected" { failed += $4 }
        $1 == "-" && $2 == "Skipped:"  { skipped += $3 }
        END { print passed + 0, failed + 0, skipped + 0 }')
fi
if [ "$failed" -gt 0 ]; then
    result=1
elif [ $((passed + skipped)) -eq 0 ]; then
    echo 'No test has run.' >&2
    failed=1 result=1
fi
if [ "$result" -ne 0 ] && [ "$failed" -eq 0 ]; then
    echo 'The tests that ran have passed, and something else failed: see above.' >&2
fi

summary="tests: $passed passed, $failed failed, $skipped skipped"
if [ -n "${CONSOLED_SUMMARY_FILE:-}" ]; then
    echo "$summary" > "$CONSOLED_SUMMARY_FILE"
else
    echo "$summary"
fi
exit "$result"
