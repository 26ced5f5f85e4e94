# SPDX-License-Identifier: Apache-2.0
"""Opening, closing and the lease, with managers that answer when they are told to."""

import asyncio
import contextlib
import dataclasses
import threading
import time
import uuid
from concurrent import futures
from unittest import mock

import fixtures
import testtools

from consoled import exception
from consoled import token as tokens
from consoled.proxy import authorizer, close_codes
from consoled.rpc.replies import Closing, LeaseGrant, LeaseRenewal

TOKEN = tokens.mint()
PATIENCE = 60  # seconds that a test waits for what happens at once; a slow machine is no reason to fail
LONG = 1000.0  # seconds: of a lease, or of a wait for an answer, that does not end during a test


@dataclasses.dataclass
class Granted:
    """A ConsoleSession, as far as it matters here."""

    id: str
    proxy_id: str
    limited: bool = False
    cut_reason: str | None = None


class Step:
    """What happens to a call: it waits for ``go``, then it is answered."""

    def __init__(self, answer=None, *, waits=False):
        self.answer = answer
        self.arrived = threading.Event()
        self.go = threading.Event()
        if not waits:
            self.go.set()

    def taken(self, values):
        self.arrived.set()
        self.go.wait(PATIENCE)
        answer = self.answer(values) if callable(self.answer) else self.answer
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Managers:
    """What ConsoleAuthAPI has for a proxy. By default everything goes well, at once.

    :ivar calls: (method, values) in the order in which they arrived
    :ivar next: steps of the next calls of a method
    :ivar always: the step of all further calls of a method
    """

    def __init__(self, lease=LONG):
        self.lease = lease
        self.calls = []
        self.times = []
        self.next = {}
        self.always = {}
        self._lock = threading.Lock()
        self._moment = 0

    def now(self):
        with self._lock:
            self._moment += 1
            return f'moment {self._moment}'

    def _take(self, method, default, **values):
        with self._lock:
            self.calls.append((method, values))
            self.times.append(time.monotonic())
            queued = self.next.get(method)
            step = queued.pop(0) if queued else self.always.get(method)
        answer = None if step is None else step.taken(values)
        return default() if answer is None else answer

    def register_proxy(self, context, proxy_id, name):
        reply = self._take(
            'register', lambda: {'lease': self.lease, 'now': self.now()}, proxy_id=proxy_id, name=name
        )
        return LeaseGrant.from_wire(reply)

    def renew_lease(self, context, proxy_id, closed=None, sessions=None, as_of=None):
        given = {'closed': closed, 'sessions': sessions, 'as_of': as_of}
        reply = self._take(
            'renew',
            lambda: {'lease': self.lease, 'now': self.now(), 'cut': {}},
            proxy_id=proxy_id,
            **{name: value for name, value in given.items() if value is not None},
        )
        return LeaseRenewal.from_wire(reply)

    def open_session(self, context, token, session_id, proxy_id, client_address):
        return self._take(
            'open',
            lambda: Granted(session_id, proxy_id),
            token=token,
            session_id=session_id,
            proxy_id=proxy_id,
            client_address=client_address,
        )

    def close_session(self, context, closing):
        self._take('close', lambda: True, **closing.to_wire())

    def validate(self, context, token):
        return self._take('validate', lambda: 'a grant', token=token)

    def of(self, method):
        """The values of the calls of a method."""
        with self._lock:
            return [values for name, values in self.calls if name == method]

    def closed(self):
        """(id, reason) of each closing that arrived, in order."""
        with self._lock:
            calls = list(self.calls)
        found = []
        for method, values in calls:
            if method == 'close':
                found.append((values['session_id'], values['reason']))
            found += [(closing.session_id, closing.reason) for closing in values.get('closed') or ()]
        return found


async def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError('it did not happen')
        await asyncio.sleep(0.001)


