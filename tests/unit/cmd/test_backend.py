# SPDX-License-Identifier: Apache-2.0
"""Selection of the concurrency backend: what is refused."""

import contextlib
import importlib
import io
import sys
from unittest import mock

import fixtures
import testtools
from oslo_service import backend

from consoled.cmd import _backend


class SelectTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        modules = mock.patch.dict(sys.modules)  # other tests may import eventlet
        modules.start()
        self.addCleanup(modules.stop)
        self.init = self.useFixture(fixtures.MockPatchObject(backend, 'init_backend')).mock

    def select(self, value, only=None):
        self.useFixture(fixtures.EnvironmentVariable(_backend.VARIABLE, value))
        return _backend.select(only)

    def refused(self, value):
        """Return the line with which the value is refused, as wrong configuration."""
        with contextlib.redirect_stderr(io.StringIO()) as stderr:
            error = self.assertRaises(SystemExit, self.select, value)
        self.assertEqual((2, 1), (error.code, stderr.getvalue().count('\n')))
        return stderr.getvalue()

    def test_threading_is_the_default(self):
        self.assertEqual('threading', self.select(None))
        self.init.assert_called_once_with(backend.BackendType.THREADING)

    def test_threading_does_not_load_eventlet(self):
        for name in [name for name in sys.modules if name.partition('.')[0] == 'eventlet']:
            del sys.modules[name]
        self.select('threading')
        self.assertRaises(ImportError, importlib.import_module, 'eventlet.patcher')

    def test_a_program_may_support_one_only(self):
        for value in ('eventlet', 'nonsense'):
            self.assertEqual('threading', self.select(value, only='threading'))

    def test_an_unknown_name_is_refused(self):
        self.assertIn('must be threading or eventlet', self.refused('nonsense'))
        self.init.assert_not_called()

    def test_eventlet_must_be_installed(self):
        with mock.patch.dict(sys.modules, {'eventlet': None}):
            self.assertIn('pip install consoled[eventlet]', self.refused('eventlet'))
        self.init.assert_not_called()
