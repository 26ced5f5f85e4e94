# SPDX-License-Identifier: Apache-2.0
"""The report of the simulated hosts: medians over rounds, ratios in each round, the bars."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence

from tests.bench.figures import percentile, verdict
from tests.bench.hosts.harness import OPERATIONS, PARTS, Phase

_CPU_BAR = 0.50  # of one core
_P99_BAR = 2.0


def _ms(seconds: float) -> str:
    return f'{seconds * 1e3:.1f}'


def _latencies(phase: Phase) -> str:
    return '; '.join(
        f'{name} p50 {_ms(phase.percentile(name, 50))} p99 {_ms(phase.percentile(name, 99))} ms'
        f' of {len(phase.latencies[name])}, {_errors(phase.errors[name])}'
        for name in OPERATIONS
    )


def _errors(errors: dict[str, int]) -> str:
    return ', '.join(f'{count} {code}' for code, count in sorted(errors.items())) or 'no error'


def _shares(phases: Sequence[Phase]) -> str:
    return ', '.join(f'{part} {_median(phase.share(part) for phase in phases):.1%}' for part in PARTS)


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def storm(phase: Phase, reports: Counter[str]) -> list[str]:
    """Return the lines about the time until all guests were known."""
    calls = ', '.join(f'{count} {what}' for what, count in sorted(reports.items()))
    return [
        f'all guests known after {phase.seconds:.1f} s',
        f'meanwhile: {_latencies(phase)}',
        f'CPU, share of one core: {_shares([phase])}; {phase.cpu["manager"]:.1f} s of the manager in all',
        f'reports of the agents: {calls}',
    ]


def steady(idle: Sequence[Phase], loaded: Sequence[Phase]) -> list[str]:
    """Return the table that compares the idle phases with the loaded ones."""
    lines = [f'{"":22} {"idle":>18} {"with the hosts":>18} {"x p50":>6} {"x p99":>6}']
    for name in OPERATIONS:
        cells = []
        for phases in (idle, loaded):
            p50, p99 = (_median(phase.percentile(name, percent) for phase in phases) for percent in (50, 99))
            cells.append(f'{_ms(p50)} / {_ms(p99)} ms')
        ratios = [f'{_median(_ratios(name, percent, idle, loaded)):6.2f}' for percent in (50, 99)]
        lines.append(f'{name + " p50 / p99":22} {cells[0]:>18} {cells[1]:>18} {" ".join(ratios)}')
        pooled = [_pooled(name, phases) for phases in (idle, loaded)]
        cells = [f'{_ms(percentile(every, 50))} / {_ms(percentile(every, 99))} ms' for every in pooled]
        lines.append(f'{"  all rounds together":22} {cells[0]:>18} {cells[1]:>18}')
    for part in PARTS:
        shares = [f'{_median(phase.share(part) for phase in phases):.1%}' for phases in (idle, loaded)]
        lines.append(f'{"CPU of " + part:22} {shares[0]:>18} {shares[1]:>18}')
    errors: Counter[str] = Counter()
    for phase in (*idle, *loaded):
        for found in phase.errors.values():
            errors.update(found)
    return [*lines, f'errors of users: {_errors(errors)}']


def _pooled(name: str, phases: Sequence[Phase]) -> list[float]:
    return sorted(latency for phase in phases for latency in phase.latencies[name])


def _ratios(name: str, percent: int, idle: Sequence[Phase], loaded: Sequence[Phase]) -> list[float]:
    return [
        busy.percentile(name, percent) / quiet.percentile(name, percent)
        for quiet, busy in zip(idle, loaded, strict=True)
    ]


def calls(loaded: Sequence[Phase]) -> list[str]:
    """Return a line for each method and result code that the manager answered."""
    seconds = sum(phase.seconds for phase in loaded)
    count: Counter[str] = Counter()
    busy: Counter[str] = Counter()
    for phase in loaded:
        count.update(phase.calls)
        busy.update(phase.busy)
    return [
        f'{what:48} {number / seconds:7.2f}/s {busy[what] / number * 1e3:8.2f} ms each'
        for what, number in sorted(count.items())
    ]


def bars(idle: Sequence[Phase], loaded: Sequence[Phase]) -> list[str]:
    """Return a line for each bar: met or not."""
    shares = [phase.share('manager') for phase in loaded]
    lines = [verdict(f'manager: < {_CPU_BAR:.2f} of one core', shares, _CPU_BAR)]
    for name in OPERATIONS:
        bar = f'{name}: p99 with the hosts <= {_P99_BAR:.2f} x p99 idle'
        lines.append(verdict(bar, _ratios(name, 99, idle, loaded), _P99_BAR))
    return lines
