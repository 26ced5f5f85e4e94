# SPDX-License-Identifier: Apache-2.0
"""Where a library of the extra ``testing`` is missing, the error names the extra."""

import pathlib
import subprocess
import sys

import testtools

import consoled

WITHOUT = 'import sys; sys.modules["{library}"] = None; import {module}'
PACKAGE = pathlib.Path(consoled.__file__).parent


def importing(module, library):
    """Import a module where a library is missing; return the exit code and the last line on stderr."""
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', WITHOUT.format(library=library, module=module)],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stderr.strip().rpartition('\n')[2]


class ExtraTest(testtools.TestCase):
    def test_the_error_names_the_extra(self):
        for module, library in (
            ('consoled.testing.fixtures', 'fixtures'),
            ('consoled.testing.driver_contract', 'fixtures'),
            ('consoled.testing.daemons', 'fixtures'),
            ('consoled.testing.services', 'psutil'),
            ('consoled.testing.guests.fixture', 'fixtures'),
        ):
            code, error = importing(module, library)
            self.assertEqual(1, code, module)
            self.assertEqual(
                f'ImportError: consoled.testing needs {library}: pip install consoled[testing]', error, module
            )

    def test_the_guests_of_the_demo_need_none_of_them(self):
        self.assertEqual((0, ''), importing('consoled.demo.cell', 'fixtures'))

    def test_no_other_module_imports_them(self):
        wrong = [
            path.name
            for path in PACKAGE.rglob('*.py')
            for line in path.read_text().splitlines()
            if line.strip().startswith(('import fixtures', 'import psutil')) and path.name != 'libraries.py'
        ]
        self.assertEqual([], wrong)
