# SPDX-License-Identifier: Apache-2.0
"""Tokens that come from elsewhere: their copies here, what was taken back meanwhile, how they are used."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa

from consoled import objects
from consoled.db import cleanup, clock, consoles, models
from consoled.db.session import Database
from consoled.db.tokens import Grant, expires_of

_I = models.instances.c
_T = models.console_auth_token.c
_U = models.legacy_use.c
_V = models.legacy_void.c

_VOIDED = sa.select(_V.subject, _V.since).where(_V.subject.in_(sa.bindparam('subjects', expanding=True)))
_COUNT_USE = (
    sa.update(models.legacy_use)
    .where(_U.source == sa.bindparam('of'))
    .values(uses=_U.uses + 1, last_used_at=clock.utc_now())
)
_USAGE = sa.select(_U.source, _U.uses, _U.last_used_at).order_by(_U.source)
_LONGEST_LIFE = sa.select(sa.func.max(_T.expires)).where(_T.source.is_not(None), _T.expires > clock.utc_now())
_ON_HOST = sa.select(_I.uuid).where(_I.compute_host == sa.bindparam('compute_host'))

# While this is held nobody names the compute host, and after it the new token gets the name as well.
_HOLD_UNKNOWN = (
    sa.update(models.instances)
    .where(_I.uuid == sa.bindparam('held'), _I.compute_host == consoles.UNKNOWN_HOST)
    .values(compute_host=consoles.UNKNOWN_HOST)
)

_REVOKED = 'revoked'

# Instances, and the hashes of the tokens of each; None: all that it has
TakenBack = Mapping[str, Collection[str] | None]


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where a token comes from.

    :param source: a name of ``legacy_use``
    :param ttl: seconds it lives, from when it was issued
    :param issued_at: seconds since 1970 by the issuer's clock; None: it is being issued now
    """

    source: str
    ttl: int
    issued_at: float | None = None


@dataclasses.dataclass(frozen=True)
class Use:
    """How often something of the old service was used, and when last (UTC)."""

    source: str
    uses: int
    last_used_at: datetime.datetime


class _Unacceptable(Exception):
    """The token can't be taken over."""


def adopt(
    db: Database,
    token_hash: str,
    grant: objects.ConsoleAuthToken,
    origin: Provenance,
    request_id: str | None = None,
) -> Grant | None:
    """Copy a token that was issued elsewhere, with what is left of its life.

    What is known here of the instance and the console stands; only what is not known is taken from the
    grant. Of an instance that an agent has defined, a token that was issued earlier must be for one of its
    consoles: it may have got that place only since. Where there is no agent, a token that is being issued
    now says what is at its place now. Repeating it is harmless.

    :returns: None if it is not here now: it has expired, was taken back, or its console is another one
    """
    try:
        adopted = db.transaction(
            lambda conn: _adopt(conn, token_hash, grant, origin, request_id), racing=True
        )
    except _Unacceptable:
        return None
    if origin.issued_at is None:
        return adopted
    # A revocation that came meanwhile has not seen the copy. It is noted before it deletes, so it is
    # seen here.
    try:
        db.single(lambda conn: _check_not_void(conn, token_hash, grant.instance_uuid, origin.issued_at))
    except _Unacceptable:
        cleanup.revoke(db, {'instance_uuid': grant.instance_uuid}, _REVOKED)
        return None
    return adopted


def _adopt(
    conn: sa.Connection,
    token_hash: str,
    grant: objects.ConsoleAuthToken,
    origin: Provenance,
    request_id: str | None,
) -> Grant:
    expires = expires_of(conn, token_hash)
    if expires is not None:
        return Grant(clock.aware(expires), [])
    _check_not_void(conn, token_hash, grant.instance_uuid, origin.issued_at)
    compute_host, cut = _settle(conn, grant, issued_earlier=origin.issued_at is not None)
    conn.execute(
        sa.insert(models.console_auth_token).values(
            token_hash=token_hash,
            instance_uuid=grant.instance_uuid,
            host=grant.host,
            port=grant.port,
            compute_host=compute_host,
            user_id=grant.user_id,
            project_id=grant.project_id,
            request_id=request_id,
            expires=clock.utc_after(_left(conn, origin)),
            created_at=clock.utc_now(),
            source=origin.source,
        )
    )
    expires = expires_of(conn, token_hash)
    assert expires is not None  # it was inserted just now
    return Grant(clock.aware(expires), cut)


