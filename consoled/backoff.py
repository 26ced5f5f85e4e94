# SPDX-License-Identifier: Apache-2.0
"""Pauses with jitter, so that processes that started or failed together do not go on together. Pure."""

from __future__ import annotations

import random

_SPREAD = 0.1  # of an interval, to either side
_MAX_DOUBLINGS = 10


def jittered(interval: float) -> float:
    """An interval of a periodic task, 10 % longer or shorter, in the same unit."""
    return interval * random.uniform(1 - _SPREAD, 1 + _SPREAD)


def anywhere(interval: float) -> float:
    """Any moment of an interval: for a first run, or for peers that collided ("full jitter")."""
    return interval * random.uniform(0, 1)


def after(failures: int, first: float, longest: float) -> float:
    """The pause after so many failures in a row: doubled each time, then shortened by up to a half.

    :param failures: 1 or more
    :param first: the pause after one failure, before jitter
    :param longest: the longest pause
    """
    pause: float = min(first * 2 ** min(failures - 1, _MAX_DOUBLINGS), longest)
    return pause * random.uniform(0.5, 1)
