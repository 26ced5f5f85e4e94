#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# tools/setup-venv.sh run|test|newest|lowest
#
# Make the virtual environment .venv with consoled in it (editable), and for "test" with what the tests need too.
# Python and its venv module are installed by apt where they are missing. "newest" makes .venv-newest, for tests on
# the newest Python that is installed, and "lowest" .venv-lowest, on the oldest, with the oldest release that
# pyproject.toml allows of each dependency, those of the tests and of the extras included (of libvirt, if its headers
# are installed). Does nothing if nothing has changed since the last time.

set -euo pipefail
cd "$(dirname "$0")/.."

venv=.venv target='.[test]' wanted_python=
case "${1:-}" in
    run) target='.' ;;
    test) ;;
    newest) venv=.venv-newest wanted_python=newest ;;
    lowest) venv=.venv-lowest target='.[doc,test]' wanted_python=oldest
        ! pkg-config --exists libvirt 2>/dev/null || target='.[doc,libvirt,test]' ;;
    *) echo "usage: $0 run|test|newest|lowest" >&2; exit 2 ;;
esac
kind=$1

# Does this interpreter do: new enough, and able to make an environment with pip?
usable() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    local name
    if [ -n "$wanted_python" ]; then
        tools/find-python.sh "$wanted_python" 2>/dev/null
        return
    fi
    for name in "${PYTHON:-python3}" /usr/bin/python3 python3.14 python3.13 python3.12 python3.11; do
        if usable "$name"; then
            command -v "$name"
            return
        fi
    done
    return 1
}

install_python() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo 'Python 3.11 or newer with its venv module is needed (Debian: python3 and python3-venv).' >&2
        exit 1
    fi
    echo 'Installing python3 and python3-venv ...'
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq </dev/null
    apt-get install -y -qq --no-install-recommends python3 python3-venv </dev/null >/dev/null
}

# What the environment was made from: if any of it changes, it is installed again.
state() {
    pwd
    echo "$target"
    cat pyproject.toml setup.py consoled/version.py "$0"
    "$venv/bin/python" -VV 2>/dev/null || echo 'no interpreter'
}

stamp() {
    echo "$venv/.installed-$1"
}

installed() {
    [ -f "$(stamp "$1")" ] && [ "$(cat "$(stamp "$1")")" = "$wanted" ]
}

wanted=$(state | sha256sum)
if installed "$kind" || { [ "$kind" = run ] && installed test; }; then
    exit 0
fi

python=$(find_python) || { install_python; python=$(find_python) || {
    echo 'The python3 of this system is too old: 3.11 or newer is needed; say which with PYTHON=...' >&2
    exit 1
}; }

# An environment that was copied, or whose interpreter has gone, can't be repaired.
if [ "$(cat "$venv/.made-in" 2>/dev/null)" != "$PWD" ] || ! usable "$venv/bin/python"; then
    rm -rf "$venv"
    "$python" -m venv "$venv"
    pwd > "$venv/.made-in"
fi
rm -f "$venv"/.installed-*

echo "Installing consoled ($kind) into $venv ..."
pip=("$venv/bin/python" -m pip --disable-pip-version-check --quiet)
if [ "$kind" != run ]; then
    # the wheel's test builds with this one instead of a download
    "${pip[@]}" install --upgrade 'setuptools>=77'
fi
if [ "$kind" = lowest ]; then
    # pip has no way to ask for the oldest
    "${pip[@]}" install uv
    "$venv/bin/uv" --quiet pip install --python "$venv/bin/python" --link-mode copy --resolution lowest-direct \
        --editable "$target"
else
    "${pip[@]}" install --editable "$target"
fi

state | sha256sum > "$(stamp "$kind")"
