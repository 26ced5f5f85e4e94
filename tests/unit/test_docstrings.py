# SPDX-License-Identifier: Apache-2.0
"""The examples in docstrings run as they stand."""

import pathlib
import tomllib
import unittest

import testtools

import consoled
from consoled.compute.drivers import loading
from tests import examples

PACKAGE = pathlib.Path(consoled.__file__).parent


def blocks():
    """Yield (module, name of what is documented, block) for each example."""
    for path in sorted(PACKAGE.rglob('*.py')):
        for name, block in examples.in_docstrings(path):
            yield str(path.relative_to(PACKAGE)), name, block


def run_test_cases(namespace):
    """Run the test cases that an example defines, and return their result."""
    suite = unittest.TestSuite(
        unittest.defaultTestLoader.loadTestsFromTestCase(each)
        for each in namespace.values()
        if isinstance(each, type) and issubclass(each, unittest.TestCase)
    )
    result = unittest.TestResult()
    suite.run(result)
    return result


class ExamplesTest(testtools.TestCase):
    def test_python(self):
        ran = []
        for module, name, block in blocks():
            if block.startswith(('import ', 'from ')):
                namespace = {'__name__': __name__}
                exec(compile(block, module, 'exec'), namespace)
                result = run_test_cases(namespace)
                self.assertEqual(([], []), (result.errors, result.failures), f'{module}: {name}')
                self.assertGreater(result.testsRun, 0, f'{module}: {name}')
                ran.append(name)
        self.assertEqual(['driver_contract', 'Conf'], ran)

    def test_the_entry_point_of_a_driver(self):
        (block,) = (block for module, _, block in blocks() if module == 'compute/drivers/base.py')
        points = tomllib.loads(block)['project']['entry-points']
        self.assertEqual({loading.NAMESPACE: {'mine': 'my_package.driver:from_conf'}}, points)

    def test_there_are_no_others(self):
        """Whoever adds an example makes one of these tests run it."""
        others = [
            (module, name)
            for module, name, block in blocks()
            if not block.startswith(('import ', 'from ')) and module != 'compute/drivers/base.py'
        ]
        self.assertEqual([], others)
