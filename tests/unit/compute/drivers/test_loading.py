# SPDX-License-Identifier: Apache-2.0
"""Loading of drivers by their entry points."""

import builtins
from importlib import metadata
from unittest import mock

import testtools
from stevedore import extension

from consoled.compute.drivers import demo, loading
from consoled.testing import fixtures


def fail(conf):
    raise ValueError('needs a licence')


def make_something_else(conf):
    return object()


class LoadingTest(testtools.TestCase):
    def load(self, name):
        return loading.load(self.useFixture(fixtures.Conf(compute__driver=name)).conf)

    def with_entry_point(self, name, value):
        point = metadata.EntryPoint(name, value, loading.NAMESPACE)
        patch = mock.patch.object(extension.ExtensionManager, 'list_entry_points', return_value=[point])
        self.useFixture(_Patch(patch))

    def test_a_driver_of_this_package(self):
        self.assertIsInstance(self.load('demo'), demo.DemoDriver)

    def test_a_driver_of_another_package(self):
        self.with_entry_point('mine', 'consoled.compute.drivers.demo:from_conf')
        self.assertIsInstance(self.load('mine'), demo.DemoDriver)

    def test_an_error_says_what_is_wrong(self):
        self.assertIn("'nobodys' is not installed", str(self.assertRaises(ValueError, self.load, 'nobodys')))
        for value, message in (
            ('no_such_package:from_conf', "No module named 'no_such_package'"),
            ('consoled.compute.drivers.demo:nothing', 'nothing'),
            (f'{__name__}:fail', 'needs a licence'),
            (f'{__name__}:make_something_else', 'does not return a driver'),
        ):
            self.with_entry_point('mine', value)
            self.assertIn(message, str(self.assertRaises(ValueError, self.load, 'mine')))

    def test_libvirt_without_its_python_module(self):
        real = builtins.__import__

        def without(name, *args, **kwargs):
            if name == 'libvirt':
                raise ImportError(name)
            return real(name, *args, **kwargs)

        with mock.patch.object(builtins, '__import__', without):
            error = self.assertRaises(ValueError, self.load, 'libvirt')
        self.assertIn('consoled[libvirt]', str(error))


class _Patch(fixtures.fixtures.Fixture):
    def __init__(self, patch):
        super().__init__()
        self._patch = patch

    def _setUp(self):  # noqa: N802 - named by the library
        self._patch.start()
        self.addCleanup(self._patch.stop)
