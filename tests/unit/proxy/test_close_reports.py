# SPDX-License-Identifier: Apache-2.0
"""Reports of ended sessions: repeated until they are acknowledged, in batches, and while stopping."""

import time

import fixtures

from consoled import exception
from consoled.objects import EndReason
from consoled.proxy import close_reports
from consoled.rpc.replies import Closing
from tests.unit.proxy.manager_base import PATIENCE, ManagerCase, until


class CloseReportsTest(ManagerCase):
    def test_a_report_has_the_reason_and_the_byte_counts(self):
        async def work():
            async with self.proxy() as proxy:
                proxy.close('an-id', 'idle', 12, 345)
                await until(lambda: self.managers.calls_to('close'))
            self.assertEqual(
                [{'session_id': 'an-id', 'reason': 'idle', 'bytes_in': 12, 'bytes_out': 345}],
                self.managers.calls_to('close'),
            )

        self.run_async(work)

    def test_a_report_is_repeated_until_it_is_acknowledged(self):
        async def work():
            async with self.proxy() as proxy:
                for error in (
                    exception.ManagerUnreachable(reason='x'),
                    exception.InternalError(),
                    OSError('x'),
                ):
                    self.step('close', error)
                proxy.close('an-id', 'idle')
                await until(lambda: not len(proxy.close_reports))
            self.assertEqual([('an-id', 'idle')] * 4, self.managers.closed())

        self.run_async(work)

    def test_reports_that_pile_up_are_sent_in_one_call(self):
        async def work():
            async with self.proxy() as proxy:
                step = self.step('close', waits=True)
                proxy.close('0', 'idle')
                await until(step.arrived.is_set)
                for number in range(1, 4):
                    proxy.close(str(number), 'idle')
                step.go.set()
                await until(lambda: not len(proxy.close_reports))
                (registered,) = self.managers.calls_to('register')
                (batch,) = [call for call in self.managers.calls_to('renew') if 'closed' in call]
                self.assertEqual(registered['proxy_id'], batch['proxy_id'])
                self.assertEqual(['1', '2', '3'], [closing.session_id for closing in batch['closed']])
                self.assertIsInstance(batch['closed'][0], Closing)

        self.run_async(work)

    def test_a_batch_is_bounded(self):
        async def work():
            self.useFixture(fixtures.MockPatchObject(close_reports, '_MAX_BATCH', 10))
            async with self.proxy() as proxy:
                for number in range(25):
                    proxy.close(str(number), 'idle')
                await until(lambda: not len(proxy.close_reports))
            sizes = [len(call['closed']) for call in self.managers.calls_to('renew') if 'closed' in call]
            self.assertEqual([10, 10, 5], sizes)
            self.assertEqual(
                [str(number) for number in range(25)], [each for each, _ in self.managers.closed()]
            )

        self.run_async(work)

    def test_a_batch_is_repeated_too(self):
        async def work():
            async with self.proxy() as proxy:
                self.step('renew', exception.ManagerUnreachable(reason='x'))
                self.step('renew', exception.ManagerUnreachable(reason='x'))
                proxy.close('1', 'idle')
                proxy.close('2', 'idle')
                await until(lambda: not len(proxy.close_reports))
            self.assertEqual(['1', '2'] * 3, [each for each, _ in self.managers.closed()])

        self.run_async(work)

    def test_reports_of_an_unknown_proxy_are_dropped_since_its_sessions_have_ended(self):
        async def work():
            async with self.proxy() as proxy:
                self.step('renew', exception.ProxyUnknown(proxy_id='x'))
                proxy.close('1', 'idle')
                proxy.close('2', 'idle')
                await until(lambda: not len(proxy.close_reports))
            self.assertEqual(2, len(self.managers.closed()))

        self.run_async(work)

    def test_a_session_that_is_added_again_during_its_report_is_reported_again(self):
        async def work():
            async with self.proxy() as proxy:
                step = self.step('close', waits=True)
                proxy.close('an-id', EndReason.OPEN_FAILED)
                await until(step.arrived.is_set)
                proxy.close('an-id', 'idle', 1, 2)
                step.go.set()
                await until(lambda: not len(proxy.close_reports))
            self.assertEqual([('an-id', EndReason.OPEN_FAILED), ('an-id', 'idle')], self.managers.closed())

        self.run_async(work)

    def test_stop_waits_for_pending_reports(self):
        async def work():
            async with self.proxy() as proxy:
                self.step('close', OSError('x'))
                proxy.close('an-id', 'drained')
                await proxy.close_reports.stop(PATIENCE)
                self.assertEqual([('an-id', 'drained')] * 2, self.managers.closed())

        self.run_async(work)

    def test_stop_gives_up_after_the_timeout(self):
        async def work():
            async with self.proxy() as proxy:
                self.step('close', OSError('x'), always=True)
                proxy.close('an-id', 'drained')
                began = time.monotonic()
                await proxy.close_reports.stop(0.05)
                self.assertTrue(time.monotonic() - began < PATIENCE / 2)

        self.run_async(work)
