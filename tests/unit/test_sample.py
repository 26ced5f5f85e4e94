# SPDX-License-Identifier: Apache-2.0
"""The sample configuration, and what it says about each option."""

import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile

import testtools
from oslo_config import cfg, types
from oslo_db import options as oslo_db_options

from consoled import conf as consoled_conf
from consoled.conf import opts

ROOT = pathlib.Path(__file__).resolve().parents[2]
SAMPLE = ROOT / 'etc/consoled/consoled.conf.sample'

UNIT = re.compile(
    r'\b(seconds?|milliseconds|processes|sessions|connections|bytes|port|calls|websockets|attempts)\b'
)


def generated(home: str) -> str:
    """Return the sample as this checkout makes it now, in a process with a clean environment."""
    target = pathlib.Path(home) / 'sample'
    environment = {
        'PATH': os.environ['PATH'],
        'PYTHONPATH': str(ROOT),
        'HOME': home,
        'PYTHONWARNINGS': 'ignore',
    }
    subprocess.run(
        [sys.executable, str(ROOT / 'tools/make_sample.py'), str(target)],
        env=environment,
        cwd=home,
        check=True,
        timeout=60,
    )
    return target.read_text()


def parts_of_consoled(sample: str) -> dict[str, str]:
    """Return the text of consoled's own options in each group."""
    groups = re.split(r'^\[(\w+)\]$', sample, flags=re.MULTILINE)[1:]
    found = {}
    for group, body in zip(groups[::2], groups[1::2], strict=True):
        parts = re.split(r'^#\n# From (\S+)\n#$', body, flags=re.MULTILINE)[1:]
        of = dict(zip(parts[::2], parts[1::2], strict=True))
        if 'consoled' in of:
            found[group] = of['consoled'].strip()
    return found


class SampleTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.kept = SAMPLE.read_text()
        self.made = generated(directory.name)

    def test_is_up_to_date(self):
        self.assertEqual(
            parts_of_consoled(self.kept), parts_of_consoled(self.made), 'out of date: run "make sample"'
        )
        if self.kept.splitlines()[0] != self.made.splitlines()[0]:
            # other versions of the libraries may have other options
            return
        self.assertEqual(self.kept, self.made, 'out of date: run "make sample"')

    def test_it_shows_the_defaults_that_consoled_sets_for_the_libraries(self):
        lines = self.kept.splitlines()
        for line in ('#control_exchange = consoled', '#graceful_shutdown_timeout = 30'):
            self.assertIn(line, lines)

    def test_it_contains_nothing_specific_to_this_machine(self):
        values = [line.partition(' = ')[2] for line in self.made.splitlines() if re.match(r'#\w+ =', line)]
        self.assertNotIn(socket.gethostname(), values)
        self.assertNotIn(str(ROOT), self.made)


class OptionsTest(testtools.TestCase):
    def options(self):
        for group, options in opts.list_opts():
            for option in options:
                if option not in oslo_db_options.database_opts:
                    yield f'[{group or "DEFAULT"}] {option.name}', option

    def test_each_has_a_help_text(self):
        lacking = [name for name, option in self.options() if not (option.help or '').endswith(('.', ')'))]
        self.assertEqual([], lacking)

    def test_numbers_have_bounds_and_a_unit(self):
        unbounded, unitless = [], []
        for name, option in self.options():
            if not isinstance(option.type, types.Number):
                continue
            if option.type.min is None or option.type.max is None:
                unbounded.append(name)
            if not UNIT.search(option.help.lower()):
                unitless.append(name)
        self.assertEqual([], unbounded)
        self.assertEqual([], unitless)

    def test_defaults_are_valid(self):
        for _, option in self.options():
            if option.default is not None:
                self.assertIsNotNone(option.type(option.default), option.name)

    def test_each_is_registered(self):
        conf = cfg.ConfigOpts()
        consoled_conf.register_opts(conf)
        conf([], default_config_files=[], default_config_dirs=[])
        for group, options in opts.list_opts():
            for option in options:
                self.assertIn(option.dest, conf if group is None else conf[group])
