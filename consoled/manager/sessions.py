# SPDX-License-Identifier: Apache-2.0
"""Opening a session: who may open it, and what happens when the console is in use."""

from __future__ import annotations

import dataclasses
import time

from oslo_config import cfg

from consoled import exception, objects
from consoled import token as tokens
from consoled.conf import consoles as console_conf
from consoled.context import RequestContext
from consoled.db import claims
from consoled.db import sessions as db_sessions
from consoled.db.engine import Database
from consoled.manager.breaker import Breaker
from consoled.manager.console_checks import ConsoleChecks
from consoled.manager.other_ports import OtherPorts
from consoled.manager.session_cutter import SessionCutter
from consoled.manager.thread_share import ThreadShare
from consoled.manager.tokens import TokenService
from consoled.objects import EndReason
from consoled.rpc.client import ComputeConsoleAPI
from consoled.sources import CHECKED, PortChecker

_POLL_INTERVAL = 0.05  # seconds between two attempts to claim a slot that is being taken over

_TAKEOVERS = 2  # threads of a worker that may wait for take-overs of one console, or of one project
_TRIALS = 2  # threads of a worker that may try whether sessions that were not cut are cut now

# Seconds that a take-over waits for others of its console or project, and after which they are not waited for
# any more. Usually a proxy cuts in less.
_TAKEOVER_TURN = 0.2


@dataclasses.dataclass(frozen=True)
class _Policy:
    """Rules for opening sessions of one console type, as configured when the call arrived."""

    limits: claims.Limits
    steal: bool
    single_use: bool
    ends_with_token: bool


