# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.bench.proxy``: measure consoled-proxy next to websockify; doc/benchmarks.md explains."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import pathlib
import resource
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tests.bench.proxy import report
from tests.bench.proxy.stage import Stage

_CONTENDERS = ('raw', 'websockify', 'consoled')
_TAKING_TURNS = ('stream', 'upload', 'keys', 'opens')
_PLAIN = ('stream', 'upload', 'keys')  # what plain TCP can do too
_WITH_TLS = ('stream_tls', 'upload_tls')
_NAMES = (*_TAKING_TURNS, 'tls', 'memory', 'capacity')
_BY_DEFAULT = tuple(name for name in _NAMES if name != 'tls')
_DESCRIPTORS = 65536


def _among(names: Sequence[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        given = text.split(',')
        if unknown := set(given) - set(names):
            raise argparse.ArgumentTypeError(f'{", ".join(sorted(unknown))}: choose from {", ".join(names)}')
        return given

    return parse


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m tests.bench.proxy',
        description='Measure one process of consoled-proxy, with a RabbitMQ, a MariaDB and a manager of its '
        'own, next to a stock websockify that authorizes nobody and to plain TCP, in the same run.',
        epilog='It measures: the exit status is 0 whether the bars are met or not.',
    )
    number: dict[str, Any] = {'type': int, 'metavar': 'N'}
    seconds: dict[str, Any] = {'type': float, 'metavar': 'S'}
    parser.add_argument('--rounds', default=5, help='rounds (default %(default)s)', **number)
    parser.add_argument('--seconds', default=4.0, help='seconds of one run (default %(default)s)', **seconds)
    parser.add_argument('--callers', default=8, help='who open at a time (default %(default)s)', **number)
    parser.add_argument(
        '--sessions', default=1000, help='idle, for the memory (default %(default)s)', **number
    )
    parser.add_argument('--few', default=50, help='the same for websockify (default %(default)s)', **number)
    parser.add_argument('--idle', default=5000, help='capacity: idle (default %(default)s)', **number)
    parser.add_argument('--active', default=500, help='capacity: active (default %(default)s)', **number)
    parser.add_argument(
        '--pace', default=20, help='capacity: messages a second of each (default %(default)s)', **number
    )
    parser.add_argument('--hold', default=30.0, help='capacity: seconds (default %(default)s)', **seconds)
    parser.add_argument(
        '--only',
        type=_among(_NAMES),
        default=list(_BY_DEFAULT),
        metavar='NAME,...',
        help=f'of {", ".join(_NAMES)} (default: all but tls)',
    )
    parser.add_argument(
        '--contenders',
        type=_among(_CONTENDERS),
        default=list(_CONTENDERS),
        metavar='NAME,...',
        help=f'of {", ".join(_CONTENDERS)} (default: all)',
    )
    parser.add_argument('--json', type=pathlib.Path, metavar='FILE', help='write every sample to FILE')
    return parser.parse_args()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _raise_descriptor_limit() -> None:
    """For this process and all that it starts: a session is two of them in a proxy."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < _DESCRIPTORS:
        with contextlib.suppress(ValueError, PermissionError):  # only root may
            resource.setrlimit(resource.RLIMIT_NOFILE, (_DESCRIPTORS, _DESCRIPTORS))
            return
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _interleaved(arguments: argparse.Namespace, stage: Stage) -> report.Samples:
    """Raw, websockify, consoled, operation by operation: what the machine does meanwhile hits all."""
    operations = [name for name in _TAKING_TURNS if name in arguments.only]
    operations += _WITH_TLS if 'tls' in arguments.only else ()
    samples: report.Samples = {
        (operation, contender): []
        for operation in operations
        for contender in arguments.contenders
        if contender != 'raw' or operation in _PLAIN
    }
    for number in range(1, arguments.rounds + 1):
        for operation, contender in samples:
            _say(f'round {number} of {arguments.rounds}: {operation}, {contender}')
            run = {'callers': arguments.callers} if operation == 'opens' else {}
            sample = stage.measure(operation, contender, arguments.seconds, **run)
            samples[operation, contender].append(sample)
    return samples


def _memories(arguments: argparse.Namespace, stage: Stage) -> report.Memories:
    if 'memory' not in arguments.only:
        return {}
    counts = {'websockify': arguments.few, 'consoled': arguments.sessions}
    memories: report.Memories = {name: [] for name in counts if name in arguments.contenders}
    for number in range(1, arguments.rounds + 1):
        for name in memories:
            _say(f'round {number} of {arguments.rounds}: {counts[name]} idle sessions, {name}')
            memories[name].append(stage.memory(name, counts[name]))
    return memories


def _capacities(arguments: argparse.Namespace, stage: Stage) -> list[dict[str, Any]]:
    """Once: it is held or not."""
    if 'capacity' not in arguments.only or 'consoled' not in arguments.contenders:
        return []
    _say(f'capacity: opening {arguments.idle + arguments.active} sessions')
    return [stage.capacity(arguments.idle, arguments.active, arguments.pace, arguments.hold)]


def _print(lines: Iterable[str], title: str | None = None) -> None:
    print('\n'.join(lines if title is None else ['', title, *lines]), flush=True)


def _disturbance(samples: report.Samples, capacities: list[dict[str, Any]]) -> list[str]:
    shares = [sample.other for rounds in samples.values() for sample in rounds]
    shares += [got['other'] for got in capacities]
    if not shares:
        return []
    typical, worst = statistics.median(shares), max(shares)
    line = f'Share of the machine that other work took during the runs: median {typical:.0%},'
    return ['', f'{line} worst run {worst:.0%}.']


def _write(
    path: pathlib.Path, samples: report.Samples, memories: report.Memories, capacities: list[dict[str, Any]]
) -> None:
    written = {
        'machine': report.machine(),
        'samples': [
            {
                'operation': name,
                'contender': contender,
                'rounds': [dataclasses.asdict(each) for each in rounds],
            }
            for (name, contender), rounds in samples.items()
        ],
        'memory': {name: [dataclasses.asdict(each) for each in rounds] for name, rounds in memories.items()},
        'capacity': capacities,
    }
    path.write_text(json.dumps(written, indent=1) + '\n')


def main() -> int:
    arguments = _arguments()
    _raise_descriptor_limit()
    machine = report.machine()
    with Stage(_say, arguments.contenders) as stage:
        samples = _interleaved(arguments, stage)
        memories = _memories(arguments, stage)
        capacities = _capacities(arguments, stage)
    _print([*machine, f'{arguments.rounds} rounds of {arguments.seconds} s a run'])
    if samples:
        _print(report.table(samples), 'Medians; CPU per unit; ratios to websockify in the same round:')
        _print(report.settled(samples))
    if memories:
        _print(report.memory_table(memories), 'Memory (PSS of all processes), medians:')
    for got in capacities:
        _print(report.capacity_lines(got), 'Capacity of one proxy process:')
    _print(report.bars(samples, memories, capacities), 'Bars:')
    _print(_disturbance(samples, capacities))
    if arguments.json:
        _write(arguments.json, samples, memories, capacities)
    return 0


if __name__ == '__main__':
    sys.exit(main())
