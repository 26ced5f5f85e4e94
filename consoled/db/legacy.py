# SPDX-License-Identifier: Apache-2.0
"""Tokens that were issued elsewhere: their copies in the database, their revocations, their uses."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import itertools
import json
from collections.abc import Collection, Iterator, Mapping

import sqlalchemy as sa

from consoled import objects
from consoled.db import cleanup, clock, consoles, models, revocation
from consoled.db.engine import Database
from consoled.db.models import Row
from consoled.db.tokens import Stored, load_expiry

_C = models.console_connection.c
_I = models.instances.c
_T = models.console_auth_token.c
_U = models.legacy_use.c
_V = models.legacy_void.c

_SELECT_REVOCATIONS = sa.select(_V.subject, _V.since).where(
    _V.subject.in_(sa.bindparam('subjects', expanding=True))
)
_COUNT_USE = (
    sa.update(models.legacy_use)
    .where(_U.source == sa.bindparam('counted'))
    .values(uses=_U.uses + 1, last_used_at=clock.utc_now())
)
_SELECT_USES = sa.select(_U.source, _U.uses, _U.last_used_at).order_by(_U.source)
_SELECT_LAST_EXPIRY = sa.select(sa.func.max(_T.expires)).where(
    _T.source.is_not(None),
    _T.source.not_in(sa.bindparam('others', expanding=True)),
    _T.expires > clock.utc_now(),
)
_SELECT_BY_HOST = sa.select(_I.uuid).where(_I.compute_host == sa.bindparam('compute_host'))

# Locks the row of an instance whose compute host is unknown: nobody names the host until the new token is
# stored, so whoever names it then updates this token too.
_LOCK_UNKNOWN = (
    sa.update(models.instances)
    .where(_I.uuid == sa.bindparam('locked'), _I.compute_host == models.UNKNOWN_HOST)
    .values(compute_host=models.UNKNOWN_HOST)
)

_SELECT_DEFINED = sa.select(_C.host).where(
    _C.instance_uuid == sa.bindparam('uuid'),
    _C.console_type == sa.bindparam('type'),
    _C.port == sa.bindparam('at_port'),
)

_REVOKED = 'revoked'

# Filters of a revocation of which an issuer may have recorded the value. None records the user.
_SCOPES = ('compute_host', 'instance_uuid', 'project_id')

_MIN_VOID_AGE = 86400  # seconds; longer than clocks differ

# By instance, the hashes of its revoked tokens; None for all of its tokens.
Revocations = Mapping[str, Collection[str] | None]


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Source of a token, and the time when it was issued.

    :ivar source: a ``source`` of ``legacy_use``
    :ivar ttl: lifetime in seconds from when it was issued
    :ivar issued_at: seconds since 1970 UTC by the issuer's clock; None if it is being issued now
    :ivar expires_in: seconds until it expires, if the issuer says so; then ``ttl`` only says for how long
        revocations of such tokens are remembered
    """

    source: str
    ttl: int
    issued_at: float | None = None
    expires_in: float | None = None


@dataclasses.dataclass(frozen=True)
class Use:
    """Number of uses of a source of the old service, and the time of the last one (UTC)."""

    source: str
    uses: int
    last_used_at: datetime.datetime


class _Unacceptable(Exception):
    """The token cannot be copied."""


def adopt(
    db: Database,
    token_hash: str,
    grant: objects.ConsoleAuthToken,
    provenance: Provenance,
    request_id: str | None = None,
) -> Stored | None:
    """Copy a token that was issued elsewhere into the database, with the rest of its lifetime.

    What the database knows of the instance and the console takes precedence; only the rest is taken from the
    grant. If an agent has defined the instance, a token that was issued earlier must be for one of its
    consoles: its host and port may belong to another guest now. Without an agent, a token that is being
    issued shows which console is at its host and port now. An issuer that knows the compute host is believed
    as one that issues the token now: it knows where the instance is. A repetition is harmless.

    :returns: None if the token has expired or was revoked, or if its console is a different one now
    """
    try:
        adopted = db.transaction(
            lambda conn: _adopt(conn, token_hash, grant, provenance, request_id), racing=True
        )
    except _Unacceptable:
        return None
    if provenance.issued_at is None:
        return adopted
    # A revocation that ran meanwhile has not seen the copy. It was recorded before it deleted anything, so it
    # is found here.
    try:
        db.single(lambda conn: _check_not_revoked(conn, token_hash, grant, provenance.issued_at))
    except _Unacceptable:
        revocation.revoke(db, {'instance_uuid': grant.instance_uuid}, _REVOKED)
        return None
    return adopted


