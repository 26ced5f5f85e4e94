# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.bench.hosts``: a cell with a thousand compute hosts; doc/benchmarks.md explains."""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

from consoled.conf import compute
from tests.bench.hosts import population, report
from tests.bench.hosts.stage import Phase, Scale, Stage
from tests.bench.report import machine

_DEFAULTS = {option.name: option.default for option in compute.OPTS}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m tests.bench.hosts',
        description='Simulate many compute hosts against one manager with one worker, over a RabbitMQ and a '
        'MariaDB of its own: all start at once, all start again, and the steady state beside an idle cell.',
        epilog='It measures: the exit status is 0 whether the bars are met or not.',
    )
    number: dict[str, Any] = {'type': int, 'metavar': 'N'}
    seconds: dict[str, Any] = {'type': int, 'metavar': 'S'}
    for name, default, what in (
        ('--hosts', 1000, 'compute hosts'),
        ('--guests', 50, f'guests of a host, with {population.CONSOLES} consoles each'),
        ('--processes', 4, 'processes that the hosts are in'),
        ('--rounds', 10, 'rounds, each idle and then with the hosts'),
    ):
        parser.add_argument(name, default=default, help=f'{what} (default %(default)s)', **number)
    parser.add_argument('--seconds', default=30, help='of each phase (default %(default)s)', **seconds)
    parser.add_argument(
        '--rate',
        type=float,
        default=20.0,
        metavar='R',
        help='authorize a second, and validate a second (default %(default)s)',
    )
    parser.add_argument(
        '--churn',
        type=float,
        default=1.0,
        metavar='P',
        help='per cent of the guests that start, stop or move in an hour (default %(default)s)',
    )
    for name in ('sync_interval', 'clean_interval'):
        what = f'[compute] {name} (default %(default)s, as of the agent)'
        parser.add_argument('--' + name.replace('_', '-'), default=_DEFAULTS[name], help=what, **seconds)
    parser.add_argument('--json', type=pathlib.Path, metavar='FILE', help='write every phase to FILE')
    return parser.parse_args()


def _say(text: str) -> None:
    print(f'{time.strftime("%H:%M:%S")} {text}', file=sys.stderr, flush=True)


def _print(lines: Iterable[str], title: str | None = None) -> None:
    print('\n'.join(lines if title is None else ['', title, *lines]), flush=True)


def _storms(stage: Stage) -> dict[str, Phase]:
    """All hosts start, with nothing known of them, and start again."""
    phases = {}
    for what in ('with an empty database', 'again, nothing has changed'):
        _say(f'all hosts start {what}')
        phases[what], told = stage.storm()
        _print(report.storm(phases[what], told), f'All hosts start {what}:')
        _say('they tell all once more')
        stage.settle()
    return phases


def _steady(stage: Stage, rounds: int, seconds: int) -> tuple[list[Phase], list[Phase]]:
    idle, loaded = [], []
    for number in range(1, rounds + 1):
        _say(f'round {number} of {rounds}: idle')
        idle.append(stage.idle(seconds))
        _say(f'round {number} of {rounds}: with the hosts')
        loaded.append(stage.loaded(seconds))
    return idle, loaded


def _disturbance(phases: Iterable[Phase]) -> str:
    shares = [phase.other for phase in phases]
    typical, worst = statistics.median(shares), max(shares)
    line = f'Share of the machine that other work took during the phases: median {typical:.0%},'
    return f'{line} worst {worst:.0%}.'


def _scale_line(scale: Scale) -> str:
    return (
        f'{scale.hosts} hosts in {scale.processes} processes, {scale.guests} guests each,'
        f' {population.CONSOLES} consoles a guest; compared every {scale.sync_interval} s, cleaned every'
        f' {scale.clean_interval} s; {scale.churn:g} % of the guests change in an hour;'
        f' {scale.rate:g} authorize and {scale.rate:g} validate a second'
    )


def main() -> int:
    arguments = vars(_arguments())
    rounds, seconds, write_to = (arguments.pop(name) for name in ('rounds', 'seconds', 'json'))
    scale = Scale(**arguments)
    _print([*machine(), _scale_line(scale)])
    with Stage(_say, scale) as stage:
        storms = _storms(stage)
        stage.start_churn()
        before = stage.counted()
        idle, loaded = _steady(stage, rounds, seconds)
        after = stage.counted()
    _print(report.steady(idle, loaded), f'Steady state, medians of {rounds} rounds of {seconds} s:')
    _print(report.calls(loaded), 'What the manager was asked meanwhile:')
    _print(_told(before, after))
    _print(report.bars(idle, loaded), 'Bars (one worker):')
    _print(['', _disturbance([*idle, *loaded])])
    if write_to:
        written = {'scale': scale, 'storms': storms, 'idle': idle, 'loaded': loaded}
        write_to.write_text(json.dumps(written, default=dataclasses.asdict, indent=1) + '\n')
    return 0


def _told(before: tuple[Counter[str], int], after: tuple[Counter[str], int]) -> list[str]:
    grown = after[0] - before[0]
    told = ', '.join(f'{count} {what}' for what, count in sorted(grown.items()))
    return [f'{after[1] - before[1]} guests have changed; told by the agents in all: {told}']


if __name__ == '__main__':
    sys.exit(main())
