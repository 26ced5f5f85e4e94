# SPDX-License-Identifier: Apache-2.0
"""RabbitMQ, MariaDB or a worker is killed under load: callers get domain errors, then everything recovers."""

import collections
import os
import random
import signal
import threading
import traceback

import testtools

from consoled import exception
from consoled.context import RequestContext
from consoled.rpc.client import ConsoleAuthAPI
from consoled.rpc.replies import Closing
from consoled.rpc.transport import get_transport
from consoled.testing import daemons, fixtures
from consoled.testing.fixtures import wait_until
from tests.functional import base

CALLERS = 4
LEASE = 5  # seconds
LOST = 4  # seconds without an answer
RECOVERED = 10  # rounds each caller makes after the fault


class Caller(threading.Thread):
    """Authorizes, validates, opens and closes sessions of its own serial port in a loop."""

    def __init__(self, transport, proxy):
        super().__init__(daemon=True)
        self.transport = transport
        self.api = ConsoleAuthAPI(transport)
        self.proxy = proxy
        self.context = RequestContext(user_id='u', project_id='p')
        self.instance = base.new_uuid()
        self.stopped = threading.Event()
        self.tokens = []  # from authorize calls that were answered
        self.errors = collections.Counter()
        self.untyped = []
        self.rounds = 0
        self.session_id = base.new_uuid()

    def run(self):
        while not self.stopped.is_set():
            try:
                self.round()
                self.rounds += 1
            except exception.ConsoledException as exc:
                self.errors[exc.code] += 1
            except Exception:
                self.untyped.append(traceback.format_exc())

    def round(self):
        grant = base.a_grant(self.instance, 10000)
        token = self.api.authorize(self.context, grant).token
        self.tokens.append(token)
        self.api.validate(self.context, random.choice(self.tokens))
        self.session_id = base.new_uuid()
        try:
            self.proxy.open(token, self.session_id)
        finally:
            self.close()

    def wait_less(self):
        """Give up lost calls earlier than the managers give up, which is all that a killed one leaves."""
        self.api = ConsoleAuthAPI(self.transport, timeout=LOST)

    def close(self):
        """Close the session until that is acknowledged, as a proxy does, even after a failed open."""
        while not self.stopped.is_set():
            try:
                self.api.close_session(self.context, Closing(self.session_id, 'left', 1, 1))
                return
            except exception.ConsoledException as exc:
                self.errors[exc.code] += 1


class FaultsTest(base.OwnServices, testtools.TestCase):
    def setUp(self):
        super().setUp()
        bus, database = self.services()
        options = {'manager': {'workers': 2, 'lease': LEASE}}
        self.manager = self.useFixture(daemons.ManagerProcess(bus, database, options))
        conf = self.useFixture(fixtures.Conf(transport_url=bus)).conf
        self.transport = get_transport(conf)
        self.addCleanup(self.transport.cleanup)
        self.api = ConsoleAuthAPI(self.transport)
        self.context = RequestContext()
        self.proxy = self.useFixture(fixtures.FakeProxy(self.transport, self.api, receive_cuts=False))
        self.renewing = threading.Event()
        renewer = threading.Thread(target=self.renew, daemon=True)
        self.callers = [Caller(self.transport, self.proxy) for _ in range(CALLERS)]
        for thread in [renewer, *self.callers]:
            thread.start()
        self.addCleanup(renewer.join)
        self.addCleanup(self.renewing.set)
        self.addCleanup(self.stop_callers)

    def renew(self):
        """Renew the lease in time, naming all sessions, as a proxy does."""
        now = self.proxy.registered.now
        while not self.renewing.wait(LEASE / 5):
            try:
                sessions = [caller.session_id for caller in self.callers]
                now = self.api.renew_lease(self.context, self.proxy.id, sessions=sessions, as_of=now).now
            except exception.ProxyUnknown:
                self.api.register_proxy(self.context, self.proxy.id, self.proxy.name)
            except exception.ConsoledException:
                continue

    def stop_callers(self):
        for caller in self.callers:
            caller.stopped.set()
        for caller in self.callers:
            caller.join()

    def progress(self, rounds):
        """Wait until each caller has made that many more rounds."""
        wanted = [caller.rounds + rounds for caller in self.callers]
        wait_until(
            lambda: all(caller.rounds >= goal for caller, goal in zip(self.callers, wanted, strict=True)),
            timeout=120,
            what='progress',
        )

    def check_all_is_well(self):
        self.progress(RECOVERED)
        self.stop_callers()
        for caller in self.callers:
            self.assertEqual([], caller.untyped)
            for token in caller.tokens:  # no authorized token is lost
                self.assertEqual(10000, self.api.validate(self.context, token).port)
        self.renewing.set()  # the proxy is dead now, so its ports must be free when its lease ends

        other = self.useFixture(fixtures.FakeProxy(self.transport, self.api, receive_cuts=False))
        for caller in self.callers:
            wait_until(lambda caller=caller: self.opened(other, caller.tokens[-1]), what='a free port')

    def opened(self, proxy, token):
        self.api.renew_lease(self.context, proxy.id)
        try:
            return proxy.open(token)
        except exception.ConsoleInUse:
            return None

    def wait_for_errors(self):
        """Wait until the fault has an effect: a call has failed, or all callers are blocked."""
        before = [caller.rounds for caller in self.callers]
        wait_until(
            lambda: (
                any(caller.errors for caller in self.callers)
                or [caller.rounds for caller in self.callers] == before
            ),
            what='the fault',
        )

    def test_rabbitmq_killed_and_back(self):
        self.progress(3)
        self.broker.kill()
        self.wait_for_errors()
        self.broker.start()
        self.check_all_is_well()

    def test_mariadb_killed_and_back(self):
        self.progress(3)
        self.mariadb.kill()
        wait_until(lambda: all(caller.errors for caller in self.callers), timeout=60, what='the fault')
        self.mariadb.start()
        self.check_all_is_well()
        codes = {code for caller in self.callers for code in caller.errors}
        self.assertTrue(
            codes <= {'database_unavailable', 'console_in_use', 'proxy_unknown', 'invalid_token'}, codes
        )

    def test_mariadb_restarted_quickly_is_not_noticed(self):
        self.progress(3)
        self.mariadb.kill()
        self.mariadb.start()
        self.check_all_is_well()

    def test_a_worker_killed(self):
        for caller in self.callers:
            caller.wait_less()
        self.progress(3)
        for _ in range(3):
            victim = wait_until(self.manager.worker_pids)[0]
            os.kill(victim, signal.SIGKILL)
            wait_until(
                lambda victim=victim: victim not in self.manager.worker_pids(), what='the end of a worker'
            )
            self.progress(2)
        self.check_all_is_well()

    def test_the_whole_manager_killed_and_back(self):
        for caller in self.callers:
            caller.wait_less()
        self.progress(3)
        for pid in [self.manager.pid, *self.manager.child_pids()]:
            os.kill(pid, signal.SIGKILL)
        self.manager.wait()
        self.wait_for_errors()
        self.manager.start()
        self.check_all_is_well()
