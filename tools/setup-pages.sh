#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Install what the console pages are made of, where it is missing: noVNC and spice-html5 from Debian, xterm.js
# from npm (Debian 12 has a package of it that no browser can run).
#
# The options that find them: [proxy] novnc_path = /usr/share/novnc, spice_path = /usr/share/spice-html5,
# terminal_path = /usr/local/share/consoled/xterm.

set -euo pipefail

packages=(novnc spice-html5)
terminal=/usr/local/share/consoled/xterm
terminal_package=@xterm/xterm@6.0.0
terminal_sha256=908e66e04af6c8dc6b00dd3b54de088e2e81e5ed866284fd6c2fb3c2d1c7a3f6

missing=()
for package in "${packages[@]}"; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing+=("$package")
done
wanted=("${missing[@]}")
if [ ! -e "$terminal/lib/xterm.js" ]; then
    wanted+=("$terminal_package")
    command -v npm >/dev/null || missing+=(npm)
fi
[ ${#wanted[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "Missing, and only root can install them: ${wanted[*]}" >&2
    exit 1
fi

echo "Installing ${wanted[*]} ..."
if [ ${#missing[@]} -gt 0 ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq </dev/null
    apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >/dev/null
fi
if [ ! -e "$terminal/lib/xterm.js" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    cd "$work"
    npm pack --loglevel=error "$terminal_package" >/dev/null
    echo "$terminal_sha256  $(ls ./*.tgz)" | sha256sum --check --quiet
    tar -xzf ./*.tgz
    chmod -R u=rwX,go=rX package  # npm keeps the modes that the author had
    mkdir -p "$(dirname "$terminal")"
    rm -rf "$terminal" "$terminal.new"
    cp -r package "$terminal.new"
    mv -T "$terminal.new" "$terminal"  # whole, so that an interrupted run is not taken for a finished one
fi
