# SPDX-License-Identifier: Apache-2.0
"""Nova's tokens as a source of tokens of a manager."""

import datetime
import types

import sqlalchemy as sa

from consoled import exception
from consoled.db import models
from consoled.nova import source
from tests.functional import base as functional_base
from tests.unit.manager import base as manager_base
from tests.unit.nova import base


class Compute:
    """nova-compute. ``answer`` is returned or raised; ``asked`` has (host, instance id, port)."""

    def __init__(self):
        self.answer = True
        self.asked = []

    def validate_console_port(self, context, console, instance_id, timeout):
        self.asked.append((console.compute_host, console.port))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class NovaCase(manager_base.ManagerCase, base.NovaTables):
    """A manager with Nova as its only source."""

    def setUp(self):
        super().setUp()
        self.make_nova()
        self.patch(source, '_READ_AGAIN', 0)
        self.compute, self.outcomes = Compute(), []
        self.sources.append(source.NovaTokens(self.nova, self.compute, self.outcomes.append))
        self.guest = self.add_instance(uuid=self.instance)
        self.token = self.add_token(self.guest)
        self.proxy_id = self.proxy()

    def refused(self, error, token=None):
        return self.assertRaises(error, self.open, self.proxy_id, token or self.token)


class OpenTest(NovaCase):
    def test_a_token_of_nova_opens_its_console(self):
        session = self.open(self.proxy_id, self.token)
        self.assertEqual(('192.0.2.10', 5900), (session.console.host, session.console.port))
        self.assertEqual('cmp1', session.console.compute_host)
        self.assertEqual((None, 'project-1'), (session.user_id, session.project_id))
        self.assertEqual([('cmp1', 5900)], self.compute.asked)
        self.assertEqual(['found'], self.outcomes)

    def test_a_copy_is_not_valid_by_itself(self):
        """The plugin of websockify, and others, open consoles by the answer of ``validate``."""
        for _ in range(2):
            self.assertEqual(5900, self.api.validate(self.context, self.token).port)
        self.update_instance(self.guest, host='cmp2')
        self.assertRaises(exception.InvalidToken, self.api.validate, self.context, self.token)
        base.METADATA.drop_all(self.tables.transactional_engine)
        self.assertRaises(exception.SourceUnavailable, self.api.validate, self.context, self.token)

    def test_it_expires_when_nova_says(self):
        expires = self.api.validate(self.context, self.token).expires
        self.assertTrue(base.now(540) < expires.replace(tzinfo=None) <= base.now(600))

    def test_the_row_is_read_and_nova_compute_is_asked_at_each_open(self):
        self.open(self.proxy_id, self.token)
        self.compute.answer = False
        self.refused(exception.ConsoleGone)
        self.compute.answer = exception.ComputeUnreachable()
        self.refused(exception.ComputeUnreachable)
        self.delete_token(self.token)
        self.refused(exception.InvalidToken)
        self.assertEqual(3, len(self.compute.asked))

    def test_a_guest_that_was_launched_again_since(self):
        self.open(self.proxy_id, self.token)
        self.update_instance(self.guest, launched_at=base.now(1))
        self.refused(exception.InvalidToken)
        self.refused(exception.InvalidToken, self.add_token(self.guest, created_at=base.now(-5)))
        self.open(self.proxy_id, self.add_token(self.guest, created_at=base.now(1)))

    def test_a_guest_that_has_moved(self):
        first = self.open(self.proxy_id, self.token)
        self.update_instance(self.guest, host='cmp2')
        self.refused(exception.InvalidToken)
        moved = self.add_token(self.guest, host='192.0.2.20')
        session = self.open(self.proxy_id, moved)
        self.assertEqual(('cmp2', '192.0.2.20'), (session.console.compute_host, session.console.host))
        self.assertEqual([(first.id, 'console_moved')], self.proxies.cuts)

    def test_what_is_gone_or_nowhere(self):
        for values in ({'host': None}, {'deleted': 3}):
            self.update_instance(self.guest, **values)
            self.refused(exception.InvalidToken)
        self.assertEqual([], self.compute.asked)

    def test_consoles_that_cannot_be_reached_or_stored(self):
        for values in (
            {'host': '0.0.0.0'},  # noqa: S104
            {'host': 'fe80::1%eth0'},
            {'port': 0},
            {'port': -5900},
            {'port': 70000},
            {'host': '192.0.2.10\n'},
            {'host': 'user@192.0.2.10'},
            {'internal_access_path': '/a\r\nb: c'},
            {'access_url_base': 'https://h/' + 'x' * 1100},
            {'access_url_base': 'javascript:alert(1)'},
        ):
            self.refused(exception.InvalidToken, self.add_token(self.guest, **values))

    def test_a_path_that_is_empty_is_none(self):
        session = self.open(self.proxy_id, self.add_token(self.guest, internal_access_path=''))
        self.assertEqual({}, session.console.options)

    def test_a_node_of_the_database_that_is_behind(self):
        """At a look-up, and at the check of a copy, which may reach another node."""
        find = self.nova.find_token
        for _ in range(2):
            answers = iter([None])
            self.nova.find_token = lambda token_hash, behind=answers: next(behind, find(token_hash))
            self.open(self.proxy_id, self.token)

    def test_a_token_that_nova_refuses_is_not_another_sources(self):
        """A release 18 that is moved over has its tokens in memcached, too."""
        memcached = self.sources[0].lookup(self.token)
        self.sources.append(types.SimpleNamespace(name='legacy', lookup=lambda token: memcached))
        self.update_instance(self.guest, launched_at=base.now(1))
        self.refused(exception.InvalidToken)

    def test_console_types_that_no_proxy_opens(self):
        self.refused(exception.InvalidToken, self.add_token(self.guest, console_type='rdp-html5'))

    def test_a_database_of_nova_that_is_away_is_no_failed_token(self):
        self.open(self.proxy_id, self.token)
        base.METADATA.drop_all(self.tables.transactional_engine)
        self.refused(exception.SourceUnavailable)
        self.refused(exception.SourceUnavailable, functional_base.new_uuid())
        self.assertEqual(['found', 'unavailable', 'unavailable'], self.outcomes)
        self.open(self.proxy_id, self.authorize().token)  # one of our own


