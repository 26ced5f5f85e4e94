# SPDX-License-Identifier: Apache-2.0
"""A token plugin for a stock websockify (0.10 or later), which asks consoled before it connects a user.

    websockify --token-plugin consoled.contrib.websockify.ConsoledToken \\
        --token-source /etc/consoled/consoled.conf 6080

The token source is a comma-separated list of config files; the default is /etc/consoled/consoled.conf. Append
``?timeout=3`` to make a user wait for the manager for 3 seconds instead of 5. The plugin reads the files
once, at the start. It uses ``transport_url`` and oslo.messaging's options, ``[proxy] allowed_networks`` and
``allowed_ports``, ``[upgrade_levels] consoled``, and the options named below; give them the same values as on
the managers. Install consoled into the environment of websockify (``pip install consoled[websockify]``).

websockify has no sessions: it only asks whether a token is valid. The plugin therefore refuses everything
that depends on sessions, or on something else that websockify cannot do:

- Console types with a limit of sessions (``max_sessions``; by default 1 for serial ports): nothing would
  count the sessions. With ``[consoleauth] single_use`` or ``enforce_session_timeout`` the plugin does not
  start: nothing would spend the token or end the session.
- View-only consoles (the console option ``mode``): websockify forwards all input of a user.
- Consoles with ``internal_access_path`` or ``use_tls``, and ``novnc`` where ``[vnc] auth_schemes`` lacks
  ``none``: websockify makes no handshake with a hypervisor, so it would talk to the wrong service, or without
  encryption.
- Consoles with options that this release does not know, and the types ``webmks`` and ``rdp-html5``.

These features are missing and need consoled-proxy:

- A connected user stays connected even if the token is revoked. Sessions cannot be listed or cut.
- The compute agent is not asked whether the port still belongs to the instance. Between the move of an
  instance and the next ``define_consoles`` a token may lead to the instance that uses the port now.
- The token has to be in the URL of the websocket, where noVNC's own pages put it: websockify looks for it
  nowhere else. ``consolectl console attach`` and consoled's pages send it as a subprotocol, to keep it out of
  logs.
- There are no limits for the sessions of a token, instance or project, or for failed attempts, no check of
  the web page's origin, and no time limit for connecting to the console.
- A serial port whose guest does not read it stays taken after its user has left: websockify closes its
  connection, and does not reset it, which is all that QEMU would notice then.
- The connection of a refused user is closed without an HTTP status. The log has the reason and a request id,
  which is also in the log of the manager.
- Each user costs a process, and each open makes two connections to the bus (closed before the user is
  connected).

The plugin logs no token. websockify itself logs, at its default level, the path of each websocket and each
token that it refuses. Therefore the plugin refuses with an error of its own, and removes everything after a
``?`` from the messages of websockify's logger, also with ``--verbose``. It cannot change the logs of web
servers and load balancers in front of websockify: configure them not to log queries. With ``--libserver``
websockify uses no token plugin.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import socket
import threading
import urllib.parse
import warnings
from collections.abc import Iterator, Sequence
from concurrent import futures
from typing import TYPE_CHECKING, Any, TypeAlias

from oslo_config import cfg
from websockify.websockifyserver import WebSockifyServer  # type: ignore[import-untyped]

from consoled import exception
from consoled import token as tokens
from consoled.context import RequestContext
from consoled.proxy.forwarded import Network, contains, parse_address, parse_networks
from consoled.proxy.targets import parse_port_ranges

if TYPE_CHECKING:
    from consoled import objects
    from consoled.rpc.client import ConsoleAuthAPI

_PROG = 'consoled-websockify'

# What the manager granted, and the address and port to connect to.
_Outcome: TypeAlias = 'tuple[objects.ConsoleAuthToken, tuple[str, int]]'

_TIMEOUT = 5.0  # seconds
_MAX_TIMEOUT = 60.0

# Seconds that a user waits until the connections to the bus are closed. A slower one is closed in background.
_CLOSE_TIMEOUT = 2.0

# Each open leaves a reply queue on the broker, which would stay for half an hour by default.
_REPLY_QUEUE_TTL = 10  # seconds

# The types that websockify can relay. webmks is a websocket itself, over TLS; rdp-html5 has no proxy here.
_RELAYED_TYPES = ('novnc', 'spice-html5', 'serial')


class Refused(Exception):
    """A console that the user may not open. The message is for the log and contains no token."""


@dataclasses.dataclass(frozen=True)
class Policy:
    """Rules that say which consoles websockify may connect to.

    :param networks: networks that targets must be in
    :param ports: ranges that ports of targets must be in
    :param refused: reasons by console type, for types that are refused because of an option
    """

    networks: Sequence[Network]
    ports: Sequence[range]
    refused: dict[str, str]

    @classmethod
    def from_conf(cls, conf: cfg.ConfigOpts) -> Policy:
        """Return the policy for this configuration.

        :raises ValueError: an option is wrong, or no console type could be served
        """
        from consoled.conf import consoles

        for option in ('single_use', 'enforce_session_timeout'):
            if conf.consoleauth[option]:
                raise ValueError(f'websockify cannot enforce [consoleauth] {option}: it has no sessions')
        refused = {}
        for console_type in _RELAYED_TYPES:
            group = consoles.GROUP_OF_TYPE[console_type]
            if conf[group].max_sessions:
                refused[console_type] = f'[{group}] max_sessions is not 0'
            elif console_type == 'novnc' and 'none' not in conf.vnc.auth_schemes:
                refused[console_type] = '[vnc] auth_schemes does not contain none'
        if len(refused) == len(_RELAYED_TYPES):
            raise ValueError(f'websockify may not serve any type of console: {refused}')
        return cls(
            parse_networks(conf.proxy.allowed_networks, 'allowed_networks'),
            parse_port_ranges(conf.proxy.allowed_ports),
            refused,
        )

    def resolve_target(self, grant: objects.ConsoleAuthToken) -> tuple[str, int]:
        """Return the IP address and port to connect to.

        A host name is resolved here and not by websockify, so that the address that was checked is used.

        :raises Refused: the console cannot be served, or is outside the allowed networks and ports
        """
        if grant.console_type not in _RELAYED_TYPES:
            raise Refused(f'websockify cannot serve {grant.console_type} consoles')
        if reason := self.refused.get(grant.console_type):
            raise Refused(f'websockify may not serve {grant.console_type} consoles: {reason}')
        for option, value in grant.options.items():
            if value is not None and not _is_harmless(option, value):
                raise Refused(f'consoles with the option {option} need consoled-proxy')
        if grant.host is None or grant.port is None:
            raise Refused('the console has no host and port')
        if not any(grant.port in allowed for allowed in self.ports):
            raise Refused(f'port {grant.port} of {grant.host} is not in [proxy] allowed_ports')
        try:
            found = socket.getaddrinfo(grant.host, grant.port, type=socket.SOCK_STREAM)
        except OSError:
            raise Refused(f'console host {grant.host} cannot be resolved') from None
        for info in found:
            address = str(info[4][0])
            if contains(self.networks, parse_address(address)):
                return address, grant.port
        raise Refused(f'console host {grant.host} is not in [proxy] allowed_networks')


class ConsoledToken:
    """The plugin. websockify creates it at the start, and calls ``lookup`` in a process of each user.

    :param src: the value of ``--token-source``
    :raises SystemExit: an option is wrong; the message says which
    """

    def __init__(self, src: str | None = None) -> None:
        try:
            _import_libraries()
            self._files, self._timeout = _parse_source(src)
            self._conf = _read_config(self._files)
            self._policy = Policy.from_conf(self._conf)
        except (cfg.Error, ValueError) as exc:
            raise SystemExit(f'{_PROG}: {exc}') from None
        self._log = WebSockifyServer.get_logger()
        self._log.addFilter(_redact_query)
        for console_type, reason in self._policy.refused.items():
            self._log.info('  - no %s consoles: %s', console_type, reason)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the token source only: a process that is not forked (Python 3.14) creates a new plugin."""
        return type(self), (f'{",".join(self._files or [])}?timeout={self._timeout}',)

    def lookup(self, token: str) -> tuple[str, int]:
        """Return the address and port of the token's console.

        This takes ``timeout`` seconds at most, and up to 2 s more to close the connections to the bus.

        :raises WebSockifyServer.EClose: the console is refused. websockify logs the message and closes the
            user's connection. (For a plugin that returns None it does the same, but logs the token.)
        """
        context = RequestContext(overwrite=False)
        outcome: futures.Future[_Outcome] = futures.Future()
        # In a thread, because a library may wait for the bus or for a name server without a limit.
        worker = threading.Thread(target=self._authorize, args=(context, token, outcome), daemon=True)
        worker.start()
        try:
            # Catch nothing more: websockify's signal handlers raise exceptions of their own here.
            grant, target = outcome.result(self._timeout)
        except futures.TimeoutError:
            reason = f'{exception.ManagerUnreachable.code}: no answer within {self._timeout:g} s'
        except Refused as exc:
            reason = str(exc)
        else:
            worker.join(_CLOSE_TIMEOUT)
            self._log.info(
                'console granted: %s of instance %s, user %s, project %s (%s)',
                grant.console_type,
                grant.instance_uuid,
                grant.user_id,
                grant.project_id,
                context.request_id,
            )
            return target
        worker.join(_CLOSE_TIMEOUT)
        raise WebSockifyServer.EClose(f'console refused: {reason} ({context.request_id})')

    def _authorize(self, context: RequestContext, token: str, outcome: futures.Future[_Outcome]) -> None:
        """Validate the token and resolve the target; set the outcome before the connections are closed."""
        # Errors while the connections are closed no longer matter: the outcome is set by then.
        with contextlib.suppress(Exception), contextlib.ExitStack() as stack:
            try:
                if not tokens.well_formed(token):
                    raise exception.InvalidToken()
                grant = stack.enter_context(self._connect_manager()).validate(context, token)
                outcome.set_result((grant, self._policy.resolve_target(grant)))
            except Refused as exc:
                outcome.set_exception(exc)
            except exception.ConsoledException as exc:
                outcome.set_exception(Refused(exc.code))
            except Exception as exc:  # without its message, which could contain the token
                outcome.set_exception(Refused(f'{exception.InternalError.code}: {type(exc).__name__}'))

    @contextlib.contextmanager
    def _connect_manager(self) -> Iterator[ConsoleAuthAPI]:
        """Provide a client whose connections belong to this process alone, and are closed at the end."""
        from consoled.rpc.client import ConsoleAuthAPI
        from consoled.rpc.transport import get_transport

        transport = get_transport(self._conf)
        try:
            yield ConsoleAuthAPI(transport, level=self._conf.upgrade_levels.consoled, timeout=self._timeout)
        finally:
            transport.cleanup()