class SessionOpener:
    """Opens sessions.

    :param compute: asks compute agents whether a port still belongs to an instance
    :param cutter: tells proxies to end sessions
    :param token_service: finds tokens that are not in the database
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        db: Database,
        compute: ComputeConsoleAPI,
        cutter: SessionCutter,
        token_service: TokenService,
    ) -> None:
        self._conf = conf
        self._db = db
        self._cutter = cutter
        self._token_service = token_service
        self._compute = compute
        self._checks = ConsoleChecks(conf)
        self._ports = OtherPorts(conf, db, token_service)
        # What waits for a proxy to cut must not keep others from their consoles when that one hangs.
        self._takeovers = ThreadShare.from_conf(conf, eighths=2)
        self._hung_cuts = Breaker('The proxy of session', exception.ConsoleInUse, _TRIALS)

    def open(
        self,
        context: RequestContext,
        token: str,
        session_id: str,
        proxy_id: str,
        client_address: str | None,
        serial_port: int | None = None,
    ) -> objects.ConsoleSession:
        """Validate the token, ask the compute agent, spend a single-use token and claim a slot.

        :param serial_port: number of the serial port that the user has chosen; None for the token's own

        Raises what ``ConsoleAuthAPI.open_session`` raises.

        :raises ComputeUnreachable: also if the agent has just left another call without an answer
        :raises ManagerBusy: too many threads already wait for compute agents or proxies
        """
        request = self._find(token, session_id, proxy_id, client_address)
        request = self._ports.resolve(request, serial_port)
        policy = self._policy(request.console.console_type)
        # Repeated requests are checked too: a proxy that was slow to connect asks whether it still may.
        self._check(context, token, request)
        if request.already_open:
            repeated = db_sessions.load(self._db, request)
            if repeated is not None:
                return repeated
        try:
            session = self._claim(context, request, policy)
        except exception.ConsoleInUse as exc:
            exc.kwargs = {**exc.kwargs, **self._ports.offer(request)}
            raise
        self._token_service.count_use(request.source)
        return session

    def check(self, context: RequestContext, token: str) -> objects.ConsoleConnection:
        """Check what ``open`` checks, for a console of any type, without opening a session.

        Raises what ``open`` raises, except the errors about proxies, limits and consoles in use.
        """
        request = self._find(token, '', '', None)
        self._check(context, token, request)
        return request.console

    def check_slot(self, token: str, serial_port: int | None) -> None:
        """Check whether an open would get a slot now. Nothing is opened, and no agent is asked.

        :param serial_port: as for ``open``
        :raises ConsoleInUse: it would not; as ``open`` raises it
        """
        request = self._ports.resolve(self._find(token, '', '', None), serial_port)
        policy = self._policy(request.console.console_type)
        try:
            claims.check_slot(self._db, request.console, policy.limits.console)
        except claims.SlotsTaken as taken:
            steals = policy.steal and not request.elsewhere
            if steals or next(iter(self._ports.next_free(request)), None) is not None:
                return
            refusal = _in_use(taken)
            refusal.kwargs |= self._ports.offer(request)
            raise refusal from None

    def _find(
        self, token: str, session_id: str, proxy_id: str, client_address: str | None
    ) -> db_sessions.OpenRequest:
        def find() -> db_sessions.OpenRequest | None:
            return db_sessions.find_for_open(
                self._db, tokens.hashed(token), session_id, proxy_id, client_address
            )

        request = find()
        if request is None and self._token_service.adopt(token):
            request = find()
        if request is None:
            raise exception.InvalidToken()
        return request

    def _check(self, context: RequestContext, token: str, request: db_sessions.OpenRequest) -> None:
        repeated = request.already_open and not request.used_before
        if request.spent and self._conf.consoleauth.single_use and not repeated:
            raise exception.InvalidToken()
        if request.contested:
            self._token_service.refuse_contested(request.console)
        asked = self._token_service.check_with_source(token, request.console, request.source)
        if request.defined:
            asked = self._compute
        if asked is not None:
            self._check_port(context, request, asked)

    def _check_port(
        self, context: RequestContext, request: db_sessions.OpenRequest, asked: PortChecker
    ) -> None:
        if self._conf.manager.check_port:
            self._checks.check(context, request.console, asked)

    def _policy(self, console_type: str) -> _Policy:
        group = console_conf.GROUP_OF_TYPE[console_type]
        if group is None:
            raise exception.ConsoleGone('Consoles of this type cannot be opened through a proxy.')
        options, manager, auth = self._conf[group], self._conf.manager, self._conf.consoleauth
        limits = claims.Limits(
            console=options.max_sessions,
            token=manager.max_sessions_per_token,
            instance=manager.max_sessions_per_instance,
            project=manager.max_sessions_per_project,
        )
        return _Policy(
            limits=limits,
            steal=options.takeover == 'steal',
            single_use=auth.single_use,
            ends_with_token=auth.enforce_session_timeout,
        )

    def _claim(
        self, context: RequestContext, request: db_sessions.OpenRequest, policy: _Policy
    ) -> objects.ConsoleSession:
        try:
            return self._claim_once(request, policy)
        except claims.SlotsTaken as taken:
            if (session := self._claim_next(context, request, policy)) is not None:
                return session
            if request.elsewhere or not policy.steal:  # a port that was offered as free is not taken over
                raise _in_use(taken) from None
            victim = next((holder for holder in taken.holders if not holder.cut), taken.holders[0])
            refusal = _in_use(taken)
        console = request.console
        turn = self._takeovers.permit(
            {
                (console.instance_uuid, console.host, console.port): _TAKEOVERS,
                request.project_id or console.instance_uuid: _TAKEOVERS,
            },
            timeout=_TAKEOVER_TURN,
            stalled_after=_TAKEOVER_TURN,
            refusal=refusal,
        )
        with turn, self._hung_cuts.call(victim.id, slow=self._conf.manager.takeover_timeout / 2):
            # At most one session is stolen for an open. Otherwise several users who want the same console
            # would cut each other in turn.
            db_sessions.mark_taken_over(self._db, victim.id, EndReason.TAKEN_OVER)
            self._cutter.cut(context, [victim.id], EndReason.TAKEN_OVER)
            return self._claim_when_free(request, policy)

    def _claim_next(
        self, context: RequestContext, request: db_sessions.OpenRequest, policy: _Policy
    ) -> objects.ConsoleSession | None:
        """Claim a slot of the next free serial port, if ``[serial_console] other_ports`` lets users have it.

        :returns: None if there is none
        """
        deadline = time.monotonic() + self._conf.manager.check_port_timeout
        for other in self._ports.next_free(request):
            if time.monotonic() > deadline:  # the proxy does not wait for ever
                break
            try:
                self._check_port(context, other, self._compute)
                return self._claim_once(other, policy)
            except (claims.SlotsTaken, exception.ConsoleGone):
                continue
        return None

    def _claim_when_free(self, request: db_sessions.OpenRequest, policy: _Policy) -> objects.ConsoleSession:
        """Claim a slot once a proxy has cut the session that holds it (invariant 3 in doc/design.md)."""
        deadline = time.monotonic() + self._conf.manager.takeover_timeout
        while True:
            try:
                return self._claim_once(request, policy)
            except claims.SlotsTaken as taken:
                if time.monotonic() > deadline:
                    raise _in_use(taken) from None
            time.sleep(_POLL_INTERVAL)

    def _claim_once(self, request: db_sessions.OpenRequest, policy: _Policy) -> objects.ConsoleSession:
        return claims.claim(
            self._db,
            request,
            policy.limits,
            single_use=policy.single_use,
            ends_with_token=policy.ends_with_token,
            watched=request.source in CHECKED,
        )


def _in_use(taken: claims.SlotsTaken) -> exception.ConsoleInUse:
    since = taken.holders[0].connected_at.strftime('%Y-%m-%d %H:%M:%S UTC')
    return exception.ConsoleInUse(since=since)
