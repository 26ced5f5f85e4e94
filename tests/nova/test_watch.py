# SPDX-License-Identifier: Apache-2.0
"""Sessions of Nova's tokens end when Nova's own code has deleted, moved or launched again their guests."""

import queue

import sqlalchemy as sa

from consoled.context import RequestContext
from consoled.db import models
from consoled.db.engine import Database
from consoled.testing import daemons
from consoled.testing.fixtures import wait_until
from tests.functional import base as functional_base
from tests.nova import base

INTERVAL = 0.5  # seconds


class WatchTest(base.NovaTestCase):
    """Two managers, daemons beside Nova, and an account of Nova's database that may only read."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        database = functional_base.database_url(cls, 'mariadb')
        cls.db = Database(database)
        cls.addClassCleanup(cls.db.dispose)
        options = {'nova': {'connection': cls.nova.reader, 'watch_interval': INTERVAL}}
        managers = [cls.share(daemons.ManagerProcess(cls.nova.bus, database, options)) for _ in range(2)]
        cls.managers = {manager.host: manager for manager in managers}

    def setUp(self):
        super().setUp()
        self.add_logs(**self.managers)
        self.connect()
        self.guest = self.nova.add_guest()

    def logged(self, text):
        return sum(manager.log().count(text) for manager in self.managers.values())

    def open(self, guest=None, **values):
        return self.proxy.open(self.nova.authorize(guest or self.guest, **values))

    def cut(self):
        """Wait for a cut and return it: the id of a session, and the reason."""
        return self.proxy.cuts.get(timeout=60)

    def changes(self, **values):
        return self.nova.call('update_instance', self.guest, **values)

    def test_deleted(self):
        session = self.open()
        self.nova.call('destroy_instance', self.guest)
        self.assertEqual((session.id, 'instance_gone'), self.cut())

    def test_deleted_as_nova_compute_does(self):
        """With its tokens."""
        session = self.open()
        self.nova.call('destroy_instance', self.guest)
        self.nova.call('clean', self.guest)
        self.assertEqual((session.id, 'instance_gone'), self.cut())

    def test_moved_and_opened_there(self):
        session = self.open()
        self.changes(host='cmp2')
        self.assertEqual((session.id, 'console_moved'), self.cut())
        self.changes(host=base.COMPUTE_HOST)
        again = self.open()
        self.nova.call('clean', self.guest)
        self.assertEqual((again.id, 'console_gone'), self.cut())

    def test_shelved(self):
        session = self.open()
        self.changes(host=None, vm_state='shelved_offloaded')
        self.assertEqual((session.id, 'instance_gone'), self.cut())

    def test_rebuilt(self):
        session = self.open()
        self.changes(launched_in=1)
        self.assertEqual((session.id, 'console_gone'), self.cut())

    def test_others_go_on(self):
        """Whatever changes but host and launch; and while Nova's database refuses the account."""
        others = {self.open(self.nova.add_guest()).id for _ in range(3)} | {self.open().id}
        self.changes(vm_state='paused')
        self.nova.execute('UPDATE console_auth_tokens SET expires = UNIX_TIMESTAMP() - 1')
        self.nova.grant('REVOKE', 'FROM')
        try:
            wait_until(lambda: self.logged('cannot watch the sessions of Nova: SELECT command'))
        finally:
            self.nova.grant()
        last = self.open(self.nova.add_guest())
        self.nova.call('destroy_instance', last.console.instance_uuid)
        self.assertEqual((last.id, 'instance_gone'), self.cut())
        self.assertRaises(queue.Empty, self.proxy.cuts.get_nowait)
        listed = self.api.list_sessions(RequestContext())
        self.assertTrue(others <= {session.id for session in listed.objects})

    def test_a_manager_that_is_killed_is_replaced(self):
        session = self.open()
        turn = sa.select(models.session_watch.c.manager)
        watching = self.managers[self.db.single(lambda conn: conn.execute(turn).scalar_one())]
        watching.kill()
        self.addCleanup(watching.start)
        self.nova.call('destroy_instance', self.guest)
        self.assertEqual((session.id, 'instance_gone'), self.cut())