def _import_libraries() -> None:
    """Import what the process of each user needs, before there is one.

    oslo.messaging must not be imported earlier: without a choice of backend its import selects eventlet, and
    fails if that is not installed.
    """
    from oslo_service import backend

    with warnings.catch_warnings():
        # if eventlet is installed, futurist imports it although it is not used
        warnings.filterwarnings('ignore', message=r'\s*Eventlet is deprecated')
        if backend.get_backend_type() is None:
            backend.init_backend(backend.BackendType.THREADING)
        from consoled.rpc import client, transport  # noqa: F401


def _parse_source(src: str | None) -> tuple[list[str] | None, float]:
    """Return the config files (None: the default locations) and the timeout in seconds.

    :raises ValueError: a parameter after the ``?`` is unknown or wrong
    """
    text, _, query = (src or '').partition('?')
    # absolute, because websockify may change its directory before it forks
    files = [os.path.abspath(name.strip()) for name in text.split(',') if name.strip()]
    parameters = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
    timeout = parameters.pop('timeout', str(_TIMEOUT))
    if parameters:
        raise ValueError(f'the token source has unknown parameters: {", ".join(sorted(parameters))}')
    try:
        seconds = float(timeout)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= _MAX_TIMEOUT:
        raise ValueError(f'the timeout of the token source must be a number up to {_MAX_TIMEOUT:g}')
    return files or None, seconds


