# SPDX-License-Identifier: Apache-2.0
"""Errors, help and configuration of the operators' tools, without a network."""

import io
import json
import logging
import subprocess
import sys
from unittest import mock

import testtools

from consoled import exception
from consoled.cli import app as cli_app
from consoled.consolectl.main import Consolectl
from consoled.manage.main import Manage
from consoled.rpc.replies import Revocation
from consoled.upgradecheck.main import Status
from tests.unit.cli.base import INSTANCE, TOKEN, CliCase, StubAPI

COMMANDS = {app: sorted(app.COMMANDS) for app in (Consolectl, Manage, Status)}


class ErrorsTest(CliCase):
    def test_each_domain_error_has_its_exit_code_and_one_line(self):
        for error, code in (
            (exception.InvalidToken(), 1),
            (exception.InstanceNotFound(instance_uuid=INSTANCE), 1),
            (exception.InvalidArgument(argument='x', reason='y'), 1),
            (exception.ManagerUnreachable(reason='no answer in time'), 3),
            (exception.ManagerBusy(), 3),
            (exception.DatabaseUnavailable(), 3),
            (exception.InternalError(), 4),
        ):
            got, out, err = self.ctl('session', 'list', api=StubAPI(error=error))
            self.assertEqual((code, ''), (got, out), error.code)
            self.assertTrue(err.startswith(f'consolectl: {error.code}: {error}'), err)
            self.assertEqual(1, err.count('\n'), err)

    def test_an_unreachable_manager_is_reported_with_a_hint(self):
        error = exception.ManagerUnreachable(reason='no answer in time')
        _, _, err = self.ctl('session', 'list', api=StubAPI(error=error))
        self.assertIn('transport_url', err)
        self.assertIn('that consoled runs', err)

    def test_a_broker_that_refuses_the_user_is_said_to(self):
        for reason in ('AccessRefused', 'NotAllowed'):
            config = self.config('[DEFAULT]\ntransport_url = rabbit://u:canary@h/\n')
            api = StubAPI(error=exception.ManagerUnreachable(reason=reason))
            code, _, err = self.ctl('--config-file', config, 'session', 'list', api=api)
            self.assertEqual(3, code)
            self.assertIn('The message broker refuses the user, the password', err)
            self.assertIn(f'[DEFAULT] transport_url ({config})', err)
            self.assertNotIn('canary', err)

    def test_a_bug_is_an_internal_error_in_one_line(self):
        code, _, err = self.ctl('session', 'list', api=StubAPI(error=KeyError('oops\nmore')))
        self.assertEqual(4, code)
        self.assertEqual(1, err.count('\n'), err)
        self.assertTrue(err.startswith('consolectl: internal_error: KeyError: '), err)

    def test_debug_shows_the_traceback_before_the_line(self):
        api = StubAPI(error=exception.InvalidToken())
        _, _, err = self.ctl('--debug', 'session', 'list', api=api)
        self.assertIn('Traceback (most recent call last)', err)
        self.assertTrue(err.splitlines()[-1].startswith('consolectl: invalid_token: '), err)

    def test_wrong_usage_is_reported_in_one_line_and_calls_nobody(self):
        for argv in (
            (),
            ('nonsense',),
            ('nonsense', '--help'),
            ('session',),
            ('session', 'list', '--limit', '0'),
            ('session', 'list', '--limit', 'many'),
            ('session', 'list', '--project', ''),
            ('session', 'list', '-c', 'bogus'),
            ('session', 'list', '--lon'),
            ('session', 'cut', 'not-a-uuid'),
            ('session', 'cut', INSTANCE, '--reason', 'x' * 65),
            ('console', 'list-free-ports', INSTANCE, '--type', 'vga'),
            ('revoke',),
            ('--timeout', '0', 'session', 'list'),
            ('--log-file', '/nonexistent/log', 'session', 'list'),
        ):
            code, out, err = self.ctl(*argv)
            self.assertEqual((2, '', []), (code, out, self.api.calls), argv)
            self.assertRegex(err, r'\Aconsolectl[a-z -]*: usage_error: .+\n\Z')

    def test_wrong_configuration_is_reported_without_its_secrets(self):
        for text in (
            '[DEFAULT]\ntransport_url = bogus://u:hidden@h/\n[database]\nconnection = bogus://u:hidden@h/x',
            '[DEFAULT]\ntransport_url = u:hidden@h\n[database]\nconnection = u hidden',
            '[upgrade_levels]\nconsoled = 9.9',
            '[DEFAULT\n',
        ):
            for app in (Consolectl, Manage):
                self.stdout, self.stderr = io.StringIO(), io.StringIO()
                command = ['session', 'list'] if app is Consolectl else ['db', 'check']
                self.argv = ['--config-file', self.config(text), *command]
                code, out, err = self.run_app(app(stdout=self.stdout, stderr=self.stderr))
                self.assertEqual((2, ''), (code, out), err)
                self.assertIn(': configuration_error: ', err)
                self.assertEqual(1, err.count('\n'), err)
                self.assertNotIn('hidden', err)

    def test_a_missing_config_file_is_named(self):
        for run in (
            lambda: self.manage('--config-file', '/nonexistent.conf', 'db', 'check'),
            lambda: self.manage('db', 'check', '--config-file', '/nonexistent.conf'),
        ):
            code, _, err = run()
            self.assertEqual(2, code)
            self.assertIn('/nonexistent.conf', err)


