# SPDX-License-Identifier: Apache-2.0
"""Tests. The libraries choose their concurrency at import, so it is set before any test is loaded."""

from consoled.cmd import _backend

_backend.select()
