# SPDX-License-Identifier: Apache-2.0
"""Compute hosts and guests that let the manager wait take nothing from others."""

import contextlib

import fixtures as fixtures_library

from consoled import exception
from consoled.manager import console_checks
from tests.functional import base as functional_base
from tests.unit.manager import base


class ConsoleChecksTest(base.ManagerCase):
    def setUp(self):
        super().setUp()
        self.config.set(manager__check_port_timeout=0.1)
        self.checks = self.endpoint._opener._checks
        self.seconds = 0.0  # that an answer takes
        self.now = 1000.0
        for breaker in (self.checks._hung_hosts, self.checks._hung_guests):
            breaker._clock = self.clock
        self.useFixture(fixtures_library.MonkeyPatch(f'{console_checks.__name__}.time', self))
        self.agents.check_console = self.answer
        self.answers = {}  # of guests, by UUID

    def clock(self):
        return self.now

    monotonic = clock

    def answer(self, context, console, timeout):
        self.agents.asked.append(console.instance_uuid)
        self.now += self.seconds
        answer = self.answers.get(console.instance_uuid, True)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def check(self, guest='', compute_host=base.COMPUTE_HOST):
        console = functional_base.a_console(guest or self.instance, 10000, compute_host=compute_host)
        self.checks.check(self.context, console, self.agents)

    def assert_refused(self, error, *args):
        """Assert that a check is refused without asking the agent."""
        asked = len(self.agents.asked)
        self.assertRaises(error, self.check, *args)
        self.assertEqual(asked, len(self.agents.asked))

    def hang(self, error, *args):
        self.answers[args[0] if args else self.instance] = error
        self.seconds = 2.0
        self.assertRaises(type(error), self.check, *args)
        self.seconds = 0.0
        self.answers.clear()

    def test_threads_are_left_for_calls_that_wait_for_no_agent(self):
        with contextlib.ExitStack() as held:
            for _ in range(self.conf.executor_thread_pool_size * 3 // 8):
                held.enter_context(self.checks._threads.permit())
            self.assert_refused(exception.ManagerBusy)
        self.check()

    def test_a_host_and_a_guest_have_few_threads(self):
        host, guest = ('host', base.COMPUTE_HOST), ('guest', self.instance)
        with self.checks._threads.permit({guest: 9}), self.checks._threads.permit({host: 9, guest: 9}):
            self.assert_refused(exception.ComputeUnreachable)
            self.check(functional_base.new_uuid())
            with self.checks._threads.permit({host: 9}), self.checks._threads.permit({host: 9}):
                self.assert_refused(exception.ComputeUnreachable, functional_base.new_uuid())
                self.check(functional_base.new_uuid(), 'node-9')

    def test_a_host_that_hangs_is_left_alone_for_some_seconds(self):
        self.hang(exception.ComputeUnreachable(reason='no answer in time'))
        self.assert_refused(exception.ComputeUnreachable, functional_base.new_uuid())
        self.check(functional_base.new_uuid(), 'node-9')
        self.now += 20
        self.check()

    def test_a_guest_that_hangs_is_left_alone_and_not_its_host(self):
        self.hang(exception.HypervisorUnreachable())
        self.assert_refused(exception.HypervisorUnreachable)
        self.check(functional_base.new_uuid())
        self.now += 20
        self.check()

    def test_hosts_that_are_slow_share_a_part_of_the_threads(self):
        self.seconds = 2.0
        for number in range(3):
            for _ in range(2):
                self.check(compute_host=f'slow-{number}')
        self.seconds = 0.0
        with contextlib.ExitStack() as held:
            for _ in range(self.checks._threads.size // 2):
                held.enter_context(self.checks._threads.permit({console_checks._SLOW_HOSTS: 99}))
            for number in range(3):
                self.assert_refused(exception.ComputeUnreachable, self.instance, f'slow-{number}')
            self.check()
        self.check(compute_host='slow-0')  # a quick answer
        self.assertEqual({'slow-1', 'slow-2'}, set(self.checks._slow_answers))

    def test_slow_hosts_take_little_memory(self):
        self.useFixture(fixtures_library.MonkeyPatch(f'{console_checks.__name__}._MAX_SLOW_HOSTS', 10))
        self.seconds = 2.0
        for number in range(25):
            self.check(compute_host=f'slow-{number}')
        self.assertLessEqual(len(self.checks._slow_answers), 10)
