# SPDX-License-Identifier: Apache-2.0
"""Transport of the cell's message bus."""

from __future__ import annotations

import logging
import re
from importlib import metadata
from typing import Any

import oslo_messaging
from oslo_config import cfg

from consoled.conf import messaging

# Errors of these modules reach the caller as themselves, all others as RemoteError.
REMOTE_EXCEPTIONS = ('consoled.exception',)

# These loggers log whole messages: each one at TRACE, late replies at DEBUG; and names that peers give to
# their errors. Loggers made by oslo.log have a dot in their names, those made by logging an underscore.
_LOGGERS_WITH_CONTENT = tuple(
    f'{library}._drivers.{module}'
    for library in ('oslo.messaging', 'oslo_messaging')
    for module in ('amqpdriver', 'common', 'impl_rabbit')
)
_CONTENT = re.compile(r'%\((msg|message)\)s|(?<=message )%s|(?<=rebuild remote exception due to error: )%s')

# driver://hosts/virtual_host?options
_URL = re.compile(
    r'(?P<driver>[A-Za-z][A-Za-z0-9.-]*)(?:\+[A-Za-z0-9+.-]+)?:'
    r'(?://(?P<hosts>[^/?#\s]*))?(?:/[^?#@\s]*)?(?:\?[^#@\s]*)?'
)
_HOST = re.compile(r'(?:[^\[\]\s]*@)?(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*)(?::[0-9]{1,5})?', re.ASCII)
_UNCHECKED = (
    "[oslo_messaging_rabbit] ssl_ca_file is not set: the broker's certificate is not checked, and others can "
    'read and change what is sent to it.'
)
_FORM = (
    'expected rabbit://USER:PASSWORD@HOST:PORT/VIRTUAL_HOST, where other characters than letters, digits and '
    '-._~ in USER and PASSWORD are written as %nn'
)


def _hide_content(record: logging.LogRecord) -> bool:
    """Remove the content of messages from a record: it may include tokens (invariant 1 in doc/design.md)."""
    shown, found = _CONTENT.subn('(content not logged)', str(record.msg))
    if found:
        record.msg = shown
        if '%' not in shown:
            record.args = None
    return True


def check_url(url: str) -> None:
    """Check the form of a transport URL. The error says nothing of the URL: a part of it is a password.

    oslo.messaging takes what follows an unescaped ``/``, ``#``, ``?`` or ``,`` in a password for a port, a
    path or another host, and its errors and logs quote those.

    :raises ValueError: it is not such a URL
    """
    parts = _URL.fullmatch(url)
    if parts is None:
        raise ValueError(f'is not the URL of a message bus; {_FORM}')
    hosts = (parts['hosts'] or '').split(',')
    if not all(_HOST.fullmatch(host) for host in hosts) or len({'@' in host for host in hosts}) > 1:
        raise ValueError(f'names no host, or not only hosts; {_FORM}')
    names = {point.name for point in metadata.entry_points(group='oslo.messaging.drivers')}
    if parts['driver'] not in names:
        raise ValueError(f'names no driver of oslo.messaging; there are {", ".join(sorted(names))}')


def get_transport(
    conf: cfg.ConfigOpts, url: str | None = None, option: str = '[DEFAULT] transport_url'
) -> oslo_messaging.RPCTransport:
    """Return the RPC transport of ``[DEFAULT] transport_url``. Call this after a fork, not before it.

    ``conf`` may be that of another service: what is missing is registered, and nothing is changed.

    :param url: URL of another bus
    :param option: the option that it is from, for errors
    :raises ValueError: the URL cannot be used; the text has nothing of it
    """
    messaging.register_default_opts(conf)
    try:
        check_url(url or conf.transport_url)
    except ValueError as exc:
        raise ValueError(f'{option} {exc}') from None
    try:
        transport = oslo_messaging.get_rpc_transport(conf, url=url)
    except Exception as exc:  # noqa: BLE001 - any library's, with any text
        raise ValueError(f'{option} cannot be used: {type(exc).__name__}') from None
    return prepared(transport)


