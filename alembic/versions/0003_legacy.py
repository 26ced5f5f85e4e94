# SPDX-License-Identifier: Apache-2.0
"""Add the tables of the fallback to the old consoleauth service, and the sources of tokens.

Revision: 0003
Revises: 0002
"""

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from alembic import op

revision = '0003'
down_revision = '0002'

MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), 'mysql', 'mariadb')
TABLE = {
    'mysql_engine': 'InnoDB',
    'mysql_charset': 'utf8mb4',
    'mysql_collate': 'utf8mb4_bin',
    'mariadb_engine': 'InnoDB',
    'mariadb_charset': 'utf8mb4',
    'mariadb_collate': 'utf8mb4_bin',
    # MariaDB and MySQL commit each CREATE, so an interrupted upgrade must be repeatable.
    'if_not_exists': True,
}


def upgrade() -> None:
    op.create_table(
        'legacy_use',
        sa.Column('source', sa.String(32), primary_key=True),
        sa.Column('uses', sa.BigInteger, nullable=False),
        sa.Column('last_used_at', MOMENT, nullable=False),
        **TABLE,
    )
    op.create_table(
        'legacy_void',
        sa.Column('subject', sa.CHAR(64), primary_key=True),
        sa.Column('since', MOMENT, nullable=False),
        **TABLE,
    )
    # Not every database has IF NOT EXISTS for an index or a column.
    inspector = sa.inspect(op.get_bind())
    if not any(index['name'] == 'ix_legacy_void_since' for index in inspector.get_indexes('legacy_void')):
        op.create_index('ix_legacy_void_since', 'legacy_void', ['since'])
    columns = inspector.get_columns('console_auth_token')
    if not any(column['name'] == 'source' for column in columns):
        op.add_column('console_auth_token', sa.Column('source', sa.String(32)))
