# SPDX-License-Identifier: Apache-2.0
"""The old service's tokens in real memcached, beside the libraries of the old service."""

import re
import time
import uuid

from consoled import token as tokens
from consoled.legacy import pickles
from tests.functional import legacy_base as base
from tests.functional.legacy_base import NOVNC, PATH, LegacyCase, a_grant, a_token


class OldValuesTest(LegacyCase):
    """Each side reads the values that the other one has written."""

    def test_values_of_the_old_service_are_read_with_each_backend(self):
        for old_backend in base.OLD_BACKENDS:
            token = a_token()
            before = time.time()
            self.old(backend=old_backend).authorize_console(
                token, 'novnc', '192.0.2.10', '5900', None, self.instance, PATH + token
            )
            for made in self.each():
                found = made.source.lookup(token)
                self.assertEqual((self.instance, 'novnc'), (found.instance_uuid, found.console_type))
                # libvirt's driver passed VNC ports as strings.
                self.assertEqual(('192.0.2.10', 5900), (found.host, found.port))
                self.assertEqual((NOVNC, None), (found.access_url_base, found.internal_access_path))
                self.assertTrue(before <= found.issued_at <= time.time())
                self.assertIsNone(made.source.lookup(a_token()))
                self.assertEqual(['found', 'unknown'], made.outcomes)
        self.assertEqual([], self.logged.warnings())

    def test_callers_of_version_2_0_give_no_access_url(self):
        token = a_token()
        self.old().authorize_console(token, 'serial', 'node-1.example.org', 10000, '/path?x=y', self.instance)
        for made in self.each():
            found = made.source.lookup(token)
            self.assertIsNone(found.access_url_base)
            self.assertEqual('/path?x=y', found.internal_access_path)

    def test_stored_values_equal_those_of_the_old_libraries(self):
        """Byte for byte: the token's value, and the list of the instance's tokens."""
        old = self.old()
        token = a_token()
        old.authorize_console(token, 'novnc', '192.0.2.10', 5900, None, self.instance, PATH + token)
        theirs = base.raw_get(self.servers[0], base.key_of(token))
        their_list = base.raw_get(self.servers[0], base.key_of(self.instance))
        issued_at = old.check_token(token)['last_activity_at']
        for made in self.each():
            base.flush(self.servers[0])
            made.source.store(a_grant(token, self.instance, issued_at=issued_at))
            ours = base.raw_get(self.servers[0], base.key_of(token))
            our_list = base.raw_get(self.servers[0], base.key_of(self.instance))
            self.assertEqual(1, ours[0])
            self.assertEqual(self.timeless(theirs), self.timeless(ours))
            self.assertEqual(self.timeless(their_list), self.timeless(our_list))
            self.assertAlmostEqual(issued_at, pickles.loads(ours[1]).stored_at, places=5)

    @staticmethod
    def timeless(value):
        """Return (flags, bytes) without the two moments in them."""
        flags, data = value
        return flags, re.sub(rb'(last_activity_at": |\nF)\d+\.\d+', rb'\1', data)

    def test_the_old_service_reads_extends_and_deletes_stored_values(self):
        old = {backend: self.old(backend=backend) for backend in base.OLD_BACKENDS}
        for made in self.each():
            for service in old.values():
                ours, theirs = a_token(), a_token()
                made.source.store(a_grant(ours, self.instance, internal_access_path='/x'))
                found = service.check_token(ours)
                self.assertEqual((self.instance, 5900, '/x'), tuple(
                    found[name] for name in ('instance_uuid', 'port', 'internal_access_path')
                ))  # fmt: skip
                self.assertEqual(PATH + ours, found['access_url'])
                service.authorize_console(theirs, 'serial', '192.0.2.10', 10000, None, self.instance)
                self.assertEqual([ours, theirs], service.tokens_of(self.instance))
                service.delete_tokens_for_instance(self.instance)
                self.assertIsNone(made.source.lookup(ours))
                self.assertIsNone(made.source.lookup(theirs))

    def test_forgetting_some_and_all_tokens_of_an_instance(self):
        old = self.old()
        for made in self.each():
            of_old, ours, other = a_token(), a_token(), a_token()
            old.authorize_console(of_old, 'serial', '192.0.2.10', 10000, None, self.instance)
            made.source.store(a_grant(ours, self.instance))
            made.source.store(a_grant(other, str(uuid.uuid4())))
            made.source.forget(self.instance, {tokens.hashed(ours), tokens.hashed(other)})
            self.assertIsNone(made.source.lookup(ours))
            self.assertEqual([of_old], old.tokens_of(self.instance))
            made.source.forget(self.instance)
            self.assertIsNone(made.source.lookup(of_old))
            self.assertIsNone(base.raw_get(self.servers[0], base.key_of(self.instance)))
            self.assertIsNotNone(made.source.lookup(other))

    def test_deleted_and_expired_tokens_leave_the_list(self):
        for made in self.each():
            instance = str(uuid.uuid4())
            gone, expired, alive, new = (a_token() for _ in range(4))
            made.source.store(a_grant(alive, instance))
            made.source.store(a_grant(expired, instance, issued_at=time.time() - 3 * base.TTL))
            made.source.store(a_grant(gone, instance))
            base.talk(self.servers[0], f'delete {base.key_of(gone)}\r\n'.encode(), b'\r\n')
            made.source.store(a_grant(new, instance))
            self.assertEqual([alive, new], self.old().tokens_of(instance))

    def test_a_token_expires_for_the_old_service_when_it_does_here(self):
        """Even one with a shorter life than that service gives to its own."""
        old = self.old()
        for made in self.each():
            ended, alive = a_token(), a_token()
            made.source.store(a_grant(ended, self.instance, issued_at=time.time() - base.TTL - 60))
            made.source.store(a_grant(alive, self.instance, issued_at=time.time() - base.TTL + 60))
            self.assertIsNone(old.check_token(ended))
            self.assertIsNotNone(old.check_token(alive))
            # Here the manager decides, by the database's clock.
            self.assertIsNotNone(made.source.lookup(ended))


