# SPDX-License-Identifier: Apache-2.0
"""The process of the users, who call at a fixed rate: ``python -m tests.bench.hosts.users JSON``.

It reads one JSON command a line and answers each with one line of JSON: ``{"start": RATE}`` starts to call
``authorize`` and ``validate``, each RATE times per second at random moments; ``{"finish": true}`` stops that
and returns the latencies (s) and errors of each.
"""

from __future__ import annotations

import collections
import concurrent.futures
import json
import logging
import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from consoled.context import RequestContext
from consoled.rpc.client import ConsoleAuthAPI
from tests.bench import bus
from tests.bench.hosts import population

_TOKENS = 1000  # how many of the newest tokens are validated
_THREADS = 64


class CallStream:
    """Calls one operation at a fixed rate, however long the calls take (an open-loop load).

    A latency is measured from the moment the call was due, and so includes waiting for earlier calls.
    """

    def __init__(self, operation: Callable[[], object], rate: float) -> None:
        self._operation = operation
        self._rate = rate
        self._latencies: list[float] = []
        self._errors: collections.Counter[str] = collections.Counter()
        self._stopped = threading.Event()
        self._pool = concurrent.futures.ThreadPoolExecutor(_THREADS)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        due = time.perf_counter()
        while True:
            due += random.expovariate(self._rate)
            if self._stopped.wait(max(0.0, due - time.perf_counter())):
                return
            self._pool.submit(self._call, due)

    def _call(self, due: float) -> None:
        try:
            self._operation()
        except Exception as exc:
            self._errors[getattr(exc, 'code', type(exc).__name__)] += 1
        self._latencies.append(time.perf_counter() - due)

    def finish(self) -> dict[str, Any]:
        self._stopped.set()
        self._thread.join()
        self._pool.shutdown()
        return {'latencies': sorted(self._latencies), 'errors': self._errors}


class Users:
    """Users of the stationary guests."""

    def __init__(self, transport_url: str, hosts: int, guests: int) -> None:
        self._api = ConsoleAuthAPI(bus.new_transport(transport_url))
        self._hosts = hosts
        self._slots = [slot for slot in range(guests) if population.is_stationary(slot, guests)]
        self._tokens: collections.deque[str] = collections.deque(maxlen=_TOKENS)

    def authorize(self) -> None:
        wanted = population.grant(random.randrange(self._hosts), random.choice(self._slots))
        token = self._api.authorize(RequestContext(), wanted).token
        assert token is not None
        self._tokens.append(token)

    def validate(self) -> None:
        self._api.validate(RequestContext(), random.choice(self._tokens))

    def start(self, rate: float) -> dict[str, CallStream]:
        if not self._tokens:
            self.authorize()
        return {name: CallStream(getattr(self, name), rate) for name in ('authorize', 'validate')}


def main() -> None:
    """Execute commands until standard input is closed."""
    logging.getLogger().addHandler(logging.NullHandler())  # failures are counted instead
    users = Users(**json.loads(sys.argv[1]))
    running: dict[str, CallStream] = {}
    print('ready', flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        answer: dict[str, Any] = {}
        if 'start' in command:
            running = users.start(command['start'])
        else:
            answer = {name: stream.finish() for name, stream in running.items()}
        print(json.dumps(answer), flush=True)


if __name__ == '__main__':
    main()
