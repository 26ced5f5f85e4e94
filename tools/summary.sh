#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# tools/summary.sh FILE
#
# Print the sum of the lines "PASSED FAILED SKIPPED" of a file, one for each run of tools/run-tests.sh.

awk '{ passed += $1; failed += $2; skipped += $3 }
    END { printf "tests: %d passed, %d failed, %d skipped\n", passed, failed, skipped }' "$1"
