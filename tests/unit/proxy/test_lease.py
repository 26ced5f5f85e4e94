# SPDX-License-Identifier: Apache-2.0
"""The lease: registered, renewed, and given up in time."""

import asyncio
import threading
import time
from unittest import mock

import fixtures

from consoled import exception
from consoled.objects import EndReason
from consoled.proxy import lease
from tests.unit.proxy.manager_base import LONG, PATIENCE, TOKEN, ManagerCase, session_id, until


class LeaseTest(ManagerCase):
    def test_the_proxy_registers_by_name(self):
        async def work():
            async with self.proxy() as proxy:
                (registered,) = self.managers.calls_to('register')
                self.assertEqual('host:6080:0', registered['name'])
                self.assertEqual(36, len(registered['proxy_id']))
                self.assertTrue(proxy.ready)

        self.run_async(work)

    def test_registration_is_retried_until_it_succeeds(self):
        async def work():
            for error in (exception.ManagerUnreachable(reason='x'), OSError('x'), KeyError('lease')):
                self.step('register', error)
            self.step('register', {'now': 'a reply without a lease'})
            async with self.proxy() as proxy:
                self.assertTrue(proxy.ready)
            calls = self.managers.calls_to('register')
            self.assertEqual(5, len(calls))
            self.assertEqual(1, len({call['proxy_id'] for call in calls}), 'a repeated call has the same id')

        self.run_async(work)

    def test_the_lease_is_renewed_every_third_of_its_length(self):
        async def work():
            self.managers.lease = 0.3
            async with self.proxy():
                await until(lambda: len(self.managers.calls_to('renew')) >= 4)
            times = self.managers.times
            for earlier, later in zip(times, times[1:], strict=False):
                self.assertTrue(later - earlier >= 0.3 / 3 * 0.85)
            self.assertEqual(
                {self.managers.calls_to('register')[0]['proxy_id']},
                {c['proxy_id'] for c in self.managers.calls_to('renew')},
            )

        self.run_async(work)

    def test_every_fifth_renewal_lists_the_sessions_as_of_the_last_reply(self):
        async def work():
            self.managers.lease = 0.3
            self.registry.live = ['one', 'two']
            async with self.proxy():
                await until(lambda: any('sessions' in call for call in self.managers.calls_to('renew')))
            calls = self.managers.calls_to('renew')
            number = next(n for n, call in enumerate(calls) if 'sessions' in call)
            self.assertEqual(4, number % 5)
            self.assertEqual(['one', 'two'], calls[number]['sessions'])
            # the reply to register has moment 1, that to each renewal the next one
            self.assertEqual(f'moment {number + 1}', calls[number]['as_of'])
            for call in calls:
                self.assertEqual('sessions' in call, 'as_of' in call)

        self.run_async(work)

    def test_sessions_that_are_being_opened_are_listed_too(self):
        async def work():
            self.managers.lease = 0.06
            self.registry.live = ['one']
            async with self.proxy() as proxy:
                step = self.step('open', waits=True)
                mine = session_id()
                task = asyncio.create_task(proxy.open(TOKEN, mine, None))
                await until(lambda: any('sessions' in call for call in self.managers.calls_to('renew')))
                renewals = self.managers.calls_to('renew')
                listed = next(call['sessions'] for call in renewals if 'sessions' in call)
                self.assertEqual(['one', mine], listed)
                step.go.set()
                await task

        self.run_async(work)

    def test_a_session_that_was_listed_while_being_opened_is_not_cut_as_unknown(self):
        """The managers may have stored its row after they compared the list."""

        async def work():
            self.managers.lease = 0.06
            self.useFixture(fixtures.MockPatchObject(lease, '_LIST_EVERY', 1))
            async with self.proxy() as proxy:
                opening, listing = self.step('open', waits=True), threading.Event()
                mine = session_id()

                def compare(values):
                    listed = values.get('sessions')
                    if not listed:
                        return None
                    listing.set()
                    answered.wait(PATIENCE)
                    cut = dict.fromkeys(listed, 'lease_lost') | {'other': 'revoked'}
                    return {'lease': LONG, 'now': 'then', 'cut': cut}

                answered = threading.Event()
                self.addCleanup(answered.set)
                self.step('renew', compare, always=True)
                self.registry.live = ['gone']
                task = asyncio.create_task(proxy.open(TOKEN, mine, None))
                await until(opening.arrived.is_set)
                await until(
                    lambda: listing.is_set() and mine in self.managers.calls_to('renew')[-1]['sessions']
                )
                opening.go.set()
                await task
                answered.set()
                await until(lambda: any('gone' in cut for cut in self.registry.cuts))
                (cuts,) = [cut for cut in self.registry.cuts if 'gone' in cut]
                self.assertEqual({'gone': 'lease_lost', 'other': 'revoked'}, cuts)

        self.run_async(work)

    def test_a_session_that_is_being_opened_is_cut_for_any_other_reason(self):
        async def work():
            self.managers.lease = 0.06
            self.useFixture(fixtures.MockPatchObject(lease, '_LIST_EVERY', 1))
            async with self.proxy() as proxy:
                opening = self.step('open', waits=True)
                mine = session_id()
                self.step(
                    'renew',
                    lambda values: (
                        {'lease': LONG, 'now': 'x', 'cut': {mine: 'revoked'}}
                        if mine in values.get('sessions', ())
                        else None
                    ),
                    always=True,
                )
                task = asyncio.create_task(proxy.open(TOKEN, mine, None))
                await until(lambda: any(mine in cut for cut in self.registry.cuts))
                opening.go.set()
                await task

        self.run_async(work)

    def test_cuts_in_the_reply_to_a_renewal_are_carried_out(self):
        async def work():
            self.managers.lease = 0.3
            self.step('renew', {'lease': 0.3, 'now': 'x', 'cut': {'an-id': 'revoked'}})
            async with self.proxy():
                await until(lambda: {'an-id': 'revoked'} in self.registry.cuts)

        self.run_async(work)

    def test_invariant_4_limited_sessions_are_cut_before_the_lease_ends_for_the_managers(self):
        """The lease of the managers begins when they answer, that of the proxy before it asks."""

        async def work():
            self.managers.lease = 0.5
            granted = []

            def slow(values):
                time.sleep(0.2)
                granted.append(time.monotonic())

            self.step('register', slow)
            async with self.proxy(ready=False) as proxy:
                self.step('renew', exception.ManagerUnreachable(reason='x'), always=True)
                await until(lambda: self.registry.mass_cuts == ['limited'])
                self.assertFalse(proxy.ready)
                # The time for which it was scheduled is checked: a slow machine may run it later.
                due, asked = proxy.lease._fence.when(), self.managers.times[0]
                self.assertTrue(due <= asked + 0.9 * 0.5)
                self.assertTrue(due < granted[0] + 0.5 - 0.2)

        self.run_async(work)

    def test_limited_sessions_are_kept_while_renewals_succeed(self):
        async def work():
            self.managers.lease = 0.5
            async with self.proxy() as proxy:
                began = time.monotonic()
                await until(lambda: time.monotonic() - began > 0.7)
                times = self.managers.times
                if max(later - earlier for earlier, later in zip(times, times[1:], strict=False)) < 0.3:
                    self.assertEqual([], self.registry.mass_cuts)  # otherwise the machine is too slow to tell
                    self.assertTrue(proxy.ready)

        self.run_async(work)

    def test_a_lost_lease_is_regained_in_the_same_life(self):
        async def work():
            self.managers.lease = 0.2
            async with self.proxy() as proxy:
                await self.lose_lease()
                self.assertFalse(proxy.ready)
                self.restore_lease()
                await until(lambda: proxy.ready)
                self.assertEqual(1, len(self.managers.calls_to('register')))
                await proxy.open(TOKEN, session_id(), None)

        self.run_async(work)

    def test_an_unknown_proxy_cuts_its_sessions_and_begins_a_new_life(self):
        async def work():
            self.managers.lease = 0.1
            async with self.proxy() as proxy:
                self.step('renew', exception.ProxyUnknown(proxy_id='x'))
                await until(lambda: len(self.managers.calls_to('register')) == 2)
                self.assertIn('stored', self.registry.mass_cuts)
                await until(lambda: proxy.ready)
                first, second = self.managers.calls_to('register')
                self.assertNotEqual(first['proxy_id'], second['proxy_id'])
                self.assertEqual(first['name'], second['name'])
                session = await proxy.open(TOKEN, session_id(), None)
                self.assertEqual(second['proxy_id'], session.proxy_id)

        self.run_async(work)

    def test_an_open_that_is_refused_as_of_an_unknown_proxy_renews_the_lease_at_once(self):
        async def work():
            async with self.proxy() as proxy:  # the next regular renewal is far away
                self.step('open', exception.ProxyUnknown(proxy_id='x'))
                self.step('renew', exception.ProxyUnknown(proxy_id='x'))
                await self.refused(exception.ProxyUnknown, proxy.open(TOKEN, session_id(), None))
                await until(lambda: len(self.managers.calls_to('register')) == 2 and proxy.ready)
                await proxy.open(TOKEN, session_id(), None)

        self.run_async(work)

    def test_an_open_that_began_in_the_previous_life_is_refused_and_closed(self):
        async def work():
            async with self.proxy() as proxy:
                slow = self.step('open', waits=True)
                mine = session_id()
                task = asyncio.create_task(proxy.open(TOKEN, mine, None))
                await until(slow.arrived.is_set)
                self.step('open', exception.ProxyUnknown(proxy_id='x'))
                self.step('renew', exception.ProxyUnknown(proxy_id='x'))
                await self.refused(exception.ProxyUnknown, proxy.open(TOKEN, session_id(), None))
                await until(lambda: len(self.managers.calls_to('register')) == 2 and proxy.ready)
                slow.go.set()
                await self.refused(exception.ManagerUnreachable, task)
                await until(lambda: (mine, EndReason.OPEN_FAILED) in self.managers.closed())

        self.run_async(work)

    def test_unexpected_errors_and_replies_do_not_stop_renewals_and_reports(self):
        async def work():
            self.managers.lease = 0.06
            for answer in (
                RuntimeError('x'),
                ValueError('x'),
                {},
                {'lease': 'soon', 'now': 'x', 'cut': {}},
                {'lease': 0.06, 'now': 'x'},
                'not a mapping',
            ):
                self.step('renew', answer)
            self.step('close', ZeroDivisionError('x'))
            async with self.proxy() as proxy:
                proxy.close('an-id', 'idle')
                await until(lambda: len(self.managers.calls_to('renew')) > 8 and not len(proxy.close_reports))
                tasks = [proxy.lease._task, proxy.close_reports._task]
                self.assertEqual([False, False], [task.done() for task in tasks])

        self.run_async(work)

    def test_a_failing_registry_does_not_stop_renewals(self):
        async def work():
            self.managers.lease = 0.06
            self.registry.cuts = mock.Mock(append=mock.Mock(side_effect=RuntimeError('x')))
            async with self.proxy():
                await until(lambda: len(self.managers.calls_to('renew')) > 3)

        self.run_async(work)

    def test_a_lease_that_has_ended_does_not_hold_even_if_the_event_loop_was_busy(self):

        async def work():
            self.managers.lease = 0.1
            async with self.proxy() as proxy:
                time.sleep(0.11)  # blocks the loop: no timer runs and no answer arrives
                self.assertFalse(proxy.ready)

        self.run_async(work)
