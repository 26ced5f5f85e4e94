# SPDX-License-Identifier: Apache-2.0
"""Opening a session: who may, and what happens when the console is taken."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from oslo_config import cfg

from consoled import exception, objects
from consoled import token as tokens
from consoled.conf import consoles as console_conf
from consoled.context import RequestContext
from consoled.db import claims
from consoled.db import sessions as db_sessions
from consoled.db.session import Database
from consoled.manager.tokens import TokenService
from consoled.objects import EndReason
from consoled.rpc.client import ComputeConsoleAPI

_POLL = 0.05  # seconds between two looks at a slot that is being taken over

# (context, session ids, reason): tell the proxies
CutSessions = Callable[[RequestContext, list[str], str], None]


class SessionOpener:
    """Carries ``open_session`` out.

    :param compute: asks compute agents whether a port is still a guest's
    :param cut: tells the proxies to end sessions
    :param token_service: knows tokens that the database does not know
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        db: Database,
        compute: ComputeConsoleAPI,
        cut: CutSessions,
        token_service: TokenService,
    ) -> None:
        self._conf = conf
        self._db = db
        self._compute = compute
        self._cut = cut
        self._token_service = token_service
        # Opens that wait for somebody else may take half of the threads: the other half goes on answering
        # when all agents hang or a proxy does not cut.
        self._waiting_permits = threading.BoundedSemaphore(max(1, conf.executor_thread_pool_size // 2))

    def open(
        self,
        context: RequestContext,
        token: str,
        session_id: str,
        proxy_id: str,
        client_address: str | None,
    ) -> objects.ConsoleSession:
        """Validate, check with the compute agent, spend a single-use token, claim a slot.

        Errors as in ``ConsoleAuthAPI.open_session``, and ManagerBusy.
        """
        opening = self._find(token, session_id, proxy_id, client_address)
        group = self._options_of(opening.console.console_type)
        # for a repeated request too: a proxy that was slow to connect asks whether the answer still holds
        self._check(context, opening)
        if opening.already_open:
            repeated = db_sessions.load(self._db, opening)
            if repeated is not None:
                return repeated
        session = self._claim(context, opening, group)
        self._token_service.used(opening.source)
        return session

    def check(self, context: RequestContext, token: str) -> objects.ConsoleConnection:
        """Check what ``open`` checks, and open nothing: whoever asks does that in his own way, with
        consoles of any type.

        Errors as in ``open``, but for those about proxies and taken consoles.
        """
        opening = self._find(token, '', '', None)
        self._check(context, opening)
        return opening.console

    def _find(
        self, token: str, session_id: str, proxy_id: str, client_address: str | None
    ) -> db_sessions.OpenRequest:
        def find() -> db_sessions.OpenRequest | None:
            return db_sessions.find_for_open(
                self._db, tokens.hashed(token), session_id, proxy_id, client_address
            )

        opening = find()
        if opening is None and self._token_service.adopt(token):
            opening = find()
        if opening is None:
            raise exception.InvalidToken()
        return opening

    def _check(self, context: RequestContext, opening: db_sessions.OpenRequest) -> None:
        if opening.spent and self._conf.consoleauth.single_use and not opening.already_open:
            raise exception.InvalidToken()
        if opening.defined and self._conf.manager.check_port:
            self._check_port(context, opening.console)

    def _options_of(self, console_type: str) -> Any:
        group = console_conf.GROUP_OF_TYPE[console_type]
        if group is None:
            raise exception.ConsoleGone('Consoles of this type are not opened through a proxy.')
        return self._conf[group]

    def _check_port(self, context: RequestContext, console: objects.ConsoleConnection) -> None:
        with self._waiting():
            try:
                still_there = self._compute.check_console(
                    context, console, self._conf.manager.check_port_timeout
                )
            except (exception.InstanceNotFound, exception.ConsoleGone):
                still_there = False
        if not still_there:
            raise exception.ConsoleGone()

    def _claim(
        self, context: RequestContext, opening: db_sessions.OpenRequest, group: Any
    ) -> objects.ConsoleSession:
        try:
            return self._claim_once(opening, group)
        except claims.SlotsTaken as taken:
            if group.takeover != 'steal':
                raise _in_use(taken) from None
            victim = next((holder for holder in taken.holders if not holder.cut), taken.holders[0])
        # Steal from one session at most: of several users who want the same console the others must not
        # cut each other in turn.
        db_sessions.mark_taken_over(self._db, victim.id, EndReason.TAKEN_OVER)
        self._cut(context, [victim.id], EndReason.TAKEN_OVER)
        with self._waiting():
            return self._claim_when_free(opening, group)

    def _claim_when_free(self, opening: db_sessions.OpenRequest, group: Any) -> objects.ConsoleSession:
        """The slot is used again only once its proxy has cut the old session (DESIGN invariant 3)."""
        deadline = time.monotonic() + self._conf.manager.takeover_timeout
        while True:
            try:
                return self._claim_once(opening, group)
            except claims.SlotsTaken as taken:
                if time.monotonic() > deadline:
                    raise _in_use(taken) from None
            time.sleep(_POLL)

    def _claim_once(self, opening: db_sessions.OpenRequest, group: Any) -> objects.ConsoleSession:
        manager, auth = self._conf.manager, self._conf.consoleauth
        return claims.claim(
            self._db,
            opening,
            claims.Limits(
                console=group.max_sessions,
                token=manager.max_sessions_per_token,
                instance=manager.max_sessions_per_instance,
                project=manager.max_sessions_per_project,
            ),
            single_use=auth.single_use,
            ends_with_token=auth.enforce_session_timeout,
        )

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        if not self._waiting_permits.acquire(blocking=False):
            raise exception.ManagerBusy()
        try:
            yield
        finally:
            self._waiting_permits.release()


def _in_use(taken: claims.SlotsTaken) -> exception.ConsoleInUse:
    since = taken.holders[0].connected_at.strftime('%Y-%m-%d %H:%M:%S UTC')
    return exception.ConsoleInUse(since=since)
