# SPDX-License-Identifier: Apache-2.0
"""Managers that answer when they are told to, and the parts of a proxy that call them."""

import asyncio
import contextlib
import dataclasses
import threading
import time
import uuid

import fixtures
import testtools

from consoled import exception
from consoled import token as tokens
from consoled.objects import EndReason
from consoled.proxy import close_reports, lease
from consoled.proxy.close_reports import CloseReports
from consoled.proxy.lease import Lease, ProxyLife
from consoled.proxy.manager_client import ManagerClient
from consoled.proxy.session import Session
from consoled.rpc.replies import LeaseGrant, LeaseRenewal

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


class Registry:
    """What SessionRegistry has for the lease.

    :ivar live: ids of sessions that are open
    :ivar opening: ids of those that are being opened
    :ivar cuts: reasons by id, of each time
    :ivar told: 'limited' or 'all' for each time that those had to end
    """

    def __init__(self):
        self.live = []
        self.opening = {}
        self.cuts = []
        self.told = []

    def ids(self):
        return [*self.live, *self.opening]

    def opening_ids(self):
        return set(self.opening)

    def cut(self, reasons):
        self.cuts.append(reasons)

    def cut_limited(self, reason):
        self.told.append('limited')

    def cut_all(self, reason):
        self.told.append('all')


class Managed:
    """A lease, close reports and a manager client together, as in a proxy."""

    def __init__(self, managers, registry, **limits):
        life = ProxyLife('host:6080:0')
        self.registry = registry
        self.close_reports = CloseReports(managers, life)
        self.lease = Lease(managers, life, registry)
        self.client = ManagerClient(
            managers,
            self.lease,
            self.close_reports,
            **{'timeout': LONG, 'threads': 4, 'max_pending': 100, **limits},
        )

    @property
    def ready(self):
        return self.lease.holds

    def start(self):
        self.lease.start()
        self.close_reports.start()

    async def stop(self, timeout):
        await self.close_reports.stop(timeout)
        await self.lease.stop()
        self.client.stop()

    def close(self, *report):
        self.close_reports.add(*report)

    async def validate(self, token):
        return await self.client.validate(token)

    async def open(self, token, session_id, address):
        """Open a session as Admission does."""
        session = Session(('hash', address), self.close_reports)
        session.id = session_id
        self.registry.opening[session_id] = session
        try:
            return await self.client.open_session(session, token)
        except BaseException:
            session.abandon(EndReason.OPEN_FAILED)
            raise
        finally:
            del self.registry.opening[session_id]


class ManagerCase(testtools.TestCase):
    def setUp(self):
        super().setUp()
        for module in (lease, close_reports):
            self.useFixture(fixtures.MockPatchObject(module, '_RETRY', 0.01))
        self.log = self.useFixture(fixtures.FakeLogger())
        self.managers = Managers()
        self.registry = Registry()

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
        await until(lambda: 'limited' in self.registry.told)

    def give_lease(self):
        self.managers.lease = LONG
        del self.managers.always['renew']

    @contextlib.asynccontextmanager
    async def proxy(self, *, ready=True, **values):
        found = Managed(self.managers, self.registry, **values)
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
