#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Run the unit tests on the newest Python that the wheel claims, and on the oldest with the oldest dependencies that
# it allows. Where only one Python is installed, the first of these is left to "make unit".
#
# With the oldest dependencies the demo runs too, and the functional tests in which libraries meet real services: the
# bus with its rate of calls, databases, daemons, consoles. Services that are not installed skip theirs.

set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

with_services='^tests\.functional\.(test_rate|test_api_page|test_proxy|test_legacy_memcached|db\.test_migrations)\.'
with_services+='|^tests\.functional\.test_daemon\..*\.test_starts_quietly'

result=0
summary=$(mktemp)
trap 'rm -f "$summary"' EXIT

run() {
    CONSOLED_TEST_VENV=.venv-$1 CONSOLED_SUMMARY_FILE=$summary CONSOLED_COVERAGE='' tools/run-tests.sh "$2"
}

run_units() {
    local kind=$1
    tools/setup-venv.sh "$kind" || return 1
    echo "Unit tests on $(".venv-$kind/bin/python" -V), $2 dependencies"
    run "$kind" '^tests\.unit\.'
}

run_the_rest_on_the_lowest() {
    local failed=0 out
    echo 'The demo, and tests with services, with the oldest dependencies'
    out=$(.venv-lowest/bin/consoled-demo --check 2>&1) || { echo "$out" >&2; failed=1; }
    run lowest "$with_services" || failed=1
    return "$failed"
}

version() {
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null
}

if newest=$(tools/find-python.sh newest); then
    if [ "$(version "$newest")" != "$(version .venv/bin/python)" ]; then
        run_units newest newest || { result=1; echo 'FAILED: unit tests on the newest Python' >&2; }
    fi
else
    result=1
fi
run_units lowest oldest || { result=1; echo 'FAILED: unit tests with the oldest dependencies' >&2; }
run_the_rest_on_the_lowest || { result=1; echo 'FAILED: demo or services with the oldest dependencies' >&2; }

if [ -n "${CONSOLED_SUMMARY_FILE:-}" ]; then
    cat "$summary" >>"$CONSOLED_SUMMARY_FILE"
else
    tools/summary.sh "$summary"
fi
exit "$result"
