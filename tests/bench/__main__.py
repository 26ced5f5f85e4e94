# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.bench``: measure consoled over RabbitMQ and MariaDB; doc/benchmarks.md explains."""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import statistics
import sys
from collections.abc import Iterable
from typing import Any

from tests.bench import report
from tests.bench.stage import Sample, Stage

_OVER_THE_BUS = ('validate', 'authorize', 'open_close')
_ALONE = ('db_validate', 'db_authorize', 'db_open_close')
_SCALED = ('validate', 'authorize')
_ROWS = 1000  # tokens in a cell
_NAMES = (*_OVER_THE_BUS, 'db', 'scale', 'legacy')


def _numbers(text: str) -> list[int]:
    numbers = [int(part) for part in text.split(',')]
    if any(number < 1 for number in numbers):
        raise ValueError
    return numbers


def _names(text: str) -> list[str]:
    names = text.split(',')
    if unknown := set(names) - set(_NAMES):
        raise argparse.ArgumentTypeError(f'{", ".join(sorted(unknown))}: choose from {", ".join(_NAMES)}')
    return names


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m tests.bench',
        description='Measure consoled (one manager, one worker) over a RabbitMQ and a MariaDB of its own, '
        'against a bare oslo.messaging echo on the same broker in the same run.',
        epilog='It measures: the exit status is 0 whether the bars are met or not.',
    )
    parser.add_argument('--rounds', type=int, default=5, metavar='N', help='rounds (default %(default)s)')
    parser.add_argument(
        '--seconds', type=float, default=4.0, metavar='S', help='seconds of one run (default %(default)s)'
    )
    parser.add_argument(
        '--callers',
        type=_numbers,
        default=[1, 8, 32],
        metavar='N,...',
        help='caller threads (default 1,8,32)',
    )
    parser.add_argument(
        '--rows',
        type=_numbers,
        default=[1000, 1000000],
        metavar='N,...',
        help='tokens in the tables that are compared (default 1000,1000000)',
    )
    parser.add_argument(
        '--buffer-pool',
        type=int,
        default=2048,
        metavar='MIB',
        help="memory for MariaDB's pages (default %(default)s: all the rows fit)",
    )
    parser.add_argument(
        '--only',
        type=_names,
        default=list(_NAMES),
        metavar='NAME,...',
        help=f'of {", ".join(_NAMES)} (the echo is always measured)',
    )
    parser.add_argument('--json', type=pathlib.Path, metavar='FILE', help='write every sample to FILE')
    return parser.parse_args()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _interleaved(arguments: argparse.Namespace, stage: Stage) -> report.Samples:
    """Echo, validate, authorize, open and close, echo, ...: what the machine does meanwhile hits all."""
    over_the_bus = [name for name in _OVER_THE_BUS if name in arguments.only]
    planned = [(name, callers) for callers in arguments.callers for name in (report.BASELINE, *over_the_bus)]
    if 'db' in arguments.only:
        if 1 not in arguments.callers:
            planned.append((report.BASELINE, 1))
        planned += [(name, 1) for name in _ALONE]
    samples: report.Samples = {key: [] for key in planned}
    for number in range(1, arguments.rounds + 1):
        for name, callers in planned:
            _say(f'round {number} of {arguments.rounds}: {name}, {callers} callers')
            samples[name, callers].append(stage.measure('main', name, callers, arguments.seconds))
    return samples


def _in_turns(arguments: argparse.Namespace, stage: Stage, cells: dict[str, Any]) -> report.Samples:
    """Cells that differ in one thing only.

    :param cells: by name, what is shown of it
    """
    samples: report.Samples = {(name, shown): [] for name in _SCALED for shown in cells.values()}
    for number in range(1, arguments.rounds + 1):
        for name in _SCALED:
            for cell, shown in cells.items():
                _say(f'round {number} of {arguments.rounds}: {name} in cell {cell}')
                sample = stage.measure(cell, name, report.BAR_CALLERS, arguments.seconds)
                samples[name, shown].append(sample)
    return samples


def _scale(arguments: argparse.Namespace, stage: Stage) -> report.Samples:
    if 'scale' not in arguments.only:
        return {}
    for rows in arguments.rows:
        stage.add_cell(str(rows), rows)
    return _in_turns(arguments, stage, {str(rows): rows for rows in arguments.rows})


def _legacy(arguments: argparse.Namespace, stage: Stage) -> report.Samples:
    if 'legacy' not in arguments.only:
        return {}
    stage.add_cell('legacy', _ROWS, legacy=True)
    return _in_turns(arguments, stage, {'main': 'off', 'legacy': 'on'})


def _print(lines: Iterable[str], title: str | None = None) -> None:
    print('\n'.join(lines if title is None else ['', title, *lines]), flush=True)


def _as_json(samples: report.Samples, second: str) -> list[dict[str, Any]]:
    return [
        {'operation': name, second: number, 'rounds': [dataclasses.asdict(sample) for sample in rounds]}
        for (name, number), rounds in samples.items()
    ]


def _disturbance(samples: Iterable[Sample]) -> str:
    shares = [sample.other for sample in samples]
    return (
        f'Share of the machine that other work took during the runs: median {statistics.median(shares):.0%},'
        f' worst run {max(shares):.0%}.'
    )


def main() -> int:
    arguments = _arguments()
    machine = report.machine()
    with Stage(_say, arguments.buffer_pool) as stage:
        stage.add_cell('main', _ROWS)
        samples = _interleaved(arguments, stage)
        legacy = _legacy(arguments, stage)
        scale = _scale(arguments, stage)
    _print([*machine, stage.database, f'{arguments.rounds} rounds of {arguments.seconds} s a run'])
    _print(report.table(samples), 'Medians; CPU per operation; ratios to the echo with as many callers:')
    if scale:
        title = f'CPU per call by tokens, {report.BAR_CALLERS} callers (us):'
        _print(report.comparison(scale, 'tokens', min(arguments.rows)), title)
        _print(f'{rows} tokens loaded in {stage.load_seconds[str(rows)]:.1f} s' for rows in arguments.rows)
    if legacy:
        title = f'CPU per call by [workarounds] enable_consoleauth, {report.BAR_CALLERS} callers (us):'
        _print(report.comparison(legacy, 'flag', 'off'), title)
    every = [sample for part in (samples, scale, legacy) for rounds in part.values() for sample in rounds]
    _print(report.bars(samples, scale), f'Bars ({report.BAR_CALLERS} callers, one worker):')
    _print(['', _disturbance(every)])
    if arguments.json:
        written = {
            'machine': [*machine, stage.database],
            'samples': _as_json(samples, 'callers'),
            'scale': _as_json(scale, 'tokens'),
            'legacy': _as_json(legacy, 'flag'),
            'load_seconds': stage.load_seconds,
        }
        arguments.json.write_text(json.dumps(written, indent=1) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