class RevokeTest(NovaCase):
    def test_a_revoked_token_stays_revoked_although_nova_keeps_it(self):
        session = self.open(self.proxy_id, self.token)
        self.api.revoke(self.context, 'tenant_gone', project_id='project-1')
        self.assertEqual([(session.id, 'tenant_gone')], self.proxies.cuts)
        self.refused(exception.InvalidToken)

    def test_a_token_that_nova_dates_later_than_it_was_issued(self):
        """MySQL rounds to whole seconds."""
        self.api.revoke(self.context, 'broken_into', instance_uuid=self.guest)
        since = self.db.single(lambda conn: conn.execute(sa.select(models.legacy_void.c.since)).scalar())
        for later, opens in ((0.4, False), (0.6, True)):
            created_at = since + datetime.timedelta(seconds=later)
            token = self.add_token(self.guest, created_at=created_at)
            if opens:
                self.open(self.proxy_id, token)
            else:
                self.refused(exception.InvalidToken, token)

    def test_a_token_that_was_never_used_here(self):
        self.api.revoke(self.context, 'broken_into', instance_uuid=self.guest)
        self.refused(exception.InvalidToken)
        self.open(self.proxy_id, self.add_token(self.guest, created_at=base.now(2)))


class AgentTest(NovaCase):
    """consoled's own agent beside nova-compute."""

    def setUp(self):
        super().setUp()
        self.define(5900, compute_host='cmp1', console_type='novnc')

    def test_the_agent_is_asked_instead(self):
        session = self.open(self.proxy_id, self.token)
        self.assertEqual([], self.compute.asked)
        self.assertEqual([(self.guest, 5900)], self.agents.asked)
        # The agent knows where the console listens; Nova knows what its operator has configured.
        self.assertEqual(
            functional_base.a_console(self.guest, 5900, compute_host='cmp1').host, session.console.host
        )

    def test_a_port_that_the_agent_did_not_define(self):
        self.refused(exception.InvalidToken, self.add_token(self.guest, port=5901))

    def test_a_guest_that_was_started_again_with_another_port(self):
        self.open(self.proxy_id, self.token)
        self.define(5901, compute_host='cmp1', console_type='novnc')
        self.refused(exception.InvalidToken)
        self.assertEqual(5901, self.open(self.proxy_id, self.add_token(self.guest, port=5901)).console.port)

    def test_a_guest_that_nova_has_on_another_host(self):
        self.update_instance(self.guest, host='cmp2')
        self.refused(exception.InvalidToken)


class SwitchedOffTest(NovaCase):
    def test_a_copy_opens_nothing_without_its_source(self):
        self.open(self.proxy_id, self.token)
        self.sources.clear()
        self.refused(exception.InvalidToken)
        self.assertRaises(exception.InvalidToken, self.api.validate, self.context, self.token)

    def test_its_uses_are_not_those_of_the_old_service(self):
        self.open(self.proxy_id, self.token)
        rows = self.db.single(lambda conn: conn.execute(sa.select(models.legacy_use)).all())
        self.assertEqual([], rows)
