#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# tools/setup-nova.sh [VERSION]
#
# Make .venv-nova-VERSION (34.0.0), which has that release of Nova. Tests run its code beside consoled, which has a
# virtual environment of its own. When it is there already, it does nothing.

set -euo pipefail
cd "$(dirname "$0")/.."

version=${1:-34.0.0}
venv=.venv-nova-$version
if [ -f "$venv/.installed" ] && [ "$(cat "$venv/.installed")" = "$PWD" ]; then
    exit 0
fi

echo "Installing Nova $version into $venv ..."
rm -rf "$venv"
"${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/python" -m pip --disable-pip-version-check --quiet install "nova==$version" pymysql
pwd > "$venv/.installed"
