# SPDX-License-Identifier: Apache-2.0
"""The manager's RPC endpoint: one short method for each of the contract."""

from __future__ import annotations

import dataclasses
import datetime
import logging
import threading
from collections.abc import Sequence
from typing import Any

from oslo_config import cfg

from consoled import exception, objects
from consoled.context import RequestContext
from consoled.db import cleanup, proxies
from consoled.db import consoles as db_consoles
from consoled.db import hosts as db_hosts
from consoled.db import sessions as db_sessions
from consoled.db.session import Database
from consoled.manager import access_url
from consoled.manager.metrics import Metrics
from consoled.manager.sessions import SessionOpener
from consoled.manager.tokens import TokenService
from consoled.objects import EndReason
from consoled.rpc import arguments as arg
from consoled.rpc import versions
from consoled.rpc.client import ComputeConsoleAPI, ProxyAPI
from consoled.rpc.replies import Closing, HostChanges, LeaseGrant, LeaseRenewal, Revocation
from consoled.rpc.server import Endpoint, exposed, exposed_cast
from consoled.sources import Issued, TokenSource

LOG = logging.getLogger(__name__)

_MAX_BYTES = 2**63 - 1
_MAX_SESSIONS = 20000  # that one proxy process may name in a call
_CUT_AT_ONCE = 1000  # ids in one cast
_MAX_CONSOLES = 256  # of an instance
_MAX_GUESTS = 4000  # of a compute host
_MAX_CONSOLES_OF_HOST = 16000

_CLOSING = {
    'session_id': arg.uuid(),
    'reason': arg.text(64),
    'bytes_in': arg.integer(0, _MAX_BYTES).default_to(0),
    'bytes_out': arg.integer(0, _MAX_BYTES).default_to(0),
}
_REVOKE_BY = {
    'instance_uuid': arg.uuid().or_none(),
    'project_id': arg.text().or_none(),
    'user_id': arg.text().or_none(),
    'session_id': arg.uuid().or_none(),
    'compute_host': arg.text().or_none(),
}
_LIST_BY = {
    'instance_uuid': arg.uuid().or_none(),
    'project_id': arg.text().or_none(),
    'user_id': arg.text().or_none(),
    'compute_host': arg.text().or_none(),
    'proxy_id': arg.uuid().or_none(),
}


def _iso(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.UTC).isoformat(timespec='microseconds')


def _given(values: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}


def _checked_consoles(
    consoles: objects.ConsoleConnectionList, limit: int, compute_host: str, instance_uuids: Sequence[str]
) -> list[objects.ConsoleConnection]:
    """The consoles, if they are complete, and of that compute host and those instances."""
    complete = arg.instance_of(objects.ConsoleConnection)
    checked = arg.checked({'consoles': arg.list_of(complete, limit)}, {'consoles': consoles.objects})
    known = frozenset(instance_uuids)
    for console in checked['consoles']:
        if console.compute_host != compute_host or console.instance_uuid not in known:
            raise exception.InvalidArgument(
                argument='consoles', reason='has a console of another instance or compute host'
            )
        access_url.check_base(console.access_url_base)
    found: list[objects.ConsoleConnection] = checked['consoles']
    return found


def _log_authorized(grant: objects.ConsoleAuthToken) -> None:
    LOG.info(
        'authorized: %s console of instance %s for user %s until %s',
        grant.console_type,
        grant.instance_uuid,
        grant.user_id,
        grant.expires,
    )


