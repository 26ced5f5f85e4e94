# SPDX-License-Identifier: Apache-2.0
"""Base of the operators' tools that use the cell database directly."""

from __future__ import annotations

import functools

from oslo_config import cfg

from consoled.cli import app, errors
from consoled.conf import files
from consoled.db.engine import Database


class DatabaseApp(app.App):
    """Base of the programs that need the database."""

    @functools.cached_property
    def db(self) -> Database:
        """The database of ``[database] connection``.

        :raises Failed: the option is not set or cannot be used
        """
        try:
            db = Database.from_conf(self.conf)
        except cfg.RequiredOptError as exc:
            raise errors.Failed(
                errors.USAGE, 'configuration_error', '[database] connection is not set.', 'See --config-file.'
            ) from exc
        except ValueError as exc:
            message = f'{files.located(self.conf, str(exc))}.'
            raise errors.Failed(errors.USAGE, 'configuration_error', message) from None
        self.resources.callback(db.dispose)
        return db


class DatabaseCommand(app.Command):
    """Base of the commands that need the database."""

    app: DatabaseApp
