# SPDX-License-Identifier: Apache-2.0
"""Pickles from memcached: one shape of plain data is read, everything else is refused."""

import os
import pickle
import pickletools
import struct
import subprocess
import sys
import tracemalloc

import hypothesis
import testtools
from dogpile.cache import api
from hypothesis import strategies as st

from consoled.legacy import pickles
from consoled.legacy.pickles import Cached, Refused

TEXT = '{"token": "0b5b1b0e", "a": "\\u00e9\\n\\\\"}'
# As stored by Python 3 and Python 2, with dogpile.cache 0.6 and python-memcached 1.59.
HEAD = b'cdogpile.cache.api\nCachedValue\n'
OLD = HEAD + b'p0\n(V["a"]\np1\n(dp2\nVct\np3\nF1234567890.123456\nsVv\np4\nI1\nstp5\nRp6\n.'
OLDER = HEAD + b"p1\n(S'[\"a\"]'\np2\n(dp3\nS'ct'\np4\nF1234567890.12\nsS'v'\nI1\nstRp5\n."
TAIL = b'(dVct\nF1.5\nsVv\nI1\nstR.'


class _Recorder:
    """Records Python's audit events while it is on. An audit hook cannot be removed."""

    WATCHED = ('pickle.find_class', 'os.', 'exec', 'compile', 'subprocess.', 'socket.', 'open', 'import')

    def __init__(self):
        self.seen = None
        for data in (OLD, OLDER):  # Python imports a codec on its first use
            pickles.loads(data)
        sys.addaudithook(self)

    def __call__(self, event, arguments):
        if self.seen is not None and event.startswith(self.WATCHED):
            self.seen.append((event, str(arguments)[:100]))

    def loads(self, data):
        """Return the result, or None if it was refused, and the events."""
        self.seen = []
        try:
            result = pickles.loads(data)
        except Refused:
            result = None
        finally:
            seen, self.seen = self.seen, None
        return result, seen


recorder = _Recorder()


