# SPDX-License-Identifier: Apache-2.0
"""The checks of ``consoled-status``: from what is known of a cell to what to do next. Without I/O."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence

from oslo_config import cfg
from oslo_upgradecheck import upgradecheck
from oslo_utils import versionutils

from consoled.db.legacy import Use
from consoled.db.managers import ALIVE_WITHIN, Manager
from consoled.rpc import versions
from consoled.version import VERSION

_SUCCESS = upgradecheck.Code.SUCCESS
_WARNING = upgradecheck.Code.WARNING
_FAILURE = upgradecheck.Code.FAILURE

_UPGRADE = 'consoled-manage db upgrade'


@dataclasses.dataclass(frozen=True)
class Cell:
    """What the cell's database says.

    :param revision: of its schema; None: it has none of our tables
    :param pending: revisions that it lacks; None: it has some that this release does not know
    :param now: its time (UTC)
    :param managers: those that were seen lately; None: it has no such list yet
    :param usage: of the old service; None: it does not count that yet
    :param last_expiry: when the last live token of the old service expires; None: none lives
    """

    revision: str | None
    pending: Sequence[str] | None
    now: datetime.datetime
    managers: Sequence[Manager] | None
    usage: Sequence[Use] | None
    last_expiry: datetime.datetime | None


class Checks(upgradecheck.UpgradeCommands):
    """The checks, for oslo.upgradecheck to run.

    :param conf: the configuration of a manager
    :param cell: what its database says; or why that is not known, as a sentence
    :param deprecated: a sentence for each deprecated option that is set
    :param no_memcached: why no token is found in memcached, as a sentence; '' if nothing speaks against it
    """

    def __init__(
        self, conf: cfg.ConfigOpts, cell: Cell | str, deprecated: Sequence[str], no_memcached: str = ''
    ) -> None:
        super().__init__()
        # read here: oslo.config finds out only now that a value is wrong, and no check can be made then
        self._levels = {
            name: level for name, level in sorted(conf.upgrade_levels.items()) if level is not None
        }
        self._on = conf.workarounds.enable_consoleauth
        self._write_through = conf.workarounds.consoleauth_write_through
        self._ttl = conf.consoleauth.token_ttl
        self._cell = cell
        self._deprecated = deprecated
        self._no_memcached = no_memcached

    def _schema_check(self) -> upgradecheck.Result:
        return schema(self._cell)

    def _managers_check(self) -> upgradecheck.Result:
        return managers(self._cell)

    def _pins_check(self) -> upgradecheck.Result:
        return pins(self._levels, self._cell)

    def _legacy_check(self) -> upgradecheck.Result:
        found = legacy(self._on, self._write_through, self._ttl, self._cell)
        return _result(found.code, self._no_memcached, found.details or '') if self._no_memcached else found

    def _deprecated_check(self) -> upgradecheck.Result:
        return _result(_WARNING if self._deprecated else _SUCCESS, *(self._deprecated or ['None is set.']))

    _upgrade_checks = (
        ('Database schema', _schema_check),
        ('Managers', _managers_check),
        ('Pinned versions', _pins_check),
        ('Legacy consoleauth', _legacy_check),
        ('Deprecated options', _deprecated_check),
    )


def _result(code: upgradecheck.Code, *sentences: str) -> upgradecheck.Result:
    return upgradecheck.Result(code, ' '.join(sentences))


def schema(cell: Cell | str) -> upgradecheck.Result:
    """Whether the schema is what this release needs."""
    if isinstance(cell, str):
        return _result(_FAILURE, cell)
    if cell.pending is None:
        return _result(
            _WARNING,
            f'It is at revision {cell.revision}, which this release ({VERSION}) does not know: a newer one '
            'has upgraded it. Managers of this release may run on with it; finish the upgrade.',
        )
    if cell.revision is None:
        return _result(_FAILURE, f'The database has no tables of consoled. Run {_UPGRADE}.')
    if cell.pending:
        return _result(
            _FAILURE,
            f'It is at revision {cell.revision}; still to come: {", ".join(cell.pending)}. Run {_UPGRADE}, '
            'then restart the managers one by one. Those of the release before run on meanwhile.',
        )
    return _result(_SUCCESS, f'It is at revision {cell.revision}, as this release needs.')


def managers(cell: Cell | str) -> upgradecheck.Result:
    """Which managers live, and whether they are of this release."""
    if isinstance(cell, str):
        return _result(_WARNING, 'Not known: see Database schema.')
    if cell.managers is None:
        return _result(_WARNING, f'Not known before {_UPGRADE}: the schema has no list of managers yet.')
    within = in_words(ALIVE_WITHIN)
    if not cell.managers:
        return _result(
            _WARNING,
            f'None has been seen within the last {within}. If one runs, it does not reach this database, or '
            'it is of a release that does not tell. If none runs, nobody answers calls: start one.',
        )
    older, newer = _others(cell.managers)
    sentences = []
    if older:
        sentences.append(
            f'Still alive, of an older release than this one ({VERSION}): {_listed(older)}. Restart them '
            'with this release; one that was killed is forgotten when it has not been seen for '
            f'{within}.'
        )
    if newer:
        sentences.append(
            f'Of another release than this one ({VERSION}): {_listed(newer)}. Use the consoled-status of '
            'the newest release.'
        )
    if sentences:
        return _result(_WARNING, *sentences)
    return _result(_SUCCESS, f'All that are alive are of this release: {_listed(cell.managers)}.')


def pins(levels: dict[str, str], cell: Cell | str) -> upgradecheck.Result:
    """Whether what is pinned in ``[upgrade_levels]`` is still needed.

    :param levels: the options that are set
    """
    if not levels:
        return _result(_SUCCESS, 'None is set.')
    shown = ', '.join(f'{name} = {level}' for name, level in levels.items())
    for level in levels.values():
        try:
            versions.pinned(level)
        except ValueError as exc:
            return _result(_FAILURE, f'{exc}. Managers of this release do not start with it.')
    if isinstance(cell, str) or not cell.managers:
        return _result(_SUCCESS, f'[upgrade_levels] {shown}. Which managers are alive is not known.')
    if any(_others(cell.managers)):
        return _result(_SUCCESS, f'[upgrade_levels] {shown}: managers of several releases are alive.')
    sentences = [f'[upgrade_levels] {shown}: all managers are of this release.']
    if 'consoled' in levels:
        sentences.append('Remove consoled, and restart.')
    if 'compute' in levels:
        sentences.append('Remove compute when all compute agents are of this release too, and restart.')
    return _result(_WARNING, *sentences)


def legacy(on: bool, write_through: bool, ttl: int, cell: Cell | str) -> upgradecheck.Result:
    """How the old consoleauth is used, and whether the fall-back to it may go.

    :param ttl: seconds that a token of the old service lives
    """
    if on:
        clear = (
            'consoleauth_write_through is on: memcached holds tokens in clear, and whoever reads it can open '
            'the consoles. Switch it off as soon as the old consoleauth service is stopped.'
        )
        return _result(_WARNING, *_legacy_on(ttl, cell), *([clear] if write_through else []))
    code, sentences = _legacy_off(ttl, cell)
    if write_through:
        code = _WARNING
        sentences.append('consoleauth_write_through does nothing without enable_consoleauth: remove it.')
    return _result(code, *sentences)


def _legacy_on(ttl: int, cell: Cell | str) -> list[str]:
    if isinstance(cell, str):
        return ['On. Whether it is used is not known: see Database schema.']
    if cell.usage is None:
        return [f'On. Its use is counted after {_UPGRADE}.']
    sentences = ['On.', *_used(cell)]
    may_go_at = _may_go_at(ttl, cell)
    if may_go_at is None or may_go_at <= cell.now:
        sentences.append(
            'It can be switched off now, if the old consoleauth service has been stopped for longer than '
            f'[consoleauth] token_ttl ({in_words(ttl)}) and no compute host and no proxy calls it any more: '
            'remove enable_consoleauth on all managers, reload them (SIGHUP), and flush memcached.'
        )
    else:
        sentences.append(
            f'Leave it on until {_moment(may_go_at, cell.now)} at least: until then tokens of the old '
            'service ([consoleauth] token_ttl) may be in use.'
        )
    return sentences


def _legacy_off(ttl: int, cell: Cell | str) -> tuple[upgradecheck.Code, list[str]]:
    if isinstance(cell, str):
        return _WARNING, ['Off. Whether it was used is not known: see Database schema.']
    if cell.usage is None:
        return _SUCCESS, ['Off.']
    if not cell.usage:
        return _SUCCESS, ['Off, and never used.']
    may_go_at = _may_go_at(ttl, cell)
    if may_go_at is not None and may_go_at > cell.now:
        advice = (
            'Users whose tokens only the old service knows are refused: switch it on again until '
            f'{_moment(may_go_at, cell.now)}, or let them ask for new ones.'
        )
        return _WARNING, ['Off in this configuration.', *_used(cell), advice]
    return _SUCCESS, ['Off.', *_used(cell)]


def _may_go_at(ttl: int, cell: Cell) -> datetime.datetime | None:
    """When no token of the old service can live any more, by its last use; None: nothing was used."""
    moments = [use.last_used_at + datetime.timedelta(seconds=ttl) for use in cell.usage or ()]
    return max([*moments, *([cell.last_expiry] if cell.last_expiry else [])], default=None)


def _used(cell: Cell) -> list[str]:
    """What was used of the old service, and what still lives."""
    if not cell.usage:
        sentences = ['Nothing of the old service has been used so far.']
    else:
        uses = ', '.join(
            f'{use.source} {use.uses} times, last {_moment(use.last_used_at, cell.now)}' for use in cell.usage
        )
        sentences = [f'Used: {uses}.']
    if cell.last_expiry is None:
        sentences.append('No token of the old service lives here.')
    else:
        sentences.append(
            f'The last of its tokens that are known here lives until {_moment(cell.last_expiry, cell.now)}.'
        )
    return sentences


def _others(alive: Sequence[Manager]) -> tuple[list[Manager], list[Manager]]:
    """The managers of older releases, and those of newer or unlike ones."""
    older: list[Manager] = []
    newer: list[Manager] = []
    for manager in alive:
        if manager.version != VERSION:
            (older if _is_older(manager.version, VERSION) else newer).append(manager)
    return older, newer


def _is_older(one: str, than: str) -> bool:
    try:
        return bool(versionutils.convert_version_to_tuple(one) < versionutils.convert_version_to_tuple(than))
    except ValueError:
        return False


def _listed(some: Sequence[Manager]) -> str:
    return ', '.join(
        f'{manager.name} ({manager.version}, seen {in_words(manager.age)} ago)' for manager in some
    )


def _moment(moment: datetime.datetime, now: datetime.datetime) -> str:
    """A moment, and how far off it is: ``2026-11-23 10:00:00 UTC, in 3 h``."""
    away = (moment - now).total_seconds()
    distance = f'in {in_words(away)}' if away > 0 else f'{in_words(-away)} ago'
    return f'{moment.astimezone(datetime.UTC):%Y-%m-%d %H:%M:%S} UTC, {distance}'


def in_words(seconds: float) -> str:
    """A time in the unit that suits it: ``90 s``, ``3 min``, ``5 h``, ``2 days``."""
    for length, unit, below in ((1, 's', 100), (60, 'min', 100), (3600, 'h', 48)):
        if round(seconds / length) < below:
            return f'{round(seconds / length)} {unit}'
    return f'{round(seconds / 86400)} days'
