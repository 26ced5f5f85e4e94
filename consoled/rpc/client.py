# SPDX-License-Identifier: Apache-2.0
"""Clients of the contract: managers, compute agents, proxies.

Errors of the domain are raised as themselves; a bus or peer that does not answer is an error of the domain
too. Any call may be repeated with the same ids (DESIGN invariant 6).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from consoled import exception, objects
from consoled.context import RequestContext
from consoled.rpc import versions
from consoled.rpc.caller import CALL_TIMEOUT, Caller
from consoled.rpc.replies import Closing, HostChanges, LeaseGrant, LeaseRenewal, Revocation

__all__ = ['CALL_TIMEOUT', 'ComputeConsoleAPI', 'ConsoleAuthAPI', 'ProxyAPI']


class ConsoleAuthAPI(Caller):
    """What managers offer to compute agents, proxies and operators (topic ``consoled``)."""

    topic = versions.TOPIC

    def _backport(self, context: Any, primitive: dict[str, Any], wanted: dict[str, str]) -> Any:
        return self.object_backport_versions(context, primitive, wanted)

    def authorize(
        self, context: RequestContext, grant: objects.ConsoleAuthToken, ttl: int | None = None
    ) -> objects.ConsoleAuthToken:
        """Store a grant; the reply has ``token``, ``expires`` and ``access_url``.

        With ``host`` and ``port`` None: for the next free console of the type.

        :param ttl: lifetime in seconds; None for the configured one
        :raises ConsolePortsExhausted: port None, and all consoles of the type are connected
        :raises InstanceNotFound: port None, and the instance is not known
        :raises InvalidConsole: it can't be authorized as described
        :raises TTLTooLong: over ``[consoleauth] max_token_ttl``
        """
        result: objects.ConsoleAuthToken = self._call(context, 'authorize', console_auth_token=grant, ttl=ttl)
        return result

    def validate(self, context: RequestContext, token: str) -> objects.ConsoleAuthToken:
        """Check a token, without side effect; the reply has no clear token.

        :raises InvalidToken: unknown, expired or used
        """
        result: objects.ConsoleAuthToken = self._call(context, 'validate', token=token)
        return result

    def list_free_ports(
        self, context: RequestContext, instance_uuid: str, console_type: str = 'serial'
    ) -> objects.ConsoleConnectionList:
        """The consoles of that type that are defined and not connected, by port.

        :raises InstanceNotFound: the instance is not known
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
        """Cast: these, and only these, are the instance's consoles.

        :param wait: call: return when it is done, and raise what went wrong
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
        """These, and only these, are the guests of a compute host, with these consoles.

        :param unknown: those of them of whose consoles nothing is said
        :returns: counts of instances ``retired`` (gone for good) and ``changed``
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
    ) -> objects.ConsoleSession:
        """Open a session of a token; repeated with the same id it returns the same session.

        :raises InvalidToken: unknown, expired or used
        :raises ConsoleInUse: all sessions of the console are taken
        :raises TooManySessions: a limit per token, instance or project
        :raises ConsoleGone: the port is not that guest's any more
        :raises ComputeUnreachable: its compute agent did not say whether it is
        :raises ProxyUnknown: the proxy has no live lease
        """
        result: objects.ConsoleSession = self._call(
            context,
            'open_session',
            token=token,
            session_id=session_id,
            proxy_id=proxy_id,
            client_address=client_address,
        )
        return result

    def close_session(self, context: RequestContext, closing: Closing) -> None:
        """Free the slot of a session. One that does not exist is closed already."""
        self._call(context, 'close_session', **closing.to_wire())

    def register_proxy(self, context: RequestContext, proxy_id: str, name: str) -> LeaseGrant:
        """Start a life of a proxy; earlier lives of that name end."""
        return LeaseGrant.from_wire(self._call(context, 'register_proxy', proxy_id=proxy_id, name=name))

    def renew_lease(
        self,
        context: RequestContext,
        proxy_id: str,
        closed: Sequence[Closing] | None = None,
        sessions: Sequence[str] | None = None,
        as_of: str | None = None,
    ) -> LeaseRenewal:
        """Renew a proxy's lease.

        :param closed: closings that no manager has acknowledged yet
        :param sessions: ids of all live sessions, from time to time
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
        """Cast: the instance is gone; so are its consoles, tokens and sessions.

        :param compute_host: gone from there only: if it is on another one, nothing is done
        :param wait: call: return when it is done, and raise what went wrong
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
        """Live sessions by id, a page at a time.

        :param limit: 1 to 1000
        :param marker: the last id of the page before
        :param filters: any of instance_uuid, project_id, user_id, compute_host, proxy_id
        """
        result: objects.ConsoleSessionList = self._call(
            context, 'list_sessions', limit=limit, marker=marker, **filters
        )
        return result

    def object_backport_versions(
        self, context: RequestContext, primitive: dict[str, Any], wanted: dict[str, str]
    ) -> Any:
        """The older form of an object that a newer manager sent."""
        return self._call(context, 'object_backport_versions', primitive=primitive, object_versions=wanted)

    def ping(self, context: RequestContext, server: str, timeout: float) -> str:
        """Ask the manager ``server`` whether it answers; returns its version of the contract.

        :raises ManagerUnreachable: it does not
        """
        target = self._client.prepare(server=server, timeout=timeout, retry=0)
        result: str = self._call(context, 'ping', target)
        return result


