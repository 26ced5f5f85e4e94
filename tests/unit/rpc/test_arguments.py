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
        incomplete = objects.ConsoleConnection(instance_uuid=instance)
        error = self.assertRaises(exception.InvalidArgument, arg.checked, argument, {'x': incomplete})
        self.assertIn('compute_host, console_type, host, port', str(error))
