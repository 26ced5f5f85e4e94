# SPDX-License-Identifier: Apache-2.0
"""Add an index for looking up the instances of a compute host.

Revision: 0002
Revises: 0001
"""

from alembic import op

revision = '0002'
down_revision = '0001'


def upgrade() -> None:
    # MySQL has no IF NOT EXISTS for an index.
    dialect = op.get_bind().dialect
    again = dialect.name != 'mysql' or dialect.is_mariadb
    op.create_index('ix_instances_host', 'instances', ['compute_host'], if_not_exists=again or None)
