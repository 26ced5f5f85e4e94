# SPDX-License-Identifier: Apache-2.0
"""Consoles that an unmodified Nova hands out, opened through a manager."""

import contextlib

import sqlalchemy as sa

from consoled import exception
from consoled.context import RequestContext
from consoled.testing import daemons, services
from consoled.testing.fixtures import wait_until
from tests.functional import base as functional_base
from tests.nova import base

CONTEXT = RequestContext()


class OpenTest(base.NovaTestCase):
    """The manager is a daemon on the bus of Nova, and an account of Nova's database that may only read."""

    manager: daemons.ManagerProcess

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.tokens = []
        cls.manager = cls.share(
            daemons.ManagerProcess(
                cls.nova.bus,
                services.shared(services.MariaDB).new_database(),
                {
                    'nova': {'connection': cls.nova.reader},
                    'DEFAULT': {'debug': True},
                    'manager': base.MANAGER,
                },
            )
        )

    def setUp(self):
        super().setUp()
        self.add_logs(manager=self.manager)
        self.connect()
        self.guest = self.nova.add_guest()

    def authorize(self, *args, **values):
        token = self.nova.authorize(self.guest, *args, **values)
        self.tokens.append(token)
        return token

    def refused(self, error, token):
        return self.assertRaises(error, self.proxy.open, token)

    def opens(self, token):
        with contextlib.suppress(exception.ComputeUnreachable):
            return self.proxy.open(token)

    def test_the_screen_and_the_serial_port(self):
        for console_type, port in (('novnc', 5901), ('serial', 10000)):
            session = self.proxy.open(self.authorize(console_type, port))
            self.assertEqual((base.ADDRESS, port), (session.console.host, session.console.port))
            self.assertEqual((self.guest, 'project'), (session.console.instance_uuid, session.project_id))
            self.assertEqual(base.COMPUTE_HOST, session.console.compute_host)

    def test_a_token_opens_again_until_nova_deletes_it(self):
        token = self.authorize()
        for _ in range(2):
            self.proxy.open(token)
        self.nova.call('clean', self.guest)
        self.refused(exception.InvalidToken, token)

    def test_ports_that_are_not_the_guests(self):
        self.refused(exception.ConsoleGone, self.authorize(port=5902))
        self.refused(exception.ConsoleGone, self.authorize('spice-html5', port=5901))
        token = self.authorize()
        self.proxy.open(token)
        self.nova.stop_guest(self.guest)
        self.refused(exception.ConsoleGone, token)

    def test_instances_that_are_elsewhere_or_nowhere(self):
        for values in ({'host': 'cmp2'}, {'host': None, 'vm_state': 'shelved_offloaded'}):
            token = self.authorize()
            self.proxy.open(token)
            self.nova.call('update_instance', self.guest, **values)
            self.refused(exception.InvalidToken, token)
            self.nova.call('update_instance', self.guest, host=base.COMPUTE_HOST)
        token = self.authorize()
        self.nova.call('destroy_instance', self.guest)
        self.refused(exception.InvalidToken, token)

    def test_a_token_from_before_a_rebuild(self):
        token = self.authorize()
        self.proxy.open(token)
        self.nova.call('update_instance', self.guest, launched_in=2)
        self.refused(exception.InvalidToken, token)

    def test_a_token_that_has_expired(self):
        token = self.authorize()
        self.nova.execute('UPDATE console_auth_tokens SET expires = UNIX_TIMESTAMP()')
        self.refused(exception.InvalidToken, token)
        self.refused(exception.InvalidToken, functional_base.new_uuid())

    def test_nova_compute_is_silent(self):
        token = self.authorize()
        with self.nova.compute.stopped():
            self.refused(exception.ComputeUnreachable, token)
        wait_until(lambda: self.opens(token), what='the compute host to be asked again')

    def test_the_database_of_nova_refuses(self):
        token = self.authorize()
        self.proxy.open(token)
        self.nova.grant('REVOKE', 'FROM')
        try:
            self.refused(exception.SourceUnavailable, token)
            self.refused(exception.SourceUnavailable, self.authorize())
        finally:
            self.nova.grant()
        self.proxy.open(token)

    def test_what_is_revoked_here_stays_revoked(self):
        self.guest = self.nova.add_guest(project_id='gone')
        token = self.authorize()
        session = self.proxy.open(token)
        self.api.revoke(CONTEXT, 'tenant_gone', project_id='gone')
        self.assertEqual((session.id, 'tenant_gone'), self.proxy.cuts.get(timeout=60))
        self.refused(exception.InvalidToken, token)

    def test_neither_tokens_nor_passwords_in_any_log(self):
        self.proxy.open(self.authorize())
        self.refused(exception.InvalidToken, functional_base.new_uuid())
        log = self.manager.log()
        self.assertIn('Adopted a token of nova', log)
        for secret in (*self.tokens, sa.make_url(self.nova.reader).password):
            self.assertNotIn(secret, log)
