# SPDX-License-Identifier: Apache-2.0
"""The proxy's report: medians over rounds, ratios to websockify in the same round, the bars."""

from __future__ import annotations

import importlib.metadata
import statistics
from collections.abc import Callable, Iterable
from typing import Any

from tests.bench import report
from tests.bench.figures import verdict
from tests.bench.proxy.harness import OPERATIONS, PARTS, MemorySample, ProxySample

BASELINE = 'websockify'

# (operation, contender) -> one sample a round
Samples = dict[tuple[str, str], list[ProxySample]]
# contender -> one sample a round
Memories = dict[str, list[MemorySample]]
Value = Callable[[ProxySample], float]

_TABLE = [
    ('operation', '<18'),
    ('contender', '<10'),
    ('unit', '>4'),
    ('rate/s', '>8'),
    ('p50 ms', '>8'),
    ('p99 ms', '>8'),
    *((f'{part} ms', '>11') for part in PARTS),
    ('x rate', '>6'),
    ('x p50', '>6'),
    ('x p99', '>6'),
    ('x proxy CPU', '>11'),
]

_VALUES: dict[str, Value] = {
    'rate': lambda sample: sample.rate,
    'p50': lambda sample: sample.p50 or 0.0,
    'p99': lambda sample: sample.p99 or 0.0,
    'cpu': lambda sample: sample.cpu['proxy'],
}

_KIB, _MIB = 1 << 10, 1 << 20


def machine() -> list[str]:
    """Return the lines that describe machine and libraries."""
    libraries = ', '.join(f'{name} {importlib.metadata.version(name)}' for name in ('websockify', 'numpy'))
    return [*report.machine(), libraries]


def _line(cells: Iterable[str]) -> str:
    return ' '.join(format(cell, width) for cell, (_, width) in zip(cells, _TABLE, strict=True)).rstrip()


def _number(value: float) -> str:
    """Format a value with about three significant digits."""
    return f'{value:.0f}' if value >= 100 else f'{value:.1f}' if value >= 10 else f'{value:.3f}'


def _median(rounds: Iterable[ProxySample], value: Value, factor: float = 1.0) -> str:
    values = [value(sample) * factor for sample in rounds]
    return _number(statistics.median(values)) if any(values) else ''


def _ratios(samples: Samples, operation: str, contender: str, name: str) -> list[float]:
    """Return the ratio to the baseline in each round; empty if either was not measured or has no value."""
    value = _VALUES[name]
    both = zip(samples.get((operation, contender), []), samples.get((operation, BASELINE), []), strict=False)
    return [value(mine) / value(other) for mine, other in both if value(mine) and value(other)]


def _row(samples: Samples, operation: str, contender: str) -> str:
    rounds = samples[operation, contender]
    compared = ['' for _ in _VALUES]
    if contender != BASELINE:
        every = [_ratios(samples, operation, contender, name) for name in _VALUES]
        compared = [f'{statistics.median(ratios):.2f}' if ratios else '' for ratios in every]
    return _line(
        [
            OPERATIONS[operation].title,
            contender,
            OPERATIONS[operation].unit,
            _median(rounds, _VALUES['rate']),
            *(_median(rounds, _VALUES[name], 1e3) for name in ('p50', 'p99')),
            *(_median(rounds, lambda sample, part=part: sample.cpu[part], 1e3) for part in PARTS),
            *compared,
        ]
    )


def table(samples: Samples) -> list[str]:
    """Return the table of results: a line for each operation and contender."""
    header = _line(title for title, _ in _TABLE)
    return [header, '-' * len(header), *(_row(samples, *key) for key in samples)]


def settled(samples: Samples) -> list[str]:
    """Return the lines about how long after a run its last session was over."""
    return [
        f'{OPERATIONS[operation].title}, {contender}: the last session was over'
        f' {max(sample.settled for sample in rounds):.2f} s after the run (worst round)'
        for (operation, contender), rounds in samples.items()
        if operation == 'opens'
    ]


def memory_table(memories: Memories) -> list[str]:
    """Return the table of memory per idle session."""
    lines = [f'{"contender":10} {"sessions":>8} {"empty MiB":>9} {"full MiB":>9} {"KiB each":>9}']
    for contender, rounds in memories.items():
        before, after = (
            statistics.median(getattr(sample, name) for sample in rounds) / _MIB
            for name in ('before', 'after')
        )
        each = statistics.median(sample.each for sample in rounds) / _KIB
        lines.append(f'{contender:10} {rounds[0].sessions:8} {before:9.1f} {after:9.1f} {each:9.1f}')
    return lines


def capacity_lines(got: dict[str, Any]) -> list[str]:
    """Return the lines about what one proxy process has held."""
    cpu = ', '.join(f'{part} {got["cpu"][part]:.0%}' for part in PARTS)
    held = f'{got["idle"]} idle sessions and {got["active"]} active ones for {got["seconds"]:.1f} s'
    messages = (
        f'{got["sent"]} of {got["planned"]} messages sent, {got["count"]} came back, {got["wrong"]} wrong'
    )
    return [
        f'{held}, opened in {got["opening"]:.0f} s',
        f'{messages}; at most {got["late"] * 1e3:.1f} ms after their time',
        f'latency p50 {got["p50"] * 1e3:.2f} ms, p99 {got["p99"] * 1e3:.2f} ms',
        f'share of one core: {cpu}',
        f'memory of the proxy: {got["empty"] / _MIB:.0f} MiB empty, {got["memory"] / _MIB:.0f} MiB full',
        f'alive afterwards: {got["alive"]}; lost: {"; ".join(got["closed"][:5]) or "none"}',
    ]


_BARS = (
    ('guest to user: <= 0.75 x CPU per GB of websockify', 'stream', 'cpu', 0.75),
    ("opens, authorized: >= 1.00 x websockify's without", 'opens', 'rate', 1.0),
    ('key press: <= 1.00 x p50 of websockify', 'keys', 'p50', 1.0),
    ('key press: <= 1.00 x p99 of websockify', 'keys', 'p99', 1.0),
)
_IDLE_BAR = 64.0


def bars(samples: Samples, memories: Memories, capacities: list[dict[str, Any]]) -> list[str]:
    """Return a line for each bar: met or not."""
    lines = []
    for bar, operation, name, limit in _BARS:
        every = _ratios(samples, operation, 'consoled', name)
        lines.append(verdict(bar, every, limit, at_least=name == 'rate'))
    each = [sample.each / _KIB for sample in memories.get('consoled', [])]
    lines.insert(1, verdict(f'idle session: <= {_IDLE_BAR:.0f} KiB', each, _IDLE_BAR))
    bar = 'capacity: all sessions held, every message back'
    if not capacities:
        return [*lines, f'{bar:52} not measured']
    word = 'met' if all(map(_held, capacities)) else 'NOT MET'
    return [*lines, f'{bar:52} {sum(map(_missing, capacities)):6} {word:7} (messages and sessions missing)']


def _missing(got: dict[str, Any]) -> int:
    sessions = got['idle'] + got['active'] - got['alive']
    return int(got['planned'] - got['count'] + got['wrong'] + sessions)


def _held(got: dict[str, Any]) -> bool:
    return _missing(got) == 0 and not got['closed']