class AuthorizerCase(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.useFixture(fixtures.MockPatchObject(authorizer, '_RETRY', 0.01))
        self.log = self.useFixture(fixtures.FakeLogger())
        self.managers = Managers()
        self.live = []
        self.cuts = []
        self.told = []  # to cut 'limited' sessions, or 'all'

    def step(self, method, answer=None, *, waits=False, always=False):
        """Plan what happens to the next call of a method, or to all that have no plan."""
        step = Step(answer, waits=waits)
        if always:
            self.managers.always[method] = step
        else:
            self.managers.next.setdefault(method, []).append(step)
        self.addCleanup(step.go.set)
        return step

    async def lose_lease(self):
        """From now on nothing is renewed; wait until that has had its effect."""
        self.step('renew', exception.ManagerUnreachable(reason='x'), always=True)
        await until(lambda: 'limited' in self.told)

    def give_lease(self):
        self.managers.lease = LONG
        del self.managers.always['renew']

    @contextlib.asynccontextmanager
    async def authorizer(self, *, timeout=LONG, threads=4, max_pending=100, ready=True):
        found = authorizer.Authorizer(
            self.managers,
            'host:6080:0',
            timeout=timeout,
            threads=threads,
            max_pending=max_pending,
            live=lambda: list(self.live),
            cut=self.cuts.append,
            cut_limited=lambda: self.told.append('limited'),
            cut_all=lambda: self.told.append('all'),
        )
        found.start()
        try:
            if ready:
                await until(lambda: found.ready)
            yield found
        finally:
            for step in [*self.managers.always.values(), *sum(self.managers.next.values(), [])]:
                step.go.set()
            await found.stop(0)

    def run_async(self, work):
        """Run a test; an error that nobody has looked at fails it too."""
        unseen = []

        async def guarded():
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: unseen.append(context))
            await work()

        asyncio.run(guarded())
        self.assertEqual([], unseen)
        self.assertNotIn(TOKEN, self.log.output)

    async def refused(self, error, work):
        try:
            await work
        except error as exc:
            self.assertIs(error, type(exc))
            return exc
        raise AssertionError(f'{error.__name__} was not raised')


def session_id():
    return str(uuid.uuid4())


