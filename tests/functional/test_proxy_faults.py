# SPDX-License-Identifier: Apache-2.0
"""The proxy during outages of manager, bus and database, and after them.

See invariants 4 and 5 in doc/design.md.
"""

import datetime
import time

import sqlalchemy as sa
import testtools
from testtools.content import text_content

from consoled import objects
from consoled.context import RequestContext
from consoled.db import proxies
from consoled.rpc.client import ConsoleAuthAPI
from consoled.testing import daemons
from consoled.testing.fixtures import wait_until
from consoled.testing.guests.fixture import GuestHostFixture
from consoled.testing.guests.tcp_guests import EchoGuest
from tests.functional import base
from tests.functional.raw_user import User, frame, handshake

LEASE = 6  # seconds
NO_ANSWER = 5.0  # seconds until a user is refused when no manager answers
SLACK = 5.0  # additional seconds on a busy machine


class FaultsCase(testtools.TestCase):
    """A manager daemon and a proxy daemon."""

    def setUp(self):
        super().setUp()
        self.bus, self.database = self.services()
        options = {'manager': {'workers': 1, 'lease': LEASE}, 'serial_console': {'max_sessions': 1}}
        self.manager = self.useFixture(daemons.ManagerProcess(self.bus, self.database, options))
        self.proxy = self.useFixture(daemons.ProxyProcess(self.bus, {'proxy': {'ping_interval': 300}}))
        self.addOnException(lambda _: self.addDetail('proxy', text_content(self.proxy.log()[-6000:])))
        self.guest = self.useFixture(GuestHostFixture()).add(EchoGuest())
        self.api = ConsoleAuthAPI(base.client_transport(self, self.bus))
        self.engine = sa.create_engine(self.database)
        self.addCleanup(self.engine.dispose)
        self.proxy.wait_ready()

    def services(self):
        """Return the URLs of a bus and of an empty database."""
        return base.transport_url(self), base.database_url(self, 'mariadb')

    def grant(self, console_type='serial'):
        token = objects.ConsoleAuthToken(
            instance_uuid=base.new_uuid(),
            console_type=console_type,
            host='127.0.0.1',
            port=self.guest.port,
            compute_host=base.COMPUTE_HOST,
            access_url_base='https://console.example.org/',
            options={},
            user_id='user-1',
            project_id='project-1',
        )
        return self.api.authorize(RequestContext(), token, ttl=600)

    def ask(self, grant):
        user = User(self.proxy.port)
        self.addCleanup(user.leave)
        user.send(handshake(f'/?token={grant.token}'))
        return user, user.answer()

    def opened(self, grant):
        user, answer = self.ask(grant)
        self.assertEqual(101, answer.status, answer)
        return user

    def open_when_possible(self, grant):
        """Retry until a session can be opened, and return its user."""

        def attempt():
            user, answer = self.ask(grant)
            if answer.status == 101:
                return user
            user.leave()
            return None

        return wait_until(attempt, timeout=60, what='a session')

    def assert_echo(self, user, text=b'still there'):
        user.send(frame(text))
        self.assertEqual(text, user.message(len(text)))

    def assert_refused_in_time(self, grant):
        started = time.monotonic()
        _, answer = self.ask(grant)
        took = time.monotonic() - started
        self.assertEqual(503, answer.status)
        self.assertIn('retry-after', answer.headers)
        self.assertLess(took, NO_ANSWER + SLACK)
        self.addDetail('refused after', text_content(f'{took:.2f} s'))

    def wait_until_not_ready(self):
        wait_until(lambda: not self.proxy.ready(), timeout=60, what='the loss of the lease')

    def rows(self, query, **values):
        with self.engine.connect() as conn:
            return conn.execute(sa.text(query), values).all()


