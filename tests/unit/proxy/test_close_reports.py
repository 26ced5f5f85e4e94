# SPDX-License-Identifier: Apache-2.0
"""Ended sessions are reported until a manager has acknowledged them."""

import time

import fixtures

from consoled import exception
from consoled.objects import EndReason
from consoled.proxy import close_reports
from consoled.rpc.replies import Closing
from tests.unit.proxy.manager_base import PATIENCE, ManagerCase, until


class CloseTest(ManagerCase):
    def test_one_is_reported_with_its_bytes(self):
        async def work():
            async with self.proxy() as proxy:
                proxy.close('an-id', 'idle', 12, 345)
                await until(lambda: self.managers.of('close'))
            self.assertEqual(
                [{'session_id': 'an-id', 'reason': 'idle', 'bytes_in': 12, 'bytes_out': 345}],
                self.managers.of('close'),
            )

        self.run_async(work)

    def test_it_is_repeated_until_it_is_acknowledged(self):
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

    def test_those_that_come_together_go_together(self):
        async def work():
            async with self.proxy() as proxy:
                step = self.step('close', waits=True)
                proxy.close('0', 'idle')
                await until(step.arrived.is_set)
                for number in range(1, 4):
                    proxy.close(str(number), 'idle')
                step.go.set()
                await until(lambda: not len(proxy.close_reports))
                (registered,) = self.managers.of('register')
                (batch,) = [call for call in self.managers.of('renew') if 'closed' in call]
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
            sizes = [len(call['closed']) for call in self.managers.of('renew') if 'closed' in call]
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

    def test_where_the_proxy_is_not_known_its_sessions_are_over_already(self):
        async def work():
            async with self.proxy() as proxy:
                self.step('renew', exception.ProxyUnknown(proxy_id='x'))
                proxy.close('1', 'idle')
                proxy.close('2', 'idle')
                await until(lambda: not len(proxy.close_reports))
            self.assertEqual(2, len(self.managers.closed()))

        self.run_async(work)

    def test_one_that_is_closed_again_while_it_is_reported_is_reported_again(self):
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

    def test_stopping_waits_for_those_that_are_left(self):
        async def work():
            async with self.proxy() as proxy:
                self.step('close', OSError('x'))
                proxy.close('an-id', 'drained')
                await proxy.close_reports.stop(PATIENCE)
                self.assertEqual([('an-id', 'drained')] * 2, self.managers.closed())

        self.run_async(work)

    def test_but_not_for_ever(self):
        async def work():
            async with self.proxy() as proxy:
                self.step('close', OSError('x'), always=True)
                proxy.close('an-id', 'drained')
                began = time.monotonic()
                await proxy.close_reports.stop(0.05)
                self.assertTrue(time.monotonic() - began < PATIENCE / 2)

        self.run_async(work)
