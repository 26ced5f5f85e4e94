# SPDX-License-Identifier: Apache-2.0
"""Asking compute agents whether consoles are still their guests'. Those that hang take nothing from others.

A compute host and a guest hold a few threads of the manager each, and those that let a call wait in vain are
left alone for some seconds. Hosts that answer, but slowly, share a part of the threads.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Hashable, Iterator

from oslo_config import cfg

from consoled import exception, objects
from consoled.context import RequestContext
from consoled.manager.breaker import Breaker
from consoled.manager.thread_share import ThreadShare
from consoled.sources import PortChecker

# Threads of a worker that may wait
_OF_HOST = 3  # for one compute host
_OF_GUEST = 2  # because of one guest: its host has another one for the others
_TRIALS = 2  # for peers that hung, to see whether they answer again

# Parts of ``[manager] check_port_timeout``.
_SLOW = 0.25  # an answer after that has kept a thread waiting
_STALLED = 0.15  # after that, nobody waits for a call to that compute host to end
_TURN = 0.75  # to wait for a permit; with the call itself this is less than a proxy waits for an answer
_TURN_OF_SLOW = 0.05  # the same for a slow host: those who wait occupy threads too

_SLOW_HOSTS = 'slow hosts'  # the party that all slow hosts are
_MAX_SLOW_HOSTS = 10000  # that are remembered


class ConsoleChecks:
    """Checks with compute hosts that consoles are still those of their guests."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf
        self._threads = ThreadShare.from_conf(conf, eighths=3)
        self._hung_hosts = Breaker('Compute host', exception.ComputeUnreachable, _TRIALS)
        self._hung_guests = Breaker('Guest', exception.HypervisorUnreachable, _TRIALS)
        self._slow_answers: dict[str, int] = {}  # in a row, by compute host

    def check(self, context: RequestContext, console: objects.ConsoleConnection, asked: PortChecker) -> None:
        """Ask the console's compute host whether the console still belongs to its instance.

        :param asked: who asks it
        :raises ConsoleGone: it does not
        :raises ComputeUnreachable: the agent does not answer, or has just left another call without an answer
        :raises HypervisorUnreachable: the agent cannot say, or could not say of this guest just now
        :raises ManagerBusy: too many threads already wait for compute agents
        """
        compute_host, guest = console.compute_host, console.instance_uuid
        timeout: float = self._conf.manager.check_port_timeout
        # Before any wait for a permit: it would be in vain.
        self._hung_hosts.check(compute_host)
        self._hung_guests.check(guest)
        with (
            self._turn(compute_host, guest, timeout),
            self._hung_guests.call(guest, _SLOW * timeout),
            self._hung_hosts.call(compute_host, _SLOW * timeout),
            self._timed(compute_host, _SLOW * timeout),
        ):
            try:
                exists = asked.check_console(context, console, timeout)
            except (exception.InstanceNotFound, exception.ConsoleGone):
                exists = False
        if not exists:
            raise exception.ConsoleGone()

    def _turn(self, compute_host: str, guest: str, timeout: float) -> contextlib.AbstractContextManager[None]:
        """Return a permit for a call, which waits for its turn."""
        limits: dict[Hashable, int] = {('host', compute_host): _OF_HOST, ('guest', guest): _OF_GUEST}
        turn = _TURN
        if self._slow_answers.get(compute_host, 0) > 1:  # one may be an accident
            limits[_SLOW_HOSTS] = max(1, self._threads.size // 2)
            turn = _TURN_OF_SLOW
        return self._threads.permit(
            limits,
            timeout=turn * timeout,
            stalled_after=_STALLED * timeout,
            refusal=exception.ComputeUnreachable(),
        )

    @contextlib.contextmanager
    def _timed(self, compute_host: str, slow: float) -> Iterator[None]:
        """Note whether a compute host answers slowly."""
        started = time.monotonic()
        try:
            yield
        finally:
            if time.monotonic() - started < slow:
                self._slow_answers.pop(compute_host, None)
            else:
                if len(self._slow_answers) >= _MAX_SLOW_HOSTS:
                    self._slow_answers.clear()
                self._slow_answers[compute_host] = self._slow_answers.get(compute_host, 0) + 1
