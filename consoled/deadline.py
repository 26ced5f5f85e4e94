# SPDX-License-Identifier: Apache-2.0
"""Calls that may hang, made in a thread and given a deadline."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent import futures
from typing import TypeVar

T = TypeVar('T')


class DeadlineExceeded(TimeoutError):
    """The call did not return in time."""


class NoThread(RuntimeError):
    """The call was not made: the system could not start a thread."""


def call(function: Callable[[], T], timeout: float, *, thread_name: str = 'deadline') -> T:
    """Call a function in a thread; return what it returns, or raise what it raises.

    A hanging thread cannot be ended. It keeps running, but does not keep the process from exiting.

    :param timeout: seconds to wait
    :param thread_name: name of the thread, for debuggers
    :raises DeadlineExceeded: the function did not return in time
    :raises NoThread: the function was not called
    """
    outcome: futures.Future[T] = futures.Future()

    def run() -> None:
        try:
            outcome.set_result(function())
        except BaseException as exc:
            outcome.set_exception(exc)

    try:
        threading.Thread(target=run, name=thread_name, daemon=True).start()
    except RuntimeError as exc:
        raise NoThread(str(exc)) from exc
    done, _ = futures.wait([outcome], max(0.0, timeout))
    if not done:
        raise DeadlineExceeded
    return outcome.result()
