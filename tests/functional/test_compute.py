# SPDX-License-Identifier: Apache-2.0
"""A compute agent and its managers over the real bus: consoles for users, and reports about instances."""

import concurrent.futures
import random
import threading
import time

import fixtures as fixtures_library
from testtools.content import text_content

from consoled import exception
from consoled.compute.drivers import demo
from consoled.rpc.replies import Closing, HostChanges
from consoled.testing import fixtures
from consoled.testing.fixtures import wait_until
from tests.functional import base, compute_base
from tests.functional.compute_base import a_guest, stopped

WITHIN = 1.0  # seconds from the end of a guest to that of its tokens and sessions (design.md, invariant 5)
SLACK = 2.0  # more seconds, because the machine is busy


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

    def test_each_user_gets_another_serial_port(self):
        """Ports that are connected are not given out; each is free again after its session."""
        guest = self.put(10000, 10001, 10002)
        proxy = self.proxy()
        sessions = [proxy.open(self.get(guest).token) for _ in range(3)]
        self.assertEqual([10000, 10001, 10002], sorted(session.console.port for session in sessions))
        error = self.assert_refused('console_ports_exhausted', self.get, guest)
        self.assertEqual(f'All serial consoles of instance {guest.uuid} are connected.', str(error))
        self.api.close_session(self.context, Closing(sessions[1].id, 'left'))
        self.assertEqual(sessions[1].console.port, self.get(guest).port)

    def test_ports_of_a_dead_proxy_are_free_after_its_lease(self):
        self.set(manager__lease=3)
        guest = self.put(10000, 10001)
        proxy = self.proxy()
        for _ in range(2):
            proxy.open(self.get(guest).token)
        self.assert_refused('console_ports_exhausted', self.get, guest)
        again = wait_until(lambda: self.get_or_none(guest), what='the end of the lease')
        self.assertIn(again.port, (10000, 10001))

    def get_or_none(self, guest):
        try:
            return self.get(guest)
        except exception.ConsolePortsExhausted:
            return None

    def test_the_option_takeover_decides_about_a_connected_port(self):
        guest = self.put(10000)
        proxy = self.useFixture(fixtures.FakeProxy(self.cell.transport, self.api))
        first = proxy.open(self.get(guest).token)
        second = self.get(guest)
        self.assert_refused('console_in_use', proxy.open, second.token)
        self.set(serial_console__takeover='steal')

        def leave():
            session_id, _ = proxy.cuts.get(timeout=30)
            self.api.close_session(self.context, Closing(session_id, 'taken_over'))

        leaving = threading.Thread(target=leave)
        leaving.start()
        self.addCleanup(leaving.join)
        self.assertNotEqual(first.id, proxy.open(second.token).id)

    def test_right_after_the_start_of_a_guest(self):
        """Before its event is handled, the managers are not asked about ports that they do not know."""
        for number in range(10):
            guest = a_guest(11000 + 2 * number, 11001 + 2 * number)
            self.driver.put(guest)
            self.assertEqual(11000 + 2 * number, self.get(guest).port)

    def test_a_refusal_says_why(self):
        guest = self.put(10000)
        error = self.assert_refused('console_type_unavailable', self.get, guest, 'novnc')
        self.assertEqual(f'Instance {guest.uuid} has no novnc console.', str(error))
        self.driver.put(stopped(guest))
        error = self.assert_refused('instance_not_ready', self.get, guest)
        self.assertEqual(
            f'Instance {guest.uuid} has no console at the moment: it is not running.', str(error)
        )
        self.assert_refused('instance_not_found', self.get, a_guest())
        for code, cls in (('instance_not_ready', exception.InstanceNotReady),):
            self.assertTrue(cls.retryable, code)

    def test_a_guest_that_the_managers_have_on_another_host(self):
        """As after a late report of its former host."""
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

    def test_a_port_that_the_next_guest_uses(self):
        """An open that begins after the change is refused; a session that was opened before is cut."""
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

    def test_an_open_asks_the_agent(self):
        guest = self.put(10000)
        granted = self.get(guest)
        self.driver.watch(lambda uuid: None)  # loses the event
        self.driver.put(stopped(guest))
        self.assert_refused('console_gone', self.proxy().open, granted.token)

    def test_an_address_that_two_guests_share_cannot_be_opened(self):
        first = self.put(10000)
        granted = self.get(first)
        second = a_guest(10000)
        self.driver.put(second)
        self.assert_refused('console_gone', self.open_after_report, granted)
        self.assert_refused('console_type_unavailable', self.get, first)
        self.assert_refused('console_type_unavailable', self.get, second)
        self.driver.remove(second.uuid)
        wait_until(lambda: self.ports(first.uuid) == [10000], what='its console')
        self.proxy().open(self.get(first).token)

    def open_after_report(self, granted):
        wait_until(lambda: self.ports(granted.instance_uuid) == [], what='the report')
        try:
            return self.proxy().open(granted.token)
        except exception.InvalidToken:
            raise exception.ConsoleGone() from None


