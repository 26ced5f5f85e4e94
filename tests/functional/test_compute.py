# SPDX-License-Identifier: Apache-2.0
"""A compute agent and its managers over the real bus: consoles handed out, and the truth about guests."""

import concurrent.futures
import random
import threading
import time

import fixtures as fixtures_library
from testtools.content import text_content

from consoled import exception
from consoled.compute.drivers import demo
from consoled.testing import fixtures
from consoled.testing.fixtures import wait_until
from tests.functional import base, compute_base
from tests.functional.compute_base import a_guest, stopped

WITHIN = 1.0  # seconds from a guest's end to that of its tokens and sessions (DESIGN invariant 5)
SLACK = 2.0  # seconds more on a machine that does other things


class GetConsoleTest(compute_base.AgentTestCase):
    def test_a_token_for_the_only_console(self):
        guest = self.put(5900, console_type='novnc')
        granted = self.get(guest, 'novnc')
        self.assertEqual(
            (guest.uuid, 'novnc', guest.host, 5900, base.COMPUTE_HOST, 'user-1', 'project-1'),
            (
                granted.instance_uuid,
                granted.console_type,
                granted.host,
                granted.port,
                granted.compute_host,
                granted.user_id,
                granted.project_id,
            ),
        )
        self.assertIn(granted.token, granted.access_url)
        self.assertEqual(5900, self.api.validate(self.context, granted.token).port)

    def test_each_user_of_serial_ports_gets_another_one(self):
        """Ports that are connected are not given out, and come free with their session."""
        guest = self.put(10000, 10001, 10002)
        proxy = self.proxy()
        sessions = [proxy.open(self.get(guest).token) for _ in range(3)]
        self.assertEqual([10000, 10001, 10002], sorted(session.console.port for session in sessions))
        error = self.assert_refused('console_ports_exhausted', self.get, guest)
        self.assertEqual(f'All serial consoles of instance {guest.uuid} are connected.', str(error))
        self.api.close_session(self.context, sessions[1].id, 'left')
        self.assertEqual(sessions[1].console.port, self.get(guest).port)

    def test_ports_of_a_dead_proxy_are_given_out_again(self):
        self.set(manager__lease=3)
        guest = self.put(10000, 10001)
        proxy = self.proxy()
        for _ in range(2):
            proxy.open(self.get(guest).token)
        self.assert_refused('console_ports_exhausted', self.get, guest)
        again = wait_until(lambda: self.given(guest), what='the end of the lease')
        self.assertIn(again.port, (10000, 10001))

    def given(self, guest):
        try:
            return self.get(guest)
        except exception.ConsolePortsExhausted:
            return None

    def test_a_connected_port_is_refused_or_taken_over_by_policy(self):
        guest = self.put(10000)
        proxy = self.useFixture(fixtures.FakeProxy(self.cell.transport, self.api))
        first = proxy.open(self.get(guest).token)
        second = self.get(guest)
        self.assert_refused('console_in_use', proxy.open, second.token)
        self.set(serial_console__takeover='steal')

        def leave():
            session_id, _ = proxy.cuts.get(timeout=30)
            self.api.close_session(self.context, session_id, 'taken_over')

        leaving = threading.Thread(target=leave)
        leaving.start()
        self.addCleanup(leaving.join)
        self.assertNotEqual(first.id, proxy.open(second.token).id)

    def test_right_after_the_start_of_a_guest(self):
        """Faster than the events: nobody is told that ports are connected which nobody knows."""
        for number in range(10):
            guest = a_guest(11000 + 2 * number, 11001 + 2 * number)
            self.driver.put(guest)
            self.assertEqual(11000 + 2 * number, self.get(guest).port)

    def test_what_can_not_be_had_says_why(self):
        guest = self.put(10000)
        error = self.assert_refused('console_type_unavailable', self.get, guest, 'novnc')
        self.assertEqual(f'Instance {guest.uuid} has no novnc console.', str(error))
        self.driver.put(stopped(guest))
        error = self.assert_refused('instance_not_ready', self.get, guest)
        self.assertEqual(f'Instance {guest.uuid} has no console now: it is not running.', str(error))
        self.assert_refused('instance_not_found', self.get, a_guest())
        for code, cls in (('instance_not_ready', exception.InstanceNotReady),):
            self.assertTrue(cls.retryable, code)

    def test_a_guest_that_the_managers_have_forgotten(self):
        """As when its old host says late that it has gone there."""
        guest = self.put(10000, 10001)
        self.api.define_consoles(
            self.context,
            guest.uuid,
            'node-2',
            base.objects.ConsoleConnectionList(
                objects=[base.a_console(guest.uuid, 12000, compute_host='node-2')]
            ),
            wait=True,
        )
        self.assertEqual([12000], self.ports(guest.uuid))
        self.assertEqual(10000, self.get(guest).port)
        self.assertEqual([10000, 10001], self.ports(guest.uuid))

    def test_list_consoles(self):
        guest = self.put(10000, 10001)
        found = self.compute.list_consoles(self.context, base.COMPUTE_HOST, guest.uuid)
        self.assertEqual([10000, 10001], [console.port for console in found.objects])

    def test_a_port_that_the_next_guest_has(self):
        """An open that begins after the change is refused; one that was under way then is cut."""
        proxy, rounds, opened_late = self.proxy(), 100, []
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            for _ in range(rounds):
                first = self.put(5900, console_type='novnc')
                token = self.get(first, 'novnc').token
                opening = pool.submit(self.open_after, random.uniform(0, 0.02), proxy, token)
                time.sleep(random.uniform(0, 0.02))
                self.driver.put(stopped(first))
                second = a_guest(5900, console_type='novnc')
                self.driver.put(second)
                changed = time.monotonic()
                began, session = opening.result(30)
                if session is not None and began > changed:
                    opened_late.append(session)
                self.driver.remove(first.uuid)
                self.driver.remove(second.uuid)
        self.assertEqual([], opened_late)
        uncut = 'SELECT id FROM console_session WHERE cut_reason IS NULL'
        wait_until(lambda: not self.rows(uncut), what='the cut of all sessions')
        sessions = self.count('console_session')
        self.addDetail('opened before', text_content(f'{sessions} of {rounds}'))
        self.assertLess(sessions, rounds)

    def open_after(self, pause, proxy, token):
        time.sleep(pause)
        began = time.monotonic()
        try:
            return began, proxy.open(token)
        except (exception.ConsoleGone, exception.InvalidToken):
            return began, None

    def test_opening_asks_the_agent(self):
        guest = self.put(10000)
        granted = self.get(guest)
        self.driver.watch(lambda uuid: None)  # the event is lost
        self.driver.put(stopped(guest))
        self.assert_refused('console_gone', self.proxy().open, granted.token)

    def test_a_console_of_two_guests_is_opened_by_nobody(self):
        first = self.put(10000)
        granted = self.get(first)
        second = a_guest(10000)
        self.driver.put(second)
        self.assert_refused('console_gone', self.opened_after, granted)
        self.assert_refused('console_type_unavailable', self.get, first)
        self.assert_refused('console_type_unavailable', self.get, second)
        self.driver.remove(second.uuid)
        wait_until(lambda: self.ports(first.uuid) == [10000], what='its console')
        self.proxy().open(self.get(first).token)

    def opened_after(self, granted):
        wait_until(lambda: self.ports(granted.instance_uuid) == [], what='the news')
        try:
            return self.proxy().open(granted.token)
        except exception.InvalidToken:
            raise exception.ConsoleGone() from None


