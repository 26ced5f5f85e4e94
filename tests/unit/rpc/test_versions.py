# SPDX-License-Identifier: Apache-2.0
"""Versions of the RPC contract and their objects."""

import testtools

from consoled import objects
from consoled.rpc import versions


class VersionsTest(testtools.TestCase):
    def test_the_newest_version_has_its_objects(self):
        self.assertEqual((versions.RPC_VERSION, versions.OBJECTS_OF_VERSION['1.0']), versions.pinned(None))

    def test_an_unknown_pin_is_refused(self):
        error = self.assertRaises(ValueError, versions.pinned, '9.9')
        self.assertIn('1.0', str(error))

    def test_each_version_names_all_objects_of_the_contract(self):
        known = set(objects.base.ConsoledObjectRegistry.obj_classes())
        self.assertEqual(known, set(versions.OBJECTS_OF_VERSION[versions.RPC_VERSION]))
