# SPDX-License-Identifier: Apache-2.0
"""Base of the service fixtures: start and stop a server process on a free port."""

import concurrent.futures
import contextlib
import glob
import os
import pathlib
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest
from collections.abc import Sequence
from typing import Any

from consoled.testing.libraries import fixtures, psutil

HOST = '127.0.0.1'
START_TIMEOUT = 60.0
STOP_TIMEOUT = 20.0
# Read at import: test cases often point tempfile at a directory that lives only as long as
# one test, and a shared service must not lose its data with it.
TMP_ROOT = tempfile.gettempdir()


class MissingService(Exception):
    """A service program is not installed, and CONSOLED_REQUIRE_SERVICES=1 forbids skipping."""


class ServiceError(Exception):
    """A service failed to start or refused a request."""


def find_program(name: str) -> str:
    """Return the path of a program.

    :raises unittest.SkipTest: when it is not installed
    :raises MissingService: the same, with CONSOLED_REQUIRE_SERVICES=1 in the environment
    """
    # RabbitMQ's own directory comes first: Debian puts a wrapper on PATH that switches to the
    # system's rabbitmq user and directories.
    directories = ['/usr/lib/rabbitmq/bin', os.environ.get('PATH', os.defpath), '/usr/sbin']
    directories += sorted(glob.glob('/usr/lib/postgresql/*/bin'), reverse=True)
    if found := shutil.which(name, path=os.pathsep.join(directories)):
        return found
    required = os.environ.get('CONSOLED_REQUIRE_SERVICES') == '1'
    raise (MissingService if required else unittest.SkipTest)(f'{name} is not installed')


def free_port() -> int:
    """Return a TCP port that is currently free on the loopback address.

    The port is below the kernel's range for outgoing connections where possible. Otherwise a
    client that keeps reconnecting while a service is down could be given the service's own port
    as its local port (and even connect to itself), and the service could not restart.

    :raises ServiceError: when no port is free
    """
    outgoing = pathlib.Path('/proc/sys/net/ipv4/ip_local_port_range').read_text().split()
    candidates = range(10000, max(int(outgoing[0]), 10000))
    # SystemRandom: processes forked from one parent share the state of the default generator.
    picked = random.SystemRandom().sample(candidates, min(len(candidates), 20))
    for port in [*picked, 0]:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return int(probe.getsockname()[1])
    raise ServiceError('no free port')


def process_tree(pid: int | None) -> list[psutil.Process]:
    """Return a process and all its descendants; an empty list when the process does not exist."""
    with contextlib.suppress(psutil.NoSuchProcess):
        if pid:
            top = psutil.Process(pid)
            return [top, *top.children(recursive=True)]
    return []


def _alive(process: psutil.Process) -> bool:
    # A zombie counts as gone: init may take a second to reap an orphan.
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def death_prefix(signal_name: str) -> list[str]:
    """Return the words before a command that get it a signal when whoever starts it dies: prctl(2).

    With setpriv, because a preexec function may deadlock in a process with threads, and because a server that
    changes its user by itself would lose the signal.
    """
    return [find_program('setpriv'), f'--pdeathsig={signal_name}']


def spawn(
    command: Sequence[str | os.PathLike[str]], prefix: Sequence[str] | None = None, **kwargs: Any
) -> subprocess.Popen[bytes]:
    """Start a process that does not outlive this one, even if this one is killed.

    :param prefix: from ``death_prefix``; default: with SIGTERM
    :param kwargs: of ``subprocess.Popen``
    """
    started: concurrent.futures.Future[subprocess.Popen[bytes]] = concurrent.futures.Future()

    def run() -> None:
        # The signal is sent when the *thread* that started the process ends. This thread outlives the
        # process, so any thread of a test may start one.
        try:
            process = subprocess.Popen([*(prefix or death_prefix('TERM')), *command], **kwargs)
        except BaseException as error:  # noqa: BLE001 - raised again in the caller
            started.set_exception(error)
        else:
            started.set_result(process)
            process.wait()

    threading.Thread(target=run, daemon=True).start()
    return started.result()


