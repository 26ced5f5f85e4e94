# SPDX-License-Identifier: Apache-2.0
"""The lease: held, renewed, lost in time."""

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
    def test_it_registers_by_its_name(self):
        async def work():
            async with self.proxy() as proxy:
                (registered,) = self.managers.of('register')
                self.assertEqual('host:6080:0', registered['name'])
                self.assertEqual(36, len(registered['proxy_id']))
                self.assertTrue(proxy.ready)

        self.run_async(work)

    def test_it_tries_until_it_is_registered(self):
        async def work():
            for error in (exception.ManagerUnreachable(reason='x'), OSError('x'), KeyError('lease')):
                self.step('register', error)
            self.step('register', {'now': 'an answer without a lease'})
            async with self.proxy() as proxy:
                self.assertTrue(proxy.ready)
            calls = self.managers.of('register')
            self.assertEqual(5, len(calls))
            self.assertEqual(1, len({call['proxy_id'] for call in calls}), 'a repeated call has the same id')

        self.run_async(work)

    def test_it_renews_well_before_the_end(self):
        async def work():
            self.managers.lease = 0.3
            async with self.proxy():
                await until(lambda: len(self.managers.of('renew')) >= 4)
            times = self.managers.times
            for earlier, later in zip(times, times[1:], strict=False):
                self.assertTrue(later - earlier >= 0.3 / 3 * 0.85)
            self.assertEqual(
                {self.managers.of('register')[0]['proxy_id']},
                {c['proxy_id'] for c in self.managers.of('renew')},
            )

        self.run_async(work)

    def test_from_time_to_time_it_names_its_sessions_as_of_the_last_moment_it_was_told(self):
        async def work():
            self.managers.lease = 0.3
            self.registry.live = ['one', 'two']
            async with self.proxy():
                await until(lambda: any('sessions' in call for call in self.managers.of('renew')))
            calls = self.managers.of('renew')
            number = next(n for n, call in enumerate(calls) if 'sessions' in call)
            self.assertEqual(4, number % 5)
            self.assertEqual(['one', 'two'], calls[number]['sessions'])
            # register told moment 1, each renewal the next one
            self.assertEqual(f'moment {number + 1}', calls[number]['as_of'])
            for call in calls:
                self.assertEqual('sessions' in call, 'as_of' in call)

        self.run_async(work)

    def test_sessions_that_are_being_opened_are_named_too(self):
        async def work():
            self.managers.lease = 0.06
            self.registry.live = ['one']
            async with self.proxy() as proxy:
                step = self.step('open', waits=True)
                mine = session_id()
                task = asyncio.create_task(proxy.open(TOKEN, mine, None))
                await until(lambda: any('sessions' in call for call in self.managers.of('renew')))
                named = next(call['sessions'] for call in self.managers.of('renew') if 'sessions' in call)
                self.assertEqual(['one', mine], named)
                step.go.set()
                await task

        self.run_async(work)

    def test_one_that_was_being_opened_is_not_cut_for_having_been_unknown_then(self):
        """Its row may have come after the managers had compared: the answers can overtake each other."""

        async def work():
            self.managers.lease = 0.06
            self.useFixture(fixtures.MockPatchObject(lease, '_LIST_EVERY', 1))
            async with self.proxy() as proxy:
                opening, listing = self.step('open', waits=True), threading.Event()
                mine = session_id()

                def compared(asked):
                    named = asked.get('sessions')
                    if not named:
                        return None
                    listing.set()
                    answered.wait(PATIENCE)
                    cut = dict.fromkeys(named, 'lease_lost') | {'other': 'revoked'}
                    return {'lease': LONG, 'now': 'then', 'cut': cut}

                answered = threading.Event()
                self.addCleanup(answered.set)
                self.step('renew', compared, always=True)
                self.registry.live = ['gone']
                task = asyncio.create_task(proxy.open(TOKEN, mine, None))
                await until(opening.arrived.is_set)
                await until(lambda: listing.is_set() and mine in self.managers.of('renew')[-1]['sessions'])
                opening.go.set()
                await task
                answered.set()
                await until(lambda: any('gone' in cut for cut in self.registry.cuts))
                (told,) = [cut for cut in self.registry.cuts if 'gone' in cut]
                self.assertEqual({'gone': 'lease_lost', 'other': 'revoked'}, told)

        self.run_async(work)

    def test_but_it_is_cut_for_any_other_reason(self):
        async def work():
            self.managers.lease = 0.06
            self.useFixture(fixtures.MockPatchObject(lease, '_LIST_EVERY', 1))
            async with self.proxy() as proxy:
                opening = self.step('open', waits=True)
                mine = session_id()
                self.step(
                    'renew',
                    lambda asked: (
                        {'lease': LONG, 'now': 'x', 'cut': {mine: 'revoked'}}
                        if mine in asked.get('sessions', ())
                        else None
                    ),
                    always=True,
                )
                task = asyncio.create_task(proxy.open(TOKEN, mine, None))
                await until(lambda: any(mine in cut for cut in self.registry.cuts))
                opening.go.set()
                await task

        self.run_async(work)

    def test_what_the_managers_cut_is_cut(self):
        async def work():
            self.managers.lease = 0.3
            self.step('renew', {'lease': 0.3, 'now': 'x', 'cut': {'an-id': 'revoked'}})
            async with self.proxy():
                await until(lambda: {'an-id': 'revoked'} in self.registry.cuts)

        self.run_async(work)

    def test_limited_sessions_are_cut_before_the_lease_ends_for_the_managers(self):
        """Their lease begins when they answer; ours before the question leaves (invariant 4)."""

        async def work():
            self.managers.lease = 0.5
            granted = []

            def slow(asked):
                time.sleep(0.2)
                granted.append(time.monotonic())

            self.step('register', slow)
            async with self.proxy(ready=False) as proxy:
                self.step('renew', exception.ManagerUnreachable(reason='x'), always=True)
                await until(lambda: self.registry.told == ['limited'])
                self.assertFalse(proxy.ready)
                # when it was due: how late it came is this machine's affair
                due, asked = proxy.lease._fence.when(), self.managers.times[0]
                self.assertTrue(due <= asked + 0.9 * 0.5)
                self.assertTrue(due < granted[0] + 0.5 - 0.2)

        self.run_async(work)

    def test_a_renewal_in_time_keeps_them(self):
        async def work():
            self.managers.lease = 0.5
            async with self.proxy() as proxy:
                began = time.monotonic()
                await until(lambda: time.monotonic() - began > 0.7)
                times = self.managers.times
                if max(later - earlier for earlier, later in zip(times, times[1:], strict=False)) < 0.3:
                    self.assertEqual([], self.registry.told)  # else this machine is too slow to tell
                    self.assertTrue(proxy.ready)

        self.run_async(work)

    def test_the_lease_comes_back_by_itself(self):
        async def work():
            self.managers.lease = 0.2
            async with self.proxy() as proxy:
                await self.lose_lease()
                self.assertFalse(proxy.ready)
                self.give_lease()
                await until(lambda: proxy.ready)
                self.assertEqual(1, len(self.managers.of('register')), 'it is the same life')
                await proxy.open(TOKEN, session_id(), None)

        self.run_async(work)

    def test_a_proxy_that_is_not_known_begins_a_new_life_without_its_sessions(self):
        async def work():
            self.managers.lease = 0.1
            async with self.proxy() as proxy:
                self.step('renew', exception.ProxyUnknown(proxy_id='x'))
                await until(lambda: len(self.managers.of('register')) == 2)
                self.assertIn('all', self.registry.told)
                await until(lambda: proxy.ready)
                first, second = self.managers.of('register')
                self.assertNotEqual(first['proxy_id'], second['proxy_id'])
                self.assertEqual(first['name'], second['name'])
                session = await proxy.open(TOKEN, session_id(), None)
                self.assertEqual(second['proxy_id'], session.proxy_id)

        self.run_async(work)

    def test_an_open_that_finds_it_out_has_the_lease_looked_after_at_once(self):
        async def work():
            async with self.proxy() as proxy:  # the next renewal is far away
                self.step('open', exception.ProxyUnknown(proxy_id='x'))
                self.step('renew', exception.ProxyUnknown(proxy_id='x'))
                await self.refused(exception.ProxyUnknown, proxy.open(TOKEN, session_id(), None))
                await until(lambda: len(self.managers.of('register')) == 2 and proxy.ready)
                await proxy.open(TOKEN, session_id(), None)

        self.run_async(work)

    def test_an_open_that_began_in_the_life_before_is_refused(self):
        async def work():
            async with self.proxy() as proxy:
                slow = self.step('open', waits=True)
                mine = session_id()
                task = asyncio.create_task(proxy.open(TOKEN, mine, None))
                await until(slow.arrived.is_set)
                self.step('open', exception.ProxyUnknown(proxy_id='x'))
                self.step('renew', exception.ProxyUnknown(proxy_id='x'))
                await self.refused(exception.ProxyUnknown, proxy.open(TOKEN, session_id(), None))
                await until(lambda: len(self.managers.of('register')) == 2 and proxy.ready)
                slow.go.set()
                await self.refused(exception.ManagerUnreachable, task)
                await until(lambda: (mine, EndReason.OPEN_FAILED) in self.managers.closed())

        self.run_async(work)

    def test_nothing_unexpected_ends_it(self):
        async def work():
            self.managers.lease = 0.06
            for answer in (
                RuntimeError('x'),
                ValueError('x'),
                {},
                {'lease': 'soon', 'now': 'x', 'cut': {}},
                {'lease': 0.06, 'now': 'x'},
                'no answer of ours',
            ):
                self.step('renew', answer)
            self.step('close', ZeroDivisionError('x'))
            async with self.proxy() as proxy:
                proxy.close('an-id', 'idle')
                await until(lambda: len(self.managers.of('renew')) > 8 and not len(proxy.close_reports))
                tasks = [proxy.lease._task, proxy.close_reports._task]
                self.assertEqual([False, False], [task.done() for task in tasks])

        self.run_async(work)

    def test_a_failing_registry_does_not_stop_renewals(self):
        async def work():
            self.managers.lease = 0.06
            self.registry.cuts = mock.Mock(append=mock.Mock(side_effect=RuntimeError('x')))
            async with self.proxy():
                await until(lambda: len(self.managers.of('renew')) > 3)

        self.run_async(work)

    def test_a_lease_that_has_ended_is_none(self):
        """Even if the event loop was too busy to say so."""

        async def work():
            self.managers.lease = 0.1
            async with self.proxy() as proxy:
                time.sleep(0.11)  # the loop is busy: no timer and no answer has come
                self.assertFalse(proxy.ready)

        self.run_async(work)