def _adopt(
    conn: sa.Connection,
    token_hash: str,
    grant: objects.ConsoleAuthToken,
    provenance: Provenance,
    request_id: str | None,
) -> Stored:
    expires = load_expiry(conn, token_hash)
    if expires is not None:
        return Stored(clock.aware(expires), [])
    _check_not_revoked(conn, token_hash, grant, provenance.issued_at)
    issued_earlier = provenance.issued_at is not None
    compute_host, host, cut = _ensure_console(conn, grant, issued_earlier=issued_earlier)
    conn.execute(
        sa.insert(models.console_auth_token).values(
            token_hash=token_hash,
            instance_uuid=grant.instance_uuid,
            host=host,
            port=grant.port,
            compute_host=compute_host,
            user_id=grant.user_id,
            project_id=grant.project_id,
            request_id=request_id,
            expires=clock.utc_after(_remaining_ttl(conn, provenance)),
            created_at=clock.utc_now(),
            source=provenance.source,
        )
    )
    expires = load_expiry(conn, token_hash)
    assert expires is not None  # it was inserted just now
    return Stored(clock.aware(expires), cut)


def _ensure_console(
    conn: sa.Connection, grant: objects.ConsoleAuthToken, *, issued_earlier: bool
) -> tuple[str, str | None, list[str]]:
    """Insert the instance and the console, or update them where the grant takes precedence.

    :returns: the compute host (``models.UNKNOWN_HOST`` if it is not known), the console's host, and the ids
        of the sessions to cut
    :raises _Unacceptable: the grant contradicts what the database knows
    """
    conn.execute(_LOCK_UNKNOWN, {'locked': grant.instance_uuid})
    instance = conn.execute(consoles.SELECT_INSTANCE, {'instance_uuid': grant.instance_uuid}).first()
    if grant.compute_host != models.UNKNOWN_HOST:
        return _ensure_located(conn, instance, grant)
    compute_host: str = models.UNKNOWN_HOST if instance is None else instance.compute_host
    console = consoles.load_console(conn, grant.instance_uuid, grant.host, grant.port)
    defined = instance is not None and instance.defined
    if console is None and issued_earlier and defined:
        raise _Unacceptable
    database_wins = defined or issued_earlier
    if console is not None and database_wins and console.console_type != grant.console_type:
        raise _Unacceptable
    consoles.ensure_instance(conn, instance, grant.instance_uuid, compute_host, defined=False)
    if console is not None and database_wins:
        return compute_host, grant.host, []
    completed = _complete(grant, console)
    cut = consoles.ensure_console(conn, console, completed.console(), options_known=False)
    return compute_host, grant.host, cut


def _ensure_located(
    conn: sa.Connection, instance: Row | None, grant: objects.ConsoleAuthToken
) -> tuple[str, str | None, list[str]]:
    """Do the same for a grant whose issuer knows the compute host."""
    if instance is not None and instance.defined:
        # The agent knows the address that the console listens on, the issuer may know another of that host.
        found = conn.execute(
            _SELECT_DEFINED,
            {'uuid': grant.instance_uuid, 'type': grant.console_type, 'at_port': grant.port},
        ).first()
        if found is None or instance.compute_host != grant.compute_host:
            raise _Unacceptable
        return grant.compute_host, found.host, []
    cut = consoles.ensure_instance(conn, instance, grant.instance_uuid, grant.compute_host, defined=False)
    console = consoles.load_console(conn, grant.instance_uuid, grant.host, grant.port)
    cut += consoles.ensure_console(conn, console, grant.console(), options_known=True)
    return grant.compute_host, grant.host, cut


def _complete(grant: objects.ConsoleAuthToken, console: Row | None) -> objects.ConsoleAuthToken:
    """Return the grant, completed by the console's row if that is of the same type."""
    completed = grant.copy()
    if console is not None and console.console_type == grant.console_type:
        completed.options = consoles.decode_options(console.options) | grant.options
        completed.access_url_base = grant.access_url_base or console.access_url_base
    return completed


def _remaining_ttl(conn: sa.Connection, provenance: Provenance) -> int:
    """Return the seconds until the token expires; an issuer's clock that is ahead does not make them more.

    :raises _Unacceptable: it has expired, or its revocation may be forgotten by now
    """
    remaining = provenance.ttl
    if provenance.issued_at is not None:
        age = clock.aware(conn.execute(clock.NOW).scalar_one()).timestamp() - provenance.issued_at
        remaining = min(provenance.ttl, int(provenance.ttl - age))
        if provenance.expires_in is not None and age < revocations_kept_for(provenance.ttl):
            remaining = int(provenance.expires_in)
    if remaining <= 0:
        raise _Unacceptable
    return remaining


# Revocations


def record_revocations(db: Database, revocations: Revocations) -> None:
    """Record revocations. Call it before the tokens are deleted.

    Then neither a source that was away nor a copy in flight can bring a revoked token back.
    """
    subjects: set[str] = set()
    for instance_uuid, hashes in revocations.items():
        subjects.update([instance_uuid] if hashes is None else hashes)
    _record_all(db, subjects)


