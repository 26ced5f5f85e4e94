# SPDX-License-Identifier: Apache-2.0
"""``consolectl token validate`` without a network: how the token is read, and that it is never shown."""

import json
import pathlib

import fixtures

from consoled import exception
from tests.unit.cli.base import INSTANCE, TOKEN, CliCase, StubAPI, Terminal


class ValidateTest(CliCase):
    def test_read_from_standard_input(self):
        code, out, err = self.ctl('token', 'validate', '-f', 'json', stdin=TOKEN + '\n')
        self.assertEqual((0, ''), (code, err))
        self.assertEqual([('validate', TOKEN)], self.api.calls)
        self.assertEqual(
            {
                'instance_uuid': INSTANCE,
                'console_type': 'serial',
                'host': '192.0.2.9',
                'port': 5900,
                'compute_host': 'compute1',
                'user_id': 'alice',
                'project_id': 'demo',
                'expires': '2026-01-02T03:04:05Z',
            },
            json.loads(out),
        )

    def test_read_from_the_first_line_of_a_file(self):
        self.ctl('token', 'validate', '--token-file', self.config(f'  {TOKEN}\nanother line\n'))
        self.assertEqual([('validate', TOKEN)], self.api.calls)

    def test_read_from_a_terminal_without_echo(self):
        ask = self.useFixture(fixtures.MockPatch('getpass.getpass', return_value=TOKEN)).mock
        code, _, _ = self.ctl('token', 'validate', stdin=Terminal())
        self.assertEqual((0, [('validate', TOKEN)]), (code, self.api.calls))
        self.assertNotIn(TOKEN, str(ask.call_args))

    def test_no_token_is_wrong_usage(self):
        for argv, stdin in (
            ((), ''),
            ((), '\n'),
            (('--token-file', '/nonexistent'), ''),
            (('--token-file', '/dev/null'), ''),
        ):
            code, _, _ = self.ctl('token', 'validate', *argv, stdin=stdin)
            self.assertEqual((2, []), (code, self.api.calls))

    def test_text_that_cannot_be_a_token_is_not_sent(self):
        for stdin in ('short', 'x' * 100000, 'sixteen and more, but no token'):
            code, _, err = self.ctl('token', 'validate', stdin=stdin)
            self.assertEqual((1, []), (code, self.api.calls))
            self.assertIn('invalid_token', err)

    def test_on_the_command_line_it_is_neither_accepted_nor_echoed(self):
        for argv in (
            ('token', 'validate', TOKEN),
            ('token', 'validate', '-v' + TOKEN),
            ('token', 'validate', '--' + TOKEN),
            ('token', 'validate', '--token', TOKEN),
            ('token', 'validate', '-f', TOKEN),
            ('token', 'validate', '--token-file', TOKEN),
            ('token', TOKEN),
            ('session', 'cut', TOKEN),
            ('session', 'list', '--instance', TOKEN),
            (TOKEN,),
        ):
            code, out, err = self.ctl(*argv)
            self.assertEqual((2, []), (code, self.api.calls), argv)
            self.assertNotIn(TOKEN, out + err)

    def test_no_output_or_log_contains_it(self):
        log_file = self.config('')
        for error in (None, exception.InvalidToken(), exception.InternalError(), ValueError('bug')):
            for style in ('table', 'json', 'value', 'shell', 'yaml'):
                _, out, err = self.ctl(
                    *('--debug', '-v', '--log-file', log_file, 'token', 'validate', '-f', style),
                    stdin=TOKEN,
                    api=StubAPI(error=error),
                )
                self.assertEqual([('validate', TOKEN)], self.api.calls)
                self.assertNotIn(TOKEN, out + err + pathlib.Path(log_file).read_text())
