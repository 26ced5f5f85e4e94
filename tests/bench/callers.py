# SPDX-License-Identifier: Apache-2.0
"""The process of the callers, separate so that its CPU is known: ``python -m tests.bench.callers``.

It reads one JSON command a line and answers each with one line of JSON:
``{"name", "transport_url", "database_url", "rows"}`` connects to a cell;
``{"cell", "operation", "callers", "seconds"}`` runs an operation and returns a ``Run``.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
import time
from collections.abc import Callable

from tests.bench import operations
from tests.bench.figures import percentile


@dataclasses.dataclass(frozen=True)
class Run:
    """The results of one run: number of calls; wall time, CPU time and percentiles in seconds."""

    calls: int
    seconds: float
    cpu: float
    p50: float
    p99: float


def run(operation: Callable[[int], None], callers: int, seconds: float) -> Run:
    """Call ``operation`` repeatedly from ``callers`` threads, with the thread's number, for ``seconds``.

    :raises Exception: the exception of the first call that failed; a run with errors measures nothing
    """
    latencies: list[list[float]] = [[] for _ in range(callers)]
    failures: list[Exception] = []
    barrier = threading.Barrier(callers + 1)

    def call(number: int) -> None:
        mine = latencies[number]
        barrier.wait()
        ends = time.perf_counter() + seconds
        before = time.perf_counter()
        while before < ends and not failures:
            try:
                operation(number)
            except Exception as exc:
                failures.append(exc)
            now = time.perf_counter()
            mine.append(now - before)
            before = now

    threads = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    cpu, started = time.process_time(), time.perf_counter()
    barrier.wait()
    for thread in threads:
        thread.join()
    cpu, elapsed = time.process_time() - cpu, time.perf_counter() - started
    if failures:
        raise failures[0]
    every = sorted(latency for mine in latencies for latency in mine)
    return Run(len(every), elapsed, cpu, percentile(every, 50), percentile(every, 99))


def main() -> None:
    """Execute commands until standard input is closed."""
    cells: dict[str, operations.CellClient] = {}
    for line in sys.stdin:
        command = json.loads(line)
        answer: dict[str, object] = {}
        try:
            if 'name' in command:
                name = command.pop('name')
                cells[name] = operations.CellClient(**command)
            else:
                operation = cells[command['cell']].operation(command['operation'], command['callers'])
                answer = dataclasses.asdict(run(operation, command['callers'], command['seconds']))
        except Exception as exc:
            answer = {'error': f'{command}: {exc!r}'}
        print(json.dumps(answer), flush=True)
    for cell in cells.values():
        cell.close()


if __name__ == '__main__':
    main()
