# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.bench.proxy``: measure consoled-proxy next to websockify. See doc/benchmarks.md."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import pathlib
import resource
import sys
from typing import Any

from tests.bench.command_line import EPILOG, disturbance, log_progress, names_among, print_section
from tests.bench.proxy import report
from tests.bench.proxy.harness import ProxyHarness

_CONTENDERS = ('raw', 'websockify', 'consoled')
_TAKING_TURNS = ('stream', 'upload', 'keys', 'opens')
_PLAIN = ('stream', 'upload', 'keys')  # measured with plain TCP too
_WITH_TLS = ('stream_tls', 'upload_tls')
_NAMES = (*_TAKING_TURNS, 'tls', 'memory', 'capacity')
_BY_DEFAULT = tuple(name for name in _NAMES if name != 'tls')
_DESCRIPTORS = 65536


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m tests.bench.proxy',
        description='Measure one process of consoled-proxy with a private RabbitMQ, MariaDB and manager, and '
        'in the same run a stock websockify, which authorizes nobody, and plain TCP.',
        epilog=EPILOG,
    )
    number: dict[str, Any] = {'type': int, 'metavar': 'N'}
    seconds: dict[str, Any] = {'type': float, 'metavar': 'S'}
    for name, default, what, kind in (
        ('--rounds', 5, 'number of rounds', number),
        ('--seconds', 4.0, 'seconds of each run', seconds),
        ('--callers', 8, 'opens: users that open sessions at the same time', number),
        ('--sessions', 1000, 'memory: idle sessions of consoled', number),
        ('--few', 50, 'memory: idle sessions of websockify', number),
        ('--idle', 5000, 'capacity: idle sessions', number),
        ('--active', 500, 'capacity: active sessions', number),
        ('--pace', 20, 'capacity: messages per second and active session', number),
        ('--hold', 30.0, 'capacity: seconds to hold the sessions', seconds),
    ):
        parser.add_argument(name, default=default, help=f'{what} (default %(default)s)', **kind)
    parser.add_argument(
        '--only',
        type=names_among(_NAMES),
        default=list(_BY_DEFAULT),
        metavar='NAME,...',
        help=f'what to measure: {", ".join(_NAMES)} (default: all but tls)',
    )
    parser.add_argument(
        '--contenders',
        type=names_among(_CONTENDERS),
        default=list(_CONTENDERS),
        metavar='NAME,...',
        help=f'what to compare: {", ".join(_CONTENDERS)} (default: all)',
    )
    parser.add_argument('--json', type=pathlib.Path, metavar='FILE', help='write all samples to FILE')
    return parser.parse_args()


def _raise_descriptor_limit() -> None:
    """Raise the limit for this process and its children: a session takes two descriptors in a proxy."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < _DESCRIPTORS:
        with contextlib.suppress(ValueError, PermissionError):  # only root may
            resource.setrlimit(resource.RLIMIT_NOFILE, (_DESCRIPTORS, _DESCRIPTORS))
            return
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _interleaved(arguments: argparse.Namespace, harness: ProxyHarness) -> report.Samples:
    """Measure the contenders in turn, operation by operation, so that other load affects all of them."""
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
            log_progress(f'round {number} of {arguments.rounds}: {operation}, {contender}')
            run = {'callers': arguments.callers} if operation == 'opens' else {}
            sample = harness.measure(operation, contender, arguments.seconds, **run)
            samples[operation, contender].append(sample)
    return samples


def _memories(arguments: argparse.Namespace, harness: ProxyHarness) -> report.Memories:
    if 'memory' not in arguments.only:
        return {}
    counts = {'websockify': arguments.few, 'consoled': arguments.sessions}
    memories: report.Memories = {name: [] for name in counts if name in arguments.contenders}
    for number in range(1, arguments.rounds + 1):
        for name in memories:
            log_progress(f'round {number} of {arguments.rounds}: {counts[name]} idle sessions, {name}')
            memories[name].append(harness.memory(name, counts[name]))
    return memories


def _capacities(arguments: argparse.Namespace, harness: ProxyHarness) -> list[dict[str, Any]]:
    """Measure the capacity once: the sessions are either held or not."""
    if 'capacity' not in arguments.only or 'consoled' not in arguments.contenders:
        return []
    log_progress(f'capacity: opening {arguments.idle + arguments.active} sessions')
    return [harness.capacity(arguments.idle, arguments.active, arguments.pace, arguments.hold)]


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
    with ProxyHarness(log_progress, arguments.contenders) as harness:
        samples = _interleaved(arguments, harness)
        memories = _memories(arguments, harness)
        capacities = _capacities(arguments, harness)
    print_section([*machine, f'{arguments.rounds} rounds, {arguments.seconds} s for each run'])
    if samples:
        print_section(report.table(samples), 'Medians; CPU per unit; ratios to websockify in the same round:')
        print_section(report.settled(samples))
    if memories:
        print_section(report.memory_table(memories), 'Memory (PSS of all processes), medians:')
    for result in capacities:
        print_section(report.capacity_lines(result), 'Capacity of one proxy process:')
    print_section(report.bars(samples, memories, capacities), 'Bars:')
    shares = [sample.other for rounds in samples.values() for sample in rounds]
    print_section(disturbance([*shares, *(result['other'] for result in capacities)]))
    if arguments.json:
        _write(arguments.json, samples, memories, capacities)
    return 0


if __name__ == '__main__':
    sys.exit(main())
