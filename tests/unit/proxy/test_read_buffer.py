# SPDX-License-Identifier: Apache-2.0
"""The memory that a process reads into: how much of it users may keep who do not accept their data."""

import testtools

from consoled.proxy import read_buffer
from consoled.proxy.read_buffer import ReadBuffer
from tests.unit.proxy.relay_base import Wire, run, settle

MIB = 2**20


def crowd(shared, size=read_buffer._MANY_WAITING):
    """Return channels of users who accept one byte of a large piece, and no more."""
    wires = [Wire(shared, user_room=1) for _ in range(size)]
    for wire in wires:
        wire.guest.sends(b'x' * MIB)
    return wires


class ReadBufferTest(testtools.TestCase):
    def test_invariant_9_users_who_read_nothing_keep_small_pieces_when_they_are_many(self):
        async def work():
            shared = ReadBuffer()
            crowd(shared)
            for wire in crowd(shared, 3):
                self.assertTrue(wire.user.get_write_buffer_size() <= read_buffer._SHORT_CHUNK + 10)
                (unsent,) = wire.user._unsent
                self.assertIsNot(shared.memory, unsent.obj)
                self.assertTrue(len(unsent.obj) <= read_buffer._SHORT_CHUNK + 10)

        run(work)

    def test_what_is_relayed_among_many_slow_users_is_complete(self):
        async def work():
            shared = ReadBuffer()
            crowd(shared)
            data = bytes(range(256)) * 4096
            wires = [Wire(shared, user_room=1) for _ in range(3)]
            for wire in wires:
                wire.guest.sends(data)
            for wire in wires:
                self.assertEqual(data, wire.transfer_all())

        run(work)

    def test_pieces_are_large_again_when_the_slow_users_have_read_or_left(self):
        async def work():
            for leave in (lambda wire: wire.user.takes(), lambda wire: wire.user.fails()):
                shared = ReadBuffer()
                wires = crowd(shared)
                self.assertEqual(
                    (len(wires), read_buffer._SHORT_CHUNK), (shared.waiting, len(shared.payload))
                )
                for wire in wires:
                    leave(wire)
                await settle()
                self.assertEqual((0, read_buffer._CHUNK), (shared.waiting, len(shared.payload)))

        run(work)