class OpenTest(AuthorizerCase):
    def test_a_session_is_opened(self):
        async def work():
            async with self.authorizer() as proxy:
                mine = session_id()
                session = (await proxy.open(TOKEN, mine, '192.0.2.1')).session
                (asked,) = self.managers.of('open')
                (registered,) = self.managers.of('register')
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

    def test_refusals_pass_as_they_are_and_nothing_is_closed(self):
        errors = [
            exception.InvalidToken(),
            exception.ConsoleInUse(since='noon'),
            exception.TooManySessions(limit=1, scope='token'),
            exception.ConsoleGone(),
        ]

        async def work():
            async with self.authorizer() as proxy:
                for error in errors:
                    self.step('open', error)
                    self.assertIs(
                        error, await self.refused(type(error), proxy.open(TOKEN, session_id(), None))
                    )
            self.assertEqual([], self.managers.closed())

        self.run_async(work)

    def test_what_may_have_been_carried_out_is_closed(self):
        errors = [
            exception.ManagerUnreachable(reason='x'),
            exception.DatabaseUnavailable(),
            exception.InternalError(),
            ValueError('the answer can not be read'),
        ]

        async def work():
            async with self.authorizer() as proxy:
                ids = [session_id() for _ in errors]
                for error, mine in zip(errors, ids, strict=True):
                    self.step('open', error)
                    await self.refused(type(error), proxy.open(TOKEN, mine, None))
                await until(lambda: len(self.managers.closed()) >= len(errors))
                self.assertEqual(
                    {(mine, close_codes.OPEN_FAILED) for mine in ids}, set(self.managers.closed())
                )

        self.run_async(work)

    def test_without_a_lease_nothing_is_asked(self):
        async def work():
            self.step('register', exception.ManagerUnreachable(reason='x'), always=True)
            async with self.authorizer(ready=False) as proxy:
                await until(lambda: len(self.managers.of('register')) > 1)
                self.assertFalse(proxy.ready)
                await self.refused(exception.ManagerUnreachable, proxy.open(TOKEN, session_id(), None))
            self.assertEqual([], self.managers.of('open'))
            self.assertEqual([], self.managers.closed())

        self.run_async(work)

    def test_no_answer_in_time_is_an_answer_and_a_late_one_is_closed_again(self):
        async def work():
            async with self.authorizer(timeout=0.05) as proxy:
                step = self.step('open', waits=True)
                mine = session_id()
                await self.refused(exception.ManagerUnreachable, proxy.open(TOKEN, mine, None))
                await until(lambda: self.managers.closed() == [(mine, close_codes.OPEN_FAILED)])
                step.go.set()
                await until(lambda: self.managers.closed() == [(mine, close_codes.OPEN_FAILED)] * 2)

        self.run_async(work)

    def test_a_late_refusal_is_of_no_interest(self):
        async def work():
            async with self.authorizer(timeout=0.05, threads=1) as proxy:
                step = self.step('open', exception.InvalidToken(), waits=True)
                mine = session_id()
                await self.refused(exception.ManagerUnreachable, proxy.open(TOKEN, mine, None))
                await until(lambda: len(self.managers.closed()) == 1)
                step.go.set()
                proxy._timeout = LONG
                await proxy.open(TOKEN, session_id(), None)  # by the same thread, so after it
            self.assertEqual([(mine, close_codes.OPEN_FAILED)], self.managers.closed())

        self.run_async(work)

    def test_a_user_who_leaves_is_not_opened_for(self):
        async def work():
            async with self.authorizer() as proxy:
                step = self.step('open', waits=True)
                mine = session_id()
                task = asyncio.create_task(proxy.open(TOKEN, mine, None))
                await until(step.arrived.is_set)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                self.assertTrue(task.cancelled())
                await until(lambda: self.managers.closed() == [(mine, close_codes.OPEN_FAILED)])
                step.go.set()
                await until(lambda: self.managers.closed() == [(mine, close_codes.OPEN_FAILED)] * 2)

        self.run_async(work)

    def test_a_user_may_leave_at_any_moment(self):
        """The answer may be on its way through the event loop already: who is told to end, ends."""

        async def work(turns):
            async with self.authorizer() as proxy:
                pool = mock.Mock(submit=mock.Mock(return_value=futures.Future()))
                with mock.patch.object(proxy, '_opens', pool):
                    mine = session_id()
                    task = asyncio.create_task(proxy.open(TOKEN, mine, None))
                    await asyncio.sleep(0.001)
                (call,), _ = pool.submit.call_args
                pool.submit.return_value.set_result(call())
                for _ in range(turns):
                    await asyncio.sleep(0)
                if task.cancel():
                    await asyncio.gather(task, return_exceptions=True)
                    self.assertTrue(task.cancelled(), f'not after {turns} turns')
                    await until(lambda: (mine, close_codes.OPEN_FAILED) in self.managers.closed())
                    return True
                return False

        async def work_all():
            leaving = [await work(turns) for turns in range(12)]
            self.assertIn(True, leaving)
            self.assertIn(False, leaving)

        self.run_async(work_all)

    def test_a_call_that_waits_for_a_thread_is_not_made_for_nobody(self):
        async def work():
            async with self.authorizer(timeout=0.05, threads=1) as proxy:
                hangs = self.step('open', waits=True)
                ids = [session_id(), session_id()]
                await asyncio.gather(
                    *(
                        self.refused(exception.ManagerUnreachable, proxy.open(TOKEN, each, None))
                        for each in ids
                    )
                )
                hangs.go.set()
                proxy._timeout = LONG
                third = session_id()
                await proxy.open(TOKEN, third, None)
                self.assertEqual([ids[0], third], [asked['session_id'] for asked in self.managers.of('open')])

        self.run_async(work)

    def test_more_than_may_wait_are_refused_at_once(self):
        async def work():
            async with self.authorizer(threads=1, max_pending=2) as proxy:
                hangs = self.step('open', waits=True)
                tasks = [asyncio.create_task(proxy.open(TOKEN, session_id(), None)) for _ in range(2)]
                await until(hangs.arrived.is_set)
                await self.refused(exception.ProxyBusy, proxy.open(TOKEN, session_id(), None))
                await self.refused(exception.ProxyBusy, proxy.validate(TOKEN))
                hangs.go.set()
                await asyncio.gather(*tasks)
                await until(lambda: proxy._asked == 0)
                await proxy.open(TOKEN, session_id(), None)
            # what was never asked for needs no closing: those who are busy already would get one for each
            self.assertEqual([], self.managers.closed())

        self.run_async(work)

    def test_those_who_gave_up_waiting_still_count_until_their_call_has_ended(self):
        async def work():
            async with self.authorizer(timeout=0.02, threads=1, max_pending=1) as proxy:
                hangs = self.step('open', waits=True)
                await self.refused(exception.ManagerUnreachable, proxy.open(TOKEN, session_id(), None))
                await self.refused(exception.ProxyBusy, proxy.open(TOKEN, session_id(), None))
                hangs.go.set()
                await until(lambda: proxy._asked == 0)

        self.run_async(work)

    def test_opens_that_hang_keep_neither_the_lease_nor_closings_waiting(self):
        async def work():
            self.managers.lease = 0.3
            async with self.authorizer(threads=1) as proxy:
                hangs = self.step('open', waits=True)
                task = asyncio.create_task(proxy.open(TOKEN, session_id(), None))
                await until(hangs.arrived.is_set)
                proxy.close('an-id', 'user_left')
                await until(lambda: self.managers.closed() == [('an-id', 'user_left')])
                renewals = len(self.managers.of('renew'))
                await until(lambda: len(self.managers.of('renew')) > renewals + 1)
                hangs.go.set()
                await task

        self.run_async(work)

    def test_a_session_of_another_life_is_refused_and_closed(self):
        async def work():
            async with self.authorizer() as proxy:
                mine = session_id()
                self.step('open', lambda asked: Granted(mine, 'another'))
                await self.refused(exception.ManagerUnreachable, proxy.open(TOKEN, mine, None))
                await until(lambda: self.managers.closed() == [(mine, close_codes.OPEN_FAILED)])

        self.run_async(work)

    async def being_opened(self, proxy, *, limited):
        """A call under way: its step, its session's id, and the task that waits for it."""
        answer = None
        if limited:

            def answer(asked):
                return Granted(asked['session_id'], asked['proxy_id'], limited=True)

        step, mine = self.step('open', answer, waits=True), session_id()
        task = asyncio.create_task(proxy.open(TOKEN, mine, None))
        await until(step.arrived.is_set)
        return step, mine, task

    def test_a_limited_session_that_comes_after_the_lease_was_lost_is_refused_and_closed(self):
        async def work():
            self.managers.lease = 0.3
            async with self.authorizer() as proxy:
                step, mine, task = await self.being_opened(proxy, limited=True)
                await self.lose_lease()
                step.go.set()
                await self.refused(exception.ManagerUnreachable, task)
                await until(lambda: (mine, close_codes.OPEN_FAILED) in self.managers.closed())

        self.run_async(work)

    def test_nor_is_it_taken_once_there_is_a_lease_again(self):
        """The managers may have given its place to somebody else in between."""

        async def work():
            self.managers.lease = 0.3
            async with self.authorizer() as proxy:
                step, mine, task = await self.being_opened(proxy, limited=True)
                await self.lose_lease()
                self.give_lease()
                await until(lambda: proxy.ready)
                step.go.set()
                await self.refused(exception.ManagerUnreachable, task)
                await until(lambda: (mine, close_codes.OPEN_FAILED) in self.managers.closed())

        self.run_async(work)

    def test_an_unlimited_one_is_taken_all_the_same(self):
        async def work():
            self.managers.lease = 0.3
            async with self.authorizer() as proxy:
                step, mine, task = await self.being_opened(proxy, limited=False)
                await self.lose_lease()
                step.go.set()
                self.assertEqual(mine, (await task).session.id)
            self.assertEqual([], self.managers.closed())

        self.run_async(work)

    def test_a_limited_one_is_taken_while_the_lease_holds(self):
        async def work():
            async with self.authorizer() as proxy:
                step, mine, task = await self.being_opened(proxy, limited=True)
                step.go.set()
                self.assertEqual(mine, (await task).session.id)
            self.assertEqual([], self.managers.closed())

        self.run_async(work)

    def test_validate(self):
        async def work():
            async with self.authorizer() as proxy:
                self.assertEqual('a grant', await proxy.validate(TOKEN))
                self.step('validate', exception.InvalidToken())
                await self.refused(exception.InvalidToken, proxy.validate(TOKEN))
                self.step('validate', waits=True)
                proxy._timeout = 0.05
                await self.refused(exception.ManagerUnreachable, proxy.validate(TOKEN))
            self.assertEqual([], self.managers.closed())

        self.run_async(work)


