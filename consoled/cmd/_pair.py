# SPDX-License-Identifier: Apache-2.0
"""Two daemons that live and die together: a manager and a proxy."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence

MODULES = ('consoled.cmd.manager', 'consoled.cmd.proxy')

_PASSED_ON = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
_ENDS = frozenset({signal.SIGTERM, signal.SIGINT})
_WAITED_FOR = _PASSED_ON | {signal.SIGCHLD}

# Users reach the proxy, so it is the proxy that tells systemd when it is ready, and that it is alive.
_OF_THE_PROXY = ('NOTIFY_SOCKET', 'WATCHDOG_USEC')
# Metrics of the two would be mixed; and systemd watches processes of the unit, not this one.
_OF_NEITHER = ('PROMETHEUS_MULTIPROC_DIR', 'WATCHDOG_PID')
_KILL_AFTER = 15.0  # seconds after the time that daemons have to stop

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def environments(environ: Mapping[str, str], monitoring_port: int) -> tuple[dict[str, str], dict[str, str]]:
    """Return the environments of the manager and the proxy.

    :param monitoring_port: of the manager; the proxy gets the next one; 0 is none
    """
    proxy = {name: value for name, value in environ.items() if name not in _OF_NEITHER}
    manager = {name: value for name, value in proxy.items() if name not in _OF_THE_PROXY}
    port = {'OS_MONITORING__PORT': str(monitoring_port + 1)} if monitoring_port else {}
    return manager, {**proxy, **port}


def run(
    arguments: Sequence[str],
    monitoring_port: int,
    stop_timeout: float,
    modules: tuple[str, str] = MODULES,
) -> int:
    """Run both until one ends, or a signal ends them.

    :param arguments: of both
    :param stop_timeout: seconds that each has to stop
    :returns: the exit code of the one that ended first by itself; otherwise 0, or that of one that failed
    """
    former = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)
    children: list[subprocess.Popen[bytes]] = []
    try:
        for module, environment in zip(modules, environments(os.environ, monitoring_port), strict=True):
            command = [sys.executable, '-m', module, *arguments]
            children.append(
                subprocess.Popen(  # noqa: S603 - the arguments are those of this program
                    command,
                    env=environment,
                    preexec_fn=lambda: _prepare(former),
                )
            )
        first = _supervise(children)
    finally:
        _stop(children, stop_timeout + _KILL_AFTER)
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
    if first:
        return _exit_code(first)
    # one that had just started does not stop, but ends
    failed = [child.returncode for child in children if child.returncode not in (0, -signal.SIGTERM)]
    return _exit_code(failed[0]) if failed else 0


def _prepare(mask: Iterable[int]) -> None:
    """Prepare the signals of a child, in which nothing handles them yet: a reload must not end it.

    It is told to stop if this process is killed: it would go on, with the ports that the next start needs.
    """
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _supervise(children: Sequence[subprocess.Popen[bytes]]) -> int:
    """Pass signals on until a child has ended, or all are to.

    :returns: the code of the child, or 0
    """
    while True:
        for child in children:
            if child.poll() is not None:
                return int(child.returncode)
        received = signal.sigwait(_WAITED_FOR)
        if received in _ENDS:
            return 0
        if received in _PASSED_ON:
            for child in children:
                child.send_signal(received)


def _stop(children: Sequence[subprocess.Popen[bytes]], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    for child in children:
        child.terminate()
    for child in children:
        try:
            child.wait(max(deadline - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _exit_code(code: int) -> int:
    """Return the code as a shell has it: 128 and the number of a signal."""
    return code if code >= 0 else 128 - code
