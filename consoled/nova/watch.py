# SPDX-License-Identifier: Apache-2.0
"""Cuts sessions of Nova's tokens that are not true any more.

A pass asks Nova's database whether the guests of these sessions are as they were, in batches of which each is
answered with a count. What a pass costs is the text of its questions: rows are read for new sessions, and for
the batch in which something has changed.
"""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import logging
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TypeVar

from consoled import exception
from consoled.db import engine, proxies
from consoled.db import watch as db_watch
from consoled.db.engine import Database
from consoled.db.watch import Watched
from consoled.nova.database import Instance, NovaDatabase
from consoled.nova.end_reason import CLOCKS_DIFFER, Facts, Launch, find_end_reason
from consoled.nova.source import NovaTokens

LOG = logging.getLogger(__name__)

T = TypeVar('T')

# Called with the ids of the sessions to cut and the reason.
Cut = Callable[[list[str], str], None]
# Called with the outcome of a pass (ok, unavailable or failed) and its seconds.
PassObserver = Callable[[str, float], None]

# MariaDB makes a temporary table of a list of 1000 values or more.
_BATCH = 500

# One node of a Galera cluster may be behind another. What is not true is read again before a session is cut.
_READ_AGAIN = 0.5  # seconds

_LIST_ALL = 60.0  # seconds between two complete lists of sessions, which forget those that have ended

# Nova deletes expired tokens by the clocks of its services, which may be ahead. One that is deleted in its
# last minute may have expired for them.
_LAST_MINUTE = CLOCKS_DIFFER.total_seconds()


@dataclasses.dataclass(slots=True)
class _Session:
    """:ivar token_until: until then (monotonic clock) Nova must have its token"""

    watched: Watched
    token_until: float
    launch: Launch | None = None


@dataclasses.dataclass(slots=True)
class _Guest:
    """:ivar instance: as it was when all of its sessions were true; None if it has to be read"""

    sessions: dict[str, _Session]
    instance: Instance | None = None


