# SPDX-License-Identifier: Apache-2.0
"""The consoles that compute agents define."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from oslo_config import cfg

from consoled import exception, objects
from consoled.context import RequestContext
from consoled.db import consoles as db_consoles
from consoled.db import hosts as db_hosts
from consoled.db import models
from consoled.db.engine import Database
from consoled.manager import access_url
from consoled.manager.contests import ContestReporter
from consoled.manager.session_cutter import SessionCutter
from consoled.manager.thread_share import ThreadShare
from consoled.manager.tokens import TokenService
from consoled.objects import EndReason
from consoled.rpc import arguments as arg
from consoled.rpc.replies import HostChanges

LOG = logging.getLogger(__name__)

MAX_INSTANCES = 4000  # of a compute host

_MAX_CONSOLES = 256  # of an instance
_MAX_CONSOLES_OF_HOST = 16000


class ConsoleService:
    """Makes the stored consoles equal what compute agents define, and cuts the sessions that lose theirs.

    :param token_service: voids the tokens of consoles that are gone
    :param contests: tells operators of contested consoles
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        db: Database,
        cutter: SessionCutter,
        token_service: TokenService,
        contests: ContestReporter,
    ) -> None:
        self._db = db
        self._cutter = cutter
        self._token_service = token_service
        self._contests = contests
        # The agents of a whole cell may start at once, and one may call again and again; users must still be
        # answered.
        self._share = ThreadShare.from_conf(conf, eighths=1)

    def define(
        self,
        context: RequestContext,
        instance_uuid: str,
        compute_host: str,
        consoles: Sequence[objects.ConsoleConnection],
    ) -> None:
        """Make these, and only these, the consoles of an instance.

        :raises InvalidArgument: a console is incomplete, or of another instance or compute host
        :raises InvalidConsole: a console has an unusable access URL
        """
        wanted = _checked(consoles, _MAX_CONSOLES, compute_host, [instance_uuid])
        defined = db_consoles.define(self._db, instance_uuid, compute_host, wanted)
        self._cutter.cut(context, defined.cut, EndReason.CONSOLE_GONE)
        if defined.dropped:
            self._token_service.void_dropped(instance_uuid)
        if wanted:
            self._contests.report('define', instance_uuid=instance_uuid)

    def define_host(
        self,
        context: RequestContext,
        compute_host: str,
        instance_uuids: Sequence[str],
        consoles: Sequence[objects.ConsoleConnection],
        unknown: Sequence[str],
    ) -> HostChanges:
        """Make these, and only these, the instances of a compute host, with these consoles.

        :param unknown: those of the instances whose consoles the agent could not determine
        :raises ManagerBusy: as many threads as may do so already serve compute hosts, or one this host
        :raises InvalidArgument: as in ``define``
        :raises InvalidConsole: as in ``define``
        """
        with self._share.permit({compute_host: 1}):
            wanted = _checked(consoles, _MAX_CONSOLES_OF_HOST, compute_host, instance_uuids)
            instances = db_hosts.group_by_instance(instance_uuids, wanted, unknown=unknown)
            retired = changed = 0
            for change in db_hosts.define(self._db, compute_host, instances, EndReason.INSTANCE_GONE):
                reason = EndReason.INSTANCE_GONE if change.retired else EndReason.CONSOLE_GONE
                self._cutter.cut(context, change.cut, reason)
                if change.dropped:
                    self._token_service.void_dropped(change.instance_uuid)
                retired += change.retired
                changed += not change.retired
            self._contests.report('define', compute_host=compute_host)
        changes = HostChanges(retired=retired, changed=changed)
        if changes:
            LOG.info(
                'Compute host %s defined its consoles: %d instances retired, %d changed',
                compute_host,
                retired,
                changed,
            )
        return changes


def _checked(
    consoles: Sequence[objects.ConsoleConnection],
    limit: int,
    compute_host: str,
    instance_uuids: Sequence[str],
) -> list[objects.ConsoleConnection]:
    """Return the consoles if each is complete and belongs to that compute host and those instances."""
    if compute_host == models.UNKNOWN_HOST:
        raise exception.InvalidArgument(argument='compute_host', reason='must be the name of a compute host')
    complete = arg.instance_of(objects.ConsoleConnection)
    checked: list[objects.ConsoleConnection] = arg.checked(
        {'consoles': arg.list_of(complete, limit)}, {'consoles': consoles}
    )['consoles']
    known = frozenset(instance_uuids)
    for console in checked:
        if console.compute_host != compute_host or console.instance_uuid not in known:
            raise exception.InvalidArgument(
                argument='consoles', reason='includes a console of another instance or compute host'
            )
        access_url.check_base(console.access_url_base)
    return checked
