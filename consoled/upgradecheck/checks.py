# SPDX-License-Identifier: Apache-2.0
"""The checks of ``consoled-status``: the state of a cell in, advice out. No I/O."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from oslo_config import cfg
from oslo_upgradecheck import upgradecheck
from oslo_utils import versionutils

from consoled import printable
from consoled.db import migration
from consoled.db.managers import ALIVE_WITHIN, Manager
from consoled.rpc import versions
from consoled.upgradecheck.cell import Cell
from consoled.version import VERSION

_SUCCESS = upgradecheck.Code.SUCCESS
_WARNING = upgradecheck.Code.WARNING
_FAILURE = upgradecheck.Code.FAILURE

# Title, result and sentences of a check.
Finding = tuple[str, upgradecheck.Code, str]

_MAX_SHOWN = 3  # contested consoles
_UPGRADE = 'consoled-manage db upgrade'


class Checks(upgradecheck.UpgradeCommands):
    """The checks, for oslo.upgradecheck to run.

    :param conf: configuration of a manager
    :param cell: state of the cell, or a sentence that says why it is unknown
    :param deprecated: a sentence for each deprecated option that is set
    :param unknown: a sentence for each option that is set and that no program has
    :param others: findings of other checks, which were made already
    :param memcached_problem: why managers find no tokens in memcached, as a sentence; '' if they can
    :raises ValueError: the value of an option is invalid
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        cell: Cell | str,
        deprecated: Sequence[str],
        memcached_problem: str = '',
        unknown: Sequence[str] = (),
        others: Sequence[Finding] = (),
    ) -> None:
        super().__init__()
        # read before any check: oslo.config raises only now if a value is invalid
        self._levels = {
            name: level for name, level in sorted(conf.upgrade_levels.items()) if level is not None
        }
        self._on = conf.workarounds.enable_consoleauth
        self._write_through = conf.workarounds.consoleauth_write_through
        self._ttl = conf.consoleauth.token_ttl
        self._cell = cell
        self._deprecated = deprecated
        self._unknown = unknown
        self._memcached_problem = memcached_problem
        made = {title: _result(code, text) for title, code, text in others}
        self._upgrade_checks = (*self._OWN, *((title, lambda _, r=r: r) for title, r in made.items()))

    def _schema_check(self) -> upgradecheck.Result:
        return check_schema(self._cell)

    def _managers_check(self) -> upgradecheck.Result:
        return check_managers(self._cell)

    def _pins_check(self) -> upgradecheck.Result:
        return check_pins(self._levels, self._cell)

    def _addresses_check(self) -> upgradecheck.Result:
        return check_addresses(self._cell)

    def _legacy_check(self) -> upgradecheck.Result:
        found = check_legacy(self._on, self._write_through, self._ttl, self._cell)
        if not self._memcached_problem:
            return found
        return _result(found.code, self._memcached_problem, found.details or '')

    def _deprecated_check(self) -> upgradecheck.Result:
        return _result(_WARNING if self._deprecated else _SUCCESS, *(self._deprecated or ['None is set.']))

    def _unknown_check(self) -> upgradecheck.Result:
        return _result(_WARNING if self._unknown else _SUCCESS, *(self._unknown or ['None is set.']))

    _OWN = (
        ('Database schema', _schema_check),
        ('Managers', _managers_check),
        ('Pinned versions', _pins_check),
        ('Console addresses', _addresses_check),
        ('Legacy consoleauth', _legacy_check),
        ('Deprecated options', _deprecated_check),
        ('Unknown options', _unknown_check),
    )


def _result(code: upgradecheck.Code, *sentences: str) -> upgradecheck.Result:
    # names of managers, for one, are what their operators have written
    return upgradecheck.Result(code, printable.line(' '.join(sentences)))


def check_schema(cell: Cell | str) -> upgradecheck.Result:
    """Check that the schema is at the revision this release needs."""
    if isinstance(cell, str):
        return _result(_FAILURE, cell)
    if cell.pending is None:
        return _result(
            _WARNING,
            f'It is at revision {cell.revision}, unknown to this release ({VERSION}): a newer release has '
            'upgraded it. Managers of this release can keep running on it; finish the upgrade.',
        )
    if cell.foreign:
        sentence = f'{migration.describe_foreign(cell.foreign)}. Create one for consoled alone.'
        return _result(_FAILURE, sentence)
    if cell.revision is None:
        return _result(_FAILURE, f'The database has no tables of consoled. Run {_UPGRADE}.')
    if cell.pending:
        return _result(
            _FAILURE,
            f'It is at revision {cell.revision}; pending: {", ".join(cell.pending)}. Run {_UPGRADE}, then '
            'restart the managers one by one. Those of the previous release keep running until then.',
        )
    return _result(_SUCCESS, f'It is at revision {cell.revision}, as this release needs.')


