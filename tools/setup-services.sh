#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Install the Debian packages of what the tests run, where they are missing: services, a browser, guests.
#
# The tests start private instances on free ports, so the packages must not start theirs: policy-rc.d
# tells them so while they are being installed. One that exists already is left as it is.

set -euo pipefail
cd "$(dirname "$0")/.."

packages=(rabbitmq-server mariadb-server postgresql memcached)
packages+=(chromium chromium-driver firefox-esr qemu-system-x86 qemu-utils fonts-dejavu-core nginx haproxy)
# libvirt, and what its Python binding is compiled with: it has to fit the library
packages+=(libvirt-daemon-system libvirt-clients libvirt-dev pkg-config python3-dev gcc)
policy=/usr/sbin/policy-rc.d

missing=()
for package in "${packages[@]}"; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing+=("$package")
done

install_missing() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "Missing, and only root can install them: ${missing[*]}" >&2
        exit 1
    fi

    if [ ! -e "$policy" ]; then
        # the file appears whole and only here: another installation that runs now must not read half of it
        printf '#!/bin/sh\nexit 101\n' > "$policy.consoled"
        chmod 755 "$policy.consoled"
        trap 'rm -f "$policy.consoled" "$policy"' EXIT
        mv -n "$policy.consoled" "$policy"
    fi

    echo "Installing ${missing[*]} ..."
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq </dev/null
    apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >/dev/null
}

if [ ${#missing[@]} -gt 0 ]; then
    install_missing
fi

binding=libvirt-python
if [ -x .venv/bin/python ] && ! .venv/bin/python -c 'import libvirt' 2>/dev/null; then
    echo "Installing $binding ..."
    .venv/bin/python -m pip --disable-pip-version-check --quiet install "$binding>=9.0"
fi
