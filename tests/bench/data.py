# SPDX-License-Identifier: Apache-2.0
"""Generated instances, consoles and tokens, in any number, inserted by SQL.

Each row is a function of its number, so that the callers know tokens, instances and consoles without reading
the database. Hashes and UUIDs are evenly distributed, like real ones.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable

import sqlalchemy as sa

from consoled import objects

TOKENS_PER_INSTANCE = 10
INSTANCES_PER_HOST = 50
ACCESS_URL_BASE = 'https://console.example.org/vnc_lite.html?path=websockify'

_CHUNK = 20000  # rows of one INSERT, which then takes much less than the read timeout in the URL

_HASH = "MD5(CONCAT('instance-', {n}))"
_UUID = (
    f'CONCAT(SUBSTR({_HASH},1,8),"-",SUBSTR({_HASH},9,4),"-",SUBSTR({_HASH},13,4),"-",'
    f'SUBSTR({_HASH},17,4),"-",SUBSTR({_HASH},21))'
)
_NODE = f'({{n}} DIV {INSTANCES_PER_HOST})'
_HOST = f"CONCAT('10.', {_NODE} DIV 65536, '.', {_NODE} DIV 256 MOD 256, '.', {_NODE} MOD 256)"
_PORT = f'(5900 + {{n}} MOD {INSTANCES_PER_HOST})'
_COMPUTE = f"CONCAT('compute-', LPAD({_NODE}, 6, '0'), '.example.org')"

_INSTANCES = f"""
    INSERT INTO instances (uuid, compute_host, defined, created_at)
    SELECT {_UUID}, {_COMPUTE}, 0, UTC_TIMESTAMP(6) FROM seq_{{first}}_to_{{last}}
"""
_CONSOLES = f"""
    INSERT INTO console_connection
        (instance_uuid, host, port, console_type, access_url_base, options, created_at, updated_at)
    SELECT {_UUID}, {_HOST}, {_PORT}, 'novnc', '{ACCESS_URL_BASE}', '{{{{}}}}',
        UTC_TIMESTAMP(6), UTC_TIMESTAMP(6)
    FROM seq_{{first}}_to_{{last}}
"""
_TOKENS = f"""
    INSERT INTO console_auth_token
        (token_hash, instance_uuid, host, port, compute_host, user_id, project_id, request_id,
        expires, created_at)
    SELECT SHA2(CONCAT('bench-token-', LPAD(seq, 31, '0')), 256), {_UUID}, {_HOST}, {_PORT}, {_COMPUTE},
        CONCAT('user-', seq MOD 5000), CONCAT('project-', {{n}} MOD 500), CONCAT('req-', UUID()),
        TIMESTAMPADD(SECOND, 21600 + seq MOD 64800, UTC_TIMESTAMP(6)), UTC_TIMESTAMP(6)
    FROM seq_{{first}}_to_{{last}}
"""  # noqa: S608 - no value from outside


def instance_count(rows: int) -> int:
    """Return how many instances, with one console each, share ``rows`` tokens."""
    return max(1, rows // TOKENS_PER_INSTANCE)


def token(number: int) -> str:
    """Return the clear token of a row, as long as a real one."""
    return f'bench-token-{number:031d}'


def grant(number: int) -> objects.ConsoleAuthToken:
    """Return the argument of ``authorize`` for the console of instance ``number``."""
    node = number // INSTANCES_PER_HOST
    digest = hashlib.md5(f'instance-{number}'.encode(), usedforsecurity=False).hexdigest()
    return objects.ConsoleAuthToken(
        instance_uuid=str(uuid.UUID(digest)),
        console_type='novnc',
        host=f'10.{node // 65536}.{node // 256 % 256}.{node % 256}',
        port=5900 + number % INSTANCES_PER_HOST,
        compute_host=f'compute-{node:06d}.example.org',
        access_url_base=ACCESS_URL_BASE,
        options={},
        user_id=f'user-{number % 5000}',
        project_id=f'project-{number % 500}',
    )


def load(database_url: str, rows: int, progress: Callable[[int], None]) -> float:
    """Fill an empty cell database with ``rows`` tokens, and update its statistics.

    :param progress: called with the number of tokens so far
    :returns: the seconds it took
    """
    started = time.monotonic()
    engine = sa.create_engine(database_url, isolation_level='AUTOCOMMIT')
    with engine.connect() as conn:
        instances = instance_count(rows)
        for statement in (_INSTANCES, _CONSOLES):
            for first, last in _chunks(0, instances - 1):
                conn.exec_driver_sql(statement.format(first=first, last=last, n='seq'))
        for first, last in _chunks(1, rows):
            instance_number = f'(seq MOD {instances})'
            conn.exec_driver_sql(_TOKENS.format(first=first, last=last, n=instance_number))
            progress(last)
        conn.exec_driver_sql('ANALYZE TABLE instances, console_connection, console_auth_token')
    engine.dispose()
    return time.monotonic() - started


def _chunks(first: int, last: int) -> list[tuple[int, int]]:
    return [(start, min(start + _CHUNK - 1, last)) for start in range(first, last + 1, _CHUNK)]