def check_managers(cell: Cell | str) -> upgradecheck.Result:
    """Check which managers are alive, and that all are of this release."""
    if isinstance(cell, str):
        return _result(_WARNING, 'Unknown: see Database schema.')
    if cell.managers is None:
        return _result(_WARNING, f'Unknown until {_UPGRADE}: the schema has no table of managers yet.')
    within = format_duration(ALIVE_WITHIN)
    if not cell.managers:
        return _result(
            _WARNING,
            f'None has sent a heartbeat within the last {within}. If one is running, it does not reach this '
            'database, or its release sends no heartbeats. If none is running, no call is answered: start '
            'one.',
        )
    older, newer = _others(cell.managers)
    sentences = []
    if older:
        sentences.append(
            f'Still alive, of a release older than this one ({VERSION}): {_format_managers(older)}. Restart '
            f'them with this release; one that was killed is forgotten {within} after its last heartbeat.'
        )
    if newer:
        sentences.append(
            f'Of another release than this one ({VERSION}): {_format_managers(newer)}. Use the '
            'consoled-status of the newest release.'
        )
    if sentences:
        return _result(_WARNING, *sentences)
    return _result(_SUCCESS, f'All live managers are of this release: {_format_managers(cell.managers)}.')


def check_pins(levels: dict[str, str], cell: Cell | str) -> upgradecheck.Result:
    """Check that versions pinned in ``[upgrade_levels]`` are valid and still needed.

    :param levels: the pinned version by the name of its option
    """
    if not levels:
        return _result(_SUCCESS, 'None is set.')
    shown = ', '.join(f'{name} = {level}' for name, level in levels.items())
    for level in levels.values():
        try:
            versions.pinned(level)
        except ValueError as exc:
            return _result(_FAILURE, f'{exc}. Managers of this release refuse to start with it.')
    if isinstance(cell, str) or not cell.managers:
        return _result(_SUCCESS, f'[upgrade_levels] {shown}. Which managers are alive is unknown.')
    if any(_others(cell.managers)):
        return _result(_SUCCESS, f'[upgrade_levels] {shown}: managers of several releases are alive.')
    sentences = [f'[upgrade_levels] {shown}: all managers are of this release.']
    if 'consoled' in levels:
        sentences.append('Remove consoled and restart the services.')
    if 'compute' in levels:
        sentences.append(
            'When all compute agents are of this release too, remove compute and restart the services.'
        )
    return _result(_WARNING, *sentences)


def check_addresses(cell: Cell | str) -> upgradecheck.Result:
    """Check that no two compute hosts have an instance with a console at one address."""
    if isinstance(cell, str) or cell.contests is None:
        return _result(_WARNING, 'Unknown: see Database schema.')
    if not cell.contests:
        return _result(_SUCCESS, 'No console address is that of two compute hosts.')
    shown = '; '.join(str(contest) for contest in cell.contests[:_MAX_SHOWN])
    more = len(cell.contests) - _MAX_SHOWN
    return _result(
        _WARNING,
        f'Contested, so opened for neither: {shown}' + (f'; and {more} more.' if more > 0 else '.'),
        'Give each compute host an address of its own (server_proxyclient_address), or purge a compute host '
        'that is gone: consoled-manage purge --compute-host.',
    )


def check_legacy(on: bool, write_through: bool, ttl: int, cell: Cell | str) -> upgradecheck.Result:
    """Check how much the old consoleauth is used, and whether the fallback to it can be switched off.

    :param on: ``[workarounds] enable_consoleauth``
    :param write_through: ``[workarounds] consoleauth_write_through``
    :param ttl: seconds for which tokens of the old service are valid
    """
    if on:
        clear = (
            'consoleauth_write_through is on: memcached holds tokens in clear text, and anyone who can read '
            'it can open the consoles. Switch it off as soon as the old consoleauth service is stopped.'
        )
        return _result(_WARNING, *_legacy_on(ttl, cell), *([clear] if write_through else []))
    code, sentences = _legacy_off(ttl, cell)
    if write_through:
        code = _WARNING
        sentences.append('consoleauth_write_through has no effect without enable_consoleauth: remove it.')
    return _result(code, *sentences)


