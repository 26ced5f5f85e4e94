# SPDX-License-Identifier: Apache-2.0
"""The steps of the demo's walk: how outcomes and errors become results."""

import types

import testtools
from websockets import exceptions as ws_exceptions

from consoled import exception
from consoled.demo import walk


def step(run, **expected):
    return walk.Step('title', 'why', run, expected)


def outcome(**got):
    return walk.Outcome('asked', 'answered', got)


class RunStepTest(testtools.TestCase):
    cell = types.SimpleNamespace(stopped=lambda: False)

    def test_the_expected_outcome(self):
        result = walk.run_step(self.cell, step(lambda cell: outcome(a=1), a=1))
        self.assertIsNone(result.problem)
        self.assertEqual({'a': 1}, result.outcome.got)

    def test_another_outcome_is_a_problem(self):
        result = walk.run_step(self.cell, step(lambda cell: outcome(a=2), a=1))
        self.assertEqual("expected {'a': 1}, got {'a': 2}", result.problem)

    def test_errors_are_problems(self):
        for error, problem in (
            (exception.ManagerBusy(), 'refused with manager_busy: '),
            (OSError('no route'), 'OSError: no route'),
            (ws_exceptions.InvalidURI('x', 'y'), 'InvalidURI: '),
        ):

            def fail(cell, error=error):
                raise error

            result = walk.run_step(self.cell, step(fail))
            self.assertIsNone(result.outcome)
            self.assertTrue(result.problem.startswith(problem), result.problem)

    def test_no_step_is_begun_once_the_user_stops(self):
        stopped = types.SimpleNamespace(stopped=lambda: True)
        self.assertRaises(walk.Stopped, walk.run_step, stopped, step(lambda cell: 1 / 0))

    def test_a_step_that_waits_is_stopped(self):
        answers = iter([False, True])
        cell = types.SimpleNamespace(stopped=lambda: next(answers))
        waiting = step(lambda cell: walk._until(cell, lambda: 1, 2))
        self.assertRaises(walk.Stopped, walk.run_step, cell, waiting)

    def test_the_masked_url_shows_the_beginning_of_the_token_only(self):
        grant = types.SimpleNamespace(access_url='http://h/?token=abcdefgh&x=1', token='abcdefgh')
        self.assertEqual('http://h/?token=abcd***&x=1', walk._masked_url(grant))