class HangTest(compute_base.AgentTestCase):
    agent_options = {'compute__hypervisor_timeout': 0.5, 'compute__hypervisor_threads': 3}

    def test_calls_are_answered_in_time_while_the_hypervisor_hangs(self):
        guest = self.put(10000)
        granted = self.get(guest)
        proxy = self.proxy()
        hang = threading.Event()
        self.addCleanup(hang.set)
        real = self.driver._current_guests
        self.driver._current_guests = lambda: (hang.wait(), real())[1]
        for _ in range(6):
            started = time.monotonic()
            self.assert_refused('hypervisor_unreachable', self.get, guest)
            self.assertLess(time.monotonic() - started, 0.5 + SLACK)
        self.assert_refused('hypervisor_unreachable', proxy.open, granted.token)
        threads = [thread for thread in threading.enumerate() if thread.name == 'hypervisor-call']
        self.assertLessEqual(len(threads), 3)
        self.driver.watch(self.driver._changed)
        time.sleep(1)
        self.assertEqual([10000], self.ports(guest.uuid))  # nothing is concluded from that
        hang.set()
        wait_until(lambda: self.open_or_none(proxy, granted), what='an answer')

    def open_or_none(self, proxy, granted):
        try:
            return proxy.open(granted.token)
        except exception.HypervisorUnreachable:
            return None


class ReportTest(compute_base.AgentTestCase):
    def timed(self, what, condition):
        started = time.monotonic()
        wait_until(condition, what=what)
        took = time.monotonic() - started
        self.addDetail(what, text_content(f'{took:.3f} s'))
        self.assertLess(took, WITHIN + SLACK)

    def test_a_guest_that_starts_is_reported(self):
        guest = a_guest(10000, 10001)
        self.driver.put(guest)
        self.timed('report', lambda: self.ports(guest.uuid) == [10000, 10001])

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

    def test_a_changed_port_ends_the_session_of_the_old_one_only(self):
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
        self.driver.put(stopped(guest))  # a late report of its former host
        self.driver.remove(guest.uuid)
        mark = self.put(10008)
        self.assertIn(mark.uuid, self.instances())
        self.assertEqual([10009], self.ports(guest.uuid))
        granted = self.compute.get_console(self.context, 'node-2', guest.uuid, 'serial')
        self.assertEqual(('192.0.2.99', 10009), (granted.host, granted.port))
        self.assertEqual(10009, proxy.open(granted.token).console.port)

    def test_a_comparison_finds_what_events_missed(self):
        kept, gone = self.put(10000), self.put(10001)
        self.driver.watch(lambda uuid: None)  # loses events
        self.driver.remove(gone.uuid)
        changed = a_guest(10002, uuid=kept.uuid)
        new = a_guest(10003)
        self.driver.put(changed)
        self.driver.put(new)
        self.agent.agent.reload()
        wait_until(lambda: self.instances() == {kept.uuid, new.uuid}, what='the comparison')
        wait_until(lambda: (self.ports(kept.uuid), self.ports(new.uuid)) == ([10002], [10003]))

    def test_a_thousand_events_make_few_reports(self):
        guest = self.put(10000)
        before = self.reports()
        for number in range(1000):
            self.driver.put(a_guest(10000 + number % 2, uuid=guest.uuid))
        self.driver.put(a_guest(10005, uuid=guest.uuid))
        wait_until(lambda: self.ports(guest.uuid) == [10005])
        self.assertLess(self.reports() - before, 50)

    def reports(self):
        labels = {'cell': 'cell1', 'method': 'define_consoles', 'code': 'ok'}
        registry = self.agent.agent.metrics.registry
        # None until the first answer is counted, just after it has changed the database
        return registry.get_sample_value('consoled_compute_told_total', labels) or 0

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
    """Changes while the agent does not run."""

    def agent_with(self, *guests):
        """Start an agent; return the function that stops it."""
        driver = demo.DemoDriver(base.COMPUTE_HOST, guests)
        agent = self.useFixture(compute_base.Agent(self.cell.transport, driver))
        return agent.end

    def authorized(self, guest, port):
        """Return a token, as the agent has it authorized."""
        self.instance = guest.uuid
        return self.authorize(port, access_url_base=compute_base.PAGE).token

    def test_invariant_11_guests_that_left_meanwhile_leave_nothing(self):
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

    def test_without_the_agent_nothing_is_opened(self):
        guest = a_guest(10000)
        self.agent_with(guest)()
        token = self.authorized(guest, 10000)
        self.assert_refused('compute_unreachable', self.proxy().open, token)


