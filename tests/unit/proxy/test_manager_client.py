# SPDX-License-Identifier: Apache-2.0
"""Calls to the managers: answered, refused, late, abandoned, and too many."""

import asyncio
from concurrent import futures
from unittest import mock

from consoled import exception
from consoled import token as tokens
from consoled.objects import EndReason
from consoled.proxy.session import Session
from tests.unit.proxy import session_base
from tests.unit.proxy.manager_base import LONG, OTHER, TOKEN, Granted, ManagerCase, session_id, until


class OpenTest(ManagerCase):
    def test_a_session_is_opened(self):
        async def work():
            async with self.proxy() as proxy:
                mine = session_id()
                session = await proxy.open(TOKEN, mine, '192.0.2.1')
                (asked,) = self.managers.calls_to('open')
                (registered,) = self.managers.calls_to('register')
                self.assertEqual(mine, session.id)
                self.assertEqual(
                    {
                        'token': TOKEN,
                        'session_id': mine,
                        'proxy_id': registered['proxy_id'],
                        'client_address': '192.0.2.1',
                    },
                    asked,
                )
            self.assertEqual([], self.managers.closed())

        self.run_async(work)

    def test_a_refusal_is_raised_unchanged_and_not_reported_as_closed(self):
        errors = [
            exception.InvalidToken(),
            exception.ConsoleInUse(since='noon'),
            exception.TooManySessions(limit=1, scope='token'),
            exception.ConsoleGone(),
        ]

        async def work():
            async with self.proxy() as proxy:
                for error in errors:
                    self.step('open', error)
                    self.assertIs(
                        error, await self.refused(type(error), proxy.open(TOKEN, session_id(), None))
                    )
            self.assertEqual([], self.managers.closed())

        self.run_async(work)

    def test_an_open_that_may_have_been_carried_out_is_reported_as_closed(self):
        errors = [
            exception.ManagerUnreachable(reason='x'),
            exception.DatabaseUnavailable(),
            exception.InternalError(),
            ValueError('malformed reply'),
        ]

        async def work():
            async with self.proxy() as proxy:
                ids = [session_id() for _ in errors]
                for error, mine in zip(errors, ids, strict=True):
                    self.step('open', error)
                    await self.refused(type(error), proxy.open(TOKEN, mine, None))
                await until(lambda: len(self.managers.closed()) >= len(errors))
                self.assertEqual({(mine, EndReason.OPEN_FAILED) for mine in ids}, set(self.managers.closed()))

        self.run_async(work)

    def test_without_a_lease_no_manager_is_asked(self):
        async def work():
            self.step('register', exception.ManagerUnreachable(reason='x'), always=True)
            async with self.proxy(ready=False) as proxy:
                await until(lambda: len(self.managers.calls_to('register')) > 1)
                self.assertFalse(proxy.ready)
                await self.refused(exception.ManagerUnreachable, proxy.open(TOKEN, session_id(), None))
            self.assertEqual([], self.managers.calls_to('open'))
            self.assertEqual([], self.managers.closed())

        self.run_async(work)

    def test_an_open_without_an_answer_in_time_is_reported_and_again_when_the_answer_comes(self):
        async def work():
            async with self.proxy(timeout=0.05) as proxy:
                step = self.step('open', waits=True)
                mine = session_id()
                await self.refused(exception.ManagerUnreachable, proxy.open(TOKEN, mine, None))
                await until(lambda: self.managers.closed() == [(mine, EndReason.OPEN_FAILED)])
                step.go.set()
                await until(lambda: self.managers.closed() == [(mine, EndReason.OPEN_FAILED)] * 2)

        self.run_async(work)

    def test_a_late_refusal_is_not_reported(self):
        async def work():
            async with self.proxy(timeout=0.05, threads=1) as proxy:
                step = self.step('open', exception.InvalidToken(), waits=True)
                mine = session_id()
                await self.refused(exception.ManagerUnreachable, proxy.open(TOKEN, mine, None))
                await until(lambda: len(self.managers.closed()) == 1)
                step.go.set()
                proxy.client._timeout = LONG
                await proxy.open(TOKEN, session_id(), None)  # uses the same thread, so it comes later
            self.assertEqual([(mine, EndReason.OPEN_FAILED)], self.managers.closed())

        self.run_async(work)

    def test_an_open_whose_user_leaves_is_reported_and_again_when_the_answer_comes(self):
        async def work():
            async with self.proxy() as proxy:
                step = self.step('open', waits=True)
                mine = session_id()
                task = asyncio.create_task(proxy.open(TOKEN, mine, None))
                await until(step.arrived.is_set)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                self.assertTrue(task.cancelled())
                await until(lambda: self.managers.closed() == [(mine, EndReason.OPEN_FAILED)])
                step.go.set()
                await until(lambda: self.managers.closed() == [(mine, EndReason.OPEN_FAILED)] * 2)

        self.run_async(work)

    def test_a_user_may_leave_at_any_moment(self):
        """A cancellation takes effect even if the answer is already on its way through the event loop."""

        async def work(turns):
            async with self.proxy() as proxy:
                pool = mock.Mock(submit=mock.Mock(return_value=futures.Future()))
                with mock.patch.object(proxy.client._opens, 'threads', pool):
                    mine = session_id()
                    task = asyncio.create_task(proxy.open(TOKEN, mine, None))
                    await asyncio.sleep(0.001)
                (call,), _ = pool.submit.call_args
                pool.submit.return_value.set_result(call())
                for _ in range(turns):
                    await asyncio.sleep(0)
                if task.cancel():
                    await asyncio.gather(task, return_exceptions=True)
                    self.assertTrue(task.cancelled(), f'cancelled after {turns} turns')
                    await until(lambda: (mine, EndReason.OPEN_FAILED) in self.managers.closed())
                    return True
                return False

        async def work_all():
            cancelled = [await work(turns) for turns in range(12)]
            self.assertIn(True, cancelled)
            self.assertIn(False, cancelled)

        self.run_async(work_all)

    async def asked_again(self, proxy):
        """A SPICE session that is asked for again for one of its two websockets, which then leaves.

        :returns: the step of that call, and the session
        """
        session = Session(('hash', None), proxy.close_reports)
        session.grant(session_base.granted('spice-html5'), 0.0)
        session.may_be_stored = True
        session.join()
        step = self.step('open', waits=True)
        task = asyncio.create_task(proxy.client.open_session(session, TOKEN))
        await until(step.arrived.is_set)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        session.abandon(EndReason.USER_LEFT)
        return step, session

    async def answered_late(self, proxy, step):
        """Have a late answer delivered: the next call is made by the same thread, so after it."""
        step.go.set()
        await proxy.validate(TOKEN)

    def test_a_late_answer_does_not_close_a_live_session(self):
        """Its other websocket may have become a channel: without its row, the session could not be cut."""

        async def work():
            async with self.proxy(threads=1) as proxy:
                step, session = await self.asked_again(proxy)
                await self.answered_late(proxy, step)
                self.assertEqual(0, len(proxy.close_reports))
                self.assertEqual([], self.managers.closed())
                session.abandon(EndReason.USER_LEFT)
                await until(lambda: self.managers.closed())
            self.assertEqual([(session.id, EndReason.USER_LEFT)], self.managers.closed())

        self.run_async(work)

    def test_a_late_answer_to_a_repeated_open_repeats_the_report_of_the_end(self):
        async def work():
            async with self.proxy(threads=1) as proxy:
                step, session = await self.asked_again(proxy)
                session.end('revoked')
                session.abandon(EndReason.USER_LEFT)
                await until(lambda: self.managers.closed() == [(session.id, 'revoked')])
                await self.answered_late(proxy, step)
                await until(lambda: self.managers.closed() == [(session.id, 'revoked')] * 2)

        self.run_async(work)

    def test_a_call_that_times_out_while_waiting_for_a_thread_is_never_made(self):
        async def work():
            async with self.proxy(timeout=0.05, threads=1) as proxy:
                hangs = self.step('open', waits=True)
                ids = [session_id(), session_id()]
                await asyncio.gather(
                    *(
                        self.refused(exception.ManagerUnreachable, proxy.open(TOKEN, each, None))
                        for each in ids
                    )
                )
                hangs.go.set()
                proxy.client._timeout = LONG
                third = session_id()
                await proxy.open(TOKEN, third, None)
                self.assertEqual(
                    [ids[0], third], [asked['session_id'] for asked in self.managers.calls_to('open')]
                )

        self.run_async(work)

    def test_calls_beyond_the_limit_are_refused_at_once(self):
        async def work():
            async with self.proxy(threads=1, max_pending=2) as proxy:
                hangs = self.step('open', waits=True)
                tasks = [asyncio.create_task(proxy.open(TOKEN, session_id(), None)) for _ in range(2)]
                await until(hangs.arrived.is_set)
                await self.refused(exception.ProxyBusy, proxy.open(OTHER, session_id(), None))
                await self.refused(exception.ProxyBusy, proxy.validate(OTHER))
                hangs.go.set()
                await asyncio.gather(*tasks)
                await until(lambda: proxy.client._opens.pending == 0)
                await proxy.open(TOKEN, session_id(), None)
            # A refused call reached no manager and needs no report, which would add to the load.
            self.assertEqual([], self.managers.closed())

        self.run_async(work)

    def test_a_call_that_timed_out_counts_until_it_returns(self):
        async def work():
            async with self.proxy(timeout=0.02, threads=1, max_pending=1) as proxy:
                hangs = self.step('open', waits=True)
                await self.refused(exception.ManagerUnreachable, proxy.open(TOKEN, session_id(), None))
                await self.refused(exception.ProxyBusy, proxy.open(TOKEN, session_id(), None))
                hangs.go.set()
                await until(lambda: proxy.client._opens.pending == 0)

        self.run_async(work)

    def test_a_call_that_cannot_be_made_does_not_count(self):
        """The system may not be able to start a thread now, and be able to later."""

        async def work():
            async with self.proxy(max_pending=1) as proxy:
                broken = mock.Mock(submit=mock.Mock(side_effect=RuntimeError("can't start new thread")))
                with mock.patch.object(proxy.client._opens, 'threads', broken):
                    await self.refused(RuntimeError, proxy.open(TOKEN, session_id(), None))
                    await self.refused(RuntimeError, proxy.validate(TOKEN))
                await proxy.open(TOKEN, session_id(), None)

        self.run_async(work)

    def test_opens_that_hang_delay_neither_renewals_nor_close_reports(self):
        async def work():
            self.managers.lease = 0.3
            async with self.proxy(threads=1) as proxy:
                hangs = self.step('open', waits=True)
                task = asyncio.create_task(proxy.open(TOKEN, session_id(), None))
                await until(hangs.arrived.is_set)
                proxy.close('an-id', 'user_left')
                await until(lambda: self.managers.closed() == [('an-id', 'user_left')])
                renewals = len(self.managers.calls_to('renew'))
                await until(lambda: len(self.managers.calls_to('renew')) > renewals + 1)
                hangs.go.set()
                await task

        self.run_async(work)

    def test_a_session_of_another_life_is_refused_and_reported_as_closed(self):
        async def work():
            async with self.proxy() as proxy:
                mine = session_id()
                self.step('open', lambda values: Granted(mine, 'another'))
                await self.refused(exception.ManagerUnreachable, proxy.open(TOKEN, mine, None))
                await until(lambda: self.managers.closed() == [(mine, EndReason.OPEN_FAILED)])

        self.run_async(work)

    async def begin_open(self, proxy, *, limited):
        """Begin to open a session; return the step of the call, the session's id, and the waiting task."""
        answer = None
        if limited:

            def answer(values):
                return Granted(values['session_id'], values['proxy_id'], limited=True)

        step, mine = self.step('open', answer, waits=True), session_id()
        task = asyncio.create_task(proxy.open(TOKEN, mine, None))
        await until(step.arrived.is_set)
        return step, mine, task

    def test_a_limited_session_that_is_opened_after_the_lease_was_lost_is_refused_and_closed(self):
        async def work():
            self.managers.lease = 0.3
            async with self.proxy() as proxy:
                step, mine, task = await self.begin_open(proxy, limited=True)
                await self.lose_lease()
                step.go.set()
                await self.refused(exception.ManagerUnreachable, task)
                await until(lambda: (mine, EndReason.OPEN_FAILED) in self.managers.closed())

        self.run_async(work)

    def test_a_limited_session_is_refused_even_if_the_lease_was_regained_meanwhile(self):
        """The managers may have given its slot to another session in between."""

        async def work():
            self.managers.lease = 0.3
            async with self.proxy() as proxy:
                step, mine, task = await self.begin_open(proxy, limited=True)
                await self.lose_lease()
                self.restore_lease()
                await until(lambda: proxy.ready)
                step.go.set()
                await self.refused(exception.ManagerUnreachable, task)
                await until(lambda: (mine, EndReason.OPEN_FAILED) in self.managers.closed())

        self.run_async(work)

    def test_an_unlimited_session_is_kept_although_the_lease_was_lost(self):
        async def work():
            self.managers.lease = 0.3
            async with self.proxy() as proxy:
                step, mine, task = await self.begin_open(proxy, limited=False)
                await self.lose_lease()
                step.go.set()
                self.assertEqual(mine, (await task).id)
            self.assertEqual([], self.managers.closed())

        self.run_async(work)

    def test_a_limited_session_is_kept_while_the_lease_holds(self):
        async def work():
            async with self.proxy() as proxy:
                step, mine, task = await self.begin_open(proxy, limited=True)
                step.go.set()
                self.assertEqual(mine, (await task).id)
            self.assertEqual([], self.managers.closed())

        self.run_async(work)

    def test_a_token_whose_calls_hang_leaves_threads_for_others(self):
        async def work():
            async with self.proxy(threads=3) as proxy:
                hangs = [self.step('open', waits=True) for _ in range(2)]
                tasks = [asyncio.create_task(proxy.open(TOKEN, session_id(), None)) for _ in range(20)]
                await until(lambda: all(step.arrived.is_set() for step in hangs))
                await proxy.open(OTHER, session_id(), None)
                for step in hangs:
                    step.go.set()
                await asyncio.gather(*tasks)
            self.assertEqual(0, len(proxy.client._by_token))

        self.run_async(work)

    def test_a_client_whose_calls_hang_leaves_half_of_the_threads_for_others(self):
        async def work():
            async with self.proxy(threads=4) as proxy:
                hangs = [self.step('open', waits=True) for _ in range(2)]
                tasks = [
                    asyncio.create_task(proxy.open(tokens.mint(), session_id(), f'2001:db8::{number:x}:1'))
                    for number in range(20)
                ]
                await until(lambda: all(step.arrived.is_set() for step in hangs))
                await proxy.open(OTHER, session_id(), '192.0.2.1')
                for step in hangs:
                    step.go.set()
                await asyncio.gather(*tasks)
            self.assertEqual(0, len(proxy.client._by_client))

        self.run_async(work)

    def test_a_call_holds_its_turn_until_it_returns_although_its_user_has_left(self):
        """Otherwise a client that connects and leaves again would take all threads."""

        async def work():
            async with self.proxy(threads=4, timeout=0.05) as proxy:
                step = self.step('open', waits=True, always=True)
                for number in range(20):
                    error = exception.RateLimited if number >= 2 else exception.ManagerUnreachable
                    await self.refused(error, proxy.open(TOKEN, session_id(), None))
                self.assertEqual(2, len(self.managers.calls_to('open')))
                step.go.set()
                await until(lambda: len(proxy.client._by_token) == 0)

        self.run_async(work)

    def test_an_open_whose_turn_does_not_come_needs_no_report(self):
        async def work():
            async with self.proxy(timeout=0.05) as proxy:
                hangs = [self.step('open', waits=True) for _ in range(2)]
                tasks = [asyncio.create_task(proxy.open(TOKEN, session_id(), None)) for _ in range(2)]
                await until(lambda: all(step.arrived.is_set() for step in hangs))
                mine = session_id()
                await self.refused(exception.RateLimited, proxy.open(TOKEN, mine, None))
                leaves = asyncio.create_task(proxy.open(TOKEN, another := session_id(), None))
                await asyncio.sleep(0)
                leaves.cancel()
                await asyncio.gather(leaves, *tasks, return_exceptions=True)
                for step in hangs:
                    step.go.set()
                await until(lambda: len(self.managers.closed()) >= 2)
            self.assertNotIn(mine, dict(self.managers.closed()))
            self.assertNotIn(another, dict(self.managers.closed()))

        self.run_async(work)

    def test_doubtful_tokens_that_hang_do_not_delay_opens(self):
        async def work():
            async with self.proxy(threads=1) as proxy:
                hangs = self.step('validate', waits=True, always=True)
                tasks = [
                    asyncio.create_task(proxy.client.validate_doubtful(tokens.mint(), f'192.0.2.{number}'))
                    for number in range(20)
                ]
                await until(hangs.arrived.is_set)
                await proxy.open(TOKEN, session_id(), '192.0.2.1')
                hangs.go.set()
                await asyncio.gather(*tasks)
                await until(lambda: proxy.client._doubtful.pending == 0)

        self.run_async(work)

    def test_doubtful_tokens_of_many_clients_do_not_count_against_opens(self):
        async def work():
            async with self.proxy(max_pending=3) as proxy:
                hangs = self.step('validate', waits=True, always=True)
                tasks = [
                    asyncio.create_task(proxy.client.validate_doubtful(tokens.mint(), f'192.0.2.{number}'))
                    for number in range(20)
                ]
                await until(lambda: proxy.client._doubtful.pending == 3)
                await proxy.open(TOKEN, session_id(), '192.0.2.1')
                hangs.go.set()
                answers = await asyncio.gather(*tasks, return_exceptions=True)
            self.assertEqual(17, sum(isinstance(answer, exception.ProxyBusy) for answer in answers))

        self.run_async(work)

    def test_a_manager_that_cannot_say_whether_a_console_is_in_use_is_asked_for_the_token(self):
        async def work():
            for refusal in (
                exception.InternalError(),  # it speaks 1.0
                exception.InvalidArgument(argument='to_open', reason='is too new for this cell'),
            ):
                async with self.proxy() as proxy:
                    self.step('validate', refusal)
                    answer = await proxy.client.validate_to_open(TOKEN, '192.0.2.1', 2)
                    self.assertEqual('a grant', answer)
                    sent = self.managers.calls_to('validate')[-2:]
                    self.assertEqual({'token': TOKEN, 'to_open': True, 'serial_port': 2}, sent[0])
                    self.assertEqual({'token': TOKEN}, sent[1])

        self.run_async(work)

    def test_a_console_in_use_is_in_use_for_whoever_asks(self):
        async def work():
            async with self.proxy() as proxy:
                self.step('validate', exception.ConsoleInUse(since='noon', free_ports=[2]))
                try:
                    await proxy.client.validate_to_open(TOKEN, '192.0.2.1', None)
                except exception.ConsoleInUse as exc:
                    self.assertEqual([2], exc.kwargs['free_ports'])
                else:
                    self.fail('it was not refused')
                self.assertEqual(1, len(self.managers.calls_to('validate')))

        self.run_async(work)

    def test_a_client_has_one_doubtful_token_validated_at_a_time(self):
        async def work():
            async with self.proxy() as proxy:
                hangs = self.step('validate', waits=True)
                first = asyncio.create_task(proxy.client.validate_doubtful(TOKEN, '192.0.2.1'))
                await until(hangs.arrived.is_set)
                second = asyncio.create_task(proxy.client.validate_doubtful(OTHER, '192.0.2.1'))
                await proxy.client.validate_doubtful(OTHER, '192.0.2.2')
                self.assertEqual(2, len(self.managers.calls_to('validate')))
                hangs.go.set()
                await asyncio.gather(first, second)

        self.run_async(work)

    def test_validate_returns_the_grant_or_raises_within_the_timeout(self):
        async def work():
            async with self.proxy() as proxy:
                self.assertEqual('a grant', await proxy.validate(TOKEN))
                self.step('validate', exception.InvalidToken())
                await self.refused(exception.InvalidToken, proxy.validate(TOKEN))
                self.step('validate', waits=True)
                proxy.client._timeout = 0.05
                await self.refused(exception.ManagerUnreachable, proxy.validate(TOKEN))
            self.assertEqual([], self.managers.closed())

        self.run_async(work)
