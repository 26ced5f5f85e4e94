# SPDX-License-Identifier: Apache-2.0
"""The pickles that the old service's cache library wraps around its values, read as plain data.

Whoever can write to memcached controls its content, and ``pickle`` executes what a pickle says. Hence
``pickle`` is not used for reading: ``loads`` interprets the few opcodes of this one shape itself, with the
parser of ``pickletools``. It has no code that imports or calls anything; names become inert symbols.
"""

from __future__ import annotations

import enum
import io
import pickle
import pickletools
from collections.abc import Callable
from typing import NamedTuple

from dogpile.cache import api

MAX_OPCODES = 100  # a genuine value has up to 35, at any protocol
MAX_BYTES = 64 * 1024

# Versions of dogpile.cache's metadata: 0.x writes 1, newer releases write 2 around the same data. We write 1,
# for old readers.
VERSIONS = (1, 2)
VERSION = 1


class Refused(Exception):
    """A value in memcached is invalid. The message says why, and has no part of the value."""


class Cached(NamedTuple):
    """A value as dogpile.cache stores it: its text, and when it was stored (seconds since 1970 UTC)."""

    text: str
    stored_at: float


def dumps(cached: Cached) -> bytes:
    """Return what the old libraries would store: a CachedValue of dogpile in pickle protocol 0."""
    file = io.BytesIO()
    pickler = pickle.Pickler(file, protocol=0)
    # dogpile.cache 0.x pickles a call of the class; today's named tuple would be pickled in another form.
    pickler.dispatch_table = {api.CachedValue: lambda value: (api.CachedValue, tuple(value))}
    pickler.dump(api.CachedValue(cached.text, {'ct': cached.stored_at, 'v': VERSION}))
    return file.getvalue()


def loads(data: bytes, max_bytes: int = MAX_BYTES) -> Cached:
    """Read a stored value, in time and memory proportional to ``max_bytes``.

    :raises Refused: it is not a cached value as ``dumps`` writes it
    """
    if len(data) > max_bytes:
        raise Refused('the value is too long')
    interpreter = _Interpreter()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if count == MAX_OPCODES or opcode.name not in _OPERATIONS:
                raise Refused('the pickle does not hold plain data')
            _OPERATIONS[opcode.name](interpreter, argument)
        wrapped = interpreter.result()
    except Refused:
        raise
    except Exception:  # a broken pickle fails in many ways
        raise Refused('the pickle is broken') from None
    return _checked(wrapped)


def _checked(wrapped: _Wrapped) -> Cached:
    text, metadata = wrapped.payload, wrapped.metadata
    if not isinstance(text, str) or not isinstance(metadata, dict):
        raise Refused('the cached value is not a text with metadata')
    stored_at, version = metadata.get('ct'), metadata.get('v')
    if isinstance(stored_at, bool) or not isinstance(stored_at, int | float) or version not in VERSIONS:
        raise Refused('the metadata of the cached value are wrong')
    return Cached(text, stored_at)


class _Name(enum.Enum):
    """Names that may occur in the pickle. They are symbols: nothing is imported."""

    CACHED_VALUE = enum.auto()
    RECONSTRUCTOR = enum.auto()
    TUPLE = enum.auto()


_NAMES = {
    'dogpile.cache.api CachedValue': _Name.CACHED_VALUE,
    'copy_reg _reconstructor': _Name.RECONSTRUCTOR,
    'copyreg _reconstructor': _Name.RECONSTRUCTOR,
    '__builtin__ tuple': _Name.TUPLE,
    'builtins tuple': _Name.TUPLE,
}


class _Wrapped(NamedTuple):
    payload: object
    metadata: object


