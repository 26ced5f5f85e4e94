# SPDX-License-Identifier: Apache-2.0
"""Checks of the arguments that a peer sends."""

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled import exception, objects
from consoled.rpc import arguments as arg


class ArgumentsTest(testtools.TestCase):
    anything = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(),
        st.binary(),
        st.lists(st.integers(), max_size=3),
        st.dictionaries(st.text(max_size=3), st.integers(), max_size=3),
    )
    checks = (
        arg.uuid(),
        arg.text(10),
        arg.host(),
        arg.port(),
        arg.console_type(),
        arg.integer(0, 9),
        arg.moment(),
        arg.token(),
        arg.list_of(arg.uuid(), 3),
        arg.mapping(a=arg.port()),
        arg.mapping_of(arg.text(3), arg.port(), 3),
        arg.seconds(60),
        arg.boolean(),
        arg.version(),
        arg.identifier(10),
        arg.tree(2, 3),
    )

    @given(value=anything, argument=st.sampled_from(checks))
    def test_a_value_is_accepted_or_refused_with_an_error_of_the_domain(self, value, argument):
        try:
            arg.checked({'x': argument}, {'x': value})
        except (exception.InvalidArgument, exception.InvalidToken) as refused:
            self.assertIn(refused.code, ('invalid_argument', 'invalid_token'))

    def test_a_malformed_token_gets_the_answer_of_an_unknown_one(self):
        for value in (None, 5, '', 'short', 'x' * 5000, 'a b' * 10):
            self.assertRaises(exception.InvalidToken, arg.checked, {'token': arg.token()}, {'token': value})

    def test_no_refusal_repeats_the_value(self):
        for argument in self.checks:
            try:
                arg.checked({'x': argument}, {'x': 'canary canary canary canary canary'})
            except exception.ConsoledException as refused:
                self.assertNotIn('canary', str(refused))

    def test_lists_are_bounded(self):
        argument = {'x': arg.list_of(arg.port(), 2)}
        self.assertEqual({'x': [1, 2]}, arg.checked(argument, {'x': [1, 2]}))
        self.assertRaises(exception.InvalidArgument, arg.checked, argument, {'x': [1, 2, 3]})
        self.assertRaises(exception.InvalidArgument, arg.checked, argument, {'x': '12'})

    def test_defaults_and_none(self):
        spec = {'a': arg.port(), 'b': arg.port().default_to(1), 'c': arg.port().or_none()}
        self.assertEqual({'a': 5, 'b': 1, 'c': None}, arg.checked(spec, {'a': 5}))
        self.assertEqual({'a': 5, 'b': 6, 'c': 7}, arg.checked(spec, {'a': 5, 'b': 6, 'c': 7}))
        self.assertEqual({'a': 5, 'b': 1, 'c': None}, arg.checked(spec, {'a': 5, 'c': None}))
        for wrong in ({}, {'a': None}, {'a': 5, 'b': None}):
            self.assertRaises(exception.InvalidArgument, arg.checked, spec, wrong)

    def test_numbers_are_finite_and_within_bounds(self):
        for argument, good in ((arg.integer(0, 9), (0, 9)), (arg.seconds(60), (0.1, 1, 60))):
            for value in good:
                self.assertEqual(value, argument.check(value))
            for value in (-1, 61, float('nan'), float('inf'), float('-inf'), 10**400, True, '5', None):
                self.assertRaises(ValueError, argument.check, value)

    def test_dicts_are_bounded(self):
        argument = arg.mapping_of(arg.text(3), arg.port(), 2)
        self.assertEqual({'a': 1, 'b': 2}, argument.check({'a': 1, 'b': 2}))
        for value in ({'a': 1, 'b': 2, 'c': 3}, {'a': 0}, {'abcd': 1}, {1: 1}, [], None):
            self.assertRaises(ValueError, argument.check, value)

    def test_trees_are_bounded_in_depth_and_number(self):
        argument = arg.tree(max_depth=3, max_nodes=4)
        for value in ({}, {'a': 'x' * 1000}, {'a': [{}]}, {'a': 1, 'b': 2, 'c': [3]}):
            self.assertIs(value, argument.check(value))
        for value in ({'a': [[[]]]}, {'a': [1, 2, 3, 4]}, dict.fromkeys('abcde'), [], None, 'x'):
            self.assertRaises(ValueError, argument.check, value)

    def test_the_first_and_last_hours_of_the_calendar_are_no_moments(self):
        for value in ('0001-01-01T00:00:00+14:00', '9999-12-31T23:59:59-12:00'):
            self.assertRaises(ValueError, arg.moment().check, value)

    def test_a_moment_is_returned_in_utc(self):
        for text in ('2026-01-01T12:00:00+00:00', '2026-01-01T14:00:00+02:00', '2026-01-01T12:00:00Z'):
            moment = arg.checked({'x': arg.moment()}, {'x': text})['x']
            self.assertEqual('2026-01-01T12:00:00+00:00', moment.isoformat())

    def test_an_object_is_completed_with_its_defaults_and_nothing_else(self):
        argument = {'x': arg.instance_of(objects.ConsoleConnection)}
        instance = '2f9a4e4e-6a0c-4a57-9bb5-4a1f6f0f3a11'
        console = objects.ConsoleConnection(
            instance_uuid=instance, console_type='serial', host='192.0.2.1', port=5900, compute_host='node-1'
        )
        checked = arg.checked(argument, {'x': console})['x']
        self.assertEqual((None, {}), (checked.access_url_base, checked.options))
        session = objects.ConsoleSession(
            id=instance, proxy_id=instance, connected_at='2026-01-01T00:00:00Z', console=console
        )
        self.assertIs(session, arg.instance_of(objects.ConsoleSession).check(session))
        incomplete = objects.ConsoleConnection(instance_uuid=instance)
        session.console = incomplete
        self.assertRaises(ValueError, arg.instance_of(objects.ConsoleSession).check, session)
        error = self.assertRaises(exception.InvalidArgument, arg.checked, argument, {'x': incomplete})
        self.assertIn('compute_host, console_type, host, port', str(error))