class HangTest(compute_base.AgentTestCase):
    agent_options = {'compute__hypervisor_timeout': 0.5, 'compute__hypervisor_threads': 3}

    def test_a_hypervisor_that_hangs_is_answered_for_in_time(self):
        guest = self.put(10000)
        granted = self.get(guest)
        proxy = self.proxy()
        hang = threading.Event()
        self.addCleanup(hang.set)
        real = self.driver._now
        self.driver._now = lambda: (hang.wait(), real())[1]
        for _ in range(6):
            started = time.monotonic()
            self.assert_refused('hypervisor_unreachable', self.get, guest)
            self.assertLess(time.monotonic() - started, 0.5 + SLACK)
        self.assert_refused('hypervisor_unreachable', proxy.open, granted.token)
        threads = [thread for thread in threading.enumerate() if thread.name == 'hypervisor-call']
        self.assertLessEqual(len(threads), 3)
        self.driver.watch(self.driver._changed)
        time.sleep(1)
        self.assertEqual([10000], self.ports(guest.uuid))  # nothing was concluded
        hang.set()
        wait_until(lambda: self.opened(proxy, granted), what='an answer')

    def opened(self, proxy, granted):
        try:
            return proxy.open(granted.token)
        except exception.HypervisorUnreachable:
            return None


