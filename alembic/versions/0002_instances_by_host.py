# SPDX-License-Identifier: Apache-2.0
"""Add an index for looking up the instances of a compute host.

Revision: 0002
Revises: 0001
"""

import sqlalchemy as sa

from alembic import op

revision = '0002'
down_revision = '0001'


def upgrade() -> None:
    # MySQL has no IF NOT EXISTS for an index.
    indexes = sa.inspect(op.get_bind()).get_indexes('instances')
    if not any(index['name'] == 'ix_instances_host' for index in indexes):
        op.create_index('ix_instances_host', 'instances', ['compute_host'])
