#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Make .venv-legacy: the libraries of the old consoleauth service's time, whose values tests read and write.
# When nothing has changed since the last time, it does nothing. Needs .venv (tools/setup-venv.sh) for its
# Python; that of another environment is named by PYTHON.

set -euo pipefail
cd "$(dirname "$0")/.."

venv=.venv-legacy
packages=(oslo.cache==1.30.4 dogpile.cache==0.6.8 python-memcached==1.59)
# These have no pins: they are no part of what is stored.
packages+=(oslo.config oslo.log oslo.serialization oslo.utils six)
# dogpile.cache finds backends with pkg_resources: the last setuptools has none, and early ones of it don't
# find distributions by their names of today.
packages+=('setuptools>=75,<81')
python=.venv/bin/python
[ -x "$python" ] || python=${PYTHON:-python3}

# What the environment was made from: if any of it changes, it is made again.
state() {
    pwd
    cat "$0"
    "$venv/bin/python" -VV 2>/dev/null || echo 'no interpreter'
}

stamp=$venv/.installed
wanted=$(state | sha256sum)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    exit 0
fi

echo "Installing ${packages[*]:0:3} into $venv ..."
rm -rf "$venv"
"$python" -m venv "$venv"
"$venv/bin/python" -m pip --disable-pip-version-check --quiet install --upgrade "${packages[@]}"

state | sha256sum > "$stamp"
