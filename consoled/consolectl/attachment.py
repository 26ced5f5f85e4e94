# SPDX-License-Identifier: Apache-2.0
"""A serial console in the terminal, from the first token until the user detaches."""

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
from consoled.consolectl.task_thread import TaskThread
from consoled.consolectl.terminal import Escape, Keys, Screen, Terminal

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_CTRL_C = b'\x03'


def _poll_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop that can also wait for files and /dev/null, which epoll refuses."""
    return asyncio.SelectorEventLoop(selectors.PollSelector())


class Attachment:
    """A terminal attached to a console, over as many sessions as it takes.

    :param stdin: file descriptor
    :param authorize: returns a new token; called in a thread
    :param explain: translates an exception into a failure
    :param tls: context for the websocket
    :param escape: the key that detaches; None for no key
    :param wait: seconds of silence to wait for after the end of an input that is not a terminal
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
        self._thread = TaskThread()
        self._attached = False  # at least once
        self._exit_code = errors.OK  # if the user detaches now

    @property
    def authorizing(self) -> bool:
        """Whether an answer to ``authorize`` is pending."""
        return self._thread.busy

    def run(self) -> int:
        """Attach, until the user detaches or the console ends.

        :returns: exit code
        :raises Failed: the console cannot be opened, or has ended
        :raises OSError: standard output cannot be written
        """
        with asyncio.Runner(loop_factory=_poll_loop) as runner:
            return runner.run(self._run())

    async def _run(self) -> int:
        loop = asyncio.get_running_loop()
        self._detached: asyncio.Future[int] = loop.create_future()
        self._keys = Keys(self._stdin, self._escape, self._on_input_end)
        for number in _SIGNALS:
            # signals that the parent has us ignore (nohup, jobs in the background) stay ignored
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._detach, 128 + number)
        loop.add_signal_handler(signal.SIGCONT, self._terminal.resume)
        work = asyncio.create_task(self._work())
        try:
            await asyncio.wait({work, self._detached}, return_when=asyncio.FIRST_COMPLETED)
            if not self._detached.done():
                return work.result()
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            return self._detached.result()
        finally:
            self._keys.stop()
            if self._screen.stop() and self._attached:
                self._terminal.say()
            self._terminal.restore()

    def _detach(self, exit_code: int) -> None:
        if not self._detached.done():
            self._detached.set_result(exit_code)

    def _on_input_end(self, escaped: bool) -> None:
        if escaped:
            self._detach(self._exit_code)
        elif self._terminal.interactive:  # the terminal has hung up
            self._detach(128 + signal.SIGHUP)

    async def _work(self) -> int:
        while True:
            try:
                ended = await self._attach()
            except OSError:
                raise  # by the screen
            except Exception as exc:
                ended = self._failure(exc)
            if ended is None:
                return errors.OK
            if not (ended.retryable and self._attached and self._terminal.interactive):
                raise ended
            await self._prompt_to_reconnect(ended)

    def _failure(self, error: Exception) -> Ended:
        if isinstance(error, Ended):
            return error
        failed = self._explain(error)
        retryable = getattr(error, 'retryable', False)
        ended = Ended(failed.exit_code, failed.code, str(failed), failed.hint, retryable=retryable)
        ended.__cause__ = error
        return ended

    async def _attach(self) -> Ended | None:
        """Attach over one session; return why it ended, or None at the end of the input."""
        grant = await self._thread.run(self._authorize)
        assert grant.access_url is not None
        assert grant.token is not None
        try:
            url = console_relay.websocket_url(grant.access_url)
            connection = await console_relay.connect(url, grant.token, self._tls)
            self._begin(grant.instance_uuid)
            relay = console_relay.Relay(connection, self._keys, self._screen, self._wait, self._say_port)
            ended = await relay.run()
        except Ended as exc:
            raise exc.without(grant.token) from exc.__cause__
        return ended and ended.without(grant.token)

    def _begin(self, instance_uuid: str) -> None:
        self._exit_code = errors.OK
        reconnected, self._attached = self._attached, True
        self._terminal.make_raw()
        self._keys.drop()  # typed while there was no console
        advice = f'{self._escape.name} detaches.' if self._escape else 'No key detaches.'
        self._terminal.say(f'Connected to the serial console of {instance_uuid}. {advice}')
        if not reconnected:
            with contextlib.suppress(OSError):
                columns, lines = os.get_terminal_size(self._stdin)
                if columns and lines:  # a pseudo-terminal may have no size, which is 0
                    self._terminal.say(
                        f'For full-screen programs, run in the guest: stty rows {lines} cols {columns}'
                    )

    def _say_port(self, number: int) -> None:
        self._terminal.say(
            f'This is serial port {number}: another user has taken the one that was authorized.'
        )

    async def _prompt_to_reconnect(self, ended: Ended) -> None:
        """Say why the session ended, and wait until the user wants to reconnect."""
        self._exit_code = ended.exit_code
        key = self._escape.name if self._escape else 'Ctrl-C'
        self._terminal.say()
        self._terminal.say(f'consolectl: {ended.code}: {ended} {ended.hint}'.rstrip())
        self._terminal.say(f'Press Enter to reconnect, {key} to detach.')
        self._keys.drop()
        while not self._keys.ended:
            typed = await self._keys.take()
            if _CTRL_C in typed:
                self._detach(self._exit_code)
            elif b'\r' in typed or b'\n' in typed:
                self._terminal.say('Connecting ...')
                return
        await asyncio.Event().wait()  # the user is detaching, which cancels this
