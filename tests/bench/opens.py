# SPDX-License-Identifier: Apache-2.0
"""Users who open and leave sessions, one after the other, each from its own address."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


def run(
    open_session: Callable[[str], Callable[[], None]], seconds: float, callers: int
) -> tuple[list[float], float]:
    """Let that many users open sessions for that many seconds.

    :param open_session: opens a session from a loopback address, and returns what closes it
    :returns: the seconds that each open took, and those of the whole run
    """
    latencies: list[float] = []
    failures: list[Exception] = []
    started = time.perf_counter()

    def call(number: int) -> None:
        while (before := time.perf_counter()) < started + seconds and not failures:
            try:
                leave = open_session(f'127.0.1.{number + 1}')
                latencies.append(time.perf_counter() - before)
                leave()
            except Exception as exc:
                failures.append(exc)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return latencies, time.perf_counter() - started