class ComputeConsoleAPI(Caller):
    """What compute agents offer (topic ``consoled-compute``, server = compute host)."""

    topic = versions.COMPUTE_TOPIC
    unreachable = exception.ComputeUnreachable

    def get_console(
        self, context: RequestContext, compute_host: str, instance_uuid: str, console_type: str
    ) -> objects.ConsoleAuthToken:
        """An authorized token for a console of the guest, for the user and project of the context.

        :raises InstanceNotFound: the guest is not on that host
        :raises InstanceNotReady: it does not run, is being shut down, or is being migrated
        :raises ConsoleTypeUnavailable: it has no console of that type
        :raises ConsolePortsExhausted: it has several, and all are connected
        :raises HypervisorUnreachable: the host's hypervisor does not answer
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
        """The consoles that the guest has; errors as for ``get_console``."""
        target = self._client.prepare(server=compute_host)
        result: objects.ConsoleConnectionList = self._call(
            context, 'list_consoles', target, instance_uuid=instance_uuid
        )
        return result

    def check_console(
        self, context: RequestContext, console: objects.ConsoleConnection, timeout: float
    ) -> bool:
        """Whether the port is still that guest's.

        :param timeout: seconds to wait
        :raises InstanceNotReady: it is on its way between hosts
        :raises HypervisorUnreachable: the host's hypervisor does not answer
        :raises ComputeUnreachable: no answer
        """
        target = self._client.prepare(server=console.compute_host, timeout=timeout, retry=0)
        return bool(
            self._call(
                context,
                'check_console',
                target,
                instance_uuid=console.instance_uuid,
                host=console.host,
                port=console.port,
                console_type=console.console_type,
            )
        )

    def ping(self, context: RequestContext, compute_host: str, timeout: float) -> str:
        """Ask the agent whether it answers; returns its version of the contract.

        :raises ComputeUnreachable: it does not
        """
        target = self._client.prepare(server=compute_host, timeout=timeout, retry=0)
        result: str = self._call(context, 'ping', target)
        return result


class ProxyAPI(Caller):
    """What all proxies of the cell are told (topic ``consoled-proxy``, fanout)."""

    topic = versions.PROXY_TOPIC

    def cut_sessions(self, context: RequestContext, session_ids: Sequence[str], reason: str) -> None:
        """Cast to all proxies: end these sessions, if they are yours.

        One retry only: a proxy that misses it learns it with its next renewal.
        """
        self._cast(
            context,
            'cut_sessions',
            self._client.prepare(fanout=True, retry=1),
            session_ids=list(session_ids),
            reason=reason,
        )
