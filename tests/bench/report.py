# SPDX-License-Identifier: Apache-2.0
"""The manager's report: medians over rounds, ratios to the baseline in the same round, the bars."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tests.bench.figures import verdict
from tests.bench.harness import PARTS, ManagerSample
from tests.bench.operations import TITLES

BASELINE = 'echo'
BAR_CALLERS = 8
_BAR_WIDTH = 62  # columns

# (operation, callers) -> one sample a round
Samples = dict[tuple[str, Any], list[ManagerSample]]

_LIBRARIES = (
    'oslo.messaging',
    'oslo.versionedobjects',
    'oslo.db',
    'kombu',
    'amqp',
    'SQLAlchemy',
    'PyMySQL',
)
_TABLE = [
    ('operation', '<32'),
    ('callers', '>7'),
    ('unit', '>6'),
    ('rate/s', '>8'),
    ('p50 ms', '>7'),
    ('p99 ms', '>7'),
    *((f'{part} us', '>11') for part in PARTS),
    ('sum us', '>7'),
    ('x rate', '>7'),
    ('x CPU', '>6'),
]


def machine() -> list[str]:
    """Return the lines that describe machine and libraries."""
    model = platform.processor() or platform.machine()
    for line in pathlib.Path('/proc/cpuinfo').read_text().splitlines():
        if line.startswith('model name'):
            model = line.partition(':')[2].strip()
            break
    versions = ', '.join(f'{name} {importlib.metadata.version(name)}' for name in _LIBRARIES)
    load = ' '.join(f'{value:.2f}' for value in os.getloadavg())
    return [
        f'{os.cpu_count()} cores, {model}, {platform.system()} {platform.release()}, load {load}',
        f'Python {platform.python_version()}, {versions}',
    ]


def _median(samples: Iterable[ManagerSample], value: Callable[[ManagerSample], float]) -> float:
    return statistics.median(value(sample) for sample in samples)


def ratios(
    samples: Sequence[ManagerSample],
    baseline: Sequence[ManagerSample],
    value: Callable[[ManagerSample], float],
) -> list[float]:
    """Return the ratio of a value in each round."""
    return [value(mine) / value(other) for mine, other in zip(samples, baseline, strict=True)]


def rate(sample: ManagerSample) -> float:
    return sample.rate


def cpu(sample: ManagerSample) -> float:
    return sample.cpu_total


def _line(cells: Iterable[str]) -> str:
    return ' '.join(format(cell, width) for cell, (_, width) in zip(cells, _TABLE, strict=True))


def _row(
    operation: str, callers: int, samples: list[ManagerSample], baseline: list[ManagerSample] | None
) -> str:
    def micro(value: Callable[[ManagerSample], float]) -> str:
        return f'{_median(samples, value) * 1e6:.0f}'

    compared = ['', '']
    if baseline and operation != BASELINE:
        compared = [f'{statistics.median(ratios(samples, baseline, value)):.2f}' for value in (rate, cpu)]
    return _line(
        [
            TITLES[operation],
            str(callers),
            'pair' if 'open_close' in operation else 'call',
            f'{_median(samples, rate):.0f}',
            f'{_median(samples, lambda sample: sample.p50) * 1e3:.2f}',
            f'{_median(samples, lambda sample: sample.p99) * 1e3:.2f}',
            *(micro(lambda sample, part=part: sample.cpu[part]) for part in PARTS),
            micro(cpu),
            *compared,
        ]
    )


def table(samples: Samples) -> list[str]:
    """Return the table of results: a line for each operation and number of callers."""
    header = _line(title for title, _ in _TABLE)
    rows = [
        _row(operation, callers, rounds, samples.get((BASELINE, callers)))
        for (operation, callers), rounds in samples.items()
    ]
    return [header, '-' * len(header), *rows]


def comparison(samples: Samples, title: str, first: Any) -> list[str]:
    """Return a table of the CPU per call (us) in cells that differ in one thing.

    :param title: what differs between the cells
    :param first: the cell to which the others are compared
    """
    lines = [
        f'{"operation":32} {title:>9} {"server":>8} {"database":>9} {"both":>7} {"sum":>7} {"x both":>7}'
    ]
    for (operation, which), rounds in samples.items():
        ratio = statistics.median(ratios(rounds, samples[operation, first], _server_side))
        figures = [
            f'{_median(rounds, value) * 1e6:.0f}'
            for value in (lambda s: s.cpu['server'], lambda s: s.cpu['database'], _server_side, cpu)
        ]
        lines.append(
            f'{TITLES[operation]:32} {which:>9} {figures[0]:>8} {figures[1]:>9} {figures[2]:>7}'
            f' {figures[3]:>7} {ratio:7.2f}'
        )
    return lines


def _server_side(sample: ManagerSample) -> float:
    return sample.cpu['server'] + sample.cpu['database']


def bars(samples: Samples, scale: Samples) -> list[str]:
    """Return a line for each bar: met or not."""
    lines = []
    for operation, what, value, limit, aim, at_least in (
        ('validate', 'calls/s of the echo', rate, 0.60, 0.70, True),
        ('validate', 'CPU per call of the echo', cpu, 1.60, 1.40, False),
        ('authorize', 'calls/s of the echo', rate, 0.50, 0.60, True),
    ):
        mine, baseline = samples.get((operation, BAR_CALLERS), []), samples.get((BASELINE, BAR_CALLERS), [])
        bar = f'{operation}: {">=" if at_least else "<="} {limit:.2f} x {what} (aim {aim:.2f})'
        rounds = ratios(mine, baseline, value) if mine and baseline else []
        lines.append(verdict(bar, rounds, limit, at_least=at_least, width=_BAR_WIDTH))
    for operation in ('validate', 'authorize'):
        counts = sorted(rows for name, rows in scale if name == operation)
        if len(counts) < 2:
            lines.append(verdict(f'{operation}: cost flat within 10 %', [], 1.10, width=_BAR_WIDTH))
            continue
        fewest, most = counts[0], counts[-1]
        rounds = ratios(scale[operation, most], scale[operation, fewest], _server_side)
        bar = f'{operation}: server + database CPU, {most} to {fewest} tokens, <= 1.10'
        lines.append(verdict(bar, rounds, 1.10, width=_BAR_WIDTH))
    return lines
