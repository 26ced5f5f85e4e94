# SPDX-License-Identifier: Apache-2.0
"""What the old service's cache library wrapped around its values: a pickle, read as plain data.

Whoever can write to memcached chooses what lies there, and ``pickle`` does what a pickle says. So it is not
used to read: ``loads`` is a machine of its own, on the parser of ``pickletools``, that knows the few opcodes
of this one shape. It has no code that imports or calls; names become inert marks.
"""

from __future__ import annotations

import enum
import io
import pickle
import pickletools
from collections.abc import Callable
from typing import NamedTuple

from dogpile.cache import api

MAX_OPCODES = 100  # an honest one has up to 35, at any protocol
MAX_BYTES = 64 * 1024

# dogpile.cache 0.x writes 1, newer ones write 2 around the same data. Ours are for old readers.
VERSIONS = (1, 2)
VERSION = 1


class Refused(Exception):
    """What lies in memcached is not what belongs there. Says why, and never a part of it."""


class Cached(NamedTuple):
    """A value as dogpile.cache stores it: the text, and when it was stored (seconds since 1970 UTC)."""

    text: str
    stored_at: float


def dumps(cached: Cached) -> bytes:
    """What the old libraries would store: protocol 0, dogpile's CachedValue made by a call of its class."""
    file = io.BytesIO()
    pickler = pickle.Pickler(file, protocol=0)
    # as in dogpile.cache 0.x; today's is a named tuple, that protocol 0 writes in another form
    pickler.dispatch_table = {api.CachedValue: lambda value: (api.CachedValue, tuple(value))}
    pickler.dump(api.CachedValue(cached.text, {'ct': cached.stored_at, 'v': VERSION}))
    return file.getvalue()


def loads(data: bytes, max_bytes: int = MAX_BYTES) -> Cached:
    """Read a stored value, in time and memory in proportion to ``max_bytes``.

    :raises Refused: it is anything else
    """
    if len(data) > max_bytes:
        raise Refused('the value is too long')
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if count == MAX_OPCODES or opcode.name not in _STEPS:
                raise Refused('the pickle does not hold plain data')
            _STEPS[opcode.name](machine, argument)
        wrapped = machine.result()
    except Refused:
        raise
    except Exception:  # the parser and the machine trip over broken ones in many ways
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
    """The names that may occur. They stand for themselves: nothing is imported."""

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


class _Machine:
    """The stack and the memo of a pickle. Whatever does not fit raises some exception."""

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
        """For what only frames or ends a pickle."""

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
        """A call in a pickle: the only one that has a meaning here makes a cached value of two things."""
        arguments, called = self._stack.pop(), self._stack.pop()
        if called is _Name.RECONSTRUCTOR and isinstance(arguments, tuple):
            called, base, arguments = arguments
            called = called if base is _Name.TUPLE else None
        if called is not _Name.CACHED_VALUE or not isinstance(arguments, tuple):
            raise Refused('the pickle is not a cached value')
        self._stack.append(_Wrapped(*arguments))


# What Python 2 and 3 write for this shape, at the protocols 0 to 5.
_STEPS: dict[str, Callable[..., None]] = {
    **dict.fromkeys(('PROTO', 'FRAME', 'STOP'), _Machine.skip),
    **dict.fromkeys(('STRING', 'BINSTRING', 'SHORT_BINSTRING'), _Machine.push),
    **dict.fromkeys(('UNICODE', 'BINUNICODE', 'SHORT_BINUNICODE'), _Machine.push),
    **dict.fromkeys(('INT', 'BININT', 'BININT1', 'BININT2', 'FLOAT', 'BINFLOAT'), _Machine.push),
    **dict.fromkeys(('PUT', 'BINPUT', 'LONG_BINPUT'), _Machine.put),
    **dict.fromkeys(('GET', 'BINGET', 'LONG_BINGET'), _Machine.get),
    'MEMOIZE': _Machine.memoize,
    'MARK': _Machine.mark,
    'TUPLE': _Machine.make_tuple,
    'TUPLE2': _Machine.pair,
    'TUPLE3': _Machine.triple,
    'EMPTY_DICT': _Machine.empty_dict,
    'DICT': _Machine.make_dict,
    'SETITEM': _Machine.set_item,
    'SETITEMS': _Machine.set_items,
    'GLOBAL': _Machine.name,
    'STACK_GLOBAL': _Machine.name_from_stack,
    'REDUCE': _Machine.build,
    'NEWOBJ': _Machine.build,
}
