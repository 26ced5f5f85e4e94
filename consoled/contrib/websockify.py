# SPDX-License-Identifier: Apache-2.0
"""A token plugin: a stock websockify (0.10 or newer) asks consoled before it connects a user.

    websockify --token-plugin consoled.contrib.websockify.ConsoledToken \\
        --token-source /etc/consoled/consoled.conf 6080

The source names config files, with commas between; left out, it is /etc/consoled/consoled.conf. With
``?timeout=3`` at its end a user waits 3 s for the manager, and not 5. Of the files are read, at the start:
``transport_url`` and oslo.messaging's options, ``[proxy] allowed_networks`` and ``allowed_ports``,
``[upgrade_levels] consoled``, and the options below: give them the values that the managers have. consoled
must be installed where websockify is (``pip install consoled[websockify]``).

websockify holds no sessions: it asks whether a token is valid, and that is all. What consoled keeps by means
of sessions can't be kept, so what depends on it is refused:

- Console types with a limit of sessions (``max_sessions``; a serial port has 1 by default): nobody would
  count. With ``[consoleauth] single_use`` or ``enforce_session_timeout`` it does not even start: nobody would
  spend the token, or end the session.
- View-only consoles (the option ``mode``): websockify hands on whatever a user sends.
- Consoles with ``internal_access_path`` or ``use_tls``, and ``novnc`` where ``[vnc] auth_schemes`` lacks
  ``none``: websockify makes no handshake with a hypervisor; it would speak to the wrong thing, or in clear.
- Consoles with options that this release does not know; ``webmks`` and ``rdp-html5``.

What is missing all the same, and takes consoled-proxy:

- A user who is connected stays so, whatever is revoked. Nobody can list or cut sessions.
- The compute agent is not asked whether the port is still that guest's. Between a guest's move and the next
  ``define_consoles`` a token may lead to the guest that has the port now.
- No limits of sessions per token, instance and project, none of failed attempts; no check of the web page's
  origin; no time limit for connecting to the guest.
- A refused user's connection is closed without an HTTP status: the log has the reason, with a request id that
  the manager's log has too.
- Each user costs a process, each open two connections to the bus (closed before the user is connected).

No token is logged. By itself websockify logs, at its usual level, the path of each websocket that it opens
and each token that it refuses. So the plugin refuses with an error of its own, and hides what follows a ``?``
in all that websockify's logger writes, with ``--verbose`` too. Out of its reach are the logs of web servers
and load balancers in front: have them log no query. With ``--libserver`` websockify uses no token plugin.
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
from typing import TYPE_CHECKING, Any

from oslo_config import cfg
from websockify.websockifyserver import WebSockifyServer  # type: ignore[import-untyped]

from consoled import exception
from consoled import token as tokens
from consoled.context import RequestContext
from consoled.proxy.forwarded import Network, contains, parse_address, parse_networks
from consoled.proxy.targets import parse_port_ranges

if TYPE_CHECKING:
    from consoled.rpc.client import ConsoleAuthAPI

_PROG = 'consoled-websockify'

_TIMEOUT = 5.0  # seconds
_LONGEST_TIMEOUT = 60.0

# Seconds that a user waits for the connections to the bus to be closed. What takes longer is done aside.
_CLOSING = 2.0

# Each open leaves a queue for replies on the broker. By default it would stay for half an hour.
_REPLY_QUEUE_TTL = 10  # seconds

# What can be relayed as it is. webmks is a websocket itself, over TLS; rdp-html5 has no proxy here.
_RELAYED = ('novnc', 'spice-html5', 'serial')


class Refused(Exception):
    """The text is for the log, and has no token."""


@dataclasses.dataclass(frozen=True)
class Policy:
    """Which consoles websockify may connect to.

    :param refused: console types that could be served but for an option, with the reason
    """

    networks: Sequence[Network]
    ports: Sequence[range]
    refused: dict[str, str]

    @classmethod
    def of(cls, conf: cfg.ConfigOpts) -> Policy:
        """The policy of the configuration.

        :raises ValueError: an option is wrong, or nothing could be served
        """
        from consoled.conf import consoles

        for option in ('single_use', 'enforce_session_timeout'):
            if conf.consoleauth[option]:
                raise ValueError(f'websockify can not keep [consoleauth] {option}: it holds no sessions')
        refused = {}
        for console_type in _RELAYED:
            group = consoles.GROUP_OF_TYPE[console_type]
            if conf[group].max_sessions:
                refused[console_type] = f'[{group}] max_sessions is not 0'
            elif console_type == 'novnc' and 'none' not in conf.vnc.auth_schemes:
                refused[console_type] = '[vnc] auth_schemes has no none'
        if len(refused) == len(_RELAYED):
            raise ValueError(f'there is no console that websockify may serve: {refused}')
        return cls(
            parse_networks(conf.proxy.allowed_networks), parse_port_ranges(conf.proxy.allowed_ports), refused
        )

    def place(self, console: Any) -> tuple[str, int]:
        """Address and port to connect to. A name is resolved here: what was checked is what is used.

        :param console: a ConsoleAuthToken
        :raises Refused: it can't be served, or lies outside of the allowed networks and ports
        """
        if console.console_type not in _RELAYED:
            raise Refused(f'websockify can not serve {console.console_type} consoles')
        if why := self.refused.get(console.console_type):
            raise Refused(f'websockify may not serve {console.console_type} consoles: {why}')
        for option, value in console.options.items():
            if value is not None and not _harmless(option, value):
                raise Refused(f'consoles with the option {option} need consoled-proxy')
        if console.host is None or console.port is None:
            raise Refused('the console has no place')
        if not any(console.port in allowed for allowed in self.ports):
            raise Refused(f'port {console.port} of {console.host} is not in [proxy] allowed_ports')
        try:
            found = socket.getaddrinfo(console.host, console.port, type=socket.SOCK_STREAM)
        except OSError:
            raise Refused(f'console host {console.host} can not be resolved') from None
        for info in found:
            address = str(info[4][0])
            if contains(self.networks, parse_address(address)):
                return address, console.port
        raise Refused(f'console host {console.host} is not in [proxy] allowed_networks')


class ConsoledToken:
    """The plugin. websockify makes one at its start, and asks it in a process of its own for each user.

    :param src: websockify's ``--token-source``
    :raises SystemExit: an option is wrong; the message says which
    """

    def __init__(self, src: str | None = None) -> None:
        try:
            _import_libraries()
            self._files, self._timeout = _parse_source(src)
            self._conf = _read(self._files)
            self._policy = Policy.of(self._conf)
        except (cfg.Error, ValueError) as exc:
            raise SystemExit(f'{_PROG}: {exc}') from None
        self._log = WebSockifyServer.get_logger()
        self._log.addFilter(_hide_query)
        for console_type, why in self._policy.refused.items():
            self._log.info('  - no %s consoles: %s', console_type, why)

    def __reduce__(self) -> tuple[Any, ...]:
        """Where processes are not forked (Python 3.14, say), each user's process makes a plugin anew."""
        return type(self), (f'{",".join(self._files or [])}?timeout={self._timeout}',)

    def lookup(self, token: str) -> tuple[str, int]:
        """Address and port of the token's console.

        Takes ``timeout`` seconds at most, and up to 2 s more to close the connections to the bus.

        :raises WebSockifyServer.EClose: refused. websockify logs the text, and closes the user's connection.
            For None, which other plugins return, it does the same, but with a text that has the token.
        """
        context = RequestContext(overwrite=False)
        outcome: futures.Future[tuple[Any, tuple[str, int]]] = futures.Future()
        # in a thread: a library that waits for the bus, or for a name to be resolved, may know no limit
        asking = threading.Thread(target=self._ask, args=(context, token, outcome), daemon=True)
        asking.start()
        try:
            # nothing wider is caught here: websockify's signal handlers raise exceptions of their own
            grant, place = outcome.result(self._timeout)
        except futures.TimeoutError:
            reason = f'{exception.ManagerUnreachable.code}: no answer within {self._timeout:g} s'
        except Refused as exc:
            reason = str(exc)
        else:
            asking.join(_CLOSING)
            self._log.info(
                'console granted: %s of instance %s, user %s, project %s (%s)',
                grant.console_type,
                grant.instance_uuid,
                grant.user_id,
                grant.project_id,
                context.request_id,
            )
            return place
        asking.join(_CLOSING)
        raise WebSockifyServer.EClose(f'console refused: {reason} ({context.request_id})')

    def _ask(self, context: RequestContext, token: str, outcome: futures.Future[Any]) -> None:
        # when the connections are closed the answer is there: what goes wrong then does not matter any more
        with contextlib.suppress(Exception), contextlib.ExitStack() as stack:
            try:
                if not tokens.well_formed(token):
                    raise exception.InvalidToken()
                grant = stack.enter_context(self._manager()).validate(context, token)
                outcome.set_result((grant, self._policy.place(grant)))
            except Refused as exc:
                outcome.set_exception(exc)
            except exception.ConsoledException as exc:
                outcome.set_exception(Refused(exc.code))
            except Exception as exc:  # its text may have anything
                outcome.set_exception(Refused(f'{exception.InternalError.code}: {type(exc).__name__}'))

    @contextlib.contextmanager
    def _manager(self) -> Iterator[ConsoleAuthAPI]:
        """A client, with connections that are this process's alone, and closed when it has answered."""
        from consoled.rpc.client import ConsoleAuthAPI
        from consoled.rpc.transport import get_transport

        transport = get_transport(self._conf)
        try:
            yield ConsoleAuthAPI(transport, level=self._conf.upgrade_levels.consoled, timeout=self._timeout)
        finally:
            transport.cleanup()