def _legacy_on(ttl: int, cell: Cell | str) -> list[str]:
    """Return the advice while the fallback is on."""
    if isinstance(cell, str):
        return ['On. Whether it is used is unknown: see Database schema.']
    if cell.usage is None:
        return [f'On. Its use is not counted until {_UPGRADE}.']
    sentences = ['On.', *_usage(cell)]
    needed_until = _needed_until(ttl, cell)
    if needed_until is None or needed_until <= cell.now:
        sentences.append(
            'It can be switched off now, if the old consoleauth service has been stopped for longer than '
            f'[consoleauth] token_ttl ({format_duration(ttl)}) and no compute host or proxy calls it any '
            'more: remove enable_consoleauth on all managers, reload them (SIGHUP), and flush memcached.'
        )
    else:
        sentences.append(
            f'Leave it on at least until {_format_moment(needed_until, cell.now)}: until then, tokens of the '
            'old service ([consoleauth] token_ttl) may be in use.'
        )
    return sentences


def _legacy_off(ttl: int, cell: Cell | str) -> tuple[upgradecheck.Code, list[str]]:
    """Return result and advice while the fallback is off."""
    if isinstance(cell, str):
        return _WARNING, ['Off. Whether it was used is unknown: see Database schema.']
    if cell.usage is None:
        return _SUCCESS, ['Off.']
    if not cell.usage:
        return _SUCCESS, ['Off, and never used.']
    needed_until = _needed_until(ttl, cell)
    if needed_until is not None and needed_until > cell.now:
        advice = (
            'Users whose tokens are known only to the old service are refused: switch it on again until '
            f'{_format_moment(needed_until, cell.now)}, or let them ask for new tokens.'
        )
        return _WARNING, ['Off in this configuration.', *_usage(cell), advice]
    return _SUCCESS, ['Off.', *_usage(cell)]


def _needed_until(ttl: int, cell: Cell) -> datetime.datetime | None:
    """Return when the last token of the old service expires at the latest; None if none was used."""
    moments = [use.last_used_at + datetime.timedelta(seconds=ttl) for use in cell.usage or ()]
    return max([*moments, *([cell.last_expiry] if cell.last_expiry else [])], default=None)


def _usage(cell: Cell) -> list[str]:
    """Return sentences on the past use of the old service and its live tokens."""
    if not cell.usage:
        sentences = ['The old service has not been used so far.']
    else:
        uses = ', '.join(
            f'{use.source} {use.uses} times, last at {_format_moment(use.last_used_at, cell.now)}'
            for use in cell.usage
        )
        sentences = [f'Used: {uses}.']
    if cell.last_expiry is None:
        sentences.append('None of its tokens known here is still valid.')
    else:
        sentences.append(
            f'The last of its tokens known here expires at {_format_moment(cell.last_expiry, cell.now)}.'
        )
    return sentences


def _others(alive: Sequence[Manager]) -> tuple[list[Manager], list[Manager]]:
    """Return the managers of older releases, and those of newer or incomparable ones."""
    older: list[Manager] = []
    newer: list[Manager] = []
    for manager in alive:
        if manager.version != VERSION:
            (older if _is_older(manager.version, VERSION) else newer).append(manager)
    return older, newer


def _is_older(release: str, than: str) -> bool:
    try:
        return bool(
            versionutils.convert_version_to_tuple(release) < versionutils.convert_version_to_tuple(than)
        )
    except ValueError:
        return False


def _format_managers(managers: Sequence[Manager]) -> str:
    return ', '.join(
        f'{manager.name} ({manager.version}, seen {format_duration(manager.age)} ago)' for manager in managers
    )


def _format_moment(moment: datetime.datetime, now: datetime.datetime) -> str:
    """Format a moment and its distance from ``now``: ``2026-11-23 10:00:00 UTC, in 3 h``."""
    away = (moment - now).total_seconds()
    distance = f'in {format_duration(away)}' if away > 0 else f'{format_duration(-away)} ago'
    return f'{moment.astimezone(datetime.UTC):%Y-%m-%d %H:%M:%S} UTC, {distance}'


def format_duration(seconds: float) -> str:
    """Format a duration in a suitable unit: ``90 s``, ``3 min``, ``5 h``, ``2 days``."""
    for length, unit, below in ((1, 's', 100), (60, 'min', 100), (3600, 'h', 48)):
        if round(seconds / length) < below:
            return f'{round(seconds / length)} {unit}'
    return f'{round(seconds / 86400)} days'