class ContractTest(base.CellTestCase):
    """Reports that the manager accepts from an agent, and those that it refuses."""

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
        self.assertEqual(HostChanges(retired=1, changed=1), self.define_host([self.instance], consoles))
        self.assertEqual(HostChanges(retired=0, changed=0), self.define_host([self.instance], consoles))
        self.assertEqual([10000, 10001], self.ports())
        self.assertEqual(
            HostChanges(retired=0, changed=0), self.define_host([self.instance], [], [self.instance])
        )
        self.assertEqual([10000, 10001], self.ports())
        self.assertEqual(HostChanges(retired=1, changed=0), self.define_host([], []))
        self.assertEqual(0, self.count('instances'))

    def test_consoles_of_another_host_are_refused(self):
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

    def test_calls_raise_what_casts_only_log(self):
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

    def test_an_address_that_another_host_claims_is_opened_for_neither(self):
        """Invariant 12, over the bus."""
        self.define(10000)
        token = self.authorize(10000).token
        other, proxy = base.new_uuid(), self.proxy()
        intruder = base.a_console(other, 10000, host=base.ADDRESS, compute_host='node-2')
        for claim in (
            lambda: self.define_host([other], [intruder], compute_host='node-2'),
            lambda: self.api.define_consoles(
                self.context,
                other,
                'node-2',
                base.objects.ConsoleConnectionList(objects=[intruder]),
                wait=True,
            ),
        ):
            claim()
            self.assert_refused('console_contested', proxy.open, token)
            self.assert_refused('console_contested', self.authorize, 10000)
            grant = base.a_grant(other, 10000, host=base.ADDRESS, compute_host='node-2')
            self.assert_refused('console_contested', self.api.authorize, self.context, grant)
            self.define_host([], [], compute_host='node-2')
            self.authorize(10000)

    def test_agents_that_start_at_once_leave_room_for_users(self):
        """At most an eighth of the manager's threads compare hosts; other agents try again."""
        go_on, begun = threading.Event(), threading.Semaphore(0)
        self.addCleanup(go_on.set)

        def slowly(*args):
            begun.release()
            go_on.wait(30)
            return iter(())

        self.useFixture(fixtures_library.MonkeyPatch('consoled.db.hosts.define', slowly))
        most = self.cell.conf.executor_thread_pool_size // 8
        with concurrent.futures.ThreadPoolExecutor(most) as pool:
            hosts = [f'node-{number}' for number in range(10, 10 + most)]
            waiting = [pool.submit(self.define_host, [], [], compute_host=host) for host in hosts]
            for _ in waiting:
                self.assertTrue(begun.acquire(timeout=30))
            self.assert_refused('manager_busy', self.define_host, [], [])
            self.authorize()
            go_on.set()
            for comparison in waiting:
                self.assertEqual(HostChanges(retired=0, changed=0), comparison.result(30))
        self.define_host([], [])
