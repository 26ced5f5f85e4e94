# SPDX-License-Identifier: Apache-2.0
"""Fixtures that run the real daemons as child processes. Other projects may use them."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from typing import Any

from consoled.db import migration
from consoled.db.engine import Database
from consoled.testing.fixtures import wait_until
from consoled.testing.libraries import fixtures
from consoled.testing.service_process import spawn
from consoled.testing.services import free_port

Options = dict[str, dict[str, Any]]  # values by group and option name


def _merged(defaults: Options, options: Options | None) -> Options:
    for group, values in (options or {}).items():
        defaults.setdefault(group, {}).update(values)
    return defaults


class DaemonProcess(fixtures.Fixture):
    """Base fixture of a daemon in a child process. ``start`` returns when the daemon is ready.

    :param module: the program's Python module
    :param options: contents of the config file by group, e.g. ``{'manager': {'workers': 1}}``; change them
        and call ``write_config`` before a reload
    :param env: additional environment variables, e.g. CONSOLED_CONCURRENCY
    :ivar directory: temporary directory with ``config_file`` and ``log_file``
    """

    def __init__(
        self, module: str, options: dict[str, dict[str, Any]], env: dict[str, str] | None = None
    ) -> None:
        super().__init__()
        self._module = module
        self._env = env or {}
        self.options = options

    @property
    def host(self) -> str:
        """The value of ``[DEFAULT] host``."""
        return str(self.options['DEFAULT']['host'])

    def _setUp(self) -> None:
        self.directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.config_file = self.directory / 'consoled.conf'
        self.log_file = self.directory / 'consoled.log'
        self.write_config()
        self._prepare()
        self.start()
        self.addCleanup(self.stop)

    def _prepare(self) -> None:
        """Prepare for the first start, once."""

    def write_config(self) -> None:
        """Write ``options`` to the config file."""
        lines = []
        for group, values in self.options.items():
            lines.append(f'[{group}]')
            lines += [f'{name} = {str(value).replace("$", "$$")}' for name, value in values.items()]
        self.config_file.write_text('\n'.join(lines) + '\n')

    def start(self) -> None:
        """Start the daemon and wait for its readiness notification (``sd_notify``, READY=1).

        :raises RuntimeError: when the daemon exits instead; the message has the end of its log
        :raises TimeoutError: when it is not ready within a minute
        """
        address = str(self.directory / 'notify')
        pathlib.Path(address).unlink(missing_ok=True)
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify,
            self.log_file.open('ab') as log_to,
        ):
            notify.bind(address)
            notify.settimeout(0.1)
            self._process = spawn(
                [sys.executable, '-m', self._module, '--config-file', self.config_file],
                env={**os.environ, 'NOTIFY_SOCKET': address, **self._env},
                stdin=subprocess.DEVNULL,
                stdout=log_to,
                stderr=log_to,
            )
            wait_until(lambda: self._is_ready(notify), timeout=60, what=f'readiness of {self._module}')

    def _is_ready(self, notify: socket.socket) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f'{self._module} exited: {self.log()[-2000:]}')
        try:
            return b'READY=1' in notify.recv(4096)
        except TimeoutError:
            return False

    @property
    def pid(self) -> int:
        """The process ID of the parent process."""
        return self._process.pid

    def child_pids(self) -> list[int]:
        """Return the process IDs of the direct children: the workers and the housekeeper."""
        found: set[int] = set()
        for listing in pathlib.Path(f'/proc/{self.pid}/task').glob('*/children'):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread has just ended
                found.update(map(int, listing.read_text().split()))
        return sorted(found)

    def worker_pids(self) -> list[int]:
        """Return the process IDs of the workers, recognized by their titles."""
        return [pid for pid in self.child_pids() if ': worker' in self.process_title(pid)]

    @staticmethod
    def process_title(pid: int) -> str:
        """Return the title of a process; empty when the process does not exist."""
        try:
            return pathlib.Path(f'/proc/{pid}/cmdline').read_text()
        except OSError:
            return ''

    def log(self) -> str:
        """Return everything that the daemon has logged so far."""
        return self.log_file.read_text(errors='replace')

    def signal(self, number: int) -> None:
        """Send a signal to the parent process."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Send SIGKILL to the parent process and its children, none of which learns of the others' end."""
        pids = [self.pid, *self.child_pids()]
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        self._process.wait()

    def stop(self, timeout: float = 40.0) -> int:
        """Send SIGTERM and wait for the exit, then send SIGKILL after ``timeout`` seconds.

        :returns: the exit status
        """
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self.wait(timeout)

    def wait(self, timeout: float = 40.0) -> int:
        """Wait until the daemon exits, and send SIGKILL after ``timeout`` seconds.

        :returns: the exit status
        """
        children = self.child_pids()
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            for pid in [*children, self.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return self._process.wait()


class ManagerProcess(DaemonProcess):
    """The manager daemon, ``consoled``.

    :param transport_url: the message bus
    :param database_url: the cell database; the fixture upgrades its schema
    :param options: contents of the config file by group, e.g. ``{'manager': {'workers': 1}}``
    :param env: additional environment variables
    :param module: the module to run instead of the program's own, e.g. one that injects a fault
    :ivar transport_url: the message bus
    """

    def __init__(
        self,
        transport_url: str,
        database_url: str,
        options: Options | None = None,
        env: dict[str, str] | None = None,
        module: str = 'consoled.cmd.manager',
    ) -> None:
        defaults: Options = {
            'DEFAULT': {'host': f'manager-{uuid.uuid4().hex[:8]}', 'transport_url': transport_url},
            'database': {'connection': database_url},
        }
        super().__init__(module, _merged(defaults, options), env)
        self.transport_url = transport_url

    def _prepare(self) -> None:
        database = Database(self.options['database']['connection'])
        migration.upgrade(database)
        database.dispose()


class ProxyProcess(DaemonProcess):
    """The proxy daemon, ``consoled-proxy``, for consoles on 127.0.0.0/8.

    It listens on ``port`` when ``start`` returns; ``wait_ready`` waits until it has its lease.

    :param transport_url: the message bus
    :param options: contents of the config file by group
    :ivar port: for users
    :ivar monitoring_port: for metrics and health
    """

    def __init__(self, transport_url: str, options: Options | None = None) -> None:
        self.port = free_port()
        self.monitoring_port = free_port()
        defaults: Options = {
            'DEFAULT': {'host': f'proxy-{uuid.uuid4().hex[:8]}', 'transport_url': transport_url},
            'proxy': {
                'host': '127.0.0.1',
                'port': self.port,
                'allowed_networks': '127.0.0.0/8',
                'allowed_ports': '1024-65535',
            },
            'monitoring': {'port': self.monitoring_port},
        }
        super().__init__('consoled.cmd.proxy', _merged(defaults, options))

    def ready(self) -> bool:
        """Return whether all workers have a lease, according to ``/readyz``."""
        try:
            with urllib.request.urlopen(
                f'http://127.0.0.1:{self.monitoring_port}/readyz', timeout=5
            ) as response:
                return bool(response.status == 200)
        except OSError:  # includes HTTPError
            return False

    def wait_ready(self) -> None:
        """Wait until all workers have a lease.

        :raises TimeoutError: when they do not within a minute
        """
        wait_until(self.ready, timeout=60, what="the proxy's lease")


class ComputeProcess(DaemonProcess):
    """The compute agent, ``consoled-compute``, by default with the guests of the driver ``demo``.

    When ``start`` returns, the agent has tried once to report its guests; unless a peer was unreachable, the
    managers know them.

    :param transport_url: the message bus
    :param options: contents of the config file by group
    :ivar monitoring_port: for metrics and health
    """

    def __init__(self, transport_url: str, options: Options | None = None) -> None:
        self.monitoring_port = free_port()
        defaults: Options = {
            'DEFAULT': {'host': f'compute-{uuid.uuid4().hex[:8]}', 'transport_url': transport_url},
            'compute': {'driver': 'demo'},
            'monitoring': {'port': self.monitoring_port},
        }
        super().__init__('consoled.cmd.compute', _merged(defaults, options))

    def get(self, path: str) -> tuple[int, str]:
        """Return status and body of a page on the monitoring port, e.g. ``/readyz``."""
        try:
            with urllib.request.urlopen(
                f'http://127.0.0.1:{self.monitoring_port}{path}', timeout=10
            ) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
