# SPDX-License-Identifier: Apache-2.0
"""Fixtures that run the real daemons, for other projects too."""

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

import fixtures

from consoled.db import migration
from consoled.db.session import Database
from consoled.testing.fixtures import wait_until
from consoled.testing.services import free_port

Options = dict[str, dict[str, Any]]


def _merged(defaults: Options, options: Options | None) -> Options:
    for group, values in (options or {}).items():
        defaults.setdefault(group, {}).update(values)
    return defaults


class DaemonProcess(fixtures.Fixture):
    """A real daemon in a process of its own, ready when ``start`` returns.

    :param module: of the program
    :param options: lines of the config file by group, e.g. ``{'manager': {'workers': 1}}``
    :param env: additions to the environment, e.g. CONSOLED_CONCURRENCY
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
        """What has to be done before it is started for the first time."""

    def write_config(self) -> None:
        """Write ``options`` to the config file."""
        lines = []
        for group, values in self.options.items():
            lines.append(f'[{group}]')
            lines += [f'{name} = {str(value).replace("$", "$$")}' for name, value in values.items()]
        self.config_file.write_text('\n'.join(lines) + '\n')

    def start(self) -> None:
        """Start the daemon, and wait until it says that it consumes."""
        address = str(self.directory / 'notify')
        pathlib.Path(address).unlink(missing_ok=True)
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify,
            self.log_file.open('ab') as log_to,
        ):
            notify.bind(address)
            notify.settimeout(0.1)
            self._process = subprocess.Popen(
                [sys.executable, '-m', self._module, '--config-file', self.config_file],
                env={**os.environ, 'NOTIFY_SOCKET': address, **self._env},
                stdin=subprocess.DEVNULL,
                stdout=log_to,
                stderr=log_to,
            )
            wait_until(lambda: self._is_ready(notify), timeout=60, what=f'readiness of {self._module}')

    def _is_ready(self, notify: socket.socket) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f'{self._module} ended: {self.log()[-2000:]}')
        try:
            return b'READY=1' in notify.recv(4096)
        except TimeoutError:
            return False

    @property
    def pid(self) -> int:
        """The master's."""
        return self._process.pid

    def child_pids(self) -> list[int]:
        """The processes under the master: workers and housekeeper."""
        found: set[int] = set()
        for listing in pathlib.Path(f'/proc/{self.pid}/task').glob('*/children'):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended since
                found.update(map(int, listing.read_text().split()))
        return sorted(found)

    def worker_pids(self) -> list[int]:
        """The processes that do the work: by their title."""
        return [pid for pid in self.child_pids() if ': worker' in self._name_of(pid)]

    @staticmethod
    def _name_of(pid: int) -> str:
        try:
            return pathlib.Path(f'/proc/{pid}/cmdline').read_text()
        except OSError:
            return ''

    def log(self) -> str:
        """What it has written so far."""
        return self.log_file.read_text(errors='replace')

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL to all its processes."""
        for pid in [self.pid, *self.child_pids()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def stop(self, timeout: float = 40.0) -> int:
        """SIGTERM, and wait; SIGKILL past ``timeout`` seconds.

        :returns: exit status
        """
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self.wait(timeout)

    def wait(self, timeout: float = 40.0) -> int:
        """Wait for its end; SIGKILL past ``timeout`` seconds.

        :returns: exit status
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
    """The daemon ``consoled``.

    :param transport_url: the bus
    :param database_url: a database, which is upgraded
    :param options: lines of the config file by group, e.g. ``{'manager': {'workers': 1}}``
    :param module: run instead of the program's, e.g. one that breaks something first
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

    def _prepare(self) -> None:
        database = Database(self.options['database']['connection'])
        migration.upgrade(database)
        database.dispose()


class ProxyProcess(DaemonProcess):
    """The daemon ``consoled-proxy``, for consoles on this host.

    It listens when ``start`` returns; ``/readyz`` at ``monitoring_port`` says when it has its lease.

    :param transport_url: the bus
    :param options: lines of the config file by group
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
        """Whether all its workers have a lease."""
        try:
            with urllib.request.urlopen(
                f'http://127.0.0.1:{self.monitoring_port}/readyz', timeout=5
            ) as answer:
                return bool(answer.status == 200)
        except OSError:  # HTTPError is one
            return False

    def wait_ready(self) -> None:
        wait_until(self.ready, timeout=60, what='the lease of the proxy')


class ComputeProcess(DaemonProcess):
    """The daemon ``consoled-compute``; the managers know its guests when ``start`` returns, if all is well.

    :param transport_url: the bus
    :param options: lines of the config file by group; without others, the guests are the demo's
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
        """Status and body of a path of its monitoring address."""
        try:
            with urllib.request.urlopen(
                f'http://127.0.0.1:{self.monitoring_port}{path}', timeout=10
            ) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
