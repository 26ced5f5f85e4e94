# SPDX-License-Identifier: Apache-2.0
"""Base of the tests of ``consoled-manage``, on an SQLite file."""

import fixtures

from tests.unit.cli.base import CliCase


class ManageCase(CliCase):
    def setUp(self):
        super().setUp()
        directory = self.useFixture(fixtures.TempDir()).path
        self.conf = self.config(f'[database]\nconnection = sqlite:///{directory}/cell.db\n')

    def run_manage(self, *argv, **kwargs):
        return self.manage('--config-file', self.conf, *argv, **kwargs)
