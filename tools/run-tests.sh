#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# tools/run-tests.sh [REGEX]
#
# Run the tests whose ids match REGEX (default: unit, functional, e2e). tests/plan.py balances the workers. The last
# line has the counts of stestr's own result, after the tests that failed; with CONSOLED_SUMMARY_FILE set both are
# appended to that file instead (tools/summary.sh prints them). Fails if anything failed.
#
# CONSOLED_TEST_WORKERS  default: two more than there are processors, as most tests wait for daemons and deadlines
# CONSOLED_TEST_VENV     the environment to test in; default: .venv
# CONSOLED_TEST_RECORDS  where stestr keeps its records; default: the checkout, or the directory of another environment
# CONSOLED_COVERAGE      1: measure the branches covered, in daemons too, and print the total and the ten lowest

set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
venv=${CONSOLED_TEST_VENV:-.venv}
export PATH="$PWD/$venv/bin:$PATH"
export PYTHON=python  # stestr's; the Makefile's is the system's

result=0
regex=${1:-'^tests\.(unit|functional|e2e)\.'}
workers=${CONSOLED_TEST_WORKERS:-$(($(nproc) + 2))}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Each environment keeps its own records: .stestr in the checkout or in the environment's directory.
[ "$venv" = .venv ] && records=. || records=$venv
records=${CONSOLED_TEST_RECORDS:-$records}
stestr=(stestr --repo-url "$records")
[ -d "$records/.stestr" ] || "${stestr[@]}" init >/dev/null

next_run() {
    cat "$records/.stestr/next-stream" 2>/dev/null || echo 0
}

before=$(next_run)
if python -m tests.plan workers "$workers" "$regex" >"$work/workers.yaml"; then
    if [ -n "${CONSOLED_COVERAGE:-}" ]; then
        coverage erase
        export PYTHON='coverage run'
    fi
    "${stestr[@]}" run --concurrency "$workers" --worker-file "$work/workers.yaml" "$regex" </dev/null || result=1
else  # a module could not be imported
    result=1
fi

if [ -n "${CONSOLED_COVERAGE:-}" ] && coverage combine --quiet; then
    echo 'Covered by these tests: the ten lowest modules, and the total'
    coverage report --sort=cover | sed -n '1,12p;/^TOTAL/p'
fi

passed=0 failed=0 skipped=0
if [ "$(next_run)" != "$before" ]; then
    # "Passed: 7" and so on; an expected failure is a pass, an unexpected success is none
    read -r passed failed skipped < <("${stestr[@]}" last 2>/dev/null | awk '
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
    echo 'No test ran.' >&2
    failed=1 result=1
fi
if [ "$result" -ne 0 ] && [ "$failed" -eq 0 ]; then
    echo 'The tests passed, but something else failed: see above.' >&2
fi

{
    # once more, at the end: who reads a long log reads that
    if [ "$failed" -gt 0 ] && [ "$(next_run)" != "$before" ]; then
        "${stestr[@]}" failing 2>&1 | sed "s/^/$venv: /" | tail -n 100
    fi
    echo "counts: $passed $failed $skipped"
} >>"${CONSOLED_SUMMARY_FILE:-$work/summary}"
[ -n "${CONSOLED_SUMMARY_FILE:-}" ] || tools/summary.sh "$work/summary"
exit "$result"
