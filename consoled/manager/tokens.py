# SPDX-License-Identifier: Apache-2.0
"""Console auth tokens as the manager keeps them: in the database, and in what other sources there are."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from oslo_config import cfg

from consoled import exception, objects
from consoled import token as tokens
from consoled.conf import consoles as console_conf
from consoled.context import RequestContext
from consoled.db import consoles as db_consoles
from consoled.db import legacy
from consoled.db import tokens as db_tokens
from consoled.db.session import Database
from consoled.manager import access_url
from consoled.sources import Issued, TokenSource

LOG = logging.getLogger(__name__)

# Many users may come at once when a proxy has been moved, and each look takes milliseconds. Only if it takes
# seconds do they have to be sent away, so that threads are left for the tokens that are here.
_TURN_TIME = 0.5  # seconds
_FORGET_TIME = 2.0  # seconds at most to delete elsewhere what was taken back: it counts as void anyway


class TokenService:
    """Authorizes and looks up tokens: in the database first, and only then in the sources, in their order.

    What a source knows is copied into the database when it is first used.

    :param sources: empty, unless a cloud is being moved over
    """

    def __init__(self, conf: cfg.ConfigOpts, db: Database, sources: Sequence[TokenSource] = ()) -> None:
        self._conf = conf
        self._db = db
        self._sources = sources
        # Looking elsewhere may take half of the threads: the other half goes on answering from the database.
        self._elsewhere = threading.BoundedSemaphore(max(1, conf.executor_thread_pool_size // 2))

    # hand out

    def authorize(
        self, context: RequestContext, grant: objects.ConsoleAuthToken, ttl: int | None
    ) -> tuple[objects.ConsoleAuthToken, list[str]]:
        """Store a grant.

        :returns: the grant with ``token``, ``expires`` and ``access_url``, and the ids of sessions to cut
        """
        ttl = self._checked_ttl(ttl)
        _check(grant)
        grant.user_id = grant.user_id or context.user_id
        grant.project_id = grant.project_id or context.project_id
        token = tokens.mint()
        if grant.port is None:
            group = console_conf.GROUP_OF_TYPE[grant.console_type]
            grant, stored = db_tokens.store_next_free(
                self._db,
                tokens.hashed(token),
                grant,
                ttl,
                context.request_id,
                unlimited=group is None or self._conf[group].max_sessions == 0,
            )
        else:
            stored = db_tokens.store(self._db, tokens.hashed(token), grant, ttl, context.request_id)
        grant.expires = stored.expires
        self._hand_out(grant, token)
        return grant, stored.cut

    def authorize_issued(
        self, context: RequestContext, token: str, issued: Issued, source: str
    ) -> tuple[objects.ConsoleAuthToken, list[str]]:
        """Store a token that an old service has just issued.

        :returns: as ``authorize``
        :raises InvalidConsole: there is another console at that place
        """
        grant = _grant_of(issued)
        _check(grant)
        grant.user_id, grant.project_id = context.user_id, context.project_id
        ttl = self._checked_ttl(None)
        adopted = legacy.adopt(
            self._db, tokens.hashed(token), grant, legacy.Provenance(source, ttl), context.request_id
        )
        if adopted is None:
            raise exception.InvalidConsole(reason='there is another console at that place')
        grant.expires = adopted.expires
        self._hand_out(grant, token)
        self.used(source)
        return grant, adopted.cut

    def _checked_ttl(self, ttl: int | None) -> int:
        options = self._conf.consoleauth
        wanted: int = options.token_ttl if ttl is None else ttl
        if wanted > options.max_token_ttl:
            raise exception.TTLTooLong(ttl=wanted, limit=options.max_token_ttl)
        return wanted

    def _hand_out(self, grant: objects.ConsoleAuthToken, token: str) -> None:
        grant.token = token
        if grant.access_url_base is not None:
            grant.access_url = access_url.build(grant.access_url_base, grant.console_type, token)
        if self._conf.workarounds.consoleauth_write_through:
            for source in self._sources:
                source.store(grant)

    # look up

    def validate(self, token: str) -> objects.ConsoleAuthToken:
        """The grant of a live token, without the token.

        :raises InvalidToken: there is none
        """
        valid = self._find(token)
        if valid is None and self.adopt(token):
            valid = self._find(token)
        if valid is None:
            raise exception.InvalidToken()
        self.used(valid.source)
        return valid.grant

    def _find(self, token: str) -> db_tokens.ValidToken | None:
        single_use = self._conf.consoleauth.single_use
        return db_tokens.validate(self._db, tokens.hashed(token), single_use=single_use)

    def adopt(self, token: str) -> bool:
        """Look for a token elsewhere.

        :returns: whether it is in the database now
        :raises ManagerBusy: too many are being looked for
        """
        return any(self._adopt_from(source, token) for source in self._sources)

    def _look_up(self, source: TokenSource, token: str) -> Issued | None:
        if not self._elsewhere.acquire(timeout=_TURN_TIME):
            raise exception.ManagerBusy()
        try:
            return source.lookup(token)
        finally:
            self._elsewhere.release()

    def _adopt_from(self, source: TokenSource, token: str) -> bool:
        issued = self._look_up(source, token)
        if issued is None:
            return False
        grant = _grant_of(issued)
        try:
            _check(grant)
        except exception.InvalidConsole:
            return False
        origin = legacy.Provenance(source.name, self._conf.consoleauth.token_ttl, issued.issued_at)
        adopted = legacy.adopt(self._db, tokens.hashed(token), grant, origin) is not None
        LOG.info(
            'a token of %s for instance %s was %s',
            source.name,
            issued.instance_uuid,
            'taken over' if adopted else 'refused: it has expired or its console is gone',
        )
        return adopted

    def used(self, source: str | None) -> None:
        """Count the use of a token that came from elsewhere, or of the old service's calls."""
        if source is not None and self._sources:
            legacy.count_use(self._db, source)

    # take back

    def void(self, taken_back: legacy.Revocations) -> None:
        """Make what is taken back worthless elsewhere too. Call it before it is deleted here."""
        if not self._sources or not taken_back:
            return
        legacy.record_revocations(self._db, taken_back)
        deadline = time.monotonic() + _FORGET_TIME
        for instance_uuid, hashes in taken_back.items():
            for source in self._sources:
                if time.monotonic() < deadline:
                    source.forget(instance_uuid, hashes)

    def void_by(self, filters: dict[str, str]) -> None:
        """The same for what a revocation takes back."""
        if self._sources:
            self.void(legacy.find_revoked(self._db, filters))


def _check(grant: objects.ConsoleAuthToken) -> None:
    if (grant.host is None) != (grant.port is None):
        raise exception.InvalidConsole(reason='host and port go together')
    if grant.token is not None or grant.access_url is not None:
        raise exception.InvalidConsole(reason="token and access_url are the manager's to set")
    access_url.check_base(grant.access_url_base)


def _grant_of(issued: Issued) -> objects.ConsoleAuthToken:
    """The grant that an old service means; whose it is, and on which compute host, it did not know."""
    path = issued.internal_access_path
    return objects.ConsoleAuthToken(
        instance_uuid=issued.instance_uuid,
        console_type=issued.console_type,
        host=issued.host,
        port=issued.port,
        compute_host=db_consoles.UNKNOWN_HOST,
        access_url_base=issued.access_url_base,
        options={} if path is None else {'internal_access_path': path},
        token=None,
        access_url=None,
        expires=None,
        user_id=None,
        project_id=None,
    )
