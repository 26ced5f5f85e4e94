# SPDX-License-Identifier: Apache-2.0
"""``consolectl revoke`` without a network: filters and confirmation."""

from tests.unit.cli.base import INSTANCE, CliCase, StubAPI, Terminal


class RevokeTest(CliCase):
    def test_an_instance_needs_no_confirmation(self):
        code, _, _ = self.ctl('revoke', '--instance', INSTANCE, stdin=Terminal('n\n'))
        self.assertEqual((0, [('revoke', 'operator', {'instance_uuid': INSTANCE})]), (code, self.api.calls))

    def test_wider_filters_need_confirmation_at_a_terminal(self):
        for argv in (('--project', 'p'), ('--user', 'u'), ('--compute-host', 'c')):
            for answer in ('n\n', '\n', '', 'perhaps\n'):
                code, _, err = self.ctl('revoke', *argv, stdin=Terminal(answer))
                self.assertEqual((1, []), (code, self.api.calls))
                self.assertIn('cancelled', err)
            for answer in ('y\n', 'Yes\n'):
                code, _, err = self.ctl('revoke', *argv, stdin=Terminal(answer))
                self.assertEqual((0, 1), (code, len(self.api.calls)))
                self.assertIn(argv[1], err)

    def test_tokens_that_cannot_match_are_an_error_in_one_line(self):
        code, out, err = self.ctl(
            'revoke', '--user', 'u', '--compute-host', 'c', '--yes', api=StubAPI(counts=(2, 1, ('nova',)))
        )
        self.assertEqual((1, '', 1), (code, out, len(self.api.calls)))
        self.assertEqual(1, err.count('\n'))
        self.assertTrue(err.startswith('consolectl: revoke_incomplete: Deleted 2 tokens and cut 1 '), err)
        self.assertIn('none of nova: its tokens do not say what --user and --compute-host asks for', err)

    def test_scripts_and_yes_need_no_confirmation(self):
        for argv, stdin in ((('--yes',), Terminal('n\n')), ((), '')):
            code, _, err = self.ctl('revoke', '--user', 'u', *argv, stdin=stdin)
            self.assertEqual((0, 1, ''), (code, len(self.api.calls), err))