class OutputTest(CliCase):
    def test_output_that_cannot_be_written_is_no_success(self):
        """A disk is full."""
        stderr = io.StringIO()
        with open('/dev/full', 'w') as full:
            app = Consolectl(StubAPI(1), io.StringIO(), full, stderr)
            self.assertEqual(3, cli_app.run(app, ['session', 'list']))
        self.assertEqual(
            'consolectl: unavailable: The output cannot be written: No space left on device.\n',
            stderr.getvalue(),
        )

    def test_streams_that_are_closed(self):
        with (
            mock.patch.object(sys, 'stdin', None),
            mock.patch.object(sys, 'stdout', None),
            mock.patch.object(sys, 'stderr', None),
        ):
            self.assertEqual(0, cli_app.run(Consolectl(StubAPI(1)), ['session', 'list']))
            self.assertEqual(2, cli_app.run(Consolectl(StubAPI(1)), ['revoke', '--user', 'u', '--all']))


class ForeignTextTest(CliCase):
    """What peers and users have written does not act on the operator's terminal."""

    EVIL = 'a\x1b]0;title\x07\x9b2J\nforged: line\u202e\u2066\u200b'

    def assert_harmless(self, text):
        for char in '\x1b\x07\x9b\u202e\u2066\u200b':
            self.assertNotIn(char, text)
        self.assertNotIn('\nforged', text)

    def test_rows(self):
        api = StubAPI(1)
        api.sessions[0]._obj_user_id = self.EVIL  # as if the fields did not check it
        for output_format in ('table', 'csv', 'value'):
            code, out, err = self.ctl('session', 'list', '-f', output_format, api=api)
            self.assertEqual((0, ''), (code, err))
            self.assert_harmless(out)
            self.assertIn(r'\x1b]0', out)
        _, out, _ = self.ctl('session', 'list', '-f', 'json', api=api)
        self.assertEqual(self.EVIL, json.loads(out)[0]['user_id'])  # exact, and escaped by JSON
        self.assert_harmless(out)

    def test_characters_that_the_terminal_does_not_have(self):
        """A name in another script must not keep operators from seeing the sessions."""
        api = StubAPI(2)
        api.sessions[0]._obj_user_id = 'M\xfcller \u0141'
        for output_format in ('table', 'csv', 'value'):
            out = io.TextIOWrapper(io.BytesIO(), encoding='latin-1')
            err = io.StringIO()
            argv = ['session', 'list', '-f', output_format]
            self.assertEqual(0, cli_app.run(Consolectl(api, io.StringIO(), out, err), argv), err.getvalue())
            self.assertIn(b'M\xfcller \\u0141', out.buffer.getvalue())
            self.assertIn(b'alice', out.buffer.getvalue())

    def test_one_row(self):
        api = StubAPI(1)
        api.revoke = lambda context, reason, **filters: Revocation(self.EVIL, 1)
        for output_format in ('table', 'value', 'shell'):
            _, out, _ = self.ctl(
                'revoke', '--user', 'u', '--reason', 'x', '--yes', '-f', output_format, api=api
            )
            self.assert_harmless(out)
            self.assertIn('forged', out)

    def test_a_row_for_a_shell_runs_nothing(self):
        """The output of -f shell is made for eval."""
        for text in (
            '$(echo run)',
            '`echo run`',
            '$HOME',
            'a"; echo run; "',
            'a\\',
            '\\"; echo run #',
            "'",
            '$((',
        ):
            api = StubAPI(1)
            api.revoke = lambda context, reason, text=text, **filters: Revocation(text, 1)
            _, out, _ = self.ctl('revoke', '--user', 'u', '--reason', 'x', '--yes', '-f', 'shell', api=api)
            done = subprocess.run(
                ['sh', '-c', f'{out}\nprintf %s "$tokens"'], capture_output=True, text=True, timeout=60
            )
            self.assertEqual((text, ''), (done.stdout, done.stderr))

    def test_errors(self):
        for error in (
            exception.ConsoleInUse(since=self.EVIL),
            exception.ManagerUnreachable(reason=self.EVIL),
            RuntimeError(self.EVIL),
        ):
            for argv in (('session', 'list'), ('--debug', 'session', 'list')):
                _, _, err = self.ctl(*argv, api=StubAPI(error=error))
                self.assertIn('forged', err)
                for char in '\x1b\x07\x9b\u202e\u2066\u200b':
                    self.assertNotIn(char, err)
                self.assertEqual(1, err.count('consolectl: '))

    def test_usage(self):
        _, _, err = self.ctl('session', 'list', self.EVIL)
        self.assert_harmless(err)
        self.assertEqual(1, err.count('\n'))

    def test_log_lines(self):
        path = self.config('')
        self.ctl('--log-file', path, 'session', 'list', api=StubAPI(error=None))
        app = Consolectl(StubAPI(), io.StringIO(), io.StringIO(), io.StringIO())
        app.options = app.parser.parse_args(['-v'])
        app.configure_logging()
        self.addCleanup(app.resources.close)
        logging.getLogger('x').info('%s', self.EVIL)
        self.assert_harmless(app.stderr.getvalue())
        self.assertIn('forged', app.stderr.getvalue())