def _import_libraries() -> None:
    """Import what each user's process needs, before there is any. Only here is oslo.messaging imported first.

    Where nobody has chosen, its import chooses eventlet, and fails if that is not installed.
    """
    from oslo_service import backend

    with warnings.catch_warnings():
        # where eventlet happens to be installed, futurist imports it, and nobody uses it
        warnings.filterwarnings('ignore', message=r'\s*Eventlet is deprecated')
        if backend.get_backend_type() is None:
            backend.init_backend(backend.BackendType.THREADING)
        from consoled.rpc import client, transport  # noqa: F401


def _parse_source(src: str | None) -> tuple[list[str] | None, float]:
    """Config files (None: the usual places) and seconds to wait.

    :raises ValueError: what follows the ``?`` is wrong
    """
    text, _, query = (src or '').partition('?')
    # websockify may change its directory before it forks
    files = [os.path.abspath(name.strip()) for name in text.split(',') if name.strip()]
    parameters = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
    timeout = parameters.pop('timeout', str(_TIMEOUT))
    if parameters:
        raise ValueError(f'the token source has unknown parameters: {", ".join(sorted(parameters))}')
    try:
        seconds = float(timeout)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= _LONGEST_TIMEOUT:
        raise ValueError(f'the timeout of the token source must be a number up to {_LONGEST_TIMEOUT:g}')
    return files or None, seconds