class ServiceProcess(fixtures.Fixture):
    """Base fixture of a service: setUp starts it and waits until it answers, cleanUp deletes it.

    :cvar programs: the programs that the service needs
    :cvar system_user: the user to run as when the tests run as root, or None
    :cvar stop_signal: sent by ``stop``
    :cvar cleanup_signal: sent when the fixture is cleaned up
    :ivar port: TCP port on 127.0.0.1
    :ivar directory: holds the data and the log; deleted at cleanup
    """

    programs: tuple[str, ...] = ()
    system_user: str | None = None
    stop_signal = signal.SIGTERM
    cleanup_signal = signal.SIGKILL  # the data is deleted anyway
    port = 0

    def setUp(self) -> None:
        """Start the service and wait until it answers.

        :raises unittest.SkipTest: when a program is not installed
        :raises MissingService: the same, with CONSOLED_REQUIRE_SERVICES=1 in the environment
        :raises ServiceError: when it does not start
        """
        # Not in _setUp: the fixtures library would report a skip as a skip plus an error.
        self.program = {name: find_program(name) for name in (*self.programs, 'setpriv')}
        try:
            super().setUp()
        except fixtures.MultipleExceptions as failed:
            raise failed.args[0][1] from None

    def _setUp(self) -> None:  # noqa: N802 - named by the fixtures library
        self._owner = os.getpid()
        self._processes: list[subprocess.Popen[bytes]] = []  # the server is the last one
        self._answered = False
        prefix = f'consoled-{type(self).__name__.lower()}-'
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=TMP_ROOT))
        self.addCleanup(self._discard)
        self.log = self.directory / 'output.log'
        self._launcher = death_prefix('KILL')
        if self.system_user and os.getuid() == 0:
            user = pwd.getpwnam(self.system_user)
            os.chown(self.directory, user.pw_uid, user.pw_gid)
            self._launcher += [f'--reuid={user.pw_uid}', f'--regid={user.pw_gid}', '--init-groups']
        self._prepare()
        self.start()

    def _prepare(self) -> None:
        """Create the data, once."""

    def _configure(self) -> None:
        """Choose the ports. Called again when one of them turns out to be taken."""
        self.port = free_port()

    def _commands(self) -> list[list[str]]:
        """Return the commands to start. The last one is the server itself."""
        raise NotImplementedError

    def _environment(self) -> dict[str, str]:
        return dict(os.environ)

    def _handshake(self) -> None:
        """Talk to the service. Any exception means that it is not ready."""
        raise NotImplementedError

    @property
    def pid(self) -> int | None:
        """The server's process ID, or None when it is not running."""
        running = self._processes and self._processes[-1].poll() is None
        return self._processes[-1].pid if running else None

    def start(self) -> None:
        """Start the service and wait until it answers. Restarts keep the port and the data.

        :raises ServiceError: when it does not start
        """
        if self.pid or os.getpid() != self._owner:
            return
        deadline = time.monotonic() + START_TIMEOUT
        for _attempt in range(3):
            self._end(signal.SIGKILL)  # remains of a server that died by itself
            if not self._answered:
                self._configure()
            try:
                for command in self._commands():
                    self._processes.append(self._spawn(command))
                if self._wait_until_ready(deadline):
                    self._answered = True
                    return
            except BaseException:
                self._end(signal.SIGKILL)
                raise
        self._end(signal.SIGKILL)
        raise self._failure('exited while starting')

    def stop(self) -> None:
        """Shut the service down cleanly, or with SIGKILL if that takes too long."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """Send SIGKILL and wait until all processes of the service are gone."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop the service and start it again with the same port and data."""
        self.stop()
        self.start()

    def cpu(self) -> float:
        """Return the CPU seconds that the server's process tree has used since its last start."""
        total = 0.0
        for process in process_tree(self.pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += sum(process.cpu_times()[:4])  # its own and its reaped children's
        return total

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self.log.open('ab') as log:  # in a new session: Ctrl-C is for the test runner
            return spawn(
                command,
                prefix=self._launcher,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=self._environment(),
                start_new_session=True,
            )

    def _run(self, *command: str) -> None:
        """Run a command that prepares the data, as the server's user."""
        self._processes.append(self._spawn(list(command)))
        if self._processes[-1].wait(START_TIMEOUT):
            raise self._failure(f'could not run {command[0]}')

    def _wait_until_ready(self, deadline: float) -> bool:
        """Return False if a process exits first, as it does when its port is taken."""
        failure: Exception | None = None
        while time.monotonic() < deadline:
            try:
                self._handshake()
            except Exception as error:  # noqa: BLE001 - each client library has its own
                failure = error
            else:
                failure = None
            if any(process.poll() is not None for process in self._processes):
                return False
            # When ports conflict, another process may have answered.
            if failure is None and self._listens():
                return True
            time.sleep(0.05)
        raise self._failure(f'was not ready in time ({failure!r})')

    def _listens(self) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            sockets = psutil.Process(self.pid).net_connections('tcp4') if self.pid else []
            wanted = (psutil.CONN_LISTEN, (HOST, self.port))
            return any((found.status, found.laddr) == wanted for found in sockets)
        return False

    def _end(self, signum: int) -> None:
        # A forked child inherits this object but must not stop its parent's processes.
        while self._processes and os.getpid() == self._owner:
            process = self._processes[-1]
            tree = process_tree(self.pid)
            process.send_signal(signum)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_TIMEOUT)
            deadline = time.monotonic() + STOP_TIMEOUT
            while (tree := [p for p in tree if _alive(p)]) and time.monotonic() < deadline:
                for leftover in tree:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        leftover.kill()
                time.sleep(0.01)
            self._processes.pop()

    def _discard(self) -> None:
        if os.getpid() == self._owner:
            self._end(self.cleanup_signal)
            shutil.rmtree(self.directory, ignore_errors=True)

    def _failure(self, what: str) -> ServiceError:
        log = self.log.read_text(errors='replace')[-4000:]
        return ServiceError(f'{type(self).__name__} {what}; its log ends:\n{log}')

    def _write(self, name: str, text: str) -> str:
        """Write a file that only the server's user can read, and return its path."""
        path = self.directory / name
        path.write_text(text)  # nobody else can reach it before the chmod: the directory is private
        path.chmod(0o600)
        os.chown(path, self.directory.stat().st_uid, -1)
        return str(path)
