# SPDX-License-Identifier: Apache-2.0
"""Where the library of the extra ``testing`` is missing, the error names the extra."""

import pathlib
import subprocess
import sys

import testtools

import consoled

PACKAGE = pathlib.Path(consoled.__file__).parent
# prints the error of each import, or an empty line
WITHOUT_FIXTURES = """
import importlib, sys
sys.modules['fixtures'] = None
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
        print()
    except ImportError as exc:
        print(exc)
"""
NEED_IT = (
    'consoled.testing.fixtures',
    'consoled.testing.driver_contract',
    'consoled.testing.daemons',
    'consoled.testing.services',
    'consoled.testing.guests.fixture',
)
NEED_NOTHING = ('consoled.demo.cell', 'consoled.testing.sources')


class ExtraTest(testtools.TestCase):
    def test_the_error_names_the_extra(self):
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', WITHOUT_FIXTURES, *NEED_IT, *NEED_NOTHING],
            cwd=PACKAGE.parent,
            capture_output=True,
            text=True,
        )
        self.assertEqual('', done.stderr)
        error = 'consoled.testing needs fixtures: pip install consoled[testing]'
        self.assertEqual(
            [error] * len(NEED_IT) + [''] * len(NEED_NOTHING),
            done.stdout.splitlines(),
        )

    def test_no_other_module_imports_them(self):
        wrong = [
            path.name
            for path in PACKAGE.rglob('*.py')
            for line in path.read_text().splitlines()
            if line.strip().startswith(('import fixtures', 'import psutil')) and path.name != 'libraries.py'
        ]
        self.assertEqual([], wrong)
