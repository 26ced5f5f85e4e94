# SPDX-License-Identifier: Apache-2.0
"""Look-ups of names: one for each name, none waits for another; what is found is used again."""

import asyncio
import socket
import threading

import fixtures
import testtools

from consoled.proxy import resolver
from consoled.proxy.resolver import Resolver

REALLY = socket.getaddrinfo
PATIENCE = 60  # seconds to wait for something that is due at once


class Names:
    """Fake of getaddrinfo.

    :ivar addresses: addresses, or an error, by name
    :ivar hanging: an event by name, which its look-ups wait for
    :ivar asked: the names that were looked up, in order
    """

    def __init__(self):
        self.addresses = {}
        self.hanging = {}
        self.asked = []

    def hang(self, name):
        self.hanging[name] = threading.Event()

    def getaddrinfo(self, host, port, *args, flags=0, **how):
        if flags & socket.AI_NUMERICHOST:
            return REALLY(host, port, *args, flags=flags, **how)
        self.asked.append(host)
        if host in self.hanging:
            self.hanging[host].wait(PATIENCE)
        found = self.addresses.get(host, socket.gaierror(socket.EAI_NONAME, 'Name or service not known'))
        if isinstance(found, Exception):
            raise found
        return [info for address in found for info in REALLY(address, port, *args, **how)]


class ResolverTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.names = Names()
        self.useFixture(fixtures.MockPatchObject(resolver.socket, 'getaddrinfo', self.names.getaddrinfo))
        self.now = 1000.0
        self.addCleanup(self.release_all)

    def release_all(self):
        for event in self.names.hanging.values():
            event.set()

    def run_async(self, work):
        async def bounded():
            async with asyncio.timeout(PATIENCE):
                await work(Resolver(lambda: self.now))

        asyncio.run(bounded())

    async def found(self, names, host, port=5900):
        return [info[4] for info in await names.resolve(host, port)]

    async def fails(self, error, names, host):
        try:
            await names.resolve(host, 5900)
        except error as exc:
            return str(exc)
        raise AssertionError(f'{error.__name__} was not raised')

    def test_an_address_is_not_looked_up(self):
        async def work(names):
            self.assertEqual([('192.0.2.1', 5900)], await self.found(names, '192.0.2.1'))
            self.assertEqual([('2001:db8::1', 5900, 0, 0)], await self.found(names, '2001:db8::1'))
            self.assertEqual([], self.names.asked)

        self.run_async(work)

    def test_the_addresses_of_a_name_with_each_port(self):
        async def work(names):
            self.names.addresses['node'] = ['192.0.2.1', '2001:db8::1']
            for port in (5900, 5901):
                expected = [('192.0.2.1', port), ('2001:db8::1', port, 0, 0)]
                self.assertEqual(expected, await self.found(names, 'node', port))
            self.assertEqual(['node'], self.names.asked)

        self.run_async(work)

    def test_a_name_that_hangs_is_looked_up_once_and_no_other_waits_for_it(self):
        async def work(names):
            self.names.hang('slow')
            self.names.addresses = {f'node-{number}': ['192.0.2.1'] for number in range(50)}
            self.names.addresses['slow'] = ['192.0.2.2']
            waiting = [asyncio.create_task(names.resolve('slow', 5900)) for _ in range(100)]
            await asyncio.sleep(0)
            for host in self.names.addresses.keys() - {'slow'}:
                self.assertEqual([('192.0.2.1', 5900)], await self.found(names, host))
            self.assertEqual(1, self.names.asked.count('slow'))
            waiting.pop().cancel()  # a user who leaves; the others still wait
            await asyncio.sleep(0)
            self.names.hanging['slow'].set()
            for answer in await asyncio.gather(*waiting):
                self.assertEqual(('192.0.2.2', 5900), answer[0][4])
            self.assertEqual(1, self.names.asked.count('slow'))

        self.run_async(work)

    def test_what_was_found_is_used_again_for_a_short_time(self):
        async def work(names):
            self.names.addresses['node'] = ['192.0.2.1']
            await names.resolve('node', 5900)
            self.names.addresses['node'] = ['192.0.2.2']
            self.now += resolver._KEEP - 0.1
            self.assertEqual([('192.0.2.1', 5900)], await self.found(names, 'node'))
            self.now += 0.2
            self.assertEqual([('192.0.2.2', 5900)], await self.found(names, 'node'))

        self.run_async(work)

    def test_a_failure_is_remembered_for_a_shorter_time(self):
        async def work(names):
            for error in (socket.gaierror(-2, 'Name or service not known'), UnicodeError('label too long')):
                self.names.addresses['node'] = error
                self.names.asked.clear()
                for _ in range(3):
                    self.assertEqual(str(error), await self.fails(OSError, names, 'node'))
                self.assertEqual(['node'], self.names.asked)
                self.now += resolver._KEEP_FAILURE + 0.1
            self.names.addresses['node'] = ['192.0.2.1']
            self.assertEqual([('192.0.2.1', 5900)], await self.found(names, 'node'))

        self.run_async(work)

    def test_invariant_9_the_look_ups_at_a_time_are_limited(self):
        async def work(names):
            slow = [f'slow-{number}' for number in range(resolver._MAX_LOOKUPS)]
            self.names.addresses = {'known': ['192.0.2.1'], 'new': ['192.0.2.2'], **dict.fromkeys(slow, [])}
            await names.resolve('known', 5900)
            for host in slow:
                self.names.hang(host)
            waiting = [asyncio.create_task(names.resolve(host, 5900)) for host in slow]
            await asyncio.sleep(0)
            self.assertIn('name server', await self.fails(OSError, names, 'new'))
            self.assertEqual([('192.0.2.1', 5900)], await self.found(names, 'known'))
            self.names.hanging[slow[0]].set()
            await waiting[0]
            self.assertEqual([('192.0.2.2', 5900)], await self.found(names, 'new'))
            self.release_all()
            await asyncio.gather(*waiting)

        self.run_async(work)

    def test_invariant_9_the_names_that_are_remembered_are_limited(self):
        async def work(names):
            hosts = [f'node-{number}' for number in range(resolver._MAX_KNOWN + 5)]
            self.names.addresses = dict.fromkeys(hosts, ['192.0.2.1'])
            for host in hosts:
                await names.resolve(host, 5900)
            self.assertEqual(resolver._MAX_KNOWN, len(names._known))
            await names.resolve(hosts[-1], 5900)
            self.assertEqual(len(hosts), len(self.names.asked))

        self.run_async(work)

    def test_an_answer_after_the_end_of_the_loop_is_dropped(self):
        async def work(names):
            self.names.hang('slow')
            asyncio.create_task(names.resolve('slow', 5900))
            await asyncio.sleep(0)

        self.run_async(work)
        (thread,) = [thread for thread in threading.enumerate() if thread.name == 'look-up']
        self.names.hanging['slow'].set()
        thread.join(PATIENCE)
        self.assertFalse(thread.is_alive())
