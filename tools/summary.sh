#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# tools/summary.sh FILE
#
# Print what runs of tools/run-tests.sh wrote to a file: what failed, then the sum of the lines
# "counts: PASSED FAILED SKIPPED".

awk '$1 == "counts:" { passed += $2; failed += $3; skipped += $4; next }
    { print }
    END { printf "tests: %d passed, %d failed, %d skipped\n", passed, failed, skipped }' "$1"