class LeaseTest(FaultsCase):
    def test_invariant_4_a_proxy_without_lease_cuts_its_limited_sessions_in_time(self):
        limited, unlimited = self.grant('serial'), self.grant('webmks')
        serial, other = self.opened(limited), self.opened(unlimited)
        self.manager.stop()
        self.assertEqual(1013, serial.close_code())
        cut = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)  # on the database's machine
        # no other user can get the port before the cut: the lease still holds by the database's clock
        [(expires,)] = self.rows('SELECT lease_expires FROM console_proxy')
        self.assertLess(cut, expires)
        self.assert_echo(other)
        self.manager.start()
        self.assert_echo(self.open_when_possible(limited))
        self.assert_echo(other)

    def test_invariant_4_a_dead_proxy_holds_nothing(self):
        grant = self.grant('serial')
        self.opened(grant)
        dead = self.proxy
        self.proxy = self.useFixture(daemons.ProxyProcess(self.bus, {'proxy': {'ping_interval': 300}}))
        self.proxy.wait_ready()  # before the other dies: on a busy machine a start may outlast its lease
        dead.kill()
        _, answer = self.ask(grant)
        self.assertEqual(409, answer.status)
        self.assert_echo(self.open_when_possible(grant))

    def test_invariant_4_the_same_proxy_started_again_has_its_ports_at_once(self):
        grant = self.grant('serial')
        self.opened(grant)
        self.proxy.kill()
        self.proxy.start()
        self.proxy.wait_ready()
        self.assert_echo(self.opened(grant))

    def test_invariant_5_a_revocation_is_pushed(self):
        grant = self.grant('serial')
        user = self.opened(grant)
        started = time.monotonic()
        self.api.revoke(RequestContext(), 'left_the_project', instance_uuid=grant.instance_uuid)
        self.assertEqual(4403, user.close_code())
        self.addDetail('cut after', text_content(f'{time.monotonic() - started:.3f} s'))
        self.assertEqual(1, len(self.rows('SELECT 1 FROM console_proxy')))

    def test_invariant_5_a_cut_whose_push_was_lost_is_pulled_within_a_lease(self):
        grant = self.grant('webmks')
        user = self.opened(grant)
        with self.engine.begin() as conn:  # like a manager that dies before it pushes the cut
            conn.execute(sa.text("UPDATE console_session SET cut_reason = 'instance_gone'"))
        self.assertEqual(4404, user.close_code())
        wait_until(lambda: not self.rows('SELECT 1 FROM console_session'), what='the end of the session')

    def test_invariant_6_a_session_that_the_proxy_does_not_know_is_forgotten(self):
        """The manager deletes a session whose close, or the reply to whose open, was lost."""
        grant = self.grant('serial')
        user = self.opened(grant)
        stray = self.grant('serial')
        [(proxy_id,)] = self.rows('SELECT proxy_id FROM console_session')
        self.api.open_session(RequestContext(), stray.token, base.new_uuid(), proxy_id, '192.0.2.1')
        with self.engine.begin() as conn:  # time passes: an open that is under way would not take longer
            conn.execute(
                sa.text('UPDATE console_session SET connected_at = connected_at - INTERVAL :age SECOND'),
                {'age': proxies.OPEN_TAKES_AT_MOST},
            )
        self.assert_echo(self.open_when_possible(stray))
        self.assert_echo(user)


class OutageTest(base.OwnServices, FaultsCase):
    def check_outage(self, begin, end):
        """Open sessions continue, new ones are refused with 503, and the proxy recovers by itself."""
        unlimited, more = self.grant('webmks'), self.grant('webmks')
        user = self.opened(unlimited)
        begin()
        self.assert_echo(user)
        self.assert_refused_in_time(more)
        self.assert_echo(user)
        self.wait_until_not_ready()
        self.assert_refused_in_time(more)
        self.assert_echo(user)
        end()
        again = self.open_when_possible(more)
        self.assert_echo(again)
        self.assert_echo(user)
        # the managers know the session that continued, and can revoke it
        revoked = self.api.revoke(RequestContext(), 'left_the_project', instance_uuid=unlimited.instance_uuid)
        self.assertEqual(1, revoked.sessions)
        self.assertEqual(4403, user.close_code())

    def test_manager_outage(self):
        self.check_outage(self.manager.stop, self.manager.start)

    def test_rabbitmq_outage(self):
        self.check_outage(self.broker.kill, self.broker.start)

    def test_database_outage(self):
        self.check_outage(self.mariadb.kill, self.mariadb.start)