class TruthTest(compute_base.AgentTestCase):
    def timed(self, what, condition):
        started = time.monotonic()
        wait_until(condition, what=what)
        took = time.monotonic() - started
        self.addDetail(what, text_content(f'{took:.3f} s'))
        self.assertLess(took, WITHIN + SLACK)

    def test_a_guest_that_starts_is_known(self):
        guest = a_guest(10000, 10001)
        self.driver.put(guest)
        self.timed('known', lambda: self.ports(guest.uuid) == [10000, 10001])

    def test_invariant_5_a_guest_that_stops_loses_tokens_and_sessions(self):
        guest = self.put(10000, 10001)
        proxy = self.useFixture(fixtures.FakeProxy(self.cell.transport, self.api))
        session = proxy.open(self.get(guest).token)
        unused = self.get(guest)
        started = time.monotonic()
        self.driver.put(stopped(guest))
        self.assertEqual((session.id, 'console_gone'), proxy.cuts.get(timeout=30))
        self.assertLess(time.monotonic() - started, WITHIN + SLACK)
        wait_until(lambda: self.count('console_auth_token') == 0, what='the end of the tokens')
        self.assert_refused('invalid_token', self.api.validate, self.context, unused.token)

    def test_invariant_11_a_guest_that_is_deleted_leaves_nothing(self):
        guest = self.put(10000)
        proxy = self.useFixture(fixtures.FakeProxy(self.cell.transport, self.api))
        session = proxy.open(self.get(guest).token)
        self.driver.remove(guest.uuid)
        self.assertEqual((session.id, 'instance_gone'), proxy.cuts.get(timeout=30))
        wait_until(lambda: guest.uuid not in self.instances(), what='its end')

    def test_a_console_on_another_port_costs_the_old_one_only(self):
        guest = self.put(10000, 10001)
        proxy = self.useFixture(fixtures.FakeProxy(self.cell.transport, self.api))
        kept = self.get(guest)
        proxy.open(kept.token)
        lost = proxy.open(self.get(guest).token)
        self.assertEqual((10000, 10001), (kept.port, lost.console.port))
        self.driver.put(a_guest(10000, 10007, uuid=guest.uuid))
        self.assertEqual((lost.id, 'console_gone'), proxy.cuts.get(timeout=30))
        wait_until(lambda: self.ports(guest.uuid) == [10000, 10007])
        self.assertEqual(10000, self.api.validate(self.context, kept.token).port)
        self.assertTrue(proxy.cuts.empty())

    def test_a_guest_that_moves_to_another_host(self):
        guest = self.put(10000)
        proxy = self.useFixture(fixtures.FakeProxy(self.cell.transport, self.api))
        session = proxy.open(self.get(guest).token)
        there = demo.DemoDriver('node-2', ())
        self.useFixture(compute_base.Agent(self.cell.transport, there, host='node-2'))
        there.put(a_guest(10009, uuid=guest.uuid, host='192.0.2.99'))
        self.assertEqual(session.id, proxy.cuts.get(timeout=30)[0])
        self.driver.put(stopped(guest))  # late news
        self.driver.remove(guest.uuid)  # its old host forgets it
        mark = self.put(10008)
        self.assertIn(mark.uuid, self.instances())
        self.assertEqual([10009], self.ports(guest.uuid))
        granted = self.compute.get_console(self.context, 'node-2', guest.uuid, 'serial')
        self.assertEqual(('192.0.2.99', 10009), (granted.host, granted.port))
        self.assertEqual(10009, proxy.open(granted.token).console.port)

    def test_what_was_missed_is_found_by_comparing(self):
        kept, gone = self.put(10000), self.put(10001)
        self.driver.watch(lambda uuid: None)  # events are lost
        self.driver.remove(gone.uuid)
        changed = a_guest(10002, uuid=kept.uuid)
        new = a_guest(10003)
        self.driver.put(changed)
        self.driver.put(new)
        self.agent.agent.reload()
        wait_until(lambda: self.instances() == {kept.uuid, new.uuid}, what='the comparison')
        wait_until(lambda: (self.ports(kept.uuid), self.ports(new.uuid)) == ([10002], [10003]))

    def test_a_thousand_events_cost_little(self):
        guest = self.put(10000)
        before = self.agent.agent.metrics.registry.get_sample_value(*self.told)
        for number in range(1000):
            self.driver.put(a_guest(10000 + number % 2, uuid=guest.uuid))
        self.driver.put(a_guest(10005, uuid=guest.uuid))
        wait_until(lambda: self.ports(guest.uuid) == [10005])
        told = self.agent.agent.metrics.registry.get_sample_value(*self.told) - before
        self.assertLess(told, 50)

    told = ('consoled_compute_told_total', {'cell': 'cell1', 'method': 'define_consoles', 'code': 'ok'})

    def test_expired_tokens_of_the_host_are_deleted(self):
        guest = self.put(10000)
        self.authorize(10000, ttl=1)
        self.instance = base.new_uuid()
        elsewhere = self.authorize(10001, ttl=1, compute_host='node-7')
        alive = self.get(guest)
        wait_until(lambda: self.expired(elsewhere.token))
        self.agent.agent._cleaner.clean()
        wait_until(lambda: self.count('console_auth_token') == 2)
        self.assertEqual(10000, self.api.validate(self.context, alive.token).port)
        hosts = self.rows('SELECT compute_host FROM console_auth_token ORDER BY compute_host')
        self.assertEqual([base.COMPUTE_HOST, 'node-7'], [row[0] for row in hosts])

    def expired(self, token):
        try:
            self.api.validate(self.context, token)
        except exception.InvalidToken:
            return True
        return False


