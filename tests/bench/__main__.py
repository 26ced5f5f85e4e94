# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.bench``: measure consoled over RabbitMQ and MariaDB. See doc/benchmarks.md."""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import sys
from typing import Any

from tests.bench import report
from tests.bench.command_line import EPILOG, disturbance, log_progress, names_among, print_section
from tests.bench.harness import ManagerHarness

_OVER_THE_BUS = ('validate', 'authorize', 'open_close')
_DATABASE_ONLY = ('db_validate', 'db_authorize', 'db_open_close')
_COMPARED = ('validate', 'authorize')  # between cells
_ROWS = 1000  # tokens in a cell
_NAMES = (*_OVER_THE_BUS, 'db', 'scale', 'legacy')


def _numbers(text: str) -> list[int]:
    numbers = [int(part) for part in text.split(',')]
    if any(number < 1 for number in numbers):
        raise ValueError
    return numbers


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m tests.bench',
        description='Measure consoled, one manager with one worker on a private RabbitMQ and MariaDB, '
        'and a bare oslo.messaging echo on the same broker in the same run.',
        epilog=EPILOG,
    )
    parser.add_argument(
        '--rounds', type=int, default=5, metavar='N', help='number of rounds (default %(default)s)'
    )
    parser.add_argument(
        '--seconds', type=float, default=4.0, metavar='S', help='duration of each run (default %(default)s s)'
    )
    parser.add_argument(
        '--callers',
        type=_numbers,
        default=[1, 8, 32],
        metavar='N,...',
        help='numbers of caller threads (default 1,8,32)',
    )
    parser.add_argument(
        '--rows',
        type=_numbers,
        default=[1000, 1000000],
        metavar='N,...',
        help='numbers of tokens to compare (default 1000,1000000)',
    )
    parser.add_argument(
        '--buffer-pool',
        type=int,
        default=2048,
        metavar='MIB',
        help="MariaDB's buffer pool (default %(default)s MiB, which holds all rows)",
    )
    parser.add_argument(
        '--only',
        type=names_among(_NAMES),
        default=list(_NAMES),
        metavar='NAME,...',
        help=f'what to measure besides the echo: {", ".join(_NAMES)} (default: all)',
    )
    parser.add_argument('--json', type=pathlib.Path, metavar='FILE', help='write all samples to FILE')
    return parser.parse_args()


def _interleaved(arguments: argparse.Namespace, harness: ManagerHarness) -> report.Samples:
    """Measure the operations in turn, round by round, so that other load on the machine affects them all."""
    over_the_bus = [name for name in _OVER_THE_BUS if name in arguments.only]
    planned = [(name, callers) for callers in arguments.callers for name in (report.BASELINE, *over_the_bus)]
    if 'db' in arguments.only:
        if 1 not in arguments.callers:
            planned.append((report.BASELINE, 1))
        planned += [(name, 1) for name in _DATABASE_ONLY]
    samples: report.Samples = {key: [] for key in planned}
    for number in range(1, arguments.rounds + 1):
        for name, callers in planned:
            log_progress(f'round {number} of {arguments.rounds}: {name}, {callers} callers')
            samples[name, callers].append(harness.measure('main', name, callers, arguments.seconds))
    return samples


def _compare_cells(
    arguments: argparse.Namespace, harness: ManagerHarness, cells: dict[str, Any]
) -> report.Samples:
    """Measure cells that differ in one thing only, in turn.

    :param cells: label in the report, by the cell's name
    """
    samples: report.Samples = {(name, label): [] for name in _COMPARED for label in cells.values()}
    for number in range(1, arguments.rounds + 1):
        for name in _COMPARED:
            for cell, label in cells.items():
                log_progress(f'round {number} of {arguments.rounds}: {name} in cell {cell}')
                sample = harness.measure(cell, name, report.BAR_CALLERS, arguments.seconds)
                samples[name, label].append(sample)
    return samples


def _scale(arguments: argparse.Namespace, harness: ManagerHarness) -> report.Samples:
    if 'scale' not in arguments.only:
        return {}
    for rows in arguments.rows:
        harness.add_cell(str(rows), rows)
    return _compare_cells(arguments, harness, {str(rows): rows for rows in arguments.rows})


def _legacy(arguments: argparse.Namespace, harness: ManagerHarness) -> report.Samples:
    if 'legacy' not in arguments.only:
        return {}
    harness.add_cell('legacy', _ROWS, legacy=True)
    return _compare_cells(arguments, harness, {'main': 'off', 'legacy': 'on'})


def _as_json(samples: report.Samples, second: str) -> list[dict[str, Any]]:
    return [
        {'operation': name, second: number, 'rounds': [dataclasses.asdict(sample) for sample in rounds]}
        for (name, number), rounds in samples.items()
    ]


def main() -> int:
    arguments = _arguments()
    machine = report.machine()
    with ManagerHarness(log_progress, arguments.buffer_pool) as harness:
        harness.add_cell('main', _ROWS)
        samples = _interleaved(arguments, harness)
        legacy = _legacy(arguments, harness)
        scale = _scale(arguments, harness)
    print_section(
        [*machine, harness.database, f'{arguments.rounds} rounds, {arguments.seconds} s for each run']
    )
    print_section(
        report.table(samples), 'Medians; CPU per operation; ratios to the echo with as many callers:'
    )
    if scale:
        title = f'CPU per call by tokens, {report.BAR_CALLERS} callers (us):'
        print_section(report.comparison(scale, 'tokens', min(arguments.rows)), title)
        print_section(
            f'{rows} tokens loaded in {harness.load_seconds[str(rows)]:.1f} s' for rows in arguments.rows
        )
    if legacy:
        title = f'CPU per call by [workarounds] enable_consoleauth, {report.BAR_CALLERS} callers (us):'
        print_section(report.comparison(legacy, 'flag', 'off'), title)
    every = [sample for part in (samples, scale, legacy) for rounds in part.values() for sample in rounds]
    print_section(report.bars(samples, scale), f'Bars ({report.BAR_CALLERS} callers, one worker):')
    print_section(disturbance([sample.other for sample in every]))
    if arguments.json:
        written = {
            'machine': [*machine, harness.database],
            'samples': _as_json(samples, 'callers'),
            'scale': _as_json(scale, 'tokens'),
            'legacy': _as_json(legacy, 'flag'),
            'load_seconds': harness.load_seconds,
        }
        arguments.json.write_text(json.dumps(written, indent=1) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
