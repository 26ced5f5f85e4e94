#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Style and types. All of them run, then it fails if one did.

cd "$(dirname "$0")/.." || exit 1
export PATH="$PWD/.venv/bin:$PATH"

result=0
for command in 'ruff check .' 'ruff format --check .' 'mypy'; do
    echo "$command"
    $command || { result=1; echo "FAILED: $command" >&2; }
done
exit "$result"
