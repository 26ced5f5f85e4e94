#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# tools/setup-nova.sh [VERSION]
#
# Make .venv-nova-VERSION (34.0.0), which has that release of Nova. Tests run its code beside consoled, which has a
# virtual environment of its own. When nothing has changed since the last time, it does nothing.
#
# Old releases do not work with the newest libraries: tools/nova/constraints-*.txt has those of their time. They need
# an old Python too. Exit status 3: there is none (tools/find-python.sh); with CONSOLED_REQUIRE_PYTHONS=1 it is 1.

set -euo pipefail
cd "$(dirname "$0")/.."

version=${1:-34.0.0}
constraints=
case "$version" in
    18.*) pythons='3.6' constraints=rocky ;;
    19.*) pythons='3.6' constraints=stein ;;
    25.*) pythons='3.9 3.8' constraints=yoga ;;
    27.*) pythons='3.11 3.10 3.9' constraints=2023.1 ;;
    *) pythons='3.11 3.12 3.13' ;;
esac
[ -z "$constraints" ] || constraints=tools/nova/constraints-$constraints.txt
venv=.venv-nova-$version

# What the environment was made from: if any of it changes, it is made again.
state() {
    pwd
    cat "$0" ${constraints:+"$constraints"}
    "$venv/bin/python" -VV 2>/dev/null || echo 'no interpreter'
}

if [ -f "$venv/.installed" ] && [ "$(cat "$venv/.installed")" = "$(state | sha256sum)" ]; then
    exit 0
fi

python=
for each in $pythons; do
    ! python=$(CONSOLED_REQUIRE_PYTHONS='' tools/find-python.sh "$each" 2>/dev/null) || break
done
if [ -z "$python" ]; then
    echo "Nova $version needs Python ${pythons// / or }, which is not installed: it is not tested here." >&2
    [ "${CONSOLED_REQUIRE_PYTHONS:-}" != 1 ] || exit 1
    exit 3
fi

echo "Installing Nova $version into $venv ..."
rm -rf "$venv"
"$python" -m venv "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check --quiet)
if [ -n "$constraints" ]; then
    # the pip of an old Python knows no resolver, and the newest setuptools does not build old packages
    "${pip[@]}" install pip==21.3.1 setuptools==59.6.0 wheel==0.37.1
fi
"${pip[@]}" install ${constraints:+--constraint "$constraints"} "nova==$version" pymysql
state | sha256sum > "$venv/.installed"
