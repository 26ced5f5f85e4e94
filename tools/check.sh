#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# tools/check.sh [lint|format|types]...
#
# Check style and types, by default all three. All of them run; it fails if one did.

cd "$(dirname "$0")/.." || exit 1
export PATH="$PWD/.venv/bin:$PATH"

[ $# -gt 0 ] || set -- lint format types
result=0
for check in "$@"; do
    case $check in
        lint) command='ruff check .' ;;
        format) command='ruff format --check .' ;;
        types) command='mypy' ;;
        *) echo "usage: $0 [lint|format|types]..." >&2; exit 2 ;;
    esac
    echo "$command"
    $command || { result=1; echo "FAILED: $command" >&2; }
done
exit "$result"
