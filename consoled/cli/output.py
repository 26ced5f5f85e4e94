# SPDX-License-Identifier: Apache-2.0
"""Formats of values in the output of the operators' tools."""

from __future__ import annotations

import datetime


def iso(moment: datetime.datetime | None) -> str | None:
    """Format a moment as ISO 8601 in UTC, to the second: ``2026-01-02T03:04:05Z``."""
    if moment is None:
        return None
    return moment.astimezone(datetime.UTC).replace(tzinfo=None).isoformat(timespec='seconds') + 'Z'
