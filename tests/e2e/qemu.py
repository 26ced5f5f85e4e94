# SPDX-License-Identifier: Apache-2.0
"""A real guest: QEMU in software emulation, without a disk; its screen shows the BIOS's messages."""

import subprocess

import fixtures as fixtures_library
import psutil

from consoled.testing import service_process, services
from consoled.testing.fixtures import wait_until

_COMMAND = ('-machine', 'pc,accel=tcg', '-m', '32', '-nodefaults', '-vga', 'std', '-display', 'none')
_VNC_BASE = 5900


class Qemu(fixtures_library.Fixture):
    """A QEMU process with one console on loopback.

    :param display: options for the console, with ``{port}``, or ``{vnc}`` for the VNC display number
    :ivar port: TCP port of the console
    """

    def __init__(self, *display):
        super().__init__()
        self._display = display

    def _setUp(self):  # noqa: N802 - named by the library
        self.port = services.free_port()
        numbers = {'port': self.port, 'vnc': self.port - _VNC_BASE}
        display = [part.format(**numbers) for part in self._display]
        log = self.useFixture(fixtures_library.TempDir()).join('qemu.log')
        with open(log, 'wb') as output:
            self._process = service_process.spawn(
                [services.find_program('qemu-system-x86_64'), *_COMMAND, *display],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.addCleanup(self._process.wait)
        self.addCleanup(self._process.kill)
        wait_until(lambda: self._listens(log), what='the console of QEMU')

    def kill(self):
        """Kill the process, like a power failure."""
        self._process.kill()
        self._process.wait()

    def accepted(self, port=None):
        """Return the ports of the clients whose connections QEMU has accepted.

        :param port: where it listens, if not the console's
        """
        port = port or self.port
        ends = psutil.Process(self._process.pid).net_connections('tcp')
        return {end.raddr.port for end in ends if end.raddr and end.laddr.port == port}

    def _listens(self, log):
        if self._process.poll() is not None:
            with open(log) as text:
                raise RuntimeError(f'QEMU exited: {text.read()}')
        wanted = f':{self.port:04X} '
        with open('/proc/net/tcp') as table:
            return any(wanted in line and ' 0A ' in line for line in table)
