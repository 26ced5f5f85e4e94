# SPDX-License-Identifier: Apache-2.0
"""Consoles as compute agents define them."""

import contextlib

from consoled import exception, objects
from consoled.db import models
from consoled.rpc.replies import HostChanges
from consoled.testing.sources import MemoryTokenSource
from tests.functional import base as functional_base
from tests.unit.manager import base


class ConsolesCase(base.ManagerCase):
    def ports(self):
        consoles = self.api.list_free_ports(self.context, self.instance).objects
        return [console.port for console in consoles]

    def define_host(self, consoles, instances=None, unknown=(), compute_host=base.COMPUTE_HOST):
        return self.api.define_host(
            self.context,
            compute_host,
            [self.instance] if instances is None else instances,
            objects.ConsoleConnectionList(objects=consoles),
            unknown,
        )

    def a_console(self, port=10000, **changes):
        instance = changes.pop('instance', self.instance)
        return functional_base.a_console(instance, port, **changes)


class DefineTest(ConsolesCase):
    def test_these_and_only_these(self):
        self.define(10001, 10000)
        self.assertEqual([10000, 10001], self.ports())
        self.define(10001)
        self.assertEqual([10001], self.ports())

    def test_the_sessions_of_a_console_that_is_gone_are_cut(self):
        self.define(10000, 10001)
        proxy = self.proxy()
        gone, kept = (self.open(proxy, self.authorize(port).token) for port in (10000, 10001))
        self.define(10001)
        self.assertEqual([(gone.id, 'console_gone')], self.proxies.cuts)
        self.assertEqual({gone.id: 'console_gone'}, self.api.renew_lease(self.context, proxy).cut)
        self.assertIn(kept.id, self.sessions())

    def test_wrong_consoles_are_refused_as_a_whole(self):
        self.define(10000)
        for wrong, error in (
            (self.a_console(10001, instance=functional_base.new_uuid()), exception.InvalidArgument),
            (self.a_console(10001, compute_host='node-9'), exception.InvalidArgument),
            (objects.ConsoleConnection(instance_uuid=self.instance, port=10001), exception.InvalidArgument),
        ):
            consoles = objects.ConsoleConnectionList(objects=[self.a_console(10002), wrong])
            self.assertRaises(
                error, self.api.define_consoles, self.context, self.instance, base.COMPUTE_HOST, consoles
            )
        self.assertEqual([10000], self.ports())

    def test_an_unusable_access_url_is_refused(self):
        console = self.a_console()
        console.access_url_base = 'javascript:alert(1)'
        consoles = objects.ConsoleConnectionList(objects=[console])
        self.assertRaises(
            exception.InvalidConsole,
            self.api.define_consoles,
            self.context,
            self.instance,
            base.COMPUTE_HOST,
            consoles,
        )

    def test_the_number_of_consoles_of_an_instance_is_bounded(self):
        self.assertRaises(exception.InvalidArgument, self.define, *range(10000, 10257))

    def test_the_sources_forget_tokens_only_if_a_console_lost_its_own(self):
        source = MemoryTokenSource()
        forgotten = []
        source.forget = lambda instance_uuid, hashes=None: forgotten.append((instance_uuid, hashes))
        self.sources.append(source)
        self.define(10000)
        self.define(10000, 10001)
        self.assertEqual([], forgotten)
        self.define(10001)
        self.assertEqual([(self.instance, None)], forgotten)


class DefineHostTest(ConsolesCase):
    def test_the_changes_are_counted(self):
        other = functional_base.new_uuid()
        consoles = [self.a_console(), self.a_console(instance=other)]
        both = [self.instance, other]
        self.assertEqual(HostChanges(retired=0, changed=2), self.define_host(consoles, both))
        self.assertEqual(HostChanges(retired=0, changed=0), self.define_host(consoles, both))
        self.assertEqual(HostChanges(retired=1, changed=0), self.define_host(consoles[:1]))
        self.assertEqual([10000], self.ports())

    def test_sessions_of_retired_and_of_changed_instances_have_their_own_reasons(self):
        other = functional_base.new_uuid()
        self.define_host([self.a_console(), self.a_console(instance=other)], [self.instance, other])
        proxy = self.proxy()
        changed = self.open(proxy, self.authorize().token)
        retired = self.open(proxy, self.authorize(instance=other).token)
        self.define_host([self.a_console(10001)])
        self.assertEqual(
            {(changed.id, 'console_gone'), (retired.id, 'instance_gone')}, set(self.proxies.cuts)
        )

    def test_unknown_instances_keep_their_consoles(self):
        self.define(10000)
        self.assertEqual(HostChanges(retired=0, changed=0), self.define_host([], unknown=[self.instance]))
        self.assertEqual([10000], self.ports())

    def test_a_console_of_an_instance_that_is_not_listed_is_refused(self):
        console = self.a_console(instance=functional_base.new_uuid())
        self.assertRaises(exception.InvalidArgument, self.define_host, [console])

    def test_no_agent_may_have_the_name_that_stands_for_an_unknown_host(self):
        console = self.a_console()
        console.compute_host = models.UNKNOWN_HOST
        self.assertRaises(
            exception.InvalidArgument, self.define_host, [console], compute_host=models.UNKNOWN_HOST
        )

    def test_compute_hosts_that_call_at_once_leave_threads_for_users(self):
        with contextlib.ExitStack() as held:
            for number in range(self.conf.executor_thread_pool_size // 8):
                held.enter_context(self.endpoint._consoles._share.permit({f'node-{number}': 1}))
            self.assertRaises(exception.ManagerBusy, self.define_host, [])
            self.authorize()
        self.define_host([])

    def test_a_compute_host_that_calls_again_and_again_leaves_threads_for_others(self):
        share = self.endpoint._consoles._share
        with share.permit({base.COMPUTE_HOST: 1}):
            self.assertRaises(exception.ManagerBusy, self.define_host, [])
        with share.permit({'node-9': 1}):
            self.define_host([])