class ClosedStreamsTest(testtools.TestCase):
    def test_a_standard_stream_may_be_closed(self):
        for arguments, closed, code in (
            ('--version', '>&-', 0),
            ('no-such-command', '2>&-', 2),
            ('no-such-command', '<&- >&- 2>&-', 2),
        ):
            command = f'exec "$0" -m consoled.cmd.consolectl {arguments} {closed}'
            done = subprocess.run(['sh', '-c', command, sys.executable], capture_output=True, text=True)
            self.assertEqual((code, '', ''), (done.returncode, done.stdout, done.stderr), closed)


class HelpTest(CliCase):
    def test_every_command_has_help_with_an_example(self):
        for app, names in COMMANDS.items():
            for name in names:
                for argv in (
                    [*name.split(), '--help'],
                    ['help', *name.split()],
                    [*name.split(), '-v', '--bogus', '--help'],
                ):
                    self.argv, self.stdout, self.stderr = argv, io.StringIO(), io.StringIO()
                    code, out, err = self.run_app(app(stdout=self.stdout, stderr=self.stderr))
                    self.assertEqual((0, ''), (code, err if '-v' not in argv else ''), argv)
                    self.assertIn(f'usage: {app.NAME} {name} ', out)
                    self.assertIn(f'Example:\n  {app.NAME} ', out)
                    self.assertNotIn(TOKEN, out)

    def test_help_lists_the_commands(self):
        for app, names in COMMANDS.items():
            for argv in (['--help'], ['help']):
                self.argv, self.stdout, self.stderr = argv, io.StringIO(), io.StringIO()
                code, out, _ = self.run_app(app(stdout=self.stdout, stderr=self.stderr))
                self.assertEqual(0, code)
                for name in names:
                    self.assertRegex(out, rf'\n  {name} +[A-Z].{{10,}}\n')

    def test_version(self):
        code, out, _ = self.manage('--version')
        self.assertEqual(0, code)
        self.assertRegex(out, r'\Aconsoled-manage \d+\.\d+')
