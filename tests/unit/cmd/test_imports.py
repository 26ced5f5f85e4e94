# SPDX-License-Identifier: Apache-2.0
"""Imports of the programs, and their order, checked in separate processes."""

import subprocess
import sys

import testtools

TIMEOUT = 300  # seconds: only a failing test uses them up
# pure modules of a daemon that a tool may use
SHARED = {'consoled.proxy.close_codes'}

# prints the modules that are loaded once a program has shown its help
SHOW_HELP = """
import contextlib, io, sys
import consoled.cmd.{name} as program
with contextlib.redirect_stdout(io.StringIO()):
    program.main(['--help'])
print(*sys.modules)
"""
PROGRAMS = ('compute', 'consolectl', 'demo', 'manage', 'manager', 'nova', 'proxy', 'status')


def run(program):
    """Run a Python program, and return the words that it prints."""
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, timeout=TIMEOUT)
    if done.returncode or done.stderr:
        raise AssertionError(f'exit code {done.returncode}: {done.stderr}')
    return set(done.stdout.split())


class ImportsTest(testtools.TestCase):
    def test_nothing_reads_the_backend_before_it_is_selected(self):
        imports = '\n'.join(f'import consoled.cmd.{name}' for name in PROGRAMS)
        loaded = run(f'import sys\n{imports}\nprint(*sys.modules)')
        late = {
            'oslo_messaging',
            'oslo_service',
            'oslo_config',
            'oslo_db',
            'oslo_log',
            'sqlalchemy',
            'alembic',
        }
        self.assertEqual(set(), late & loaded)
        self.assertNotIn('prometheus_client', loaded)

    def test_tools_need_nothing_of_the_daemons(self):
        for name, allowed in (
            ('manage', {'cli', 'conf', 'db', 'manage', 'objects'}),
            ('status', {'cli', 'conf', 'db', 'objects', 'rpc', 'upgradecheck'}),
            ('consolectl', {'cli', 'conf', 'consolectl', 'objects', 'rpc'}),
        ):
            loaded = run(SHOW_HELP.format(name=name))
            packages = {
                module.split('.')[1]
                for module in loaded
                if module.startswith('consoled.') and module.count('.') > 1 and module not in SHARED
            }
            self.assertLessEqual(packages, {'cmd', *allowed}, name)
