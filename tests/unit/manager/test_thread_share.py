# SPDX-License-Identifier: Apache-2.0
"""The share of a worker's threads that calls of one kind may occupy."""

import contextlib

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled import exception
from consoled.manager.thread_share import ThreadShare
from consoled.testing import fixtures


class ThreadShareTest(testtools.TestCase):
    @given(threads=st.integers(1, 64), eighths=st.integers(1, 8))
    def test_its_part_of_the_threads_and_at_least_one(self, threads, eighths):
        share = ThreadShare(threads, eighths)
        with contextlib.ExitStack() as held:
            for _ in range(max(1, threads * eighths // 8)):
                held.enter_context(share.permit())
            self.assertRaises(exception.ManagerBusy, held.enter_context, share.permit())
        with share.permit():  # all were given back
            pass

    def test_a_party_that_holds_its_few_is_refused_with_an_error_of_the_caller(self):
        share, refusal = ThreadShare(32, 4), exception.ComputeUnreachable()
        with share.permit({'a': 2}), share.permit({'a': 2, 'c': 1}):
            self.assertRaises(exception.ManagerBusy, share.permit({'a': 2}).__enter__)
            refused = share.permit({'a': 2}, refusal=refusal)
            self.assertIs(refusal, self.assertRaises(type(refusal), refused.__enter__))
            with share.permit({'b': 1}, refusal=refusal), share.permit():
                pass

    def test_a_full_share_is_busy_whoever_asks(self):
        share = ThreadShare(8, 1)
        with share.permit({'a': 1}):
            refused = share.permit({'b': 1}, refusal=exception.ComputeUnreachable())
            self.assertRaises(exception.ManagerBusy, refused.__enter__)

    def test_a_failed_call_gives_its_permit_back(self):
        share = ThreadShare(8, 2)
        for _ in range(3):
            with contextlib.suppress(ZeroDivisionError), share.permit({'a': 1}):
                raise ZeroDivisionError

    def test_a_refused_call_takes_no_permit(self):
        share = ThreadShare(8, 1)
        with share.permit():
            for _ in range(3):
                self.assertRaises(exception.ManagerBusy, share.permit(timeout=0.001).__enter__)
        with share.permit():
            pass

    def test_from_conf(self):
        conf = self.useFixture(fixtures.Conf(executor_thread_pool_size=16)).conf
        share = ThreadShare.from_conf(conf, eighths=1)
        with share.permit(), share.permit():
            self.assertRaises(exception.ManagerBusy, share.permit().__enter__)
