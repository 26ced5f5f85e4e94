# SPDX-License-Identifier: Apache-2.0
"""Base of tests with a nova.conf, and a consoled.conf that names it."""

import pathlib

import fixtures
import testtools
from oslo_config import cfg

from consoled.conf import files

DATABASE = '[database]\nconnection = mysql+pymysql://consoled:own@db.example.org/consoled\n'


class NovaConfCase(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.nova = self.directory / 'nova.conf'
        self.path = self.directory / 'consoled.conf'
        self.log = self.useFixture(fixtures.FakeLogger())

    def load(self, nova, own='', prog='consoled', check=True):
        """Return the options of consoled, with these in Nova's file and in its own, which names Nova's."""
        self.nova.write_text(nova)
        self.path.write_text(f'{DATABASE}[nova]\nconfig_file = {self.nova}\n{own}')
        conf = cfg.ConfigOpts()
        files.load(conf, ['--config-file', str(self.path)], prog=prog)
        if check:
            files.check(conf)
        return conf

    def value(self, conf, name):
        """Return the value of an option that is named as in ``proxy.port``."""
        group, _, option = name.rpartition('.')
        return conf[group][option] if group else conf[option]
