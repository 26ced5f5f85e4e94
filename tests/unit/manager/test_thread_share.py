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
    @given(threads=st.integers(1, 64))
    def test_half_of_the_threads_and_at_least_one(self, threads):
        share = ThreadShare(threads)
        with contextlib.ExitStack() as held:
            for _ in range(max(1, threads // 2)):
                held.enter_context(share.permit())
            self.assertRaises(exception.ManagerBusy, held.enter_context, share.permit())
        with share.permit():  # all were given back
            pass

    def test_a_failed_call_gives_its_permit_back(self):
        share = ThreadShare(2)
        for _ in range(3):
            with contextlib.suppress(ZeroDivisionError), share.permit():
                raise ZeroDivisionError

    def test_a_refused_call_takes_no_permit(self):
        share = ThreadShare(2)
        with share.permit():
            for _ in range(3):
                self.assertRaises(exception.ManagerBusy, share.permit(0.001).__enter__)
        with share.permit():
            pass

    def test_from_conf(self):
        conf = self.useFixture(fixtures.Conf(executor_thread_pool_size=4)).conf
        share = ThreadShare.from_conf(conf)
        with share.permit(), share.permit():
            self.assertRaises(exception.ManagerBusy, share.permit().__enter__)
