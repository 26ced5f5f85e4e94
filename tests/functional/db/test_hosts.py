# SPDX-License-Identifier: Apache-2.0
"""What a compute host says of all its guests at once, on each database, below the bus."""

import threading

import fixtures
import sqlalchemy as sa

from consoled.db import cleanup, consoles, hosts, models, tokens
from tests.functional import base
from tests.functional.db.test_cleanup import DatabaseTestCase

GONE = 'instance_gone'


class _Hosts:
    def guest(self, *ports, compute_host=base.COMPUTE_HOST):
        """A guest that its agent has defined."""
        self.instance = base.new_uuid()
        consoles.define(self.db, self.instance, compute_host, self.consoles(self.instance, *ports))
        return self.instance

    def consoles(self, instance, *ports, compute_host=base.COMPUTE_HOST):
        return [base.a_console(instance, port, compute_host=compute_host) for port in ports]

    def define(self, guests, compute_host=base.COMPUTE_HOST):
        """Define by {instance: ports or None}; the changes by instance."""
        said = {
            instance: None if ports is None else self.consoles(instance, *ports, compute_host=compute_host)
            for instance, ports in guests.items()
        }
        changes = list(hosts.define(self.db, compute_host, said, GONE))
        return {change.instance_uuid: (change.retired, len(change.cut)) for change in changes}

    def known(self):
        """Ports by instance and compute host."""
        rows = self.db.single(
            lambda conn: conn.execute(
                sa.select(
                    models.instances.c.uuid,
                    models.instances.c.compute_host,
                    models.console_connection.c.port,
                ).select_from(models.instances.outerjoin(models.console_connection))
            ).all()
        )
        found = {}
        for uuid, host, port in rows:
            found.setdefault((uuid, host), set()).update(() if port is None else (port,))
        return found

    def assert_known(self, expected):
        wanted = {(uuid, base.COMPUTE_HOST): set(ports) for uuid, ports in expected.items()}
        self.assertEqual(wanted, self.known())

    def test_what_is_the_same_is_left_as_it_is(self):
        guests = {self.guest(10000, 10001): (10000, 10001), self.guest(10002): (10002,)}
        stored = self.store_for(next(iter(guests)), 10000)
        self.assertEqual({}, self.define({**guests, base.new_uuid(): ()}))
        self.assert_known(guests)
        self.assertIsNotNone(tokens.validate(self.db, stored, single_use=False))

    def store_for(self, instance, port, **changes):
        self.instance = instance
        return self.store(port, **changes)

    def test_guests_that_are_not_named_are_gone_with_all_they_had(self):
        kept, gone = self.guest(10000), self.guest(10001)
        token = self.store_for(gone, 10001)
        session = self.open(token, self.proxy())
        self.assertEqual({gone: (True, 1)}, self.define({kept: (10000,)}))
        self.assert_known({kept: (10000,)})
        self.assertIsNone(tokens.validate(self.db, token, single_use=False))
        sessions = models.console_session.c
        query = sa.select(sessions.cut_reason).where(sessions.id == session.id)
        reason = self.db.single(lambda conn: conn.execute(query).scalar())
        self.assertEqual(GONE, reason)
        self.assertEqual({}, self.define({kept: (10000,)}))

    def test_what_differs_is_corrected(self):
        moved, emptied, new, bare = self.guest(10000), self.guest(10001), base.new_uuid(), base.new_uuid()
        token = self.store_for(moved, 10000)
        self.open(token, self.proxy())
        changes = self.define({moved: (10005,), emptied: (), new: (10002, 10003), bare: ()})
        self.assertEqual({moved: (False, 1), emptied: (False, 0), new: (False, 0)}, changes)
        self.assert_known({moved: (10005,), emptied: (), new: (10002, 10003)})
        self.assertIsNone(tokens.validate(self.db, token, single_use=False))

    def test_many_that_are_new(self):
        self.useFixture(fixtures.MonkeyPatch('consoled.db.hosts._BATCH', 2))
        arrived = self.guest(10000, compute_host='node-2')
        guests = {arrived: (10000,), **{base.new_uuid(): (10001 + n, 10011 + n) for n in range(5)}}
        self.assertEqual(dict.fromkeys(guests, (False, 0)), self.define(guests))
        self.assert_known(guests)
        self.assertEqual({}, self.define(guests))

    def test_a_place_that_is_named_twice(self):
        new = base.new_uuid()
        self.assertEqual({new: (False, 0)}, self.define({new: (10000, 10000)}))
        self.assert_known({new: (10000,)})

    def test_another_base_url_costs_no_token(self):
        instance = self.guest(10000)
        token = self.store_for(instance, 10000)
        console = base.a_console(instance, 10000)
        console.access_url_base = 'https://elsewhere.example/'
        changes = list(hosts.define(self.db, base.COMPUTE_HOST, {instance: [console]}, GONE))
        self.assertEqual([(instance, [])], [(change.instance_uuid, change.cut) for change in changes])
        found = tokens.validate(self.db, token, single_use=False)
        self.assertEqual('https://elsewhere.example/', found.grant.access_url_base)

    def test_a_guest_of_which_nothing_is_said_stays_as_it_is(self):
        unknown, gone = self.guest(10000), self.guest(10001)
        self.assertEqual({gone: (True, 0)}, self.define({unknown: None, base.new_uuid(): None}))
        self.assert_known({unknown: (10000,)})

    def test_guests_of_other_hosts_are_none_of_its_business(self):
        elsewhere = self.guest(10000, compute_host='node-2')
        self.assertEqual({}, self.define({}))
        self.assertEqual({}, self.define({elsewhere: ()}))  # it was here, and is still defined
        self.assertEqual({(elsewhere, 'node-2'): {10000}}, self.known())

    def test_a_guest_that_came_from_another_host(self):
        arrived = self.guest(10000, compute_host='node-2')
        self.assertEqual({arrived: (False, 0)}, self.define({arrived: (10000,)}))
        self.assert_known({arrived: (10000,)})

    def test_an_instance_that_was_only_authorized_is_left_to_the_sweep(self):
        self.store(10000)
        authorized = self.instance
        self.assertEqual({}, self.define({}))
        self.assert_known({authorized: (10000,)})
        self.assertEqual({authorized: (False, 0)}, self.define({authorized: (10000,)}))
        self.assertEqual({}, self.define({authorized: (10000,)}))
        self.assertEqual({authorized: (True, 0)}, self.define({}))

    def test_one_that_is_authorized_and_has_no_console_any_more(self):
        token = self.store(10000)
        self.assertEqual({self.instance: (False, 0)}, self.define({self.instance: ()}))
        self.assertIsNone(tokens.validate(self.db, token, single_use=False))

    def test_ended_in_its_middle_it_goes_on_where_it_was(self):
        gone = [self.guest(10000 + number) for number in range(4)]
        changes = hosts.define(self.db, base.COMPUTE_HOST, {}, GONE)
        first = next(changes)
        changes.close()
        self.assertEqual(set(gone) - {first.instance_uuid}, set(self.define({})))
        self.assert_known({})

    def test_a_guest_is_forgotten_only_where_it_is(self):
        """It was migrated: its old host deletes it after its new one has defined it."""
        instance = self.guest(10000, compute_host='node-2')
        token = self.store_for(instance, 10000, compute_host='node-2')
        session = self.open(token, self.proxy())
        self.assertEqual([], cleanup.forget_instance(self.db, instance, GONE, base.COMPUTE_HOST))
        self.assertIsNotNone(tokens.validate(self.db, token, single_use=False))
        self.assertEqual([session.id], cleanup.forget_instance(self.db, instance, GONE, 'node-2'))
        self.assertIsNone(tokens.validate(self.db, token, single_use=False))
        self.assertEqual({}, self.known())

    def test_invariant_6_the_same_at_the_same_time(self):
        gone = [self.guest(10000 + number) for number in range(5)]
        new = {base.new_uuid(): (10010 + number,) for number in range(5)}
        failures = []

        def run():
            try:
                self.define(new)
            except Exception as exc:
                failures.append(exc)

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual([], failures)
        self.assert_known(new)
        self.assertFalse(set(gone) & {uuid for uuid, _ in self.known()})


class MariaDBHostsTest(_Hosts, DatabaseTestCase):
    engine = 'mariadb'


class PostgreSQLHostsTest(_Hosts, DatabaseTestCase):
    engine = 'postgresql'


class SQLiteHostsTest(_Hosts, DatabaseTestCase):
    engine = 'sqlite'