def record_scope(db: Database, filters: Mapping[str, str]) -> None:
    """Record that all tokens which match these filters and were issued until now are revoked.

    That includes tokens which nobody has used yet, so that the database does not know them. Nothing is
    recorded for filters that no token of a source can match.

    :param filters: as for ``revocation.revoke``
    """
    if set(filters) <= set(_SCOPES):
        _record_all(db, {_subject(filters)})


def _subject(filters: Mapping[str, str]) -> str:
    if set(filters) == {'instance_uuid'}:
        return filters['instance_uuid']
    return hashlib.sha256(json.dumps(sorted(filters.items())).encode()).hexdigest()


def _scopes(grant: objects.ConsoleAuthToken) -> Iterator[str]:
    """Yield the subjects of all revocations that match the grant."""
    known = [(name, value) for name in _SCOPES if (value := getattr(grant, name)) is not None]
    for size in range(1, len(known) + 1):
        for chosen in itertools.combinations(known, size):
            yield _subject(dict(chosen))


def _record_all(db: Database, subjects: Collection[str]) -> None:
    ordered = sorted(subjects)
    for start in range(0, len(ordered), cleanup.BATCH):
        _record(db, ordered[start : start + cleanup.BATCH])


def _record(db: Database, subjects: list[str]) -> None:
    def work(conn: sa.Connection) -> None:
        conn.execute(sa.delete(models.legacy_void).where(_V.subject.in_(subjects)))
        conn.execute(
            sa.insert(models.legacy_void).values(since=clock.utc_now()),
            [{'subject': subject} for subject in subjects],
        )

    db.transaction(work, racing=True)


def _check_not_revoked(
    conn: sa.Connection, token_hash: str, grant: objects.ConsoleAuthToken, issued_at: float | None
) -> None:
    """:raises _Unacceptable: the token was revoked, or all tokens of its instance, project or compute host
    that were issued until a later moment
    """
    if issued_at is None:
        return
    for row in conn.execute(_SELECT_REVOCATIONS, {'subjects': [token_hash, *_scopes(grant)]}):
        if row.subject == token_hash or issued_at <= clock.aware(row.since).timestamp():
            raise _Unacceptable


def revocations_kept_for(ttl: int) -> int:
    """Return for how many seconds revocations are remembered. An older token is not copied any more.

    :param ttl: ``[consoleauth] token_ttl``
    """
    return max(_MIN_VOID_AGE, 2 * ttl)


def delete_revocations(db: Database, *, older_than: int) -> int:
    """Delete the revocations that were recorded more than ``older_than`` seconds ago.

    :param older_than: longer than any token lives
    :returns: the number of deleted revocations
    """
    old = sa.delete(models.legacy_void).where(_V.since <= clock.utc_after(-older_than))
    return int(db.single(lambda conn: conn.execute(old)).rowcount)


def find_revoked(db: Database, filters: Mapping[str, str]) -> Revocations:
    """Return the tokens that a revocation with these filters revokes, as far as the database knows them.

    :param filters: as for ``revocation.revoke``
    """
    if set(filters) == {'instance_uuid'}:
        return {filters['instance_uuid']: None}
    if set(filters) == {'compute_host'}:
        rows = db.single(lambda conn: conn.execute(_SELECT_BY_HOST, dict(filters)).scalars().all())
        return dict.fromkeys(rows)
    found: dict[str, set[str]] = {}
    chosen = sa.select(_T.instance_uuid, _T.token_hash).where(*revocation.tokens_where(filters))
    for row in db.single(lambda conn: conn.execute(chosen).all()):
        found.setdefault(row.instance_uuid, set()).add(row.token_hash)
    return found


# Uses


def count_use(db: Database, source: str) -> None:
    """Count a use of a source, and store when it was."""

    def work(conn: sa.Connection) -> None:
        if not conn.execute(_COUNT_USE, {'counted': source}).rowcount:
            conn.execute(
                sa.insert(models.legacy_use).values(source=source, uses=1, last_used_at=clock.utc_now())
            )

    db.transaction(work, racing=True)


def usage(db: Database) -> list[Use]:
    """Return the uses of all sources of the old service."""
    rows = db.single(lambda conn: conn.execute(_SELECT_USES).all())
    return [Use(row.source, row.uses, clock.aware(row.last_used_at)) for row in rows]


def last_expiry(db: Database, others: Collection[str] = ()) -> datetime.datetime | None:
    """Return when the last live token that was issued elsewhere expires (UTC); None if there is none.

    :param others: sources whose tokens do not count
    """
    values = {'others': list(others)}
    expires = db.single(lambda conn: conn.execute(_SELECT_LAST_EXPIRY, values).scalar())
    return None if expires is None else clock.aware(expires)