class Calling:
    """Is pickled as any call, with any state."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


class Plain:
    pass


class ShapeTest(testtools.TestCase):
    def test_values_are_written_as_by_the_old_libraries(self):
        self.assertEqual(OLD, pickles.dumps(Cached('["a"]', 1234567890.123456)))

    def test_values_of_python_3_and_2_are_read(self):
        self.assertEqual(Cached('["a"]', 1234567890.123456), pickles.loads(OLD))
        self.assertEqual(Cached('["a"]', 1234567890.12), pickles.loads(OLDER))

    def test_values_of_newer_libraries_are_read(self):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            data = pickle.dumps(api.CachedValue(TEXT, {'ct': 1.5, 'v': 2}), protocol)
            self.assertEqual(Cached(TEXT, 1.5), pickles.loads(data), protocol)

    @hypothesis.given(st.text(), st.floats(allow_nan=False, min_value=0, max_value=1e12))
    def test_any_text_comes_back(self, text, stored_at):
        hypothesis.assume(not any(0xD800 <= ord(letter) < 0xE000 for letter in text))
        self.assertEqual(Cached(text, stored_at), pickles.loads(pickles.dumps(Cached(text, stored_at))))

    def test_pythons_own_unpickler_reads_written_values(self):
        value = pickle.loads(pickles.dumps(Cached(TEXT, 1.5)))
        self.assertEqual(api.CachedValue(TEXT, {'ct': 1.5, 'v': 1}), value)

    def test_other_shapes_are_refused(self):
        for metadata in (
            {},
            {'ct': 1.5},
            {'ct': '1', 'v': 1},
            {'ct': 1.5, 'v': 3},
            {'ct': True, 'v': 1},
            None,
        ):
            data = pickle.dumps(api.CachedValue(TEXT, metadata))
            self.assertRaises(Refused, pickles.loads, data)
        for payload in (None, 1, b'x', {}, [], (), api.CachedValue(TEXT, {})):
            data = pickle.dumps(api.CachedValue(payload, {'ct': 1.5, 'v': 1}))
            self.assertRaises(Refused, pickles.loads, data)
        for value in (None, TEXT, {}, (TEXT, {'ct': 1.5, 'v': 1}), [1], 1.5):
            self.assertRaises(Refused, pickles.loads, pickle.dumps(value))

    def test_refusals_show_nothing_of_the_value(self):
        for data in (b'Vcanary\n.', HEAD + b'(Vcanary\nNtR.', b'ccanary\ncanary\n.', OLD[:-1], b'I\n.'):
            error = self.assertRaises(Refused, pickles.loads, data)
            self.assertNotIn('canary', str(error))
            self.assertIsNone(error.__cause__)


class HostileTest(testtools.TestCase):
    def assert_refused(self, data, what=None):
        self.assertEqual((None, []), recorder.loads(data), what)

    def test_the_recorder_works(self):
        recorder.seen = []
        pickle.loads(b'cbuiltins\nlen\n.')
        seen, recorder.seen = recorder.seen, None
        self.assertIn('pickle.find_class', [event for event, _ in seen])

    def test_calls_at_each_protocol(self):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            for reduced in (
                (os.system, ('true',)),
                (subprocess.Popen, (['true'],)),
                (eval, ('1',)),
                (__import__, ('antigravity',)),
                (Plain, (), {'state': 1}),
                (Plain, (), None, iter([1])),
                (Plain, (), None, None, iter([(1, 2)])),
            ):
                self.assert_refused(pickle.dumps(Calling(*reduced), protocol), reduced)
                inside = {'ct': Calling(*reduced), 'v': 1}
                self.assert_refused(pickle.dumps(api.CachedValue(TEXT, inside), protocol), reduced)
                around = api.CachedValue(Calling(*reduced), {'ct': 1.5, 'v': 1})
                self.assert_refused(pickle.dumps(around, protocol), reduced)

    def test_opcodes_that_call_import_or_build(self):
        for name, data in {
            'GLOBAL, REDUCE': b"cos\nsystem\n(S'true'\ntR.",
            'INST': b"(S'true'\nios\nsystem\n.",
            'OBJ': b"(cos\nsystem\nS'true'\no.",
            'NEWOBJ': b'\x80\x02cbuiltins\nlist\n)\x81.',
            'NEWOBJ_EX': b'\x80\x04cbuiltins\nlist\n)}\x92.',
            'BUILD': HEAD + b'(Va\n' + TAIL[:-1] + b"}S'x'\nI1\nsb.",
            'STACK_GLOBAL': b'\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.',
            'STACK_GLOBAL of other things': b'\x80\x04I1\nI2\n\x93.',
            'EXT1': b'\x80\x02\x82\x01.',
            'EXT2': b'\x80\x02\x83\x01\x00.',
            'EXT4': b'\x80\x02\x84\x01\x00\x00\x00.',
            'PERSID': b'Pcanary\n.',
            'BINPERSID': b'Vcanary\nQ.',
            'an attribute of an allowed name': (
                b'\x80\x04\x8c\x11dogpile.cache.api\x8c\x15CachedValue.__class__\x93.'
            ),
            'another name of that module': b'cdogpile.cache.api\nCacheBackend\n(Va\ntR.',
            '_reconstructor of something else': (
                b'ccopy_reg\n_reconstructor\n(cbuiltins\nlist\nc__builtin__\ntuple\nNtR.'
            ),
            '_reconstructor over something else': b'ccopy_reg\n_reconstructor\n('
            + HEAD
            + HEAD
            + b'(Va\n(dttR.',
            'tuple called': b'c__builtin__\ntuple\n(Va\ntR.',
            'a cached value called': HEAD + b'(Va\n' + TAIL[:-1] + b'(Va\ntR.',
        }.items():
            self.assert_refused(data, name)

    def test_every_unneeded_opcode_is_refused(self):
        for opcode in pickletools.opcodes:
            if opcode.name not in pickles._OPERATIONS:
                data = HEAD + b'(Va\n' + opcode.code.encode('latin-1') + b'\x01\x00\x00\x00\x00\n\n' + TAIL
                self.assert_refused(data, opcode.name)

    def test_no_pickle_costs_much_memory(self):
        """False lengths, huge memo indexes, doubling, depth: within a few MiB."""
        huge = struct.pack('<Q', 2**62)
        doubling = b'(dp0\n' + b''.join(
            b'(Va\ng%d\nVb\ng%d\ndp%d\n' % (number, number, number + 1) for number in range(5000)
        )
        for name, data in {
            'LONG_BINPUT': HEAD + b'(Va\nr\xff\xff\xff\x7f' + TAIL,
            'PUT': HEAD + b'(Va\np' + b'9' * 4000 + b'\n' + TAIL,
            'BINUNICODE8': b'\x8d' + huge,
            'BINBYTES8': b'\x8e' + huge,
            'BYTEARRAY8': b'\x96' + huge,
            'LONG4': b'\x8b\xff\xff\xff\x7f',
            'BINSTRING': b'T\xff\xff\xff\x7f',
            'FRAME': b'\x80\x04\x95' + huge + OLD,
            'INT': b'I' + b'9' * 60000 + b'\n.',
            'FLOAT': b'F' + b'9' * 60000 + b'\n.',
            'STRING': b"S'" + b'\\x41' * 15000 + b"'\n.",
            'memo': doubling + b'.',
            'DUP': b'(' + b'Va\n2' * 10000 + b't.',
            'marks': b'(' * 60000 + b'.',
            'depth': b'(' * 20000 + b't' * 20000 + b'.',
            'depth of tuples': b')' + b'\x85' * 60000 + b'.',
            'too long': OLD + b'0' * pickles.MAX_BYTES,
        }.items():
            tracemalloc.start()
            result, seen = recorder.loads(data)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            self.assertEqual([], seen, name)
            self.assertLess(peak, 4 * 2**20, name)
            if name not in ('LONG_BINPUT', 'PUT', 'FRAME'):  # a memo index is a key, a frame is ignored
                self.assertIsNone(result, name)


def _mutated(data, changes):
    data = bytearray(data)
    for position, new, kind in changes:
        position %= len(data) or 1
        if kind == 0:
            data[position : position + 1] = bytes([new])
        elif kind == 1:
            data[position:position] = bytes([new])
        else:
            del data[position : position + new % 4 + 1]
    return bytes(data)


_CHANGES = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255), st.integers(0, 2)), max_size=8)
_OPCODES = st.sampled_from([opcode.code.encode('latin-1') for opcode in pickletools.opcodes])
_PIECES = st.one_of(
    _OPCODES,
    st.sampled_from(
        [HEAD, b'Va\n', b'I1\n', b'F1.5\n', b'Vct\n', b'Vv\n', b'p0\n', b'g0\n', b'cos\nsystem\n']
    ),
    st.binary(max_size=6),
)


class FuzzTest(testtools.TestCase):
    """Any bytes are a cached text or are refused, and nothing else happens."""

    def check(self, data):
        result, seen = recorder.loads(data)
        self.assertEqual([], seen)
        if result is not None:
            self.assertIs(str, type(result.text))
            self.assertIsInstance(result.stored_at, int | float)

    @hypothesis.given(st.binary(max_size=300))
    def test_random_bytes(self, data):
        self.check(data)

    @hypothesis.settings(max_examples=300)
    @hypothesis.given(st.lists(_PIECES, max_size=40))
    def test_random_programs(self, pieces):
        self.check(b''.join(pieces) + b'.')

    @hypothesis.settings(max_examples=300)
    @hypothesis.given(st.integers(-1, pickle.HIGHEST_PROTOCOL), st.booleans(), _CHANGES)
    def test_real_pickles_with_changes(self, protocol, hostile, changes):
        value = Calling(os.system, ('true',)) if hostile else TEXT
        data = OLD
        if protocol >= 0:
            data = pickle.dumps(api.CachedValue(value, {'ct': 1.5, 'v': 1}), protocol)
        self.check(_mutated(data, changes))
