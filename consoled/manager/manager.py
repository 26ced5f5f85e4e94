# SPDX-License-Identifier: Apache-2.0
"""The manager's RPC endpoint: one short method for each call of the contract."""

from __future__ import annotations

import dataclasses
import datetime
import logging
from collections.abc import Sequence
from typing import Any

import oslo_messaging
from oslo_config import cfg
from oslo_versionedobjects import exception as ovo_exc

from consoled import exception, objects
from consoled.context import RequestContext
from consoled.db import cleanup, proxies, revocation
from consoled.db import consoles as db_consoles
from consoled.db import sessions as db_sessions
from consoled.db.engine import Database
from consoled.manager import access_url, consoles
from consoled.manager.contests import ContestReporter
from consoled.manager.metrics import Metrics
from consoled.manager.session_cutter import SessionCutter
from consoled.manager.sessions import SessionOpener
from consoled.manager.tokens import TokenService
from consoled.objects import EndReason
from consoled.rpc import arguments as arg
from consoled.rpc import versions
from consoled.rpc.client import MAX_SERIAL_PORT, ComputeConsoleAPI, ProxyAPI
from consoled.rpc.replies import Closing, LeaseGrant, LeaseRenewal, Revocation
from consoled.rpc.server import Endpoint, exposed, exposed_cast
from consoled.sources import Issued, TokenSource

LOG = logging.getLogger(__name__)

_MAX_BYTES = 2**63 - 1
_MAX_OBJECTS = 64  # whose versions a call may name
_MAX_SESSIONS = 20000  # that one proxy process may name in a call

