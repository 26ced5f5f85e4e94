# SPDX-License-Identifier: Apache-2.0
"""The demo's output, and the port that it chooses."""

import argparse
import contextlib
import io
import os
import pathlib
import socket
from unittest import mock

import testtools

from consoled.demo import links, main, walk


class Terminal(io.StringIO):
    def isatty(self):
        return True


class PrinterTest(testtools.TestCase):
    step = walk.Step('title', 'why', None, {})
    good = walk.Result(walk.Outcome('asked', 'answered', {}), None)
    bad = walk.Result(None, 'problem')

    def printed(self, *calls, out=None, brief=False, **env):
        out = out or io.StringIO()
        with mock.patch.dict(os.environ, env):
            printer = main.Printer(out, brief=brief)
            for name, *args in calls:
                getattr(printer, name)(*args)
        return out.getvalue()

    def test_colours_are_for_terminals_without_no_color(self):
        welcome = ('welcome', pathlib.Path('/somewhere'))
        self.assertIn('\033[', self.printed(welcome, out=Terminal(), NO_COLOR=''))
        self.assertNotIn('\033[', self.printed(welcome, out=Terminal(), NO_COLOR='1'))
        self.assertNotIn('\033[', self.printed(welcome, NO_COLOR=''))

    def test_brief_output_has_one_line_per_step(self):
        steps = (('welcome', 'unused'), ('step', 1, self.step, self.good), ('step', 2, self.step, self.bad))
        self.assertEqual(
            'ok 1. title\nFAILED 2. title\n   FAILED: problem\n', self.printed(*steps, brief=True)
        )

    def test_a_step_is_explained(self):
        self.assertEqual(
            '\n1. title\n   -> asked\n   <- answered\n   why\n',
            self.printed(('step', 1, self.step, self.good)),
        )
        self.assertIn('   FAILED: problem\n', self.printed(('step', 1, self.step, self.bad)))

    def test_the_invitation_lists_links_and_what_is_missing(self):
        found = links.Links({'screen': 'http://here/'}, ['No pages.'])
        out = io.StringIO()
        main.Printer(out, brief=False).invitation(found, keeps=True)
        self.assertRegex(out.getvalue(), r'\n   screen +http://here/\n')
        self.assertIn('No pages.', out.getvalue())
        self.assertIn('keeps the database', out.getvalue())


class StartTest(testtools.TestCase):
    """What is wrong is one line."""

    def run_demo(self, *argv):
        with contextlib.redirect_stderr(io.StringIO()) as stderr:
            try:
                code = main.main(['--check', *argv])
            except SystemExit as exc:
                code = exc.code
        return code, stderr.getvalue()

    def test_arguments(self):
        for argv in (['--port', '65536'], ['--port', '-1'], ['--port', 'x'], ['--nosuch'], ['x']):
            code, err = self.run_demo(*argv)
            self.assertEqual(2, code)
            self.assertRegex(err, r'\Aconsoled-demo: usage_error: .+\n\Z')

    def test_a_directory_that_cannot_be_used(self):
        code, err = self.run_demo('--state-dir', '/dev/null')
        self.assertEqual((3, 'consoled-demo: unavailable: /dev/null: File exists.\n'), (code, err))


class PortTest(testtools.TestCase):
    def port(self, *argv):
        return main._port(main._parser().parse_args(argv))

    def test_a_given_port_is_used(self):
        self.assertEqual(7000, self.port('--port', '7000'))
        self.assertEqual(7000, self.port('--check', '--port', '7000'))

    def test_a_check_uses_any_free_port(self):
        self.assertEqual(0, self.port('--check'))

    def test_the_default_port_is_used_if_it_is_free(self):
        with socket.socket() as taken:
            taken.bind(('127.0.0.1', 0))
            with mock.patch.object(main, '_PORT', taken.getsockname()[1]):
                taken.listen()
                self.assertEqual(0, self.port())
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            free = probe.getsockname()[1]
        with mock.patch.object(main, '_PORT', free):
            self.assertEqual(free, self.port())

    def test_arguments(self):
        self.assertEqual(
            argparse.Namespace(check=False, port=None, state_dir=None), main._parser().parse_args([])
        )
