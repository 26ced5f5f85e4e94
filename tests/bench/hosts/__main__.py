# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.bench.hosts``: measure a cell with a thousand compute hosts. See doc/benchmarks.md."""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import sys
from collections import Counter
from typing import Any

from consoled.conf import compute
from tests.bench.command_line import EPILOG, disturbance, log_progress, print_section
from tests.bench.hosts import population, report
from tests.bench.hosts.harness import HostsHarness, Phase, Scale
from tests.bench.report import machine

_DEFAULTS = {option.name: option.default for option in compute.OPTS}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m tests.bench.hosts',
        description='Simulate many compute hosts with one manager and one worker, on a private RabbitMQ and '
        'MariaDB: all hosts start at once, all start again, then the steady state compared with an idle '
        'cell.',
        epilog=EPILOG,
    )
    number: dict[str, Any] = {'type': int, 'metavar': 'N'}
    seconds: dict[str, Any] = {'type': int, 'metavar': 'S'}
    for name, default, what in (
        ('--hosts', 1000, 'number of compute hosts'),
        ('--guests', 50, f'guests of each host, with {population.CONSOLES} consoles each'),
        ('--processes', 4, 'processes that simulate the hosts'),
        ('--rounds', 10, 'number of rounds; each has an idle phase and one with the hosts'),
    ):
        parser.add_argument(name, default=default, help=f'{what} (default %(default)s)', **number)
    parser.add_argument(
        '--seconds', default=30, help='seconds of each phase (default %(default)s)', **seconds
    )
    parser.add_argument(
        '--rate',
        type=float,
        default=20.0,
        metavar='R',
        help='calls of authorize, and of validate, per second (default %(default)s)',
    )
    parser.add_argument(
        '--churn',
        type=float,
        default=1.0,
        metavar='P',
        help='percentage of the guests that start, stop or move per hour (default %(default)s)',
    )
    for name in ('sync_interval', 'clean_interval'):
        what = f'[compute] {name} (default %(default)s, the default of the agent)'
        parser.add_argument('--' + name.replace('_', '-'), default=_DEFAULTS[name], help=what, **seconds)
    parser.add_argument('--json', type=pathlib.Path, metavar='FILE', help='write all phases to FILE')
    return parser.parse_args()


def _storms(harness: HostsHarness) -> dict[str, Phase]:
    """Start all hosts with an empty database, and then again."""
    phases = {}
    for what in ('with an empty database', 'again, without changes'):
        log_progress(f'all hosts start {what}')
        phases[what], reports = harness.storm()
        print_section(report.storm(phases[what], reports), f'All hosts start {what}:')
        log_progress('waiting for the second report of all hosts')
        harness.settle()
    return phases


def _steady(harness: HostsHarness, rounds: int, seconds: int) -> tuple[list[Phase], list[Phase]]:
    idle, loaded = [], []
    for number in range(1, rounds + 1):
        log_progress(f'round {number} of {rounds}: idle')
        idle.append(harness.idle(seconds))
        log_progress(f'round {number} of {rounds}: with the hosts')
        loaded.append(harness.loaded(seconds))
    return idle, loaded


def _scale_line(scale: Scale) -> str:
    return (
        f'{scale.hosts} hosts in {scale.processes} processes, {scale.guests} guests each,'
        f' {population.CONSOLES} consoles per guest; reconciled every {scale.sync_interval} s, cleaned every'
        f' {scale.clean_interval} s; {scale.churn:g} % of the guests change per hour;'
        f' {scale.rate:g} authorize and {scale.rate:g} validate per second'
    )


def main() -> int:
    arguments = vars(_arguments())
    rounds, seconds, write_to = (arguments.pop(name) for name in ('rounds', 'seconds', 'json'))
    scale = Scale(**arguments)
    print_section([*machine(), _scale_line(scale)])
    with HostsHarness(scale) as harness:
        storms = _storms(harness)
        harness.start_churn()
        before = harness.counted()
        idle, loaded = _steady(harness, rounds, seconds)
        after = harness.counted()
    print_section(report.steady(idle, loaded), f'Steady state, medians of {rounds} rounds of {seconds} s:')
    print_section(report.calls(loaded), 'Calls that the manager answered meanwhile:')
    print_section(_reports(before, after))
    print_section(report.bars(idle, loaded), 'Bars (one worker):')
    print_section(disturbance([phase.other for phase in (*idle, *loaded)]))
    if write_to:
        written = {'scale': scale, 'storms': storms, 'idle': idle, 'loaded': loaded}
        write_to.write_text(json.dumps(written, default=dataclasses.asdict, indent=1) + '\n')
    return 0


def _reports(before: tuple[Counter[str], int], after: tuple[Counter[str], int]) -> list[str]:
    grown = after[0] - before[0]
    reports = ', '.join(f'{count} {what}' for what, count in sorted(grown.items()))
    return [f'{after[1] - before[1]} guests have changed; the agents have sent: {reports}']


if __name__ == '__main__':
    sys.exit(main())
