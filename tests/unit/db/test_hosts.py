# SPDX-License-Identifier: Apache-2.0
"""The instances of a compute host, all defined at once."""

import fixtures
import sqlalchemy as sa
import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled.db import consoles, hosts, models, tokens
from tests.unit.db import base

GONE = 'instance_gone'


class HostsTests:
    def guest(self, *ports, compute_host=base.COMPUTE_HOST):
        """Define a guest, as its agent does."""
        self.instance = base.new_uuid()
        consoles.define(self.db, self.instance, compute_host, self.consoles(self.instance, *ports))
        return self.instance

    def consoles(self, instance, *ports, compute_host=base.COMPUTE_HOST):
        return [base.a_console(instance, port, compute_host=compute_host) for port in ports]

    def define_host(self, guests, compute_host=base.COMPUTE_HOST):
        """Define guests by {instance: ports or None}; return (retired, number of cuts) by instance."""
        guests = {
            instance: None if ports is None else self.consoles(instance, *ports, compute_host=compute_host)
            for instance, ports in guests.items()
        }
        changes = list(hosts.define(self.db, compute_host, guests, GONE))
        return {change.instance_uuid: (change.retired, len(change.cut)) for change in changes}

    def known(self):
        """Return the ports in the database by instance and compute host."""
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

    def test_equal_guests_are_left_as_they_are(self):
        guests = {self.guest(10000, 10001): (10000, 10001), self.guest(10002): (10002,)}
        stored = self.store_for(next(iter(guests)), 10000)
        self.assertEqual({}, self.define_host({**guests, base.new_uuid(): ()}))
        self.assert_known(guests)
        self.assertIsNotNone(tokens.validate(self.db, stored, single_use=False))

    def store_for(self, instance, port, **changes):
        self.instance = instance
        return self.store(port, **changes)

    def test_guests_that_are_not_listed_are_deleted(self):
        kept, gone = self.guest(10000), self.guest(10001)
        token = self.store_for(gone, 10001)
        session = self.open(token, self.proxy())
        self.assertEqual({gone: (True, 1)}, self.define_host({kept: (10000,)}))
        self.assert_known({kept: (10000,)})
        self.assertIsNone(tokens.validate(self.db, token, single_use=False))
        sessions = models.console_session.c
        query = sa.select(sessions.cut_reason).where(sessions.id == session.id)
        reason = self.db.single(lambda conn: conn.execute(query).scalar())
        self.assertEqual(GONE, reason)
        self.assertEqual({}, self.define_host({kept: (10000,)}))

    def test_differences_are_corrected(self):
        moved, emptied, new, bare = self.guest(10000), self.guest(10001), base.new_uuid(), base.new_uuid()
        token = self.store_for(moved, 10000)
        self.open(token, self.proxy())
        changes = self.define_host({moved: (10005,), emptied: (), new: (10002, 10003), bare: ()})
        self.assertEqual({moved: (False, 1), emptied: (False, 0), new: (False, 0)}, changes)
        self.assert_known({moved: (10005,), emptied: (), new: (10002, 10003)})
        self.assertIsNone(tokens.validate(self.db, token, single_use=False))

    def test_new_guests_in_batches(self):
        self.useFixture(fixtures.MonkeyPatch('consoled.db.hosts._BATCH', 2))
        arrived = self.guest(10000, compute_host='node-2')
        guests = {arrived: (10000,), **{base.new_uuid(): (10001 + n, 10011 + n) for n in range(5)}}
        self.assertEqual(dict.fromkeys(guests, (False, 0)), self.define_host(guests))
        self.assert_known(guests)
        self.assertEqual({}, self.define_host(guests))

    def test_a_console_that_is_listed_twice(self):
        new = base.new_uuid()
        self.assertEqual({new: (False, 0)}, self.define_host({new: (10000, 10000)}))
        self.assert_known({new: (10000,)})

    def test_another_base_url_drops_no_token(self):
        instance = self.guest(10000)
        token = self.store_for(instance, 10000)
        console = base.a_console(instance, 10000)
        console.access_url_base = 'https://elsewhere.example/'
        changes = list(hosts.define(self.db, base.COMPUTE_HOST, {instance: [console]}, GONE))
        self.assertEqual([(instance, [])], [(change.instance_uuid, change.cut) for change in changes])
        found = tokens.validate(self.db, token, single_use=False)
        self.assertEqual('https://elsewhere.example/', found.grant.access_url_base)

    def test_a_guest_with_unknown_consoles_stays_as_it_is(self):
        unknown, gone = self.guest(10000), self.guest(10001)
        self.assertEqual({gone: (True, 0)}, self.define_host({unknown: None, base.new_uuid(): None}))
        self.assert_known({unknown: (10000,)})

    def test_guests_of_other_hosts_are_left_alone(self):
        elsewhere = self.guest(10000, compute_host='node-2')
        self.assertEqual({}, self.define_host({}))
        self.assertEqual({}, self.define_host({elsewhere: ()}))  # it was here, and is still defined
        self.assertEqual({(elsewhere, 'node-2'): {10000}}, self.known())

    def test_a_guest_that_came_from_another_host(self):
        arrived = self.guest(10000, compute_host='node-2')
        self.assertEqual({arrived: (False, 0)}, self.define_host({arrived: (10000,)}))
        self.assert_known({arrived: (10000,)})

    def test_an_instance_that_no_agent_defined_is_left_to_the_sweep(self):
        self.store(10000)
        authorized = self.instance
        self.assertEqual({}, self.define_host({}))
        self.assert_known({authorized: (10000,)})
        self.assertEqual({authorized: (False, 0)}, self.define_host({authorized: (10000,)}))
        self.assertEqual({}, self.define_host({authorized: (10000,)}))
        self.assertEqual({authorized: (True, 0)}, self.define_host({}))

    def test_an_authorized_guest_that_has_lost_its_console(self):
        token = self.store(10000)
        self.assertEqual({self.instance: (False, 0)}, self.define_host({self.instance: ()}))
        self.assertIsNone(tokens.validate(self.db, token, single_use=False))

    def test_an_interrupted_definition_continues_when_it_is_repeated(self):
        gone = [self.guest(10000 + number) for number in range(4)]
        changes = hosts.define(self.db, base.COMPUTE_HOST, {}, GONE)
        first = next(changes)
        changes.close()
        self.assertEqual(set(gone) - {first.instance_uuid}, set(self.define_host({})))
        self.assert_known({})


class SQLiteHostsTest(HostsTests, base.DatabaseTestCase):
    pass


class GroupByInstanceTest(testtools.TestCase):
    @given(
        st.lists(st.uuids().map(str), unique=True, min_size=1, max_size=6),
        st.lists(st.tuples(st.integers(0, 5), st.integers(1, 65535)), max_size=12),
        st.sets(st.integers(0, 5)),
    )
    def test_each_instance_has_its_own_consoles_or_none_that_are_known(self, instances, consoles, unknown):
        found = [base.a_console(instances[n % len(instances)], port) for n, port in consoles]
        left_out = {instances[n % len(instances)] for n in unknown}
        grouped = hosts.group_by_instance(instances, found, sorted(left_out))
        self.assertEqual(instances, list(grouped))
        for instance, its in grouped.items():
            if instance in left_out:
                self.assertIsNone(its)
            else:
                self.assertEqual([each for each in found if each.instance_uuid == instance], its)