_CLOSING = {
    'session_id': arg.uuid(),
    'reason': arg.text(64),
    'bytes_in': arg.integer(0, _MAX_BYTES).default_to(0),
    'bytes_out': arg.integer(0, _MAX_BYTES).default_to(0),
}
_REVOKE_FILTERS = {
    'instance_uuid': arg.uuid().or_none(),
    'project_id': arg.text().or_none(),
    'user_id': arg.text().or_none(),
    'session_id': arg.uuid().or_none(),
    'compute_host': arg.text().or_none(),
}
_LIST_FILTERS = {
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


def _log_authorized(grant: objects.ConsoleAuthToken) -> None:
    LOG.info(
        'Authorized %s console of instance %s for user %s until %s',
        grant.console_type,
        grant.instance_uuid,
        grant.user_id,
        grant.expires,
    )


class ConsoleAuthManager(Endpoint):
    """Answers the calls of the contract. Each may be repeated (invariant 6 in doc/design.md).

    :param compute: client of the compute agents
    :param proxy: client of the proxies
    :param sources: other stores of tokens; empty unless a cloud is being moved over
    """

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
        self._metrics = metrics
        self._cutter = SessionCutter(proxy)
        contests = ContestReporter(db, metrics)
        self._tokens = TokenService(conf, db, contests, self._cutter, sources)
        self._consoles = consoles.ConsoleService(conf, db, self._cutter, self._tokens, contests)
        self._opener = SessionOpener(conf, db, compute, self._cutter, self._tokens)

    @classmethod
    def from_conf(
        cls,
        conf: cfg.ConfigOpts,
        transport: oslo_messaging.RPCTransport,
        db: Database,
        sources: Sequence[TokenSource] = (),
    ) -> ConsoleAuthManager:
        """Return the endpoint of a manager on this bus and database."""
        compute = ComputeConsoleAPI(transport, level=conf.upgrade_levels.compute)
        return cls(conf, db, compute, ProxyAPI(transport), Metrics(conf.cell.name), sources)

    def observe(self, method: str, code: str, seconds: float) -> None:
        """Count a call."""
        self._metrics.called(method, code, seconds)

    def observe_lookup(self, source: str, outcome: str) -> None:
        """Count a lookup in a source of tokens."""
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
        self._cutter.cut(context, cut, EndReason.CONSOLE_GONE)
        _log_authorized(grant)
        return grant

    @exposed(
        token=arg.token(),
        to_open=arg.boolean().or_none(),
        serial_port=arg.integer(1, MAX_SERIAL_PORT).or_none(),
    )
    def validate(
        self, context: RequestContext, token: str, to_open: bool | None, serial_port: int | None
    ) -> objects.ConsoleAuthToken:
        grant = self._tokens.validate(token)
        if to_open:
            self._opener.check_slot(token, serial_port)
        return grant

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
        self._consoles.define(context, instance_uuid, compute_host, consoles.objects)

    @exposed(
        compute_host=arg.text(),
        instance_uuids=arg.list_of(arg.uuid(), consoles.MAX_INSTANCES),
        consoles=arg.instance_of(objects.ConsoleConnectionList),
        unsure=arg.list_of(arg.uuid(), consoles.MAX_INSTANCES).default_to(()),
    )
    def define_host(
        self,
        context: RequestContext,
        compute_host: str,
        instance_uuids: list[str],
        consoles: objects.ConsoleConnectionList,
        unsure: list[str],
    ) -> dict[str, Any]:
        changes = self._consoles.define_host(
            context, compute_host, instance_uuids, consoles.objects, unknown=unsure
        )
        return dataclasses.asdict(changes)

    # sessions

    @exposed(
        token=arg.token(),
        session_id=arg.uuid(),
        proxy_id=arg.uuid(),
        client_address=arg.text().or_none(),
        serial_port=arg.integer(1, MAX_SERIAL_PORT).or_none(),
    )
    def open_session(
        self,
        context: RequestContext,
        token: str,
        session_id: str,
        proxy_id: str,
        client_address: str | None,
        serial_port: int | None,
    ) -> objects.ConsoleSession:
        session = self._opener.open(context, token, session_id, proxy_id, client_address, serial_port)
        other = session.console.options.get('serial_port')
        LOG.info(
            'Opened session %s: %s console%s of instance %s for user %s from %s',
            session_id,
            session.console.console_type,
            '' if other is None else f' (serial port {other}, not the one of the token)',
            session.console.instance_uuid,
            session.user_id,
            client_address,
        )
        return session

    @exposed(**_CLOSING)
    def close_session(self, context: RequestContext, **closing: Any) -> None:
        self._close(Closing(**closing))

    def _close(self, closing: Closing, proxy_id: str | None = None) -> None:
        """Close a session.

        :param proxy_id: close it only if it is a session of that proxy
        """
        if db_sessions.close(self._db, closing.session_id, proxy_id):
            self._metrics.closed(closing.bytes_in, closing.bytes_out)
            LOG.info(
                'Closed session %s: %s, %d bytes from the user, %d to the user',
                closing.session_id,
                closing.reason,
                closing.bytes_in,
                closing.bytes_out,
            )

    @exposed(
        limit=arg.integer(1, 1000).default_to(100),
        marker=arg.uuid().or_none(),
        **_LIST_FILTERS,
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
        LOG.info('Registered proxy %s as %s', name, proxy_id)
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
            raise exception.InvalidArgument(argument='as_of', reason='must be given together with sessions')
        for closing in closed or ():
            self._close(Closing(**closing), proxy_id)
        lease = self._conf.manager.lease
        renewal = proxies.renew(self._db, proxy_id, lease)
        cut = dict(renewal.cut)
        if sessions is not None and as_of is not None:
            lost = proxies.reconcile(self._db, proxy_id, sessions, as_of)
            cut |= dict.fromkeys(lost, EndReason.LEASE_LOST)
        return dataclasses.asdict(LeaseRenewal(lease, _iso(renewal.now), cut))

    # revocation and cleaning

    @exposed(reason=arg.text(64), **_REVOKE_FILTERS)
    def revoke(self, context: RequestContext, reason: str, **filters: str | None) -> dict[str, Any]:
        given = _given(filters)
        if not given:
            raise exception.InvalidArgument(argument='filters', reason='must name at least one')
        if 'session_id' in given and len(given) > 1:
            raise exception.InvalidArgument(
                argument='session_id', reason='cannot be combined with other filters'
            )
        self._tokens.void_by(given)
        revoked = revocation.revoke(self._db, given, reason)
        self._cutter.cut(context, revoked.sessions, reason)
        LOG.info(
            'Revoked by %s: %d tokens, %d sessions, reason %s',
            ', '.join(f'{name} {value}' for name, value in given.items()),
            revoked.tokens,
            len(revoked.sessions),
            reason,
        )
        unmatched = self._tokens.unmatched(given)
        return dataclasses.asdict(Revocation(revoked.tokens, len(revoked.sessions), unmatched))

    @exposed_cast(instance_uuid=arg.uuid(), compute_host=arg.text().or_none())
    def clean_console_auths_for_instance(
        self, context: RequestContext, instance_uuid: str, compute_host: str | None
    ) -> None:
        self._tokens.void_dropped(instance_uuid)
        cut = revocation.forget_instance(self._db, instance_uuid, EndReason.INSTANCE_GONE, compute_host)
        self._cutter.cut(context, cut, EndReason.INSTANCE_GONE)

    @exposed_cast(compute_host=arg.text())
    def clean_expired_console_auths_for_host(self, context: RequestContext, compute_host: str) -> None:
        deleted = cleanup.delete_expired_of_host(self._db, compute_host)
        LOG.debug('Deleted %d expired tokens of compute host %s', deleted, compute_host)

    # calls of the old consoleauth service, made by its endpoint; none of these is exposed over RPC

    def authorize_issued(self, context: RequestContext, token: str, issued: Issued, source: str) -> None:
        """Store a token that another service has just issued.

        :raises InvalidConsole: another console is defined at that address, or the URL is unusable
        """
        grant, cut = self._tokens.authorize_issued(context, token, issued, source)
        self._cutter.cut(context, cut, EndReason.CONSOLE_GONE)
        _log_authorized(grant)

    def check_issued(
        self, context: RequestContext, token: str, source: str
    ) -> tuple[objects.ConsoleConnection, str | None]:
        """Return the console of a token and its access URL, if the console may be opened.

        Old proxies open no sessions. Raises what ``SessionOpener.check`` raises.
        """
        console = self._opener.check(context, token)
        self._tokens.count_use(source)
        base = console.access_url_base
        return console, base and access_url.build(base, console.console_type, token)

    def revoke_issued(self, context: RequestContext, instance_uuid: str, source: str) -> None:
        """Revoke all tokens and sessions of an instance: an old compute host has removed its consoles."""
        filters = {'instance_uuid': instance_uuid}
        self._tokens.void_by(filters)
        revoked = revocation.revoke(self._db, filters, EndReason.CONSOLE_GONE)
        self._cutter.cut(context, revoked.sessions, EndReason.CONSOLE_GONE)
        self._tokens.count_use(source)

    # the service itself

    @exposed(
        primitive=arg.instance_of(objects.ConsoledObject),
        object_versions=arg.mapping_of(arg.text(64), arg.version(), _MAX_OBJECTS),
    )
    def object_backport_versions(
        self, context: RequestContext, primitive: objects.ConsoledObject, object_versions: dict[str, str]
    ) -> Any:
        wanted = object_versions.get(primitive.obj_name())
        if wanted is None:
            raise exception.InvalidArgument(argument='object_versions', reason='does not name the object')
        try:
            return primitive.obj_to_primitive(target_version=wanted, version_manifest=object_versions)
        except ovo_exc.VersionedObjectsException:
            reason = 'names a version that the object does not have'
            raise exception.InvalidArgument(argument='object_versions', reason=reason) from None

    @exposed()
    def ping(self, context: RequestContext) -> str:
        return versions.RPC_VERSION
