# SPDX-License-Identifier: Apache-2.0
"""Add an index for looking up the consoles at an address.

Revision: 0005
Revises: 0004
"""

import sqlalchemy as sa

from alembic import op

revision = '0005'
down_revision = '0004'


def upgrade() -> None:
    # MySQL has no IF NOT EXISTS for an index.
    indexes = sa.inspect(op.get_bind()).get_indexes('console_connection')
    if not any(index['name'] == 'ix_console_connection_address' for index in indexes):
        op.create_index('ix_console_connection_address', 'console_connection', ['host', 'port'])
