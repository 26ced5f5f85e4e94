# SPDX-License-Identifier: Apache-2.0
"""Helpers for tests of the parts of a proxy that call managers: fakes whose answers a test controls."""

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

TOKEN, OTHER = tokens.mint(), tokens.mint()
PATIENCE = 60  # seconds to wait for something that is due at once, even on a slow machine
LONG = 1000.0  # seconds; a lease or a timeout that does not end during a test


@dataclasses.dataclass
class Granted:
    """The fields of a ConsoleSession that the manager client uses."""

    id: str
    proxy_id: str
    limited: bool = False
    cut_reason: str | None = None


class Step:
    """Course of one call to a manager: it waits for ``go``, and then returns or raises the answer.

    :param answer: value to return, error to raise, or a function of the call's arguments that returns either;
        None: the default answer
    :param waits: whether the test sets ``go``
    :ivar arrived: set when the call arrives
    """

    def __init__(self, answer=None, *, waits=False):
        self.answer = answer
        self.arrived = threading.Event()
        self.go = threading.Event()
        if not waits:
            self.go.set()

    def run(self, values):
        self.arrived.set()
        self.go.wait(PATIENCE)
        answer = self.answer(values) if callable(self.answer) else self.answer
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Managers:
    """Fake of ConsoleAuthAPI. By default, every call succeeds at once.

    :ivar calls: (method, arguments) in order of arrival
    :ivar times: when each call arrived, by the monotonic clock
    :ivar next: steps of the next calls, by method
    :ivar always: step of all calls after those, by method
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

    def _call(self, method, default, **values):
        with self._lock:
            self.calls.append((method, values))
            self.times.append(time.monotonic())
            queued = self.next.get(method)
            step = queued.pop(0) if queued else self.always.get(method)
        answer = None if step is None else step.run(values)
        return default() if answer is None else answer

    def register_proxy(self, context, proxy_id, name):
        reply = self._call(
            'register', lambda: {'lease': self.lease, 'now': self.now()}, proxy_id=proxy_id, name=name
        )
        return LeaseGrant.from_wire(reply)

    def renew_lease(self, context, proxy_id, closed=None, sessions=None, as_of=None):
        given = {'closed': closed, 'sessions': sessions, 'as_of': as_of}
        reply = self._call(
            'renew',
            lambda: {'lease': self.lease, 'now': self.now(), 'cut': {}},
            proxy_id=proxy_id,
            **{name: value for name, value in given.items() if value is not None},
        )
        return LeaseRenewal.from_wire(reply)

    def open_session(self, context, token, session_id, proxy_id, client_address, serial_port=None):
        return self._call(
            'open',
            lambda: Granted(session_id, proxy_id),
            token=token,
            session_id=session_id,
            proxy_id=proxy_id,
            client_address=client_address,
        )

    def close_session(self, context, closing):
        self._call('close', lambda: True, **closing.to_wire())

    def validate(self, context, token, **to_open):
        return self._call('validate', lambda: 'a grant', token=token, **to_open)

    def calls_to(self, method):
        """Return the arguments of each call of a method."""
        with self._lock:
            return [values for name, values in self.calls if name == method]

    def closed(self):
        """Return (id, reason) of each close report that has arrived, in order."""
        with self._lock:
            calls = list(self.calls)
        found = []
        for method, values in calls:
            if method == 'close':
                found.append((values['session_id'], values['reason']))
            found += [(closing.session_id, closing.reason) for closing in values.get('closed') or ()]
        return found


async def until(condition):
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError('timed out')
        await asyncio.sleep(0.001)


class Registry:
    """Fake of SessionRegistry, as the lease uses it.

    :ivar live: ids of open sessions
    :ivar opening: sessions that are being opened, by id
    :ivar cuts: end reasons by session id, of each call of ``cut``
    :ivar mass_cuts: 'limited' or 'stored', of each call of ``cut_limited`` or ``cut_stored``
    """

    def __init__(self):
        self.live = []
        self.opening = {}
        self.cuts = []
        self.mass_cuts = []

    def ids(self):
        return [*self.live, *self.opening]

    def opening_ids(self):
        return set(self.opening)

    def cut(self, reasons):
        self.cuts.append(reasons)

    def cut_limited(self, reason):
        self.mass_cuts.append('limited')

    def cut_stored(self, reason):
        self.mass_cuts.append('stored')


class Managed:
    """A lease, close reports and a manager client, composed as in a proxy."""

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
        return await self.client.validate(token, None)

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
        """Plan the next call of a method, or with ``always`` all calls without a plan of their own."""
        step = Step(answer, waits=waits)
        if always:
            self.managers.always[method] = step
        else:
            self.managers.next.setdefault(method, []).append(step)
        self.addCleanup(step.go.set)
        return step

    async def lose_lease(self):
        """Let all renewals fail, and wait until the lease is lost."""
        self.step('renew', exception.ManagerUnreachable(reason='x'), always=True)
        await until(lambda: 'limited' in self.registry.mass_cuts)

    def restore_lease(self):
        """Let renewals succeed again."""
        self.managers.lease = LONG
        del self.managers.always['renew']

    @contextlib.asynccontextmanager
    async def proxy(self, *, ready=True, **values):
        """Run the parts of a proxy that call managers; with ``ready``, wait until they have a lease."""
        managed = Managed(self.managers, self.registry, **values)
        managed.start()
        try:
            if ready:
                await until(lambda: managed.ready)
            yield managed
        finally:
            for step in [*self.managers.always.values(), *sum(self.managers.next.values(), [])]:
                step.go.set()
            await managed.stop(0)

    def run_async(self, work):
        """Run a test. An error in a callback and a token in the log fail it too."""
        errors = []

        async def guarded():
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context))
            await work()

        asyncio.run(guarded())
        self.assertEqual([], errors)
        self.assertNotIn(TOKEN, self.log.output)

    async def refused(self, error, work):
        """Check that an awaitable raises exactly this error, and return it."""
        try:
            await work
        except error as exc:
            self.assertIs(error, type(exc))
            return exc
        raise AssertionError(f'{error.__name__} was not raised')


def session_id():
    return str(uuid.uuid4())