class CloseTest(AuthorizerCase):
    def test_one_is_reported_with_its_bytes(self):
        async def work():
            async with self.authorizer() as proxy:
                proxy.close('an-id', 'idle', 12, 345)
                await until(lambda: self.managers.of('close'))
            self.assertEqual(
                [{'session_id': 'an-id', 'reason': 'idle', 'bytes_in': 12, 'bytes_out': 345}],
                self.managers.of('close'),
            )

        self.run_async(work)

    def test_it_is_repeated_until_it_is_acknowledged(self):
        async def work():
            async with self.authorizer() as proxy:
                for error in (
                    exception.ManagerUnreachable(reason='x'),
                    exception.InternalError(),
                    OSError('x'),
                ):
                    self.step('close', error)
                proxy.close('an-id', 'idle')
                await until(lambda: not proxy._closed)
            self.assertEqual([('an-id', 'idle')] * 4, self.managers.closed())

        self.run_async(work)

    def test_those_that_come_together_go_together(self):
        async def work():
            async with self.authorizer() as proxy:
                step = self.step('close', waits=True)
                proxy.close('0', 'idle')
                await until(step.arrived.is_set)
                for number in range(1, 4):
                    proxy.close(str(number), 'idle')
                step.go.set()
                await until(lambda: not proxy._closed)
                (registered,) = self.managers.of('register')
                (batch,) = [call for call in self.managers.of('renew') if 'closed' in call]
                self.assertEqual(registered['proxy_id'], batch['proxy_id'])
                self.assertEqual(['1', '2', '3'], [closing.session_id for closing in batch['closed']])
                self.assertIsInstance(batch['closed'][0], Closing)

        self.run_async(work)

    def test_a_batch_is_bounded(self):
        async def work():
            self.useFixture(fixtures.MockPatchObject(authorizer, '_MOST_AT_ONCE', 10))
            async with self.authorizer() as proxy:
                for number in range(25):
                    proxy.close(str(number), 'idle')
                await until(lambda: not proxy._closed)
            sizes = [len(call['closed']) for call in self.managers.of('renew') if 'closed' in call]
            self.assertEqual([10, 10, 5], sizes)
            self.assertEqual(
                [str(number) for number in range(25)], [each for each, _ in self.managers.closed()]
            )

        self.run_async(work)

    def test_a_batch_is_repeated_too(self):
        async def work():
            async with self.authorizer() as proxy:
                self.step('renew', exception.ManagerUnreachable(reason='x'))
                self.step('renew', exception.ManagerUnreachable(reason='x'))
                proxy.close('1', 'idle')
                proxy.close('2', 'idle')
                await until(lambda: not proxy._closed)
            self.assertEqual(['1', '2'] * 3, [each for each, _ in self.managers.closed()])

        self.run_async(work)

    def test_where_the_proxy_is_not_known_its_sessions_are_over_already(self):
        async def work():
            async with self.authorizer() as proxy:
                self.step('renew', exception.ProxyUnknown(proxy_id='x'))
                proxy.close('1', 'idle')
                proxy.close('2', 'idle')
                await until(lambda: not proxy._closed)
            self.assertEqual(2, len(self.managers.closed()))

        self.run_async(work)

    def test_one_that_is_closed_again_while_it_is_reported_is_reported_again(self):
        async def work():
            async with self.authorizer() as proxy:
                step = self.step('close', waits=True)
                proxy.close('an-id', close_codes.OPEN_FAILED)
                await until(step.arrived.is_set)
                proxy.close('an-id', 'idle', 1, 2)
                step.go.set()
                await until(lambda: not proxy._closed)
            self.assertEqual([('an-id', close_codes.OPEN_FAILED), ('an-id', 'idle')], self.managers.closed())

        self.run_async(work)

    def test_stopping_waits_for_those_that_are_left(self):
        async def work():
            async with self.authorizer() as proxy:
                self.step('close', OSError('x'))
                proxy.close('an-id', 'drained')
                await proxy.stop(PATIENCE)
                self.assertEqual([('an-id', 'drained')] * 2, self.managers.closed())

        self.run_async(work)

    def test_but_not_for_ever(self):
        async def work():
            async with self.authorizer() as proxy:
                self.step('close', OSError('x'), always=True)
                proxy.close('an-id', 'drained')
                began = time.monotonic()
                await proxy.stop(0.05)
                self.assertTrue(time.monotonic() - began < PATIENCE / 2)

        self.run_async(work)