def _settle(
    conn: sa.Connection, grant: objects.ConsoleAuthToken, *, issued_earlier: bool
) -> tuple[str, list[str]]:
    """Make the rows of the instance and the console, if they are not there.

    :returns: the compute host, as far as it is known, and ids of the sessions to cut
    """
    conn.execute(_HOLD_UNKNOWN, {'held': grant.instance_uuid})
    where = {'instance_uuid': grant.instance_uuid}
    instance = conn.execute(consoles.INSTANCE, where).first()
    compute_host: str = consoles.UNKNOWN_HOST if instance is None else instance.compute_host
    place = (grant.host, grant.port)
    console = next(
        (row for row in conn.execute(consoles.CONSOLES, where) if (row.host, row.port) == place), None
    )
    defined = instance is not None and instance.defined
    if console is None and issued_earlier and defined:
        raise _Unacceptable
    stands = defined or issued_earlier
    if console is not None and stands and console.console_type != grant.console_type:
        raise _Unacceptable
    consoles.settle_instance(conn, instance, grant.instance_uuid, compute_host, defined=False)
    if console is not None and stands:
        return compute_host, []
    completed = _completed(grant, console)
    return compute_host, consoles.settle_console(conn, console, completed, described=False)


def _completed(grant: objects.ConsoleAuthToken, console: Any) -> objects.ConsoleAuthToken:
    """The grant with what is known of the console besides, if that is the same one."""
    completed: objects.ConsoleAuthToken = grant.obj_clone()
    if console is not None and console.console_type == grant.console_type:
        completed.options = consoles.decode_options(console.options) | grant.options
        completed.access_url_base = grant.access_url_base or console.access_url_base
    return completed


def _left(conn: sa.Connection, origin: Provenance) -> int:
    """Seconds that are left of a token's life; the issuer's clock may be off, and gives it no longer one."""
    if origin.issued_at is None:
        return origin.ttl
    now = clock.aware(conn.execute(clock.NOW).scalar_one()).timestamp()
    left = min(origin.ttl, int(origin.issued_at + origin.ttl - now))
    if left <= 0:
        raise _Unacceptable
    return left


# what was taken back


def void(db: Database, taken_back: TakenBack) -> None:
    """Note what is taken back, before it is: a source that is away, or a copy that is being made, can't
    bring it back then."""
    subjects: set[str] = set()
    for instance_uuid, hashes in taken_back.items():
        subjects.update([instance_uuid] if hashes is None else hashes)
    ordered = sorted(subjects)
    for start in range(0, len(ordered), cleanup.BATCH):
        _void(db, ordered[start : start + cleanup.BATCH])


def _void(db: Database, subjects: list[str]) -> None:
    def work(conn: sa.Connection) -> None:
        conn.execute(sa.delete(models.legacy_void).where(_V.subject.in_(subjects)))
        conn.execute(
            sa.insert(models.legacy_void).values(since=clock.utc_now()),
            [{'subject': subject} for subject in subjects],
        )

    db.transaction(work, racing=True)


def _check_not_void(
    conn: sa.Connection, token_hash: str, instance_uuid: str, issued_at: float | None
) -> None:
    if issued_at is None:
        return
    for row in conn.execute(_VOIDED, {'subjects': [token_hash, instance_uuid]}):
        if row.subject == token_hash or issued_at <= clock.aware(row.since).timestamp():
            raise _Unacceptable


def delete_void(db: Database, *, older_than: int) -> int:
    """Delete what was noted more than ``older_than`` seconds ago: no token lives so long.

    :returns: how many
    """
    old = sa.delete(models.legacy_void).where(_V.since <= clock.utc_after(-older_than))
    return int(db.single(lambda conn: conn.execute(old)).rowcount)


def find_taken_back(db: Database, filters: Mapping[str, str]) -> TakenBack:
    """What a revocation with these filters takes back, as far as it is known here.

    :param filters: as ``cleanup.revoke`` takes them
    """
    if set(filters) == {'instance_uuid'}:
        return {filters['instance_uuid']: None}
    if set(filters) == {'compute_host'}:
        rows = db.single(lambda conn: conn.execute(_ON_HOST, dict(filters)).scalars().all())
        return dict.fromkeys(rows)
    found: dict[str, set[str]] = {}
    chosen = sa.select(_T.instance_uuid, _T.token_hash).where(*cleanup.tokens_where(filters))
    for row in db.single(lambda conn: conn.execute(chosen).all()):
        found.setdefault(row.instance_uuid, set()).add(row.token_hash)
    return found


# how it is used


def count_use(db: Database, source: str) -> None:
    """Count a use, and note when."""

    def work(conn: sa.Connection) -> None:
        if not conn.execute(_COUNT_USE, {'of': source}).rowcount:
            conn.execute(
                sa.insert(models.legacy_use).values(source=source, uses=1, last_used_at=clock.utc_now())
            )

    db.transaction(work, racing=True)


def usage(db: Database) -> list[Use]:
    """What was used of the old service so far."""
    rows = db.single(lambda conn: conn.execute(_USAGE).all())
    return [Use(row.source, row.uses, clock.aware(row.last_used_at)) for row in rows]


def longest_life(db: Database) -> datetime.datetime | None:
    """When the last of the live tokens that came from elsewhere expires (UTC); None: there is none."""
    expires = db.single(lambda conn: conn.execute(_LONGEST_LIFE).scalar())
    return None if expires is None else clock.aware(expires)
