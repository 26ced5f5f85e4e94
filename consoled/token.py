# SPDX-License-Identifier: Apache-2.0
"""Console auth tokens: mint, hash, recognise. Pure functions.

A clear token lives in the user's hands, in the authorize reply, and in the arguments of ``validate`` and
``open_session``; the database has the SHA-256 only (DESIGN invariant 1). An unsalted, fast hash is right for
a random value of 256 bits: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import re
import secrets

TOKEN_BYTES = 32  # 256 bits from the system's random source, 43 characters of base64url

# Tokens of ours are base64url; those of other sources (issued before a move) are UUIDs.
_SHAPE = re.compile(r'[A-Za-z0-9_-]{16,128}')


def mint() -> str:
    """Return a new clear token: 43 characters of ``[A-Za-z0-9_-]``, safe in any part of a URL."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def well_formed(token: object) -> bool:
    """Tell whether a peer's value can be a token at all: a string of 16 to 128 URL-safe characters."""
    return isinstance(token, str) and _SHAPE.fullmatch(token) is not None


def hashed(token: str) -> str:
    """Return the SHA-256 of a clear token: 64 lower-case hexadecimal digits."""
    return hashlib.sha256(token.encode('ascii')).hexdigest()
