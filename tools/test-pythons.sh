#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Run the unit tests on the newest Python that the wheel claims, and on the oldest with the oldest dependencies that
# it allows. Where only one Python is installed, the first of these is left to "make unit".

set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

result=0
summary=$(mktemp)
trap 'rm -f "$summary"' EXIT

run() {
    local kind=$1
    tools/setup-venv.sh "$kind" || return 1
    echo "Unit tests on $(".venv-$kind/bin/python" -V), $2 dependencies"
    CONSOLED_TEST_VENV=.venv-$kind CONSOLED_SUMMARY_FILE=$summary CONSOLED_COVERAGE='' \
        tools/run-tests.sh '^tests\.unit\.'
}

version() {
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null
}

if newest=$(tools/find-python.sh newest); then
    if [ "$(version "$newest")" != "$(version .venv/bin/python)" ]; then
        run newest newest || { result=1; echo 'FAILED: unit tests on the newest Python' >&2; }
    fi
else
    result=1
fi
run lowest oldest || { result=1; echo 'FAILED: unit tests with the oldest dependencies' >&2; }

if [ -n "${CONSOLED_SUMMARY_FILE:-}" ]; then
    cat "$summary" >>"$CONSOLED_SUMMARY_FILE"
else
    tools/summary.sh "$summary"
fi
exit "$result"