def _read_config(files: list[str] | None) -> cfg.ConfigOpts:
    """Return the options in the files, separate from ``cfg.CONF`` of this process.

    :raises cfg.Error: a file cannot be read, or a value is wrong; the text has nothing that may be secret
    :raises ValueError: the URL of the bus or a version is wrong; the same
    """
    from consoled.conf import consoleauth, consoles, messaging, proxy, upgrade_levels
    from consoled.conf import files as reading
    from consoled.rpc import transport, versions

    conf = cfg.ConfigOpts()
    for module in (consoleauth, consoles, messaging, proxy, upgrade_levels):
        module.register_opts(conf)
    with reading.explained():
        conf([], project='consoled', prog=_PROG, default_config_files=files, default_config_dirs=[])
    reading.check(conf)
    conf.set_override('rabbit_transient_queues_ttl', _REPLY_QUEUE_TTL, group='oslo_messaging_rabbit')
    versions.pinned(conf.upgrade_levels.consoled)
    try:
        transport.check_url(conf.transport_url)
    except ValueError as exc:
        raise ValueError(f'[DEFAULT] transport_url {exc}') from None
    for risk in transport.check_tls(conf):
        logging.getLogger(__name__).warning('%s', risk)
    return conf


def _is_harmless(option: str, value: str) -> bool:
    """Return whether a plain TCP connection to the console is right in spite of this option."""
    return option == 'tls_port' or (option == 'use_tls' and value.lower() == 'false')


def _redact_query(record: logging.LogRecord) -> bool:
    """Remove the query of URLs from a log record, because it contains the token (design.md, invariant 1).

    Everything after the first ``?`` is removed: in a malformed request, the user decides where the query
    seems to end.
    """
    text, found, _ = record.getMessage().partition('?')
    if found:
        record.msg, record.args = f'{text}?(query not logged)', None
    return True
