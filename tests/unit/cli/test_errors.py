# SPDX-License-Identifier: Apache-2.0
"""Translation of exceptions into failures, and of wrong usage into one line."""

import argparse
import contextlib
import io

import testtools
from hypothesis import given
from hypothesis import strategies as st
from oslo_config import cfg

from consoled import exception
from consoled.cli import errors

TOKEN_CHARACTERS = st.sampled_from('abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-')


class ExplainTest(testtools.TestCase):
    def test_a_failure_is_kept(self):
        failed = errors.Failed(errors.REFUSED, 'code', 'message', 'hint')
        self.assertIs(failed, errors.explain(failed))

    def test_domain_errors_keep_their_code_and_text(self):
        for error, exit_code in (
            (exception.InvalidToken(), errors.REFUSED),
            (exception.ManagerBusy(), errors.UNREACHABLE),
            (exception.DatabaseUnavailable(), errors.UNREACHABLE),
            (exception.InternalError(), errors.INTERNAL),
        ):
            failed = errors.explain(error)
            self.assertEqual(
                (exit_code, error.code, str(error)), (failed.exit_code, failed.code, str(failed))
            )

    def test_a_contested_console_names_where_its_rivals_are_listed(self):
        self.assertIn('consoled-status upgrade check', errors.explain(exception.ConsoleContested()).hint)

    def test_a_configuration_error_is_wrong_usage(self):
        failed = errors.explain(cfg.ConfigFilesNotFoundError(['/nonexistent']))
        self.assertEqual((errors.USAGE, 'configuration_error'), (failed.exit_code, failed.code))
        self.assertIn('/nonexistent', str(failed))

    def test_any_other_error_is_internal_and_one_line(self):
        failed = errors.explain(RuntimeError('first\n  second'))
        self.assertEqual((errors.INTERNAL, 'internal_error'), (failed.exit_code, failed.code))
        self.assertEqual('RuntimeError: first second', str(failed))

    def test_an_invalid_option_is_named_without_its_value(self):
        failed = errors.invalid_option('[a] b', ValueError('reason'))
        self.assertEqual('[a] b cannot be used: reason.', str(failed))


class UsageErrorTest(testtools.TestCase):
    def usage_error(self, message):
        err = io.StringIO()
        with contextlib.redirect_stderr(err):
            error = self.assertRaises(
                SystemExit, errors.usage_error, argparse.ArgumentParser(prog='tool'), message
            )
        self.assertEqual(errors.USAGE, error.code)
        return err.getvalue()

    def test_the_line(self):
        self.assertEqual(
            'tool: usage_error: unrecognized arguments: --all. See tool --help.\n',
            self.usage_error('unrecognized arguments: --all'),
        )

    @given(st.text(TOKEN_CHARACTERS, min_size=32, max_size=64))
    def test_anything_as_long_as_a_token_is_masked(self, secret):
        line = self.usage_error(f'invalid choice: {secret!r}')
        self.assertNotIn(secret, line)
        self.assertIn("invalid choice: '***'", line)
