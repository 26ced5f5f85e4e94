# SPDX-License-Identifier: Apache-2.0
"""Alembic environment: runs the migrations on the connection that ``consoled.db.migration`` passes in."""

from alembic import context
from consoled.db import models

connection = context.config.attributes['connection']
context.configure(
    connection=connection,
    target_metadata=models.metadata,
    version_table=context.config.attributes['version_table'],
    transaction_per_migration=True,
    render_as_batch=connection.dialect.name == 'sqlite',
)
with context.begin_transaction():
    context.run_migrations()
