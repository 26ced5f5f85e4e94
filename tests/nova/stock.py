# SPDX-License-Identifier: Apache-2.0
"""A stock nova-novncproxy, for comparison."""

import contextlib
import pathlib
import socket
import subprocess

import fixtures
import psutil

from consoled.testing.fixtures import wait_until
from consoled.testing.service_process import spawn
from consoled.testing.services import free_port


class NovncProxy(fixtures.Fixture):
    """The process of nova-novncproxy, as its package has it, with the configuration of a ``base.Nova``.

    :ivar port: for users
    :ivar pid: of the process that accepts connections; it forks for each
    """

    def __init__(self, nova):
        super().__init__()
        self._nova = nova

    def _setUp(self):  # noqa: N802 - named by the fixtures library
        self.port = free_port()
        directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.log_file = directory / 'novncproxy.log'
        conf = directory / 'novncproxy.conf'
        conf.write_text(
            f'[DEFAULT]\nlog_file = {self.log_file}\n'
            f'[vnc]\nnovncproxy_host = 127.0.0.1\nnovncproxy_port = {self.port}\n'
        )
        program = pathlib.Path(self._nova.python).with_name('nova-novncproxy')
        output = self.useFixture(fixtures.TempDir()).join('output')
        with open(output, 'wb') as log:
            process = spawn(
                [program, '--config-file', self._nova.conf, '--config-file', conf],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pid = process.pid
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)
        self.addCleanup(self._end_children)
        wait_until(lambda: self._listens(process, output), timeout=120, what='nova-novncproxy')

    def _listens(self, process, output):
        if process.poll() is not None:
            raise RuntimeError(f'nova-novncproxy exited: {pathlib.Path(output).read_text()[-2000:]}')
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(('127.0.0.1', self.port)).close()
            return True
        return False

    def _end_children(self):
        for process in psutil.Process(self.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
