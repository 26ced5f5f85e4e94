#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# tools/find-python.sh oldest|newest|3.N
#
# Print the path of the oldest or newest Python that the wheel claims to support (the classifiers in pyproject.toml),
# or of Python 3.N, that can make virtual environments. It looks in PATH and among pyenv's versions. If that is not
# the oldest or newest claimed, it says so on stderr, and fails with CONSOLED_REQUIRE_PYTHONS=1.

set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

case "${1:-}" in
    oldest) order=-V ;;
    newest) order=-rV ;;
    3.*) order= ;;
    *) echo "usage: $0 oldest|newest|3.N" >&2; exit 2 ;;
esac
claimed=("$1")
[ -z "$order" ] || mapfile -t claimed < <(sed -n 's/.*:: Python :: \(3\.[0-9]*\)".*/\1/p' pyproject.toml | sort "$order")

pyenv=$(pyenv root 2>/dev/null) || pyenv=
for version in "${claimed[@]}"; do
    for python in "python$version" "/usr/bin/python$version" ${pyenv:+"$pyenv"/versions/"$version".*/bin/python"$version"}; do
        path=$(command -v "$python") || continue
        # a shim of pyenv may stand for nothing
        found=$("$path" -c 'import ensurepip, sys, venv; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
        [ "$found" = "$version" ] || continue
        if [ "$version" != "${claimed[0]}" ]; then
            echo "Python ${claimed[0]} is not installed: $version is the $1 that is tested here." >&2
            [ "${CONSOLED_REQUIRE_PYTHONS:-}" != 1 ] || exit 1
        fi
        echo "$path"
        exit 0
    done
done
echo "None of these is installed: Python ${claimed[*]}." >&2
exit 1
