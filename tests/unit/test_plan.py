# SPDX-License-Identifier: Apache-2.0
"""The balance of the workers of a test run."""

import datetime
import json

import testtools
import yaml
from hypothesis import given
from hypothesis import strategies as st
from stestr import selection

from tests import plan

names = st.text('abc_.', min_size=1).map('tests.{}'.format)
seconds = st.floats(0.1, 1000)
MOMENT = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


class BalanceTest(testtools.TestCase):
    @given(st.dictionaries(names, seconds), st.integers(1, 8))
    def test_each_class_has_one_worker_and_none_has_much_more_than_another(self, durations, workers):
        shares = plan.balance(durations, durations, workers)
        self.assertEqual(sorted(durations), sorted(name for share in shares for name in share))
        loads = [sum(durations[name] for name in share) for share in shares]
        loads += [0] * (workers - len(loads))
        longest = max(durations.values(), default=0)
        self.assertLessEqual(max(loads) - min(loads), longest + 1e-6)

    def test_a_class_without_a_record_counts_a_little(self):
        self.assertEqual(
            [['tests.long'], ['tests.a', 'tests.b']],
            plan.balance(['tests.a', 'tests.b', 'tests.long'], {'tests.long': 9}, 2),
        )

    def test_stestr_finds_the_tests_of_a_class_and_no_others(self):
        [worker] = yaml.safe_load(plan.worker_file([['tests.unit.test_a.ATest']]))
        ids = [
            'tests.unit.test_a.ATest.test_x',
            'tests.unit.test_a.ATestToo.test_x',
            'tests_unit.test_a.ATest.y',
        ]
        self.assertEqual(ids[:1], selection.filter_tests(worker['worker'], ids))

    def test_the_records(self):
        durations = json.loads(plan.DURATIONS.read_text())
        self.assertLessEqual(plan.SHORTEST, min(durations.values()))


class StopwatchTest(testtools.TestCase):
    def test_the_set_up_of_a_class_counts_too(self):
        stopwatch = plan.Stopwatch()
        for worker, test, start, end in [
            ('worker-0', 'tests.unit.A.test_1', 0, 1),
            ('worker-1', 'tests.unit.B.test_1', 0, 7),
            ('worker-0', 'tests.unit.C.test_1', 4, 5),
            ('worker-0', 'tests.unit.C.test_2', 5, 8),
        ]:
            for status, second in [('inprogress', start), ('success', end)]:
                moment = MOMENT + datetime.timedelta(seconds=second)
                tags = None if status == 'inprogress' else {worker}
                stopwatch.status(test_id=test, test_status=status, test_tags=tags, timestamp=moment)
        self.assertEqual({'tests.unit.A': 1, 'tests.unit.B': 7, 'tests.unit.C': 7}, stopwatch.seconds)
