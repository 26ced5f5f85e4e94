# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.bench.nova``: measure consoled beside nova-novncproxy. See doc/benchmarks.md."""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import statistics
import sys
import time
from typing import Any

from tests.bench.command_line import EPILOG, log_progress, print_section
from tests.bench.figures import percentile, verdict
from tests.bench.nova import users
from tests.bench.nova.contenders import Cell, Contender
from tests.bench.report import machine
from tests.nova import base

BASELINE, MINE = 'nova-novncproxy', 'consoled'
_WARM_UP_SESSIONS = 50
_SETTLE = 2.0  # seconds before memory is measured


@dataclasses.dataclass(frozen=True)
class Opens:
    """Opens of one run. Latencies in seconds; CPU seconds per open, by part."""

    rate: float
    p50: float
    p99: float
    cpu: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Round:
    """What was measured of a contender in one round.

    :ivar refusal: median of the seconds until a bad token is refused
    :ivar session: memory of an idle session in bytes, as ``rss`` and as ``pss``; only in the first round:
        later ones use what earlier ones have left
    """

    opens: Opens
    refusal: float
    session: dict[str, float] | None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m tests.bench.nova',
        description='Measure a manager and a proxy of consoled, with one worker each, and in the same run a '
        'stock nova-novncproxy, in front of the same Nova: private RabbitMQ and MariaDB, real nova-compute.',
        epilog=EPILOG,
    )
    for name, default, what, kind in (
        ('--rounds', 3, 'number of rounds', int),
        ('--seconds', 10.0, 'seconds of each run of opens', float),
        ('--callers', 8, 'users that open sessions at the same time', int),
        ('--refusals', 20, 'bad tokens in each round', int),
        ('--sessions', 1000, 'idle sessions of consoled', int),
        ('--few', 10, 'idle sessions of nova-novncproxy', int),
    ):
        parser.add_argument(name, default=default, type=kind, help=f'{what} (default %(default)s)')
    parser.add_argument('--json', type=pathlib.Path, metavar='FILE', help='write all rounds to FILE')
    return parser.parse_args()


def _opens(cell: Cell, contender: Contender, seconds: float, callers: int) -> Opens:
    parts = {'proxy': contender.cpu, **cell.shared}
    users.measure_opens(contender.routes(), 1.0, callers)
    before = {part: read() for part, read in parts.items()}
    latencies, elapsed = users.measure_opens(contender.routes(), seconds, callers)
    count, ordered = len(latencies), sorted(latencies)
    return Opens(
        rate=count / elapsed,
        p50=percentile(ordered, 50),
        p99=percentile(ordered, 99),
        cpu={part: (read() - before[part]) / count for part, read in parts.items()},
    )


def _session(contender: Contender, count: int) -> dict[str, float]:
    """Return what each of ``count`` idle sessions adds to the memory of all processes."""
    for user in users.crowd(contender.routes(), min(count, _WARM_UP_SESSIONS)):
        user.leave()
    time.sleep(_SETTLE)
    before = contender.memory()
    crowd = users.crowd(contender.routes(), count)
    time.sleep(_SETTLE)
    after = contender.memory()
    for user in crowd:
        user.leave()
    return {name: (after[name] - before[name]) / count for name in before}


def _measure(cell: Cell, name: str, first: bool, arguments: argparse.Namespace) -> Round:
    contender, session = cell.contenders[name], None
    if first:
        log_progress(f'{name}: idle sessions')
        session = _session(contender, arguments.sessions if name == MINE else arguments.few)
    log_progress(f'{name}: opens')
    opens = _opens(cell, contender, arguments.seconds, arguments.callers)
    log_progress(f'{name}: refusals')
    refusals = [users.refusal(contender.bad_route(), '127.0.3.1') for _ in range(arguments.refusals)]
    return Round(opens, statistics.median(refusals), session)


def _table(rounds: dict[str, list[Round]]) -> list[str]:
    def row(name: str, mine: Round) -> str:
        opens, cpu = mine.opens, mine.opens.cpu
        memory = [f'{size / 1024:12.1f}' for size in (mine.session or {}).values()]
        return (
            f'{name:16} {opens.rate:8.2f} {opens.p50 * 1e3:8.1f} {opens.p99 * 1e3:8.1f}'
            f' {cpu["proxy"] * 1e3:8.1f} {sum(cpu.values()) * 1e3:8.1f} {mine.refusal * 1e3:10.1f}'
            f' {" ".join(memory)}'
        )

    header = (
        f'{"":16} {"opens/s":>8} {"p50 ms":>8} {"p99 ms":>8} {"CPU ms":>8} {"all ms":>8} {"refusal ms":>10}'
        f' {"RSS KiB":>12} {"PSS KiB":>12}'
    )
    return [header, *(row(name, each) for name in rounds for each in rounds[name])]


def _bars(rounds: dict[str, list[Round]]) -> list[str]:
    both = list(zip(rounds[MINE], rounds[BASELINE], strict=True))
    rates = [mine.opens.rate / other.opens.rate for mine, other in both]
    memory = [
        1000 * mine.session['pss'] / other.session['pss']
        for mine, other in both
        if mine.session and other.session
    ]
    refusals = [mine.refusal / other.refusal for mine, other in both]
    return [
        verdict('opens a second: >= 25 x nova-novncproxy', rates, 25, at_least=True),
        verdict('idle session: <= 1/1000 of the memory (thousandths)', memory, 1.0),
        f'{"time to a refusal, ratio":52} {statistics.median(refusals):6.3f}',
    ]


def main() -> int:
    arguments = _arguments()
    rounds: dict[str, list[Round]] = {BASELINE: [], MINE: []}
    log_progress('starting a Nova and both proxies')
    with Cell() as cell:
        for number in range(1, arguments.rounds + 1):
            log_progress(f'round {number} of {arguments.rounds}')
            for name, measured in rounds.items():
                measured.append(_measure(cell, name, number == 1, arguments))
    print_section(
        [*machine(), f'Nova {base.VERSION}; {arguments.rounds} rounds, {arguments.seconds} s of opens']
    )
    print_section(
        _table(rounds), 'Each round; CPU per open (of the contender, of all), memory of an idle session:'
    )
    print_section(_bars(rounds), 'Bars:')
    if arguments.json:
        written: dict[str, Any] = {
            name: [dataclasses.asdict(each) for each in measured] for name, measured in rounds.items()
        }
        arguments.json.write_text(json.dumps({'machine': machine(), 'rounds': written}, indent=1) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
