# SPDX-License-Identifier: Apache-2.0
"""RPC clients of managers, compute agents and proxies.

Domain errors are raised as themselves. A bus or a peer that does not answer is a domain error too. Any call
may be repeated with the same ids (invariant 6 in doc/design.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from consoled import exception, objects
from consoled.context import RequestContext
from consoled.rpc import arguments as arg
from consoled.rpc import errors, replies, versions
from consoled.rpc.caller import CALL_TIMEOUT, Caller
from consoled.rpc.replies import Closing, HostChanges, LeaseGrant, LeaseRenewal, Revocation

_MAX_CONSOLES = 256  # of an instance
_MAX_SESSIONS = 1000  # on a page

MAX_SERIAL_PORT = _MAX_CONSOLES  # the highest number of a serial port

__all__ = ['CALL_TIMEOUT', 'MAX_SERIAL_PORT', 'ComputeConsoleAPI', 'ConsoleAuthAPI', 'ProxyAPI']


class ConsoleAuthAPI(Caller):
    """Client of the managers (topic ``consoled``), for compute agents, proxies and operators."""

    topic = versions.TOPIC
    newer_arguments = {'serial_port': '1.1', 'to_open': '1.1'}
    replies = {
        'authorize': replies.grant(),
        'validate': replies.grant(),
        'list_free_ports': arg.objects_of(objects.ConsoleConnectionList, _MAX_CONSOLES),
        'open_session': arg.instance_of(objects.ConsoleSession),
        'list_sessions': arg.objects_of(objects.ConsoleSessionList, _MAX_SESSIONS),
        'object_backport_versions': arg.instance_of(objects.ConsoledObject),
        'ping': arg.version(),
    }

    def _backport(self, context: Any, primitive: dict[str, Any], wanted: dict[str, str]) -> Any:
        return self.object_backport_versions(context, primitive, wanted)

    def authorize(
        self, context: RequestContext, grant: objects.ConsoleAuthToken, ttl: int | None = None
    ) -> objects.ConsoleAuthToken:
        """Authorize a console and return the grant with ``token``, ``expires`` and ``access_url``.

        With ``host`` and ``port`` None, the manager chooses the next free console of the type.

        :param ttl: lifetime in seconds; None for ``[consoleauth] token_ttl``
        :raises ConsolePortsExhausted: ``port`` is None and all consoles of the type are connected
        :raises InstanceNotFound: ``port`` is None and the instance is unknown
        :raises InvalidConsole: the console cannot be authorized as described
        :raises ConsoleContested: an instance of another compute host has the console's address too
        :raises TTLTooLong: ``ttl`` exceeds ``[consoleauth] max_token_ttl``
        """
        result: objects.ConsoleAuthToken = self._call(context, 'authorize', console_auth_token=grant, ttl=ttl)
        return result

    def validate(
        self,
        context: RequestContext,
        token: str,
        *,
        to_open: bool = False,
        serial_port: int | None = None,
    ) -> objects.ConsoleAuthToken:
        """Return the grant of a live token, without the token. Has no side effect.

        :param to_open: refuse, as ``open_session`` would, if the console has no slot left. Managers of 1.0
            do not look at that
        :param serial_port: as for ``open_session``; with ``to_open`` only
        :raises InvalidToken: the token is unknown, expired or used
        :raises ConsoleContested: an instance of another compute host has the console's address too
        :raises ConsoleInUse: with ``to_open``: as for ``open_session``
        """
        result: objects.ConsoleAuthToken = self._call(
            context, 'validate', token=token, to_open=to_open or None, serial_port=serial_port
        )
        return result

    def list_free_ports(
        self, context: RequestContext, instance_uuid: str, console_type: str = 'serial'
    ) -> objects.ConsoleConnectionList:
        """Return the consoles of that type that are defined and not connected, ordered by port.

        :raises InstanceNotFound: the instance is unknown
        """
        result: objects.ConsoleConnectionList = self._call(
            context, 'list_free_ports', instance_uuid=instance_uuid, console_type=console_type
        )
        return result

    def define_consoles(
        self,
        context: RequestContext,
        instance_uuid: str,
        compute_host: str,
        consoles: objects.ConsoleConnectionList,
        wait: bool = False,
    ) -> None:
        """Make these, and only these, the consoles of an instance.

        :param wait: False casts; True returns when it is done, and raises what went wrong
        """
        (self._call if wait else self._cast)(
            context,
            'define_consoles',
            instance_uuid=instance_uuid,
            compute_host=compute_host,
            consoles=consoles,
        )

    def define_host(
        self,
        context: RequestContext,
        compute_host: str,
        instance_uuids: Sequence[str],
        consoles: objects.ConsoleConnectionList,
        unknown: Sequence[str] = (),
    ) -> HostChanges:
        """Make these, and only these, the instances of a compute host, with these consoles.

        :param unknown: those of the instances whose consoles could not be determined; they keep theirs
        :raises ManagerBusy: too many compute hosts call at once; retry later
        """
        reply = self._call(
            context,
            'define_host',
            compute_host=compute_host,
            instance_uuids=list(instance_uuids),
            consoles=consoles,
            unsure=list(unknown),  # its name on the wire
        )
        return HostChanges.from_wire(reply)

    def open_session(
        self,
        context: RequestContext,
        token: str,
        session_id: str,
        proxy_id: str,
        client_address: str | None = None,
        serial_port: int | None = None,
    ) -> objects.ConsoleSession:
        """Open a session with a token. Repeated with the same id, it returns the same session.

        The console of the session may be another serial port of the instance than the token's, if the user
        has chosen it or ``[serial_console] other_ports`` is ``next``. Then its options have its number, as
        ``serial_port``.

        :param serial_port: number of the serial port that the user has chosen; None for the token's own
        :raises InvalidToken: the token is unknown, expired or used
        :raises InvalidArgument: the user may not choose a serial port
        :raises ConsoleInUse: the console has as many sessions as it may have. Its ``kwargs`` may have how
            many serial ports the instance has (``serial_ports``), and the numbers of those that the user may
            open instead (``free_ports``)
        :raises TooManySessions: a limit per token, instance or project is reached
        :raises ConsoleGone: the port no longer belongs to that instance
        :raises ConsoleContested: an instance of another compute host has the console's address too
        :raises ComputeUnreachable: the compute agent did not say whether it does
        :raises ManagerBusy: too many calls wait for compute agents or proxies
        :raises ProxyUnknown: the proxy has no live lease
        """
        result: objects.ConsoleSession = self._call(
            context,
            'open_session',
            token=token,
            session_id=session_id,
            proxy_id=proxy_id,
            client_address=client_address,
            serial_port=serial_port,
        )
        return result

    def close_session(self, context: RequestContext, closing: Closing) -> None:
        """Free the slot of a session. One that does not exist is closed already."""
        self._call(context, 'close_session', **closing.to_wire())

    def register_proxy(self, context: RequestContext, proxy_id: str, name: str) -> LeaseGrant:
        """Start a life of a proxy. Earlier lives of that name end, with their sessions."""
        return LeaseGrant.from_wire(self._call(context, 'register_proxy', proxy_id=proxy_id, name=name))

    def renew_lease(
        self,
        context: RequestContext,
        proxy_id: str,
        closed: Sequence[Closing] | None = None,
        sessions: Sequence[str] | None = None,
        as_of: str | None = None,
    ) -> LeaseRenewal:
        """Renew the lease of a proxy.

        :param closed: closings that no manager has acknowledged yet
        :param sessions: from time to time, the ids of all live sessions; all others of the proxy are deleted
        :param as_of: with ``sessions``: the last ``now`` received before that list was made
        :raises ProxyUnknown: the proxy must register again
        """
        reply = self._call(
            context,
            'renew_lease',
            proxy_id=proxy_id,
            closed=None if closed is None else [closing.to_wire() for closing in closed],
            sessions=sessions,
            as_of=as_of,
        )
        return LeaseRenewal.from_wire(reply)

    def revoke(self, context: RequestContext, reason: str, **filters: str) -> Revocation:
        """Delete the matching tokens and cut the matching sessions.

        :param reason: an ``EndReason``, or a text of at most 64 characters
        :param filters: at least one of instance_uuid, project_id, user_id, compute_host (all must match),
            or session_id alone
        """
        return Revocation.from_wire(self._call(context, 'revoke', reason=reason, **filters))

    def clean_console_auths_for_instance(
        self,
        context: RequestContext,
        instance_uuid: str,
        compute_host: str | None = None,
        wait: bool = False,
    ) -> None:
        """Forget an instance that is gone, with its consoles, tokens and sessions.

        :param compute_host: the host it is gone from; an instance on another host is left alone
        :param wait: False casts; True returns when it is done, and raises what went wrong
        """
        (self._call if wait else self._cast)(
            context,
            'clean_console_auths_for_instance',
            instance_uuid=instance_uuid,
            compute_host=compute_host,
        )

    def clean_expired_console_auths_for_host(self, context: RequestContext, compute_host: str) -> None:
        """Cast: delete the expired tokens of a compute host."""
        self._cast(context, 'clean_expired_console_auths_for_host', compute_host=compute_host)

    def list_sessions(
        self,
        context: RequestContext,
        limit: int = 100,
        marker: str | None = None,
        **filters: str,
    ) -> objects.ConsoleSessionList:
        """Return one page of the live sessions, ordered by id.

        :param limit: 1 to 1000
        :param marker: the last id of the previous page
        :param filters: any of instance_uuid, project_id, user_id, compute_host, proxy_id; all must match
        """
        result: objects.ConsoleSessionList = self._call(
            context, 'list_sessions', limit=limit, marker=marker, **filters
        )
        return result

    def object_backport_versions(
        self, context: RequestContext, primitive: dict[str, Any], wanted: dict[str, str]
    ) -> Any:
        """Return the older form of an object that a newer manager sent.

        :param primitive: the object as it was sent
        :param wanted: versions that this release knows, by object name
        """
        return self._call(context, 'object_backport_versions', primitive=primitive, object_versions=wanted)

    def ping(self, context: RequestContext, server: str, timeout: float) -> str:
        """Return the version of the contract that the manager ``server`` speaks.

        :param timeout: seconds to wait
        :raises ManagerUnreachable: it does not answer
        """
        target = self._client.prepare(server=server, timeout=timeout, retry=0)
        result: str = self._call(context, 'ping', target)
        return result


class ComputeConsoleAPI(Caller):
    """Client of the compute agents (topic ``consoled-compute``, server = compute host)."""

    topic = versions.COMPUTE_TOPIC
    unreachable = exception.ComputeUnreachable
    # Whoever has taken a compute host over speaks here.
    trusted = False
    refusals = errors.OF_AGENTS
    refusals_of = {'check_console': errors.OF_CHECKS}
    replies = {
        'get_console': replies.grant(),
        'list_consoles': arg.objects_of(objects.ConsoleConnectionList, _MAX_CONSOLES),
        'check_console': arg.boolean(),
        'ping': arg.version(),
    }
    repeated = {'get_console': ('instance_uuid', 'console_type'), 'list_consoles': ('instance_uuid',)}

    def get_console(
        self, context: RequestContext, compute_host: str, instance_uuid: str, console_type: str
    ) -> objects.ConsoleAuthToken:
        """Return an authorized token for a console, for the user and project of the context.

        :raises InstanceNotFound: the instance is not on that host
        :raises InstanceNotReady: it is not running, is shutting down, or is being migrated
        :raises ConsoleTypeUnavailable: it has no console of that type
        :raises ConsolePortsExhausted: all its consoles of that type are connected
        :raises ConsoleContested: an instance of another compute host has the console's address too
        :raises HypervisorUnreachable: the hypervisor of the host does not answer
        :raises ComputeUnreachable: the agent does not answer
        """
        target = self._client.prepare(server=compute_host)
        result: objects.ConsoleAuthToken = self._call(
            context, 'get_console', target, instance_uuid=instance_uuid, console_type=console_type
        )
        return result

    def list_consoles(
        self, context: RequestContext, compute_host: str, instance_uuid: str
    ) -> objects.ConsoleConnectionList:
        """Return the consoles of an instance. Raises what ``get_console`` raises."""
        target = self._client.prepare(server=compute_host)
        result: objects.ConsoleConnectionList = self._call(
            context, 'list_consoles', target, instance_uuid=instance_uuid
        )
        return result

    def check_console(
        self, context: RequestContext, console: objects.ConsoleConnection, timeout: float
    ) -> bool:
        """Return whether the port still belongs to the instance.

        :param timeout: seconds to wait
        :raises InstanceNotReady: the instance is being migrated
        :raises HypervisorUnreachable: the hypervisor of the host does not answer
        :raises ComputeUnreachable: the agent does not answer
        """
        target = self._client.prepare(server=console.compute_host, timeout=timeout, retry=0)
        result: bool = self._call(
            context,
            'check_console',
            target,
            instance_uuid=console.instance_uuid,
            host=console.host,
            port=console.port,
            console_type=console.console_type,
        )
        return result

    def ping(self, context: RequestContext, compute_host: str, timeout: float) -> str:
        """Return the version of the contract that the agent speaks.

        :param timeout: seconds to wait
        :raises ComputeUnreachable: it does not answer
        """
        target = self._client.prepare(server=compute_host, timeout=timeout, retry=0)
        result: str = self._call(context, 'ping', target)
        return result


class ProxyAPI(Caller):
    """Client of all proxies of the cell (topic ``consoled-proxy``, fanout)."""

    topic = versions.PROXY_TOPIC

    def cut_sessions(self, context: RequestContext, session_ids: Sequence[str], reason: str) -> None:
        """Cast to all proxies: each ends those of the sessions that it has.

        There is one retry only, because a proxy that misses the cast learns of it with its next renewal.
        """
        self._cast(
            context,
            'cut_sessions',
            self._client.prepare(fanout=True, retry=1),
            session_ids=list(session_ids),
            reason=reason,
        )