class SeveralServersTest(LegacyCase):
    number = 3

    def known(self, old):
        """Return tokens of the old service, so many that each server has some."""
        known, used = [], set()
        while len(known) < 20 or used != set(self.servers):
            token = a_token()
            old.authorize_console(token, 'serial', '192.0.2.10', 10000, None, self.instance)
            used |= {server for server in self.servers if base.raw_get(server, base.key_of(token))}
            known.append(token)
        return known

    def test_each_key_is_found_on_the_server_that_the_old_libraries_chose(self):
        """Even with pymemcache, whose own hash client would look elsewhere."""
        old = self.old()
        known = self.known(old)
        for made in self.each():
            self.assertEqual([], [token for token in known if made.source.lookup(token) is None])
            ours = [a_token() for _ in range(20)]
            for token in ours:
                made.source.store(a_grant(token, self.instance))
            self.assertEqual([], [token for token in ours if old.check_token(token) is None])
            known += ours
        made.source.forget(self.instance)
        self.assertEqual([], [token for token in known if old.check_token(token) is not None])

    def test_tokens_on_other_servers_are_found_while_one_is_down(self):
        known = self.known(self.old())
        kept = {t for s in self.servers[1:] for t in known if base.raw_get(s, base.key_of(t))}
        self.memcached[0].kill()
        for made in self.each():
            started = time.monotonic()
            found = {token for token in known if made.source.lookup(token) is not None}
            self.assertEqual(kept, found)
            self.assertLess(time.monotonic() - started, base.BOUND)
            self.assertEqual({'found', 'unavailable'}, set(made.outcomes))
            # A token of the server that is down goes to the one that the old libraries would choose instead.
            ours = [a_token() for _ in range(10)]
            for token in ours:
                made.source.store(a_grant(token, str(uuid.uuid4())))
            self.assertEqual([], [token for token in ours if made.source.lookup(token) is None])
        fresh = self.old()
        self.assertEqual([], [token for token in ours if fresh.check_token(token) is None])