class RestartTest(base.CellTestCase):
    """The agent is not there when it happens."""

    def agent_with(self, *guests):
        """Start an agent; what ends it."""
        driver = demo.DemoDriver(base.COMPUTE_HOST, guests)
        agent = self.useFixture(compute_base.Agent(self.cell.transport, driver))
        return agent.end

    def authorized(self, guest, port):
        """A token, as its agent authorizes one."""
        self.instance = guest.uuid
        return self.authorize(port, access_url_base=compute_base.PAGE).token

    def test_invariant_11_guests_that_went_meanwhile_leave_nothing(self):
        kept, gone, changed = a_guest(10000), a_guest(10001), a_guest(10002)
        self.agent_with(kept, gone, changed)()
        self.assertEqual([10001], self.ports(gone.uuid))
        proxy = self.useFixture(fixtures.FakeProxy(self.cell.transport, self.api))
        self.set(manager__check_port=False)
        token = self.authorized(gone, 10001)
        session = proxy.open(token)
        elsewhere = base.new_uuid()
        self.define(10005, instance=elsewhere, compute_host='node-2')
        self.agent_with(kept, a_guest(10003, uuid=changed.uuid))
        self.assertEqual((session.id, 'instance_gone'), proxy.cuts.get(timeout=30))
        self.assertEqual([], self.ports(gone.uuid))
        self.assertEqual([10000], self.ports(kept.uuid))
        self.assertEqual([10003], self.ports(changed.uuid))
        self.assertEqual([10005], self.ports(elsewhere))
        self.assert_refused('invalid_token', self.api.validate, self.context, token)

    def test_without_its_agent_nothing_is_opened(self):
        guest = a_guest(10000)
        self.agent_with(guest)()
        token = self.authorized(guest, 10000)
        self.assert_refused('compute_unreachable', self.proxy().open, token)


