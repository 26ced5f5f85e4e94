# SPDX-License-Identifier: Apache-2.0
"""Log lines of all programs: harmless for a terminal, and not filled by a fault that lasts."""

from __future__ import annotations

import contextlib
import copy
import logging
import re
import sys
import threading
import time
from collections.abc import Callable

from consoled import backoff, printable

# Loggers of what reconnects by itself, and says at each attempt that it failed.
_RECONNECTING = (
    'oslo.messaging',
    'oslo_messaging',
    'amqp',
    'kombu',
    'oslo_db',
    'sqlalchemy',
    'consoled.compute.drivers.libvirt_connection',
    'consoled.db.engine',
    'consoled.proxy.lease',
    'consoled.rpc.starting',
)
_BUS = ('oslo.messaging', 'oslo_messaging', 'amqp', 'kombu', 'consoled.rpc', 'consoled.proxy.lease')

# The broker answers, and a retry helps as little as the last: AMQP 0-9-1's access-refused and not-allowed.
_REFUSED = re.compile('ACCESS_REFUSED|NOT_ALLOWED|AccessRefused|NotAllowed')
_REFUSED_LINE = (
    'The message broker refuses the user, the password or the virtual host of [DEFAULT] transport_url; '
    'trying again'
)

# What differs between two lines on one fault: ids, addresses in memory, counts, times.
_VARYING = re.compile(r'0x[0-9a-f]+|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9]+')

_FIRST_INTERVAL = 10.0  # seconds between two lines on one fault; doubled each time
_LONGEST_INTERVAL = 600.0  # seconds
_QUIET = 60.0  # seconds without a line after which the fault is over, and the next line a new one
_KEY_LENGTH = 200  # characters of a line that tell faults apart
_MAX_KINDS = 100


class HarmlessFormatter(logging.Formatter):
    """Makes what another formatter returns harmless. A line break in it is one of a traceback.

    :param inner: the other formatter
    :param colours: whether the inner one colours lines
    """

    def __init__(self, inner: logging.Formatter, *, colours: bool = False) -> None:
        super().__init__()
        self._inner = inner
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        shown = copy.copy(record)
        shown.msg, shown.args = printable.line(record.getMessage()), ()
        text = self._formatted(shown)
        if record.exc_info or record.exc_text or record.stack_info:
            return printable.lines(text, colours=self._colours)
        return printable.lines(text.replace('\n', '\\n'), colours=self._colours)

    def _formatted(self, record: logging.LogRecord) -> str:
        """Return what the other formatter makes of a record.

        oslo.log adds the text of the error that is being handled. Our own lines say already what they have
        to, so they are formatted while an error is handled of which it adds nothing.
        """
        if record.exc_info or not record.name.startswith('consoled'):
            return self._inner.format(record)
        try:
            raise ValueError
        except ValueError:
            return self._inner.format(record)


class Throttle(logging.Filter):
    """Lets the first line on a fault of a connection through, and then one at growing intervals.

    Only warnings and errors of the libraries that reconnect are held back. A traceback of theirs is removed:
    it shows the library's own code, and the line says what happened.

    :param keep_tracebacks: returns whether to leave tracebacks, as for debugging
    :param locate: adds the file to the option that a line names
    :param clock: a monotonic clock, in seconds
    """

    def __init__(
        self,
        keep_tracebacks: Callable[[], bool] = lambda: False,
        locate: Callable[[str], str] = str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._keep_tracebacks = keep_tracebacks
        self._locate = locate
        self._clock = clock
        self._lock = threading.Lock()
        self._kinds: dict[str, _Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Decide once for each record, however many handlers it goes through."""
        if not hasattr(record, 'let_through'):
            record.let_through = self._lets_through(record)
        return bool(vars(record)['let_through'])

    def _lets_through(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING or not record.name.startswith(_RECONNECTING):
            return True
        text = record.getMessage()
        if record.name.startswith(_BUS) and _is_refusal(text, record):
            record.msg, record.args, text = _REFUSED_LINE, (), _REFUSED_LINE
        if not self._keep_tracebacks():
            record.exc_info = record.exc_text = None
        left_out = self._left_out(_VARYING.sub('#', text)[:_KEY_LENGTH])
        if left_out is None:
            return False
        more = f' ({left_out} more such lines were left out)' if left_out else ''
        record.msg, record.args = self._locate(text) + more, ()
        return True

    def _left_out(self, key: str) -> int | None:
        """Return how many lines of a kind were left out before this one; None if this one is, too."""
        with self._lock:
            now = self._clock()
            kind = self._kinds.get(key)
            if kind is None or now - kind.last_at > _QUIET:
                if len(self._kinds) >= _MAX_KINDS:
                    self._kinds.clear()
                kind = self._kinds[key] = _Kind()
            kind.last_at = now
            if now < kind.next_at:
                kind.left_out += 1
                return None
            kind.shown += 1
            kind.next_at = now + backoff.doubled(kind.shown, _FIRST_INTERVAL, _LONGEST_INTERVAL)
            left_out, kind.left_out = kind.left_out, 0
            return left_out


class _Kind:
    """Lines on one fault: how many were shown, how many left out since, and when the next may be shown."""

    def __init__(self) -> None:
        self.shown = 0
        self.left_out = 0
        self.last_at = 0.0
        self.next_at = float('-inf')


def _is_refusal(text: str, record: logging.LogRecord) -> bool:
    error = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else ''
    return _REFUSED.search(f'{text} {error}') is not None


class _LostLines:
    """Says on standard error, once a minute, that log lines cannot be written, as when a disk is full.

    Python prints a traceback for each of them.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._quiet_until = float('-inf')

    def report(self, record: logging.LogRecord) -> None:
        """Take the place of ``logging.Handler.handleError``, which is called in the handler of the error."""
        error = sys.exc_info()[1]
        if self._clock() < self._quiet_until or sys.stderr is None:
            return
        self._quiet_until = self._clock() + _QUIET
        text = printable.line(f'Log lines are lost, such as one of {record.name}:{record.lineno}: {error!r}')
        with contextlib.suppress(OSError):
            sys.stderr.write(text + '\n')


class Installation:
    """What makes the handlers of a process write harmless lines, and hold back those that only repeat.

    :param root: of the loggers whose handlers are meant
    :param colours: whether their formatters colour lines
    """

    def __init__(self, throttle: Throttle, root: logging.Logger, *, colours: bool = False) -> None:
        self._throttle = throttle
        self._root = root
        self._colours = colours
        self._lost = _LostLines()

    def apply(self) -> None:
        """Apply it to all handlers that there are now. Repeat it after handlers were added."""
        named = list(self._root.manager.loggerDict.values())
        for logger in (self._root, *(each for each in named if isinstance(each, logging.Logger))):
            for handler in logger.handlers:
                if not isinstance(handler.formatter, HarmlessFormatter):
                    inner = handler.formatter or logging.Formatter()
                    handler.setFormatter(HarmlessFormatter(inner, colours=self._colours))
                    handler.addFilter(self._throttle)
                    handler.handleError = self._lost.report  # type: ignore[method-assign]
