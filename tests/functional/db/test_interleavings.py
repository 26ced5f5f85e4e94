# SPDX-License-Identifier: Apache-2.0
"""Concurrent operations, many times, on each database: the invariants hold in any order."""

import concurrent.futures
import contextlib
import dataclasses
import threading

import sqlalchemy as sa

from consoled import exception
from consoled.db import (
    claims,
    cleanup,
    consoles,
    hosts,
    managers,
    models,
    ports,
    revocation,
    sessions,
    tokens,
)
from tests.functional.db import base
from tests.unit.db.base import ADDRESS, COMPUTE_HOST, a_console, a_grant, new_uuid

ROUNDS = 60
_S = models.console_session.c


class _Interleavings:
    def setUp(self):
        super().setUp()
        self.pool = self.enter_pool()
        self.proxy_id = self.proxy()

    def enter_pool(self):
        pool = concurrent.futures.ThreadPoolExecutor(16)
        self.addCleanup(pool.shutdown)
        return pool

    def at_once(self, *works):
        """Run all works at the same moment; return their results, or the errors that they raised."""
        barrier = threading.Barrier(len(works))

        def run(work):
            barrier.wait()
            try:
                return work()
            except (exception.ConsoledException, claims.SlotsTaken) as exc:
                return exc

        return list(self.pool.map(run, works))

    def uncut(self):
        return self.count(models.console_session, _S.cut_reason.is_(None))

    def try_open(self, token_hash, limit=0):
        opening = sessions.find_for_open(self.db, token_hash, new_uuid(), self.proxy_id, None)
        if opening is None:
            return None
        with contextlib.suppress(exception.InvalidToken):
            return claims.claim(
                self.db, opening, claims.Limits(console=limit), single_use=False, ends_with_token=False
            )
        return None

    def test_invariant_5_a_session_opened_while_its_token_is_revoked(self):
        """Either the open finds no token, or the revocation finds the session."""
        outcomes = set()
        for number in range(ROUNDS):
            self.instance = new_uuid()
            token_hash = self.store()
            revoke = [
                lambda: revocation.revoke(self.db, {'instance_uuid': self.instance}, 'test'),
                lambda: revocation.forget_instance(self.db, self.instance, 'test'),
                lambda: consoles.define(self.db, self.instance, COMPUTE_HOST, []),
            ][number % 3]
            opened, _ = self.at_once(lambda token_hash=token_hash: self.try_open(token_hash), revoke)
            outcomes.add(opened is None)
            self.assertEqual(0, self.uncut(), f'round {number}: a session survived')
        self.assertTrue(outcomes)

    def test_invariant_5_another_serial_port_opened_while_it_vanishes_or_the_token_is_revoked(self):
        """The session has no lock on its console, and its token is for another one."""
        for number in range(ROUNDS):
            self.instance = new_uuid()
            self.define(10000, 10001)
            token_hash = self.store(10000)
            drop = [
                lambda: self.define(10000),
                lambda: self.define(),
                lambda: self.define(10000, 10001, compute_host='node-2'),
                lambda: revocation.revoke(self.db, {'instance_uuid': self.instance}, 'test'),
                lambda: revocation.forget_instance(self.db, self.instance, 'test'),
            ][number % 5]
            self.at_once(lambda token_hash=token_hash: self.try_open_at(10001, token_hash), drop)
            self.assertEqual(0, self.uncut(), f'round {number}: a session survived')

    def test_invariant_3_claims_of_one_serial_port_with_tokens_for_different_ones(self):
        for _ in range(ROUNDS // 4):
            self.instance = new_uuid()
            self.define(10000, 10001, 10002)
            hashes = [self.store(port) for port in (10000, 10001, 10002) * 3]
            works = [lambda each=each: self.try_open_at(10001, each, limit=1) for each in hashes]
            results = self.at_once(*works)
            taken = [result for result in results if isinstance(result, claims.SlotsTaken)]
            self.assertEqual(8, len(taken), results)
            self.assertEqual(1, self.count(models.console_session, _S.instance_uuid == self.instance))

    def try_open_at(self, port, token_hash, limit=0):
        """Open a session at a port of the instance, whichever the token is for."""
        opening = sessions.find_for_open(self.db, token_hash, new_uuid(), self.proxy_id, None)
        found = ports.find(self.db, self.instance, ADDRESS, port)
        if opening is None or found is None:
            return None
        opening = dataclasses.replace(opening, console=found.console, elsewhere=True)
        with contextlib.suppress(exception.InvalidToken, exception.ConsoleGone):
            return claims.claim(
                self.db, opening, claims.Limits(console=limit), single_use=False, ends_with_token=False
            )
        return None

    def test_invariant_3_many_claims_of_few_slots(self):
        for limit in (1, 3):
            for _ in range(ROUNDS // 4):
                self.instance = new_uuid()
                token_hash = self.store()
                work = lambda token_hash=token_hash, limit=limit: self.try_open(token_hash, limit)  # noqa: E731
                results = self.at_once(*[work] * 12)
                taken = [result for result in results if isinstance(result, claims.SlotsTaken)]
                self.assertEqual(12 - limit, len(taken), results)
                self.assertEqual(limit, self.count(models.console_session, _S.instance_uuid == self.instance))

    def test_invariant_6_one_request_carried_out_many_times_at_once(self):
        """A caller that did not wait for the answer repeats the request; a single-use token is spent once."""
        for limit, single_use in ((0, False), (1, False), (0, True), (1, True)):
            for _ in range(ROUNDS // 10):
                self.instance = new_uuid()
                token_hash, session_id = self.store(), new_uuid()

                def request(token_hash=token_hash, session_id=session_id, limit=limit, single_use=single_use):
                    opening = sessions.find_for_open(self.db, token_hash, session_id, self.proxy_id, None)
                    limits = claims.Limits(console=limit, token=1)
                    return claims.claim(
                        self.db, opening, limits, single_use=single_use, ends_with_token=False
                    )

                results = self.at_once(*[request] * 6)
                self.assertEqual({session_id}, {getattr(result, 'id', result) for result in results})

    def test_one_session_id_for_two_tokens(self):
        """A proxy uses an id twice: it gets one session at most, and never that of the other token."""
        for _ in range(ROUNDS // 4):
            self.instance = new_uuid()
            session_id = new_uuid()

            def request(port, session_id=session_id):
                opening = sessions.find_for_open(
                    self.db, self.store_one(port), session_id, self.proxy_id, None
                )
                limits = claims.Limits(console=1)
                return claims.claim(self.db, opening, limits, single_use=False, ends_with_token=False)

            results = self.at_once(lambda: request(1), lambda: request(2))
            opened = [result for result in results if not isinstance(result, Exception)]
            refused = [result for result in results if isinstance(result, exception.InvalidArgument)]
            self.assertEqual((1, 1), (len(opened), len(refused)), results)

    def test_many_first_grants_of_one_instance(self):
        """All insert the same parents, and no token is lost."""
        for _ in range(ROUNDS // 4):
            self.instance = new_uuid()
            works = [lambda port=port: self.store_one(port) for port in [1, 1, 1, 1, 2, 2, 2, 2]]
            hashes = self.at_once(*works)
            for token_hash in hashes:
                self.assertIsNotNone(tokens.validate(self.db, token_hash, single_use=False), hashes)
            self.assertEqual(1, self.count(models.instances, models.instances.c.uuid == self.instance))

    def store_one(self, port):
        token_hash = new_uuid().replace('-', '') * 2
        tokens.store(self.db, token_hash, a_grant(self.instance, port), 600, None)
        return token_hash

    def test_users_who_ask_at_once_get_different_ports(self):
        for _ in range(ROUNDS // 4):
            self.instance = new_uuid()
            ports = range(10000, 10004)
            consoles.define(
                self.db,
                self.instance,
                COMPUTE_HOST,
                [a_console(self.instance, port) for port in ports],
            )
            placed = self.at_once(*[lambda user=user: self.next_free(f'user-{user}') for user in range(4)])
            self.assertEqual(list(ports), sorted(grant.port for grant in placed))
            self.assertEqual(4, self.count(models.console_auth_token, self.of_instance()))

    def of_instance(self):
        return models.console_auth_token.c.instance_uuid == self.instance

    def next_free(self, user):
        grant = a_grant(self.instance, None, user_id=user)
        token_hash = new_uuid().replace('-', '') * 2
        placed, _ = tokens.store_next_free(self.db, token_hash, grant, 600, None, unlimited=False)
        return placed

    def test_definitions_and_grants_of_one_instance(self):
        """There are no other errors than those of the domain, and the last definition stays."""
        for _ in range(ROUNDS // 4):
            self.instance = new_uuid()
            define = [
                lambda ports=ports: consoles.define(
                    self.db,
                    self.instance,
                    COMPUTE_HOST,
                    [a_console(self.instance, p) for p in ports],
                )
                for ports in ((1,), (1, 2), (2,), (1,))
            ]
            results = self.at_once(*define, *[lambda: self.store_one(1)] * 4)
            self.assertEqual([], [each for each in results if isinstance(each, Exception)])
            define[1]()
            rows = self.db.single(
                lambda conn: (
                    conn.execute(
                        sa.select(models.console_connection.c.port).where(
                            models.console_connection.c.instance_uuid == self.instance
                        )
                    )
                    .scalars()
                    .all()
                )
            )
            self.assertEqual([1, 2], sorted(rows))

    def test_a_retired_instance_authorized_again_while_it_is_deleted(self):
        """No token that was authorized is lost."""
        for _ in range(ROUNDS // 2):
            self.instance = new_uuid()
            self.store()
            revocation.revoke(self.db, {'instance_uuid': self.instance}, 'test')
            cleanup.retire_instances(self.db, unused_for=0)
            token_hash, _ = self.at_once(
                lambda: self.store_one(10000), lambda: cleanup.retire_instances(self.db, unused_for=0)
            )
            self.assertIsNotNone(tokens.validate(self.db, token_hash, single_use=False))

    def test_invariant_6_one_definition_of_a_compute_host_many_times_at_once(self):
        for _ in range(ROUNDS // 30):
            gone = []
            for number in range(5):
                self.instance = new_uuid()
                self.define(10000 + number)
                gone.append(self.instance)
            new = {new_uuid(): 10010 + number for number in range(5)}
            guests = {instance: [a_console(instance, port)] for instance, port in new.items()}
            work = lambda guests=guests: list(hosts.define(self.db, COMPUTE_HOST, guests, 'gone'))  # noqa: E731
            self.at_once(*[work] * 4)
            console = models.console_connection.c
            self.assertEqual(new, dict(self.rows(console.instance_uuid, console.port)))
            self.assertEqual(set(new), {uuid for (uuid,) in self.rows(models.instances.c.uuid)})

    def test_heartbeats_of_one_manager(self):
        works = [lambda n=n: managers.record_heartbeat(self.db, 'a', f'0.{n}', '1.0') for n in range(8)]
        self.assertEqual([managers.Beat] * 8, [type(result) for result in self.at_once(*works)])
        self.assertEqual(['a'], [manager.name for manager in managers.list_alive(self.db)])


class MariaDBInterleavingsTest(_Interleavings, base.MariaDBTestCase):
    pass


class PostgreSQLInterleavingsTest(_Interleavings, base.PostgreSQLTestCase):
    pass


class SQLiteInterleavingsTest(_Interleavings, base.SQLiteTestCase):
    pass
