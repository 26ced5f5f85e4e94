#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Style and types and the unit tests with the branches they cover; at the same time, the functional and end-to-end
# tests, which wait for daemons and deadlines half of their time. What the latter print follows what the former print.
# All of them run; it fails if anything failed. The last line has the counts, as that of tools/run-tests.sh.

set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

result=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Each of two runs of stestr needs its own records. The unit tests' lie with their environment.
mkdir -p .venv/unit
[ -d .stestr ] || .venv/bin/stestr init || exit 1

# The shell lets its background jobs ignore these signals, and so would every process that a test starts.
CONSOLED_SUMMARY_FILE=$work/services.summary env --default-signal=INT,QUIT \
    tools/run-tests.sh '^tests\.(functional|e2e)\.' >"$work/services.log" 2>&1 &
services=$!

tools/check.sh || result=1
CONSOLED_SUMMARY_FILE=$work/unit.summary CONSOLED_COVERAGE=1 CONSOLED_TEST_RECORDS=.venv/unit \
    CONSOLED_TEST_WORKERS=$(nproc) tools/run-tests.sh '^tests\.unit\.' || result=1

tail --follow --pid="$services" --lines=+1 "$work/services.log"
wait "$services" || result=1

cat "$work"/{unit,services}.summary >"$work/summary"
if [ -n "${CONSOLED_SUMMARY_FILE:-}" ]; then
    cat "$work/summary" >>"$CONSOLED_SUMMARY_FILE"
else
    tools/summary.sh "$work/summary"
fi
exit "$result"
