# SPDX-License-Identifier: Apache-2.0
"""Console auth tokens: authorizing them, finding them, and making them worthless."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence
from typing import NoReturn, cast

from oslo_config import cfg

from consoled import exception, objects
from consoled import token as tokens
from consoled.conf import consoles as console_conf
from consoled.context import RequestContext
from consoled.db import legacy, models
from consoled.db import tokens as db_tokens
from consoled.db.engine import Database
from consoled.manager import access_url
from consoled.manager.contests import ContestReporter
from consoled.manager.session_cutter import SessionCutter
from consoled.manager.thread_share import ThreadShare
from consoled.objects import EndReason
from consoled.sources import CHECKED, CheckedTokenSource, Issued, PortChecker, TokenSource

LOG = logging.getLogger(__name__)

# A lookup in a source takes milliseconds, and many users may come at once when a proxy has been moved. They
# are refused only when lookups take seconds, so that threads are left for tokens that are in the database.
_LOOKUP_TURN = 0.5  # seconds to wait for a permit
_FORGET_TIME = 2.0  # seconds at most to delete revoked tokens from the sources: they are void in any case


class TokenService:
    """Authorizes tokens and finds them: in the database first, then in the sources, in their order.

    A token found in a source is copied into the database when it is first used.

    :param contests: tells operators of contested consoles
    :param cutter: tells proxies to end sessions
    :param sources: other stores of tokens; empty unless a cloud is being moved over
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        db: Database,
        contests: ContestReporter,
        cutter: SessionCutter,
        sources: Sequence[TokenSource] = (),
    ) -> None:
        self._conf = conf
        self._db = db
        self._contests = contests
        self._cutter = cutter
        self._sources = sources
        # Lookups in sources must not take all threads when a source hangs.
        self._share = ThreadShare.from_conf(conf, eighths=1)

    # authorizing

    def authorize(
        self, context: RequestContext, grant: objects.ConsoleAuthToken, ttl: int | None
    ) -> tuple[objects.ConsoleAuthToken, list[str]]:
        """Store a grant under a new token.

        :param ttl: lifetime in seconds; None for ``[consoleauth] token_ttl``
        :returns: the grant with ``token``, ``expires`` and ``access_url``, and the ids of the sessions to cut
        :raises InvalidConsole: the grant is inconsistent
        :raises ConsoleContested: an instance of another compute host has the console's address too
        :raises TTLTooLong: ``ttl`` exceeds ``[consoleauth] max_token_ttl``
        """
        ttl = self._checked_ttl(ttl)
        _check(grant)
        if grant.compute_host == models.UNKNOWN_HOST:
            raise exception.InvalidConsole(reason='compute_host must be the name of a compute host')
        grant.user_id = grant.user_id or context.user_id
        grant.project_id = grant.project_id or context.project_id
        token = tokens.mint()
        try:
            grant, stored = self._store(context, grant, token, ttl)
        except exception.ConsoleContested:
            given = {'host': grant.host, 'port': grant.port} if grant.port is not None else {}
            self._contests.report('authorize', instance_uuid=grant.instance_uuid, **given)
            raise
        grant.expires = stored.expires
        self._complete(grant, token)
        return grant, stored.cut

    def _store(
        self, context: RequestContext, grant: objects.ConsoleAuthToken, token: str, ttl: int
    ) -> tuple[objects.ConsoleAuthToken, db_tokens.Stored]:
        """Store a token; return its grant with the console that was chosen."""
        if grant.port is None:
            group = console_conf.GROUP_OF_TYPE[grant.console_type]
            return db_tokens.store_next_free(
                self._db,
                tokens.hashed(token),
                grant,
                ttl,
                context.request_id,
                unlimited=group is None or self._conf[group].max_sessions == 0,
            )
        return grant, db_tokens.store(self._db, tokens.hashed(token), grant, ttl, context.request_id)

    def authorize_issued(
        self, context: RequestContext, token: str, issued: Issued, source: str
    ) -> tuple[objects.ConsoleAuthToken, list[str]]:
        """Store a token that another service has just issued.

        :param source: name under which its uses are counted
        :returns: as ``authorize``
        :raises InvalidConsole: another console is defined at that address, or the URL is unusable
        """
        grant = _to_grant(issued)
        _check(grant)
        grant.user_id, grant.project_id = context.user_id, context.project_id
        ttl = self._checked_ttl(None)
        adopted = legacy.adopt(
            self._db, tokens.hashed(token), grant, legacy.Provenance(source, ttl), context.request_id
        )
        if adopted is None:
            raise exception.InvalidConsole(reason='another console is defined at that address')
        grant.expires = adopted.expires
        self._complete(grant, token)
        self.count_use(source)
        return grant, adopted.cut

    def _checked_ttl(self, ttl: int | None) -> int:
        options = self._conf.consoleauth
        wanted: int = options.token_ttl if ttl is None else ttl
        if wanted > options.max_token_ttl:
            raise exception.TTLTooLong(ttl=wanted, limit=options.max_token_ttl)
        return wanted

    def _complete(self, grant: objects.ConsoleAuthToken, token: str) -> None:
        """Set what only the reply to ``authorize`` carries, and write the token through to the sources."""
        grant.token = token
        if grant.access_url_base is not None:
            grant.access_url = access_url.build(grant.access_url_base, grant.console_type, token)
        if self._conf.workarounds.consoleauth_write_through:
            for source in self._sources:
                source.store(grant)

    # finding

    def validate(self, token: str) -> objects.ConsoleAuthToken:
        """Return the grant of a live token, without the token.

        :raises InvalidToken: the token is unknown, expired or used, or its source does not have it any more
        :raises ConsoleContested: an instance of another compute host has the console's address too
        :raises ManagerBusy: as ``check_with_source``
        :raises SourceUnavailable: as ``check_with_source``
        """
        valid = self._find(token)
        if valid is not None:  # other services open consoles by this answer alone
            self.check_with_source(token, valid.grant.console(), valid.source)
        elif self.adopt(token):
            valid = self._find(token)
        if valid is None:
            raise exception.InvalidToken()
        if valid.contested:
            self.refuse_contested(valid.grant.console())
        self.count_use(valid.source)
        return valid.grant

    def refuse_contested(self, console: objects.ConsoleConnection) -> NoReturn:
        """Refuse to open a contested console, and tell the operators.

        :raises ConsoleContested: always
        """
        self._contests.report(
            'open', instance_uuid=console.instance_uuid, host=console.host, port=console.port
        )
        raise exception.ConsoleContested()

    def _find(self, token: str) -> db_tokens.ValidToken | None:
        single_use = self._conf.consoleauth.single_use
        return db_tokens.validate(self._db, tokens.hashed(token), single_use=single_use)

    def adopt(self, token: str) -> bool:
        """Look a token up in the sources and copy it into the database.

        :returns: whether the token is in the database now
        :raises InvalidToken: a source refuses it
        :raises ManagerBusy: as many threads as may do so already wait for sources
        :raises SourceUnavailable: no source has it, but one that may have it does not answer
        """
        unavailable: exception.SourceUnavailable | None = None
        for source in self._sources:
            try:
                if self._adopt_from(source, token):
                    return True
            except exception.SourceUnavailable as exc:
                unavailable = exc
        if unavailable is not None:
            raise unavailable
        return False

    def check_with_source(
        self, token: str, console: objects.ConsoleConnection, name: str | None
    ) -> PortChecker | None:
        """Check a token with its source, if that is one whose tokens are checked at every open.

        :param name: name of the source; None for a token that this cell issued
        :returns: whom to ask about the port, if no compute agent has defined the console
        :raises InvalidToken: as ``CheckedTokenSource.check``; or the source is not configured any more
        :raises ManagerBusy: as many threads as may do so already wait for sources
        :raises SourceUnavailable: as ``CheckedTokenSource.check``
        """
        if name not in CHECKED:
            return None
        source = next((source for source in self._sources if source.name == name), None)
        if source is None:
            raise exception.InvalidToken()
        with self._share.permit(timeout=_LOOKUP_TURN):
            return cast(CheckedTokenSource, source).check(token, console)

    def _adopt_from(self, source: TokenSource, token: str) -> bool:
        with self._share.permit(timeout=_LOOKUP_TURN):
            issued = source.lookup(token)
        if issued is None:
            return False
        try:
            grant = _to_grant(issued)
            _check(grant)
        except (exception.InvalidConsole, ValueError) as exc:  # a text of either has nothing of the value
            LOG.warning('A token of %s has a console that cannot be opened: %s', source.name, exc)
            return False
        ttl = self._conf.consoleauth.token_ttl
        provenance = legacy.Provenance(source.name, ttl, issued.issued_at, issued.expires_in)
        adopted = legacy.adopt(self._db, tokens.hashed(token), grant, provenance)
        if adopted is not None:
            self._cutter.cut(RequestContext(overwrite=False), adopted.cut, EndReason.CONSOLE_MOVED)
            LOG.info('Adopted a token of %s for instance %s', source.name, issued.instance_uuid)
        else:
            LOG.info(
                'Refused a token of %s for instance %s: it is expired or revoked, or its console is gone',
                source.name,
                issued.instance_uuid,
            )
        return adopted is not None

    def count_use(self, source: str | None) -> None:
        """Count one use of a token of a source, or of a call of the old service.

        :param source: None for a token that this cell issued: nothing is counted
        """
        if source is not None and source not in CHECKED and self._sources:
            legacy.count_use(self._db, source)

    # revoking

    def void(self, revoked: legacy.Revocations) -> None:
        """Make revoked tokens worthless in the sources too. Call this before they are deleted here."""
        if not self._sources or not revoked:
            return
        legacy.record_revocations(self._db, revoked)
        deadline = time.monotonic() + _FORGET_TIME
        for instance_uuid, hashes in revoked.items():
            for source in self._sources:
                if time.monotonic() < deadline:
                    source.forget(instance_uuid, hashes)

    def void_dropped(self, instance_uuid: str) -> None:
        """Do the same for the tokens of an instance that is gone, or has lost a console.

        Sources whose tokens are checked at every open need no record of that, which has a price: tokens that
        Nova issues in the same second, for the guest that was just started again, would be refused.
        """
        if any(source.name not in CHECKED for source in self._sources):
            self.void({instance_uuid: None})

    def void_by(self, filters: dict[str, str]) -> None:
        """Make the tokens worthless in the sources that a revocation with these filters deletes here."""
        if self._sources:
            legacy.record_scope(self._db, filters)
            self.void(legacy.find_revoked(self._db, filters))

    def unmatched(self, filters: Collection[str]) -> list[str]:
        """Return the names of the sources whose tokens a revocation with these filters cannot match."""
        return sorted({source.name for source in self._sources if source.unrecorded & set(filters)})


def _check(grant: objects.ConsoleAuthToken) -> None:
    """Refuse a grant that is inconsistent.

    :raises InvalidConsole: it is
    """
    if (grant.host is None) != (grant.port is None):
        raise exception.InvalidConsole(reason='host and port must be given together')
    if grant.token is not None or grant.access_url is not None:
        raise exception.InvalidConsole(reason='token and access_url are set by the manager')
    access_url.check_base(grant.access_url_base)


def _to_grant(issued: Issued) -> objects.ConsoleAuthToken:
    """Return the grant that an issued token stands for.

    No issuer records the user. The old consoleauth service records neither the project nor the compute host.
    """
    path = issued.internal_access_path
    return objects.ConsoleAuthToken(
        instance_uuid=issued.instance_uuid,
        console_type=issued.console_type,
        host=issued.host,
        port=issued.port,
        compute_host=issued.compute_host or models.UNKNOWN_HOST,
        access_url_base=issued.access_url_base,
        options={'internal_access_path': path} if path else {},
        token=None,
        access_url=None,
        expires=None,
        user_id=None,
        project_id=issued.project_id,
    )
