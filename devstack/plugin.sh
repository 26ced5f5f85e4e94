#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Devstack plugin: consoled in the place of nova-novncproxy, nova-spicehtml5proxy and nova-serialproxy.
#
#     [[local|localrc]]
#     enable_plugin consoled URL_OF_THIS_REPOSITORY
#
# Devstack sources this file once for each phase: $1 is the mode, $2 the phase. Its settings are in settings.

# the configuration that Nova's proxies of the cell would read
function consoled_nova_conf {
    local cell_conf=$NOVA_CONF_DIR/nova_cell$CONSOLED_NOVA_CELL.conf
    if [[ -e $cell_conf ]]; then
        echo "$cell_conf"
    else
        echo "$NOVA_CONF"
    fi
}

function install_consoled {
    sudo mkdir -p "$CONSOLED_VENV"
    sudo chown -R "$STACK_USER" "$CONSOLED_VENV"
    python3 -m venv "$CONSOLED_VENV"
    # not the constraints of the release of OpenStack: consoled has an environment of its own
    "$CONSOLED_VENV/bin/pip" install --quiet "${CONSOLED_DIR}[postgresql]"
    sudo "$CONSOLED_DIR/tools/setup-pages.sh"
}

function configure_consoled {
    local conf=$CONSOLED_CONF_DIR/consoled.conf
    local connection
    connection=$(database_connection_url "$CONSOLED_DATABASE")
    connection=${connection/[?&]plugin=dbcounter/} # of SQLAlchemy, in the Python of OpenStack only

    sudo install -d -o "$STACK_USER" -m 0750 "$CONSOLED_CONF_DIR"
    rm -f "$conf"
    install -m 0640 /dev/null "$conf"
    iniset "$conf" database connection "$connection"
    iniset "$conf" nova config_file "$(consoled_nova_conf)"
    # all in one: hypervisors listen on this host
    iniset "$conf" proxy allowed_networks "127.0.0.0/8,$HOST_IP/32,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16"
    iniset "$conf" DEFAULT debug "$ENABLE_DEBUG_LOG_LEVEL"

    # no proxy of Nova has written where it listens, and users know these ports
    iniset "$(consoled_nova_conf)" vnc novncproxy_host "$SERVICE_LISTEN_ADDRESS"
    iniset "$(consoled_nova_conf)" serial_console serialproxy_host "$SERVICE_LISTEN_ADDRESS"

    recreate_database "$CONSOLED_DATABASE"
    "$CONSOLED_VENV/bin/consoled-manage" --config-file "$conf" db upgrade
}

function start_consoled {
    run_process consoled "$CONSOLED_VENV/bin/consoled-nova --config-file $CONSOLED_CONF_DIR/consoled.conf"
}

function stop_consoled {
    stop_process consoled
}

function clean_consoled {
    sudo rm -rf "$CONSOLED_VENV" "$CONSOLED_CONF_DIR"
}

if is_service_enabled consoled; then
    case "$1 ${2:-}" in
        "stack install")
            echo_summary "Installing consoled"
            install_consoled
            ;;
        "stack post-config")
            echo_summary "Configuring consoled"
            configure_consoled
            ;;
        "stack extra")
            echo_summary "Starting consoled"
            start_consoled
            ;;
        "unstack ")
            stop_consoled
            ;;
        "clean ")
            clean_consoled
            ;;
    esac
fi