def prepared(transport: oslo_messaging.RPCTransport) -> oslo_messaging.RPCTransport:
    """Return the transport, which may be another service's own, ready for calls of consoled.

    - The options that the library needs are registered.
    - Domain errors arrive as themselves.
    - From now on, the library's loggers in this process do not log the content of messages at any level.
    """
    messaging.register_unlisted_opts(transport.conf)
    _allow_our_errors(transport._driver)
    for name in _LOGGERS_WITH_CONTENT:
        logging.getLogger(name).addFilter(_hide_content)
    return transport


def _allow_our_errors(driver: Any) -> None:
    """Add to the modules whose errors are raised as themselves. The library asks for them only at the start.

    A transport that has made a call already has handed its list on, so a list is extended and not replaced.
    """
    allowed = driver._allowed_remote_exmods
    missing = [name for name in REMOTE_EXCEPTIONS if name not in allowed]
    if isinstance(allowed, list):
        allowed.extend(missing)
    else:
        driver._allowed_remote_exmods = [*allowed, *missing]


def check(conf: cfg.ConfigOpts) -> list[str]:
    """Check, before a program is started, that its bus can be used as configured. It is not contacted.

    :returns: a sentence for each thing that is not secure
    :raises ValueError: an option is not set, or cannot be used; the text names it
    """
    where = conf.get_location('transport_url')
    if where is not None and where.location is cfg.Locations.opt_default:
        raise ValueError('[DEFAULT] transport_url is not set: no message bus is known')
    if conf.executor_thread_pool_size < 1:
        raise ValueError('[DEFAULT] executor_thread_pool_size: at least one thread has to answer calls')
    get_transport(conf).cleanup()
    return check_tls(conf)


def check_other_bus(conf: cfg.ConfigOpts, url: str, option: str) -> list[str]:
    """Check the same of another bus than the cell's.

    :param option: the option that its URL is from, for errors
    """
    get_transport(conf, url, option).cleanup()
    return check_tls(conf, url)


def addresses(conf: cfg.ConfigOpts) -> str:
    """Return the hosts and ports of ``[DEFAULT] transport_url``, without users and passwords."""
    url = oslo_messaging.TransportURL.parse(conf)
    hosts = [f'{host.hostname}:{host.port}' if host.port else str(host.hostname) for host in url.hosts]
    return ','.join(hosts) or url.transport


def check_tls(conf: cfg.ConfigOpts, text: str | None = None) -> list[str]:
    """Check the TLS options of RabbitMQ; those in the query of the URL replace those of the group.

    :param text: URL of another bus than ``[DEFAULT] transport_url``
    :returns: a sentence for each thing that is not secure
    :raises ValueError: TLS is set by half, or a file cannot be read
    """
    url = oslo_messaging.TransportURL.parse(conf, text)
    if url.transport not in ('rabbit', 'amqp'):
        return []
    group = conf.oslo_messaging_rabbit
    values = {
        name: url.query.get(name, getattr(group, name, None))
        for name in ('ssl', 'ssl_ca_file', 'ssl_cert_file', 'ssl_key_file')
    }
    files = [name for name, value in values.items() if name != 'ssl' and value]
    if str(values['ssl']).lower() not in ('true', '1', 'yes', 'on'):
        if files:
            raise ValueError(
                f'[oslo_messaging_rabbit] {files[0]} is set, but ssl is not: no TLS would be used'
            )
        return []
    if values['ssl_key_file'] and not values['ssl_cert_file']:
        raise ValueError('[oslo_messaging_rabbit] ssl_key_file is set, but ssl_cert_file is not')
    for name in files:
        try:
            open(values[name], 'rb').close()
        except OSError as exc:
            raise ValueError(f'[oslo_messaging_rabbit] {name}: {values[name]}: {exc.strerror}') from None
    if not values['ssl_ca_file']:
        return [_UNCHECKED]
    return []
