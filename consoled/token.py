# SPDX-License-Identifier: Apache-2.0
"""Generating, recognizing and hashing of console auth tokens. Pure functions.

The clear token is in the user's hands, in the reply of ``authorize``, and in the arguments of ``validate``
and ``open_session``; the database has its SHA-256 only (doc/design.md, invariant 1). A fast hash without a
salt is enough for a random value of 256 bits: nobody can guess it.
"""

from __future__ import annotations

import hashlib
import re
import secrets

TOKEN_BYTES = 32  # 256 bits from the system's random source, 43 characters of base64url

# Our own tokens are base64url; those of other sources are UUIDs.
_SHAPE = re.compile(r'[A-Za-z0-9_-]{16,128}')


def mint() -> str:
    """Return a new clear token: 43 characters of ``[A-Za-z0-9_-]``, safe in any part of a URL."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def well_formed(token: object) -> bool:
    """Return whether a value from a peer can be a token: a string of 16 to 128 URL-safe characters."""
    return isinstance(token, str) and _SHAPE.fullmatch(token) is not None


def hashed(token: str) -> str:
    """Return the SHA-256 of a clear token: 64 lower-case hexadecimal digits."""
    return hashlib.sha256(token.encode('ascii')).hexdigest()