def _read(files: list[str] | None) -> cfg.ConfigOpts:
    """The options of the files, apart from those of the rest of the process.

    :raises cfg.Error: a file can't be read, or a value is wrong
    :raises ValueError: a value is wrong
    """
    import oslo_messaging

    from consoled.conf import consoleauth, consoles, messaging, proxy, upgrade_levels
    from consoled.rpc import versions

    conf = cfg.ConfigOpts()
    for module in (consoleauth, consoles, messaging, proxy, upgrade_levels):
        module.register_opts(conf)
    conf([], project='consoled', prog=_PROG, default_config_files=files, default_config_dirs=[])
    conf.set_override('rabbit_transient_queues_ttl', _REPLY_QUEUE_TTL, group='oslo_messaging_rabbit')
    versions.pinned(conf.upgrade_levels.consoled)
    try:
        oslo_messaging.TransportURL.parse(conf)
    except (oslo_messaging.InvalidTransportURL, ValueError):  # its text may have the password
        raise ValueError('[DEFAULT] transport_url is wrong') from None
    return conf


def _harmless(option: str, value: str) -> bool:
    """Whether an option of a console changes nothing for who connects to its host and port, in clear."""
    return option == 'tls_port' or (option == 'use_tls' and value.lower() == 'false')


def _hide_query(record: logging.LogRecord) -> bool:
    """Take the query of URLs out of a record: the token is in it (DESIGN invariant 1).

    All that follows a ``?`` goes: how a query ends in a line that a user has made up nobody can tell.
    """
    text, found, _ = record.getMessage().partition('?')
    if found:
        record.msg, record.args = f'{text}?(query not logged)', None
    return True