class ConsoleAuthManager(Endpoint):
    """Answers the contract's calls. Each may be repeated (DESIGN invariant 6)."""

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        db: Database,
        compute: ComputeConsoleAPI,
        proxy: ProxyAPI,
        metrics: Metrics,
        sources: Sequence[TokenSource] = (),
    ) -> None:
        self._conf = conf
        self._db = db
        self._proxy = proxy
        self._metrics = metrics
        self._tokens = TokenService(conf, db, sources)
        self._opener = SessionOpener(conf, db, compute, self._cut, self._tokens)
        # The agents of a whole cell may start at once: half of the threads go on answering users.
        self._hosts = threading.BoundedSemaphore(max(1, conf.executor_thread_pool_size // 2))

    def observe(self, method: str, code: str, seconds: float) -> None:
        self._metrics.called(method, code, seconds)

    def observe_lookup(self, source: str, outcome: str) -> None:
        self._metrics.looked_up(source, outcome)

    # tokens

    @exposed(
        console_auth_token=arg.instance_of(objects.ConsoleAuthToken),
        ttl=arg.integer(1, 31536000).or_none(),
    )
    def authorize(
        self, context: RequestContext, console_auth_token: objects.ConsoleAuthToken, ttl: int | None
    ) -> objects.ConsoleAuthToken:
        grant, cut = self._tokens.authorize(context, console_auth_token, ttl)
        self._cut(context, cut, EndReason.CONSOLE_GONE)
        _log_authorized(grant)
        return grant

    @exposed(token=arg.token())
    def validate(self, context: RequestContext, token: str) -> objects.ConsoleAuthToken:
        return self._tokens.validate(token)

    # consoles

    @exposed(instance_uuid=arg.uuid(), console_type=arg.console_type().default_to('serial'))
    def list_free_ports(
        self, context: RequestContext, instance_uuid: str, console_type: str
    ) -> objects.ConsoleConnectionList:
        return objects.ConsoleConnectionList(
            objects=db_consoles.list_free(self._db, instance_uuid, console_type)
        )

    @exposed_cast(
        instance_uuid=arg.uuid(),
        compute_host=arg.text(),
        consoles=arg.instance_of(objects.ConsoleConnectionList),
    )
    def define_consoles(
        self,
        context: RequestContext,
        instance_uuid: str,
        compute_host: str,
        consoles: objects.ConsoleConnectionList,
    ) -> None:
        wanted = _checked_consoles(consoles, _MAX_CONSOLES, compute_host, [instance_uuid])
        defined = db_consoles.define(self._db, instance_uuid, compute_host, wanted)
        self._cut(context, defined.cut, EndReason.CONSOLE_GONE)
        if defined.dropped:
            self._tokens.void({instance_uuid: None})

    @exposed(
        compute_host=arg.text(),
        instance_uuids=arg.list_of(arg.uuid(), _MAX_GUESTS),
        consoles=arg.instance_of(objects.ConsoleConnectionList),
        unsure=arg.list_of(arg.uuid(), _MAX_GUESTS).default_to(()),
    )
    def define_host(
        self,
        context: RequestContext,
        compute_host: str,
        instance_uuids: list[str],
        consoles: objects.ConsoleConnectionList,
        unsure: list[str],
    ) -> dict[str, int]:
        if not self._hosts.acquire(blocking=False):
            raise exception.ManagerBusy()
        retired = changed = 0
        try:
            said = _checked_consoles(consoles, _MAX_CONSOLES_OF_HOST, compute_host, instance_uuids)
            guests = db_hosts.group_by_instance(instance_uuids, said, unknown=unsure)
            for change in db_hosts.define(self._db, compute_host, guests, EndReason.INSTANCE_GONE):
                self._cut(
                    context, change.cut, EndReason.INSTANCE_GONE if change.retired else EndReason.CONSOLE_GONE
                )
                if change.dropped:
                    self._tokens.void({change.instance_uuid: None})
                retired += change.retired
                changed += not change.retired
        finally:
            self._hosts.release()
        if retired or changed:
            LOG.info('compute host %s: %d guests retired, %d changed', compute_host, retired, changed)
        return dataclasses.asdict(HostChanges(retired, changed))

    # sessions

    @exposed(
        token=arg.token(),
        session_id=arg.uuid(),
        proxy_id=arg.uuid(),
        client_address=arg.text().or_none(),
    )
    def open_session(
        self,
        context: RequestContext,
        token: str,
        session_id: str,
        proxy_id: str,
        client_address: str | None,
    ) -> objects.ConsoleSession:
        session = self._opener.open(context, token, session_id, proxy_id, client_address)
        LOG.info(
            'session %s opened: %s console of instance %s for user %s from %s',
            session_id,
            session.console.console_type,
            session.console.instance_uuid,
            session.user_id,
            client_address,
        )
        return session

    @exposed(**_CLOSING)
    def close_session(self, context: RequestContext, **closing: Any) -> None:
        self._close(Closing(**closing), None)

    def _close(self, closing: Closing, proxy_id: str | None) -> None:
        if db_sessions.close(self._db, closing.session_id, proxy_id):
            self._metrics.closed(closing.bytes_in, closing.bytes_out)
            LOG.info(
                'session %s closed: %s, %d bytes from the user, %d to the user',
                closing.session_id,
                closing.reason,
                closing.bytes_in,
                closing.bytes_out,
            )

    @exposed(
        limit=arg.integer(1, 1000).default_to(100),
        marker=arg.uuid().or_none(),
        **_LIST_BY,
    )
    def list_sessions(
        self, context: RequestContext, limit: int, marker: str | None, **filters: str | None
    ) -> objects.ConsoleSessionList:
        found = db_sessions.list_live(self._db, _given(filters), limit=limit, marker=marker)
        return objects.ConsoleSessionList(objects=found)

    # proxies

    @exposed(proxy_id=arg.uuid(), name=arg.text())
    def register_proxy(self, context: RequestContext, proxy_id: str, name: str) -> dict[str, Any]:
        lease = self._conf.manager.lease
        now = proxies.register(self._db, proxy_id, name, lease)
        LOG.info('proxy %s registered as %s', name, proxy_id)
        return dataclasses.asdict(LeaseGrant(lease, _iso(now)))

    @exposed(
        proxy_id=arg.uuid(),
        closed=arg.list_of(arg.mapping(**_CLOSING), _MAX_SESSIONS).or_none(),
        sessions=arg.list_of(arg.uuid(), _MAX_SESSIONS).or_none(),
        as_of=arg.moment().or_none(),
    )
    def renew_lease(
        self,
        context: RequestContext,
        proxy_id: str,
        closed: list[dict[str, Any]] | None,
        sessions: list[str] | None,
        as_of: datetime.datetime | None,
    ) -> dict[str, Any]:
        if (sessions is None) != (as_of is None):
            raise exception.InvalidArgument(argument='as_of', reason='goes together with sessions')
        for closing in closed or ():
            self._close(Closing(**closing), proxy_id)
        lease = self._conf.manager.lease
        renewal = proxies.renew(self._db, proxy_id, lease)
        cut = dict(renewal.cut)
        if sessions is not None and as_of is not None:
            lost = proxies.reconcile(self._db, proxy_id, sessions, as_of)
            cut |= dict.fromkeys(lost, EndReason.LEASE_LOST)
        return dataclasses.asdict(LeaseRenewal(lease, _iso(renewal.now), cut))

    # taking back

    @exposed(reason=arg.text(64), **_REVOKE_BY)
    def revoke(self, context: RequestContext, reason: str, **filters: str | None) -> dict[str, int]:
        given = _given(filters)
        if not given:
            raise exception.InvalidArgument(argument='filters', reason='need at least one')
        if 'session_id' in given and len(given) > 1:
            raise exception.InvalidArgument(argument='session_id', reason='goes with no other filter')
        self._tokens.void_by(given)
        revoked = cleanup.revoke(self._db, given, reason)
        self._cut(context, revoked.sessions, reason)
        LOG.info(
            'revoked by %s: %d tokens, %d sessions, reason %s',
            ', '.join(f'{name} {value}' for name, value in given.items()),
            revoked.tokens,
            len(revoked.sessions),
            reason,
        )
        return dataclasses.asdict(Revocation(revoked.tokens, len(revoked.sessions)))

    @exposed_cast(instance_uuid=arg.uuid(), compute_host=arg.text().or_none())
    def clean_console_auths_for_instance(
        self, context: RequestContext, instance_uuid: str, compute_host: str | None
    ) -> None:
        self._tokens.void({instance_uuid: None})
        cut = cleanup.forget_instance(self._db, instance_uuid, EndReason.INSTANCE_GONE, compute_host)
        self._cut(context, cut, EndReason.INSTANCE_GONE)

    @exposed_cast(compute_host=arg.text())
    def clean_expired_console_auths_for_host(self, context: RequestContext, compute_host: str) -> None:
        deleted = cleanup.delete_expired_of_host(self._db, compute_host)
        LOG.debug('%d expired tokens of compute host %s deleted', deleted, compute_host)

    def _cut(self, context: RequestContext, session_ids: list[str], reason: str) -> None:
        """Tell the proxies at once. They would learn it with their next renewal anyway, so a bus that is
        away is no reason to fail."""
        for start in range(0, len(session_ids), _CUT_AT_ONCE):
            try:
                self._proxy.cut_sessions(context, session_ids[start : start + _CUT_AT_ONCE], reason)
            except exception.ManagerUnreachable as exc:
                LOG.warning('the proxies could not be told to cut sessions: %s', exc)

    # what the endpoint of the old service is made of; none of it can be called over RPC

    def authorize_issued(self, context: RequestContext, token: str, issued: Issued, source: str) -> None:
        """Store a token that an old compute host has made.

        :raises InvalidConsole: there is another console at that place, or the URL is none
        """
        grant, cut = self._tokens.authorize_issued(context, token, issued, source)
        self._cut(context, cut, EndReason.CONSOLE_GONE)
        _log_authorized(grant)

    def check_issued(
        self, context: RequestContext, token: str, source: str
    ) -> tuple[objects.ConsoleConnection, str | None]:
        """The console of a token with its URL, if it could be opened: an old proxy has no session.

        Errors as in ``open_session``.
        """
        console = self._opener.check(context, token)
        self._tokens.used(source)
        base = console.access_url_base
        return console, base and access_url.build(base, console.console_type, token)

    def revoke_issued(self, context: RequestContext, instance_uuid: str, source: str) -> None:
        """An old compute host has taken a guest's consoles away: its tokens and sessions end."""
        filters = {'instance_uuid': instance_uuid}
        self._tokens.void_by(filters)
        self._cut(
            context,
            cleanup.revoke(self._db, filters, EndReason.CONSOLE_GONE).sessions,
            EndReason.CONSOLE_GONE,
        )
        self._tokens.used(source)

    # the service itself

    @exposed(
        primitive=arg.Argument(lambda value: value),
        object_versions=arg.Argument(lambda value: value),
    )
    def object_backport_versions(self, context: RequestContext, primitive: Any, object_versions: Any) -> Any:
        checked = arg.checked(
            {'primitive': arg.instance_of(objects.ConsoledObject)}, {'primitive': primitive}
        )['primitive']
        if not isinstance(object_versions, dict) or checked.obj_name() not in object_versions:
            raise exception.InvalidArgument(argument='object_versions', reason='lacks the object')
        return checked.obj_to_primitive(
            target_version=object_versions[checked.obj_name()], version_manifest=object_versions
        )

    @exposed()
    def ping(self, context: RequestContext) -> str:
        return versions.RPC_VERSION
