# SPDX-License-Identifier: Apache-2.0
"""Checks of the arguments that a peer sends."""

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled import exception
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