class LeaseTest(AuthorizerCase):
    def test_it_registers_by_its_name(self):
        async def work():
            async with self.authorizer() as proxy:
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
            async with self.authorizer() as proxy:
                self.assertTrue(proxy.ready)
            calls = self.managers.of('register')
            self.assertEqual(5, len(calls))
            self.assertEqual(1, len({call['proxy_id'] for call in calls}), 'a repeated call has the same id')

        self.run_async(work)

    def test_it_renews_well_before_the_end(self):
        async def work():
            self.managers.lease = 0.3
            async with self.authorizer():
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
            self.live = ['one', 'two']
            async with self.authorizer():
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
            self.live = ['one']
            async with self.authorizer() as proxy:
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
            self.useFixture(fixtures.MockPatchObject(authorizer, '_LIST_EVERY', 1))
            async with self.authorizer() as proxy:
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
                self.live = ['gone']
                task = asyncio.create_task(proxy.open(TOKEN, mine, None))
                await until(opening.arrived.is_set)
                await until(lambda: listing.is_set() and mine in self.managers.of('renew')[-1]['sessions'])
                opening.go.set()
                await task
                answered.set()
                await until(lambda: any('gone' in cut for cut in self.cuts))
                (told,) = [cut for cut in self.cuts if 'gone' in cut]
                self.assertEqual({'gone': 'lease_lost', 'other': 'revoked'}, told)

        self.run_async(work)

    def test_but_it_is_cut_for_any_other_reason(self):
        async def work():
            self.managers.lease = 0.06
            self.useFixture(fixtures.MockPatchObject(authorizer, '_LIST_EVERY', 1))
            async with self.authorizer() as proxy:
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
                await until(lambda: any(mine in cut for cut in self.cuts))
                opening.go.set()
                await task

        self.run_async(work)

    def test_what_the_managers_cut_is_cut(self):
        async def work():
            self.managers.lease = 0.3
            self.step('renew', {'lease': 0.3, 'now': 'x', 'cut': {'an-id': 'revoked'}})
            async with self.authorizer():
                await until(lambda: {'an-id': 'revoked'} in self.cuts)

        self.run_async(work)

    def test_limited_sessions_are_cut_before_the_lease_ends_for_the_managers(self):
        """Their lease begins when they answer; ours before the question leaves (DESIGN invariant 4)."""

        async def work():
            self.managers.lease = 0.5
            granted = []

            def slow(asked):
                time.sleep(0.2)
                granted.append(time.monotonic())

            self.step('register', slow)
            async with self.authorizer(ready=False) as proxy:
                self.step('renew', exception.ManagerUnreachable(reason='x'), always=True)
                await until(lambda: self.told == ['limited'])
                self.assertFalse(proxy.ready)
                # when it was due: how late it came is this machine's affair
                due, asked = proxy._fence.when(), self.managers.times[0]
                self.assertTrue(due <= asked + 0.9 * 0.5)
                self.assertTrue(due < granted[0] + 0.5 - 0.2)

        self.run_async(work)

    def test_a_renewal_in_time_keeps_them(self):
        async def work():
            self.managers.lease = 0.5
            async with self.authorizer() as proxy:
                began = time.monotonic()
                await until(lambda: time.monotonic() - began > 0.7)
                times = self.managers.times
                if max(later - earlier for earlier, later in zip(times, times[1:], strict=False)) < 0.3:
                    self.assertEqual([], self.told)  # else this machine is too slow to tell
                    self.assertTrue(proxy.ready)

        self.run_async(work)

    def test_the_lease_comes_back_by_itself(self):
        async def work():
            self.managers.lease = 0.2
            async with self.authorizer() as proxy:
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
            async with self.authorizer() as proxy:
                self.step('renew', exception.ProxyUnknown(proxy_id='x'))
                await until(lambda: len(self.managers.of('register')) == 2)
                self.assertIn('all', self.told)
                await until(lambda: proxy.ready)
                first, second = self.managers.of('register')
                self.assertNotEqual(first['proxy_id'], second['proxy_id'])
                self.assertEqual(first['name'], second['name'])
                session = (await proxy.open(TOKEN, session_id(), None)).session
                self.assertEqual(second['proxy_id'], session.proxy_id)

        self.run_async(work)

    def test_an_open_that_finds_it_out_has_the_lease_looked_after_at_once(self):
        async def work():
            async with self.authorizer() as proxy:  # the next renewal is far away
                self.step('open', exception.ProxyUnknown(proxy_id='x'))
                self.step('renew', exception.ProxyUnknown(proxy_id='x'))
                await self.refused(exception.ProxyUnknown, proxy.open(TOKEN, session_id(), None))
                await until(lambda: len(self.managers.of('register')) == 2 and proxy.ready)
                await proxy.open(TOKEN, session_id(), None)

        self.run_async(work)

    def test_an_open_that_began_in_the_life_before_is_refused(self):
        async def work():
            async with self.authorizer() as proxy:
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
                await until(lambda: (mine, close_codes.OPEN_FAILED) in self.managers.closed())

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
            async with self.authorizer() as proxy:
                proxy.close('an-id', 'idle')
                await until(lambda: len(self.managers.of('renew')) > 8 and not proxy._closed)
                self.assertEqual(
                    ['closings', 'lease'], sorted(task.get_name() for task in proxy._tasks if not task.done())
                )

        self.run_async(work)

    def test_one_that_can_not_be_told_of_cuts_goes_on_renewing(self):
        async def work():
            self.managers.lease = 0.06
            self.cuts = mock.Mock(append=mock.Mock(side_effect=RuntimeError('x')))
            async with self.authorizer():
                await until(lambda: len(self.managers.of('renew')) > 3)

        self.run_async(work)

    def test_a_lease_that_has_ended_is_none(self):
        """Even if the event loop was too busy to say so."""

        async def work():
            self.managers.lease = 0.1
            async with self.authorizer() as proxy:
                time.sleep(0.11)  # the loop is busy: no timer and no answer has come
                self.assertFalse(proxy.ready)

        self.run_async(work)
