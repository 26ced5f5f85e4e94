# SPDX-License-Identifier: Apache-2.0
"""Shared by the benchmarks' command lines: arguments, progress on standard error, sections of the report."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence

EPILOG = 'The exit status is 0 whether or not the bars are met.'


def names_among(choices: Sequence[str]) -> Callable[[str], list[str]]:
    """Return an argument type for comma-separated names out of ``choices``."""

    def parse(text: str) -> list[str]:
        names = text.split(',')
        if unknown := set(names) - set(choices):
            raise argparse.ArgumentTypeError(
                f'{", ".join(sorted(unknown))}: choose from {", ".join(choices)}'
            )
        return names

    return parse


def log_progress(text: str) -> None:
    """Print a line with the time to standard error."""
    print(f'{time.strftime("%H:%M:%S")} {text}', file=sys.stderr, flush=True)


def print_section(lines: Iterable[str], title: str | None = None) -> None:
    """Print a section of the report, after an empty line and its title if it has one."""
    print('\n'.join(lines if title is None else ['', title, *lines]), flush=True)


def disturbance(shares: Sequence[float]) -> list[str]:
    """Return the lines about the share of the machine that other processes used in each run."""
    if not shares:
        return []
    median, worst = statistics.median(shares), max(shares)
    used = f'median {median:.0%}, worst run {worst:.0%}'
    return ['', f'Share of the machine used by other processes during the runs: {used}.']
