#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# tools/setup-cloud.sh [VERSION]
#
# Add to .venv-nova-VERSION (34.0.0; see tools/setup-nova.sh) what a whole Nova needs besides: Placement, and the
# binding of libvirt. Make .venv-nova-tempest, which has Tempest. When nothing has changed since the last time, it does
# nothing.

set -euo pipefail
cd "$(dirname "$0")/.."

version=${1:-34.0.0}
nova=.venv-nova-$version tempest=.venv-nova-tempest

# What was added to an environment: if any of it changes, it is added again.
state() {
    pwd
    cat "$0"
    "$1/bin/python" -VV 2>/dev/null || echo 'no interpreter'
}

installed() {
    [ -f "$1/.cloud" ] && [ "$(cat "$1/.cloud")" = "$(state "$1" | sha256sum)" ]
}

install() {
    local venv=$1
    shift
    "$venv/bin/python" -m pip --disable-pip-version-check --quiet install "$@"
    state "$venv" | sha256sum > "$venv/.cloud"
}

if ! installed "$nova"; then
    echo "Installing Placement into $nova ..."
    # nova is named again so that pip leaves its release as it is
    install "$nova" "nova==$version" openstack-placement libvirt-python
fi

if ! installed "$tempest"; then
    echo "Installing Tempest into $tempest ..."
    rm -rf "$tempest"
    "$nova/bin/python" -m venv "$tempest"
    install "$tempest" tempest
fi