class Watcher:
    """Watches the sessions of a cell, a pass at a time, while it is this manager's turn.

    :param cut: tells the proxies
    :param manager: name of this manager
    :param interval: seconds between the starts of two passes
    :param pause: sleeps for a number of seconds
    """

    def __init__(
        self,
        db: Database,
        nova: NovaDatabase,
        cut: Cut,
        *,
        manager: str,
        interval: float,
        observe: PassObserver = lambda outcome, seconds: None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.interval = interval
        self._db = db
        self._nova = nova
        self._cut = cut
        self._manager = manager
        self._observe = observe
        self._pause = pause
        # Two passes may be late before another manager takes over.
        self._turn = math.ceil(2 * interval) + 1
        self._has_tables = False
        self._has_turn = False
        self._ended = False
        self._trouble: str | None = None
        self._guests: dict[str, _Guest] = {}
        self._listed_at = self._listed_all_at = -math.inf

    def run(self) -> float:
        """Make a pass. Failures are logged once, and no session is cut because of them.

        :returns: seconds until the next pass
        """
        started = time.monotonic()
        outcome, trouble = self._run()
        if trouble != self._trouble:
            if trouble is None:
                LOG.info('This manager watches the sessions of Nova again')
            else:
                LOG.warning('This manager cannot watch the sessions of Nova: %s', trouble)
            self._trouble = trouble
        taken = time.monotonic() - started
        if outcome is not None:
            self._observe(outcome, taken)
        return max(0.0, self.interval - taken)

    def end(self) -> None:
        """Leave the turn to another manager, and close the connections to Nova's database."""
        self._ended = True
        try:
            self._give_up_turn()
        except exception.DatabaseUnavailable as exc:
            LOG.debug('Could not end the turn to watch sessions: %s', exc)
        self._nova.dispose()

    def _run(self) -> tuple[str | None, str | None]:
        """Make a pass if it is our turn; return its outcome, and what is wrong."""
        try:
            if not self._is_upgraded():
                return 'failed', 'the database is of an earlier release: run consoled-manage db upgrade'
            if self._ended or not self._take_turn():
                return None, self._trouble
            self._refresh()
            try:
                self._cut_untrue()
            except exception.SourceUnavailable as exc:
                self._give_up_turn()  # another manager may reach it
                return 'unavailable', _said(exc)
        except exception.DatabaseUnavailable as exc:
            return 'failed', str(exc)
        except Exception as exc:
            # A fault here must not end the daemon. The next pass tries again.
            text = f'{type(exc).__name__}, see the traceback'
            if text != self._trouble:
                LOG.exception('The watch of the sessions of Nova failed')
            return 'failed', text
        return 'ok', None

    def _is_upgraded(self) -> bool:
        self._has_tables = self._has_tables or db_watch.has_tables(self._db)
        return self._has_tables

    def _take_turn(self) -> bool:
        had = self._has_turn
        self._has_turn = db_watch.take_turn(self._db, NovaTokens.name, self._manager, self._turn)
        if self._has_turn and not had:
            self._listed_all_at = -math.inf
        return self._has_turn

    def _give_up_turn(self) -> None:
        if self._has_turn:
            self._has_turn = False
            db_watch.end_turn(self._db, NovaTokens.name, self._manager)

    def _refresh(self) -> None:
        """Learn which sessions have begun, and once a minute which have ended."""
        now = time.monotonic()
        if now - self._listed_all_at > _LIST_ALL:
            listed = db_watch.list_watched(self._db, NovaTokens.name)
            self._forget_all_but({session.id for session in listed})
            self._listed_all_at = now
        else:
            # A session that was being opened at the last list is older than the list, and was not in it.
            within = math.ceil(now - self._listed_at) + proxies.OPEN_TAKES_AT_MOST
            listed = db_watch.list_watched(self._db, NovaTokens.name, within=within)
        self._listed_at = now
        for each in listed:
            guest = self._guests.setdefault(each.instance_uuid, _Guest({}))
            if each.id not in guest.sessions:
                until = -math.inf if each.token_hash is None else now + each.token_life - _LAST_MINUTE
                guest.sessions[each.id] = _Session(each, until)
                guest.instance = None

    def _forget_all_but(self, session_ids: Collection[str]) -> None:
        for uuid, guest in list(self._guests.items()):
            guest.sessions = {key: each for key, each in guest.sessions.items() if key in session_ids}
            if not guest.sessions:
                del self._guests[uuid]

    def _cut_untrue(self) -> None:
        """Cut the sessions that are found untrue twice.

        :raises SourceUnavailable: Nova's database does not answer
        """
        try:
            untrue = self._examine(self._in_doubt())
            if untrue:
                self._pause(_READ_AGAIN)
                untrue = self._examine({session.instance_uuid for session, _ in untrue})
        except exception.DatabaseUnavailable as exc:
            raise exception.SourceUnavailable() from exc.__cause__
        self._end(untrue)

    def _in_doubt(self) -> set[str]:
        """Return the guests that are new here, or have changed, or of which a token was deleted."""
        doubtful = {uuid for uuid, guest in self._guests.items() if guest.instance is None}
        known = (guest.instance for guest in self._guests.values() if guest.instance is not None)
        for instances in _batches(known):
            if not self._nova.are_unchanged(instances):
                doubtful.update(instance.uuid for instance in instances)
        now = time.monotonic()
        tokens = (
            (each.watched.token_hash, uuid)
            for uuid, guest in self._guests.items()
            if guest.instance is not None
            for each in guest.sessions.values()
            if each.watched.token_hash is not None and each.token_until > now
        )
        for pairs in _batches(dict(tokens).items()):
            uuids = dict(pairs)
            if not self._nova.have_all(uuids):
                existing = self._nova.find_issued(uuids)
                doubtful.update(uuid for token_hash, uuid in uuids.items() if token_hash not in existing)
        return doubtful

    def _examine(self, uuids: Iterable[str]) -> list[tuple[Watched, str]]:
        """Read what Nova has of these guests, and return the sessions that must end, with the reasons."""
        guests = {uuid: self._guests[uuid] for uuid in uuids}
        instances: dict[str, Instance] = {}
        for batch in _batches(guests):
            instances |= self._nova.find_instances(batch)
        hashes = (each.watched.token_hash for guest in guests.values() for each in guest.sessions.values())
        issued: dict[str, datetime.datetime | None] = {}
        for some in _batches({token_hash for token_hash in hashes if token_hash is not None}):
            issued |= self._nova.find_issued(some)
        now = time.monotonic()
        untrue: list[tuple[Watched, str]] = []
        for uuid, guest in guests.items():
            instance, found = instances.get(uuid), len(untrue)
            for each in guest.sessions.values():
                token_hash = each.watched.token_hash
                deleted = each.token_until > now and token_hash not in issued
                facts = Facts(instance, issued.get(token_hash or ''), deleted)
                reason = find_end_reason(each.watched, facts, each.launch)
                if reason is not None:
                    untrue.append((each.watched, reason))
                elif instance is not None and (instance.launched_at or not each.launch):
                    each.launch = Launch(instance.launched_at)
            # Until its untrue sessions are cut, a guest is in doubt. Without a state it cannot be compared.
            comparable = instance is not None and instance.state is not None
            guest.instance = instance if comparable and len(untrue) == found else None
        return untrue

    def _end(self, untrue: list[tuple[Watched, str]]) -> None:
        """Mark sessions, tell the proxies, and forget them here.

        :raises DatabaseUnavailable: they could not be marked; the next pass finds them again
        """
        for reason in sorted({reason for _, reason in untrue}):
            for batch in _batches(session for session, why in untrue if why == reason):
                marked = set(db_watch.mark(self._db, [session.id for session in batch], reason))
                self._cut(sorted(marked), reason)
                for session in batch:
                    self._forget(session)
                    if session.id in marked:
                        LOG.info(
                            'Cut session %s of instance %s on %s: %s in Nova',
                            session.id,
                            session.instance_uuid,
                            session.compute_host,
                            reason,
                        )

    def _forget(self, session: Watched) -> None:
        guest = self._guests[session.instance_uuid]
        del guest.sessions[session.id]
        if not guest.sessions:
            del self._guests[session.instance_uuid]


def _batches(values: Iterable[T]) -> Iterator[list[T]]:
    remaining = iter(values)
    while batch := list(itertools.islice(remaining, _BATCH)):
        yield batch


def _said(exc: exception.SourceUnavailable) -> str:
    """Return what Nova's database has said, or why it said nothing."""
    return engine.answer(exc.__cause__) if isinstance(exc.__cause__, Exception) else str(exc)