class ContractTest(base.CellTestCase):
    """What the manager takes of an agent."""

    def define_host(self, uuids, consoles, unknown=(), compute_host=base.COMPUTE_HOST):
        return self.api.define_host(
            self.context,
            compute_host,
            uuids,
            base.objects.ConsoleConnectionList(objects=consoles),
            unknown,
        )

    def test_define_host(self):
        gone = base.new_uuid()
        self.define(10009, instance=gone)
        consoles = [base.a_console(self.instance, port) for port in (10000, 10001)]
        self.assertEqual({'retired': 1, 'changed': 1}, self.define_host([self.instance], consoles))
        self.assertEqual({'retired': 0, 'changed': 0}, self.define_host([self.instance], consoles))
        self.assertEqual([10000, 10001], self.ports())
        self.assertEqual({'retired': 0, 'changed': 0}, self.define_host([self.instance], [], [self.instance]))
        self.assertEqual([10000, 10001], self.ports())
        self.assertEqual({'retired': 1, 'changed': 0}, self.define_host([], []))
        self.assertEqual(0, self.count('instances'))

    def test_what_is_not_of_that_host_is_refused(self):
        other = base.new_uuid()
        for consoles in (
            [base.a_console(other, 10000)],
            [base.a_console(self.instance, 10000, compute_host='node-2')],
        ):
            self.assert_refused('invalid_argument', self.define_host, [self.instance], consoles)
        self.assert_refused('invalid_argument', self.define_host, ['x'], [])
        self.assert_refused('invalid_argument', self.define_host, [base.new_uuid()] * 4001, [])
        console = base.a_console(self.instance, 10000)
        console.access_url_base = 'javascript:alert(1)'
        self.assert_refused('invalid_console', self.define_host, [self.instance], [console])
        self.assertEqual(0, self.count('instances'))

    def test_calls_say_what_went_wrong_where_casts_do_not(self):
        consoles = base.objects.ConsoleConnectionList(objects=[base.a_console(self.instance, 10000)])
        self.api.define_consoles(self.context, self.instance, base.COMPUTE_HOST, consoles, wait=True)
        self.assertEqual([10000], self.ports())
        self.assert_refused(
            'invalid_argument',
            self.api.define_consoles,
            self.context,
            self.instance,
            'node-2',
            consoles,
            wait=True,
        )
        self.api.clean_console_auths_for_instance(self.context, self.instance, 'node-2', wait=True)
        self.assertEqual([10000], self.ports())
        self.api.clean_console_auths_for_instance(self.context, self.instance, base.COMPUTE_HOST, wait=True)
        self.assertEqual(0, self.count('instances'))

    def test_agents_that_start_at_once_leave_room_for_users(self):
        """Half of the manager's threads at most compare hosts; other agents come again."""
        go_on, begun = threading.Event(), threading.Semaphore(0)
        self.addCleanup(go_on.set)

        def slowly(*args):
            begun.release()
            go_on.wait(30)
            return iter(())

        self.useFixture(fixtures_library.MonkeyPatch('consoled.db.hosts.define', slowly))
        half = self.cell.conf.executor_thread_pool_size // 2
        with concurrent.futures.ThreadPoolExecutor(half) as pool:
            waiting = [pool.submit(self.define_host, [], []) for _ in range(half)]
            for _ in waiting:
                self.assertTrue(begun.acquire(timeout=30))
            self.assert_refused('manager_busy', self.define_host, [], [])
            self.authorize()
            go_on.set()
            for each in waiting:
                self.assertEqual({'retired': 0, 'changed': 0}, each.result(30))
        self.define_host([], [])
