# SPDX-License-Identifier: Apache-2.0
"""Percentiles, and verdicts about the bars."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def percentile(ordered: Sequence[float], percent: int) -> float:
    """Return a percentile of values in ascending order."""
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def verdict(
    bar: str, rounds: Sequence[float], limit: float, *, at_least: bool = False, width: int = 52
) -> str:
    """Return a line that says whether the median of all rounds meets a bar.

    :param bar: what the bar demands
    :param rounds: the value of each round; empty when it was not measured
    :param at_least: the limit is a minimum, not a maximum
    """
    if not rounds:
        return f'{bar:{width}} not measured'
    median = statistics.median(rounds)
    word = 'met' if (median >= limit if at_least else median <= limit) else 'NOT MET'
    return f'{bar:{width}} {median:6.2f} {word:7} (rounds {min(rounds):.2f} to {max(rounds):.2f})'
