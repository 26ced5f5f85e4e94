# SPDX-License-Identifier: Apache-2.0
"""Jittered pauses: processes that started or failed together must not stay in step."""

from __future__ import annotations

import random

_SPREAD = 0.1  # share of an interval, in either direction
_MAX_DOUBLINGS = 10


def jittered(interval: float) -> float:
    """Return the interval of a periodic task, up to 10 % longer or shorter, in the same unit."""
    return interval * random.uniform(1 - _SPREAD, 1 + _SPREAD)


def anywhere(interval: float) -> float:
    """Return a random part of an interval, for a first run or for peers that collided ("full jitter")."""
    return interval * random.uniform(0, 1)


def doubled(failures: int, first: float, longest: float) -> float:
    """Return the pause after a number of failures in a row, without jitter: it doubles with each failure.

    :param failures: 1 or more
    :param first: the pause after one failure
    :param longest: the longest pause, in the same unit
    """
    pause: float = min(first * 2 ** min(failures - 1, _MAX_DOUBLINGS), longest)
    return pause


def after(failures: int, first: float, longest: float) -> float:
    """Return the pause of ``doubled``, shortened by up to a half."""
    return doubled(failures, first, longest) * random.uniform(0.5, 1)
