# SPDX-License-Identifier: Apache-2.0
"""A thread that runs blocking calls for an event loop and can be left behind when one hangs."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar('Result')


class TaskThread:
    """A thread that runs one call after another; a call that hangs does not keep the process alive.

    The threads of asyncio's own executor are joined when the process exits.

    :ivar busy: whether a call is running
    """

    def __init__(self) -> None:
        self.busy = False
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()

    async def run(self, call: Callable[..., Result], *args: Any) -> Result:
        """Run ``call`` in the thread, and return what it returns or raise what it raises."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Result] = loop.create_future()

        def settle(result: Any, error: Exception | None) -> None:
            self.busy = False
            if done.cancelled():
                return
            if error is None:
                done.set_result(result)
            else:
                done.set_exception(error)

        def task() -> None:
            outcome: tuple[Any, Exception | None]
            try:
                outcome = call(*args), None
            except Exception as exc:
                outcome = None, exc
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, *outcome)

        self.busy = True
        self._tasks.put(task)
        return await done

    def stop(self, timeout: float) -> bool:
        """End the thread after the call that is running.

        :param timeout: seconds to wait for that
        :returns: whether the thread has ended
        """
        self._tasks.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()
