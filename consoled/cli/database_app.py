# SPDX-License-Identifier: Apache-2.0
"""What the operators' tools share that look into the cell's database. Imported as early as ``_cli``."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from consoled.cli import app, errors

if TYPE_CHECKING:
    from consoled.db.session import Database


class App(app.App):
    """Base of the programs that need the database."""

    @functools.cached_property
    def db(self) -> Database:
        """The database of the configuration."""
        from oslo_config import cfg

        from consoled.manager import service

        try:
            db = service.database(self.conf)
        except cfg.RequiredOptError as exc:
            raise errors.Failed(
                errors.USAGE, 'configuration_error', '[database] connection is not set.', 'See --config-file.'
            ) from exc
        except (ValueError, ImportError) as exc:
            raise errors.misconfigured('[database] connection', exc) from exc
        self.resources.callback(db.dispose)
        return db
