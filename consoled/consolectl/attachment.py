# SPDX-License-Identifier: Apache-2.0
"""A serial console in the terminal, from the first token until the user leaves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import signal
import ssl
from collections.abc import Callable

from consoled import objects
from consoled.cli import errors
from consoled.consolectl import relay as console_relay
from consoled.consolectl.relay import Ended
from consoled.consolectl.terminal import Escape, Keys, Screen, TaskThread, Terminal

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_CTRL_C = b'\x03'


def _loop() -> asyncio.AbstractEventLoop:
    """A loop that can wait for files and /dev/null too, as epoll can't."""
    return asyncio.SelectorEventLoop(selectors.PollSelector())


class Attachment:
    """A terminal and a console, through all the connections that it takes.

    :param stdin: file descriptor
    :param authorize: gets a token; called in a thread of its own
    :param explain: what an error means
    :param tls: for the websocket
    :param escape: the key that leaves, or None
    :param wait: seconds of silence after the end of an input that is no terminal
    """

    def __init__(
        self,
        stdin: int,
        terminal: Terminal,
        screen: Screen,
        *,
        authorize: Callable[[], objects.ConsoleAuthToken],
        explain: Callable[[Exception], errors.Failed],
        tls: ssl.SSLContext,
        escape: Escape | None,
        wait: float,
    ) -> None:
        self._stdin = stdin
        self._terminal = terminal
        self._screen = screen
        self._authorize = authorize
        self._explain = explain
        self._tls = tls
        self._escape = escape if terminal.interactive else None
        self._wait = 0 if terminal.interactive else wait
        self._worker = TaskThread()
        self._attached = False  # once
        self._exit_code = errors.OK  # if the user leaves now

    @property
    def asking(self) -> bool:
        """Whether a token is being asked for."""
        return self._worker.busy

    def run(self) -> int:
        """Attach, until the user or the console ends it.

        :returns: exit code
        :raises Failed: it can't be had, or has ended
        :raises OSError: standard output can't be written
        """
        with asyncio.Runner(loop_factory=_loop) as runner:
            return runner.run(self._run())

    async def _run(self) -> int:
        loop = asyncio.get_running_loop()
        self._left: asyncio.Future[int] = loop.create_future()
        self._keys = Keys(self._stdin, self._escape, self._input_ended)
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                loop.add_signal_handler(number, self._leave, 128 + number)
        loop.add_signal_handler(signal.SIGCONT, self._terminal.resume)
        work = asyncio.create_task(self._work())
        try:
            await asyncio.wait({work, self._left}, return_when=asyncio.FIRST_COMPLETED)
            if not self._left.done():
                return work.result()
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            return self._left.result()
        finally:
            self._keys.stop()
            if self._screen.stop() and self._attached:
                self._terminal.say()
            self._terminal.restore()

    def _leave(self, exit_code: int) -> None:
        if not self._left.done():
            self._left.set_result(exit_code)

    def _input_ended(self, escaped: bool) -> None:
        if escaped:
            self._leave(self._exit_code)
        elif self._terminal.interactive:  # it has hung up
            self._leave(128 + signal.SIGHUP)

    async def _work(self) -> int:
        while True:
            try:
                ended = await self._attach()
            except OSError:
                raise  # of the screen
            except Exception as exc:
                ended = self._failure(exc)
            if ended is None:
                return errors.OK
            if not (ended.again and self._attached and self._terminal.interactive):
                raise ended
            await self._ask_again(ended)

    def _failure(self, error: Exception) -> Ended:
        if isinstance(error, Ended):
            return error
        failed = self._explain(error)
        again = getattr(error, 'retryable', False)
        ended = Ended(failed.exit_code, failed.code, str(failed), failed.hint, again=again)
        ended.__cause__ = error
        return ended

    async def _attach(self) -> Ended | None:
        """Through one connection; returns why it ended, or None if the input did."""
        grant = await self._worker.do(self._authorize)
        assert grant.access_url is not None
        assert grant.token is not None
        try:
            url = console_relay.websocket_url(grant.access_url, grant.token)
            connection = await console_relay.connect(url, self._tls)
            self._begin(grant.instance_uuid)
            relay = console_relay.Relay(connection, self._keys, self._screen, self._wait)
            ended = await relay.run()
        except Ended as exc:
            raise exc.without(grant.token) from exc.__cause__
        return ended and ended.without(grant.token)

    def _begin(self, instance_uuid: str) -> None:
        self._exit_code = errors.OK
        again, self._attached = self._attached, True
        self._terminal.make_raw()
        self._keys.drop()  # what was typed while there was no console
        way_out = f'{self._escape.name} leaves.' if self._escape else 'No key leaves.'
        self._terminal.say(f'Connected to the serial console of {instance_uuid}. {way_out}')
        if not again:
            with contextlib.suppress(OSError):
                columns, lines = os.get_terminal_size(self._stdin)
                self._terminal.say(
                    f'For full-screen programs, in the guest: stty rows {lines} cols {columns}'
                )

    async def _ask_again(self, ended: Ended) -> None:
        """Wait until the user wants to reconnect."""
        self._exit_code = ended.exit_code
        way_out = self._escape.name if self._escape else 'Ctrl-C'
        self._terminal.say()
        self._terminal.say(f'consolectl: {ended.code}: {ended} {ended.hint}'.rstrip())
        self._terminal.say(f'Press Enter to reconnect, {way_out} to leave.')
        self._keys.drop()
        while not self._keys.ended:
            typed = await self._keys.take()
            if _CTRL_C in typed:
                self._leave(self._exit_code)
            elif b'\r' in typed or b'\n' in typed:
                self._terminal.say('Connecting ...')
                return
        await asyncio.Event().wait()  # the user is leaving