class _Interpreter:
    """The stack and the memo of a pickle. An operation that does not fit raises any exception."""

    def __init__(self) -> None:
        self._stack: list[object] = []
        self._marks: list[int] = []
        self._memo: dict[int, object] = {}

    def result(self) -> _Wrapped:
        (only,) = self._stack
        if self._marks or not isinstance(only, _Wrapped):
            raise Refused('the pickle is not a cached value')
        return only

    def skip(self, argument: object) -> None:
        """Ignore an opcode that only frames or ends the pickle."""

    def push(self, argument: object) -> None:
        self._stack.append(argument)

    def put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def memoize(self, argument: object) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def mark(self, argument: object) -> None:
        self._marks.append(len(self._stack))

    def _since_mark(self) -> list[object]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def make_tuple(self, argument: object) -> None:
        self._stack.append(tuple(self._since_mark()))

    def pair(self, argument: object) -> None:
        self._stack[-2:] = [(self._stack[-2], self._stack[-1])]

    def triple(self, argument: object) -> None:
        self._stack[-3:] = [(self._stack[-3], self._stack[-2], self._stack[-1])]

    def empty_dict(self, argument: object) -> None:
        self._stack.append({})

    def make_dict(self, argument: object) -> None:
        items = self._since_mark()
        self._stack.append({})
        self._fill(items)

    def set_item(self, argument: object) -> None:
        items = [self._stack.pop(-2), self._stack.pop()]
        self._fill(items)

    def set_items(self, argument: object) -> None:
        self._fill(self._since_mark())

    def _fill(self, items: list[object]) -> None:
        target = self._stack[-1]
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(target, dict) or not isinstance(key, str):
                raise Refused('the pickle does not hold plain data')
            target[key] = value

    def name(self, argument: str) -> None:
        if argument not in _NAMES:
            raise Refused('the pickle names something that does not belong there')
        self._stack.append(_NAMES[argument])

    def name_from_stack(self, argument: object) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise Refused('the pickle does not hold plain data')
        self.name(f'{module} {name}')

    def build(self, argument: object) -> None:
        """Carry out a call: the only one that is allowed creates a cached value from two arguments."""
        arguments, called = self._stack.pop(), self._stack.pop()
        if called is _Name.RECONSTRUCTOR and isinstance(arguments, tuple):
            called, base, arguments = arguments
            called = called if base is _Name.TUPLE else None
        if called is not _Name.CACHED_VALUE or not isinstance(arguments, tuple):
            raise Refused('the pickle is not a cached value')
        self._stack.append(_Wrapped(*arguments))


# The opcodes that Python 2 and 3 write for this shape, in the protocols 0 to 5.
_OPERATIONS: dict[str, Callable[..., None]] = {
    **dict.fromkeys(('PROTO', 'FRAME', 'STOP'), _Interpreter.skip),
    **dict.fromkeys(('STRING', 'BINSTRING', 'SHORT_BINSTRING'), _Interpreter.push),
    **dict.fromkeys(('UNICODE', 'BINUNICODE', 'SHORT_BINUNICODE'), _Interpreter.push),
    **dict.fromkeys(('INT', 'BININT', 'BININT1', 'BININT2', 'FLOAT', 'BINFLOAT'), _Interpreter.push),
    **dict.fromkeys(('PUT', 'BINPUT', 'LONG_BINPUT'), _Interpreter.put),
    **dict.fromkeys(('GET', 'BINGET', 'LONG_BINGET'), _Interpreter.get),
    'MEMOIZE': _Interpreter.memoize,
    'MARK': _Interpreter.mark,
    'TUPLE': _Interpreter.make_tuple,
    'TUPLE2': _Interpreter.pair,
    'TUPLE3': _Interpreter.triple,
    'EMPTY_DICT': _Interpreter.empty_dict,
    'DICT': _Interpreter.make_dict,
    'SETITEM': _Interpreter.set_item,
    'SETITEMS': _Interpreter.set_items,
    'GLOBAL': _Interpreter.name,
    'STACK_GLOBAL': _Interpreter.name_from_stack,
    'REDUCE': _Interpreter.build,
    'NEWOBJ': _Interpreter.build,
}
