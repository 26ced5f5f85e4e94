# SPDX-License-Identifier: Apache-2.0
"""A private libvirtd for tests, with QEMU guests in software emulation.

It runs in its own mount and process namespaces. Its configuration and state are in memory, and the system's
are not touched. When the first process of the namespace exits, everything is gone, including the guests.
Guests survive the death of libvirtd, as on a real host.
"""

import contextlib
import os
import pathlib
import random
import signal
import unittest
import uuid

import psutil

from consoled.testing import service_process
from consoled.testing.fixtures import wait_until

try:
    import libvirt
except ImportError:
    libvirt = None

_STATE = ('/etc/libvirt', '/var/lib/libvirt', '/var/cache/libvirt', '/var/log/libvirt', '/run/libvirt')
# The first process of a namespace has to reap orphans, which bash does in ``wait``.
_HOLD = f"""
for directory in {' '.join(_STATE)}; do
    mkdir -p $directory && mount -t tmpfs tmpfs $directory || exit 1
done
echo ready > "$1"
sleep infinity & wait
"""
_LIBVIRTD_CONF = """
unix_sock_dir = "{directory}"
unix_sock_ro_perms = "0700"
unix_sock_rw_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
host_uuid = "{host_uuid}"
log_outputs = "3:stderr"
"""
_QEMU_CONF = """
security_driver = "none"
user = "root"
group = "root"
cgroup_controllers = []
namespaces = []
remember_owner = 0
stdio_handler = "file"
remote_display_port_min = {first}
remote_display_port_max = {last}
migration_port_min = {migration}
migration_port_max = {migration_last}
"""
_PORTS = 100  # for the displays of one libvirtd, and as many for its migrations


class Libvirtd(service_process.ServiceProcess):
    """libvirtd on a private socket.

    :param qemu_conf: additional lines for qemu.conf
    :ivar uri: the read-only URI for a driver
    :ivar connection: a read-write connection for tests
    """

    programs = ('libvirtd', 'qemu-system-x86_64', 'unshare', 'nsenter', 'bash', 'sleep')

    def __init__(self, qemu_conf=''):
        super().__init__()
        self._qemu_conf = qemu_conf

    def setUp(self):
        if libvirt is None:
            required = os.environ.get('CONSOLED_REQUIRE_SERVICES') == '1'
            missing = service_process.MissingService if required else unittest.SkipTest
            raise missing('the Python module libvirt is not installed')
        super().setUp()

    def _prepare(self):
        self.connection = None
        self._holder = None
        # below the kernel's range for outgoing connections
        first = random.SystemRandom().randrange(10000, 30000, 2 * _PORTS)
        self._write('libvirtd.conf', _LIBVIRTD_CONF.format(directory=self.directory, host_uuid=uuid.uuid4()))
        self._write(
            'qemu.conf',
            _QEMU_CONF.format(
                first=first,
                last=first + _PORTS - 1,
                migration=first + _PORTS,
                migration_last=first + 2 * _PORTS - 1,
            )
            + self._qemu_conf,
        )
        self._hold()

    def _configure(self):
        """Choose no port: libvirtd listens on a Unix socket, and the guests' ports are in qemu.conf."""

    def _hold(self):
        """Create the namespaces with a process that keeps them alive."""
        mark = self.directory / 'namespace'
        self._holder = self._spawn(
            [
                self.program['unshare'],
                *('--mount', '--pid', '--fork', '--kill-child', '--mount-proc'),
                *(self.program['bash'], '-c', _HOLD, 'hold', str(mark)),
            ]
        )
        self.addCleanup(self._holder.wait)
        self.addCleanup(self._holder.kill)
        wait_until(lambda: mark.exists() or self._holder.poll() is not None, what='the namespaces')
        if self._holder.poll() is not None:
            raise self._failure('could not create its namespaces')

    def _first_pid(self):
        """Return the namespaces' first process, as a process ID outside of them."""
        (pid,) = (
            pathlib.Path(f'/proc/{self._holder.pid}/task/{self._holder.pid}/children').read_text().split()
        )
        return pid

    def _commands(self):
        enter = [self.program['nsenter'], f'--target={self._first_pid()}', '--mount', '--pid']
        here = self.directory
        script = (
            f'cp {here}/qemu.conf /etc/libvirt/ && rm -f /run/libvirtd.pid {here}/pid && '
            f'exec {self.program["libvirtd"]} --config {here}/libvirtd.conf --pid-file {here}/pid'
        )
        return [[*enter, self.program['bash'], '-c', script]]

    def _handshake(self):
        libvirt.registerErrorHandler(lambda context, error: None, None)
        self.connection = libvirt.open(f'qemu+unix:///system?socket={self.directory}/libvirt-sock')

    def _listens(self):
        return True

    @property
    def uri(self):
        return f'qemu+unix:///system?socket={self.directory}/libvirt-sock-ro'

    def daemon_pid(self):
        """Return the process ID of libvirtd itself, a child of nsenter."""
        for process in service_process.process_tree(self.pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name() == 'libvirtd':
                    return process.pid
        raise LookupError('libvirtd is not running')

    def freeze(self):
        """Suspend libvirtd: calls hang."""
        os.kill(self.daemon_pid(), signal.SIGSTOP)

    def thaw(self):
        """Resume libvirtd."""
        os.kill(self.daemon_pid(), signal.SIGCONT)

    def guest(self, *devices, name=None, instance=None, firmware=''):
        """Define a guest with these devices, and do not start it.

        :param firmware: XML of additional BIOS settings: BOOT_MENU or SERIAL_BOOT_MENU
        """
        instance = instance or str(uuid.uuid4())
        xml = GUEST.format(
            name=name or f'guest-{instance[:8]}',
            uuid=instance,
            emulator=self.program['qemu-system-x86_64'],
            devices=''.join(devices),
            firmware=firmware,
        )
        return self.connection.defineXML(xml)

    def qemu_pid(self, domain):
        """Return the process ID of a guest's QEMU."""
        for process in psutil.process_iter(['cmdline']):
            if process.info['cmdline'] and f'-uuid {domain.UUIDString()}' in ' '.join(
                process.info['cmdline']
            ):
                return process.pid
        raise LookupError(f'{domain.name()} is not running')


GUEST = """
<domain type='qemu'>
  <name>{name}</name><uuid>{uuid}</uuid>
  <memory unit='MiB'>32</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type>{firmware}</os>
  <devices>
    <emulator>{emulator}</emulator>
    {devices}
    <video><model type='vga'/></video>
    <memballoon model='none'/>
  </devices>
</domain>
"""
# The BIOS prints a prompt, waits a minute for the Escape key, and then shows a menu.
BOOT_MENU = "<bootmenu enable='yes' timeout='60000'/>"
MENU_PROMPT, ESCAPE, MENU = b'Press ESC for boot menu', b'\x1b', b'Select boot device'
# The same, on the first serial port too.
SERIAL_BOOT_MENU = f"{BOOT_MENU}<bios useserial='yes'/>"


def vnc(listen='127.0.0.1'):
    return f"<graphics type='vnc' autoport='yes'><listen type='address' address='{listen}'/></graphics>"


def spice(listen='127.0.0.1', mode='any', channels=''):
    return (
        f"<graphics type='spice' autoport='yes' defaultMode='{mode}'>"
        f"<listen type='address' address='{listen}'/>{channels}</graphics>"
    )


def serial(port, listen='127.0.0.1', number=0):
    return (
        f"<serial type='tcp'><source mode='bind' host='{listen}' service='{port}'/>"
        f"<protocol type='raw'/><target type='isa-serial' port='{number}'/></serial>"
    )


def bios_log(path):
    """A device that logs the output of the BIOS to a file: the text on the screen, and debug messages."""
    return (
        f"<serial type='file'><source path='{path}'/><target type='isa-debug'><model name='isa-debugcon'/>"
        "</target><address type='isa' iobase='0x402'/></serial>"
    )


def usb_serial(port):
    """A serial port that can be attached to a running guest."""
    return (
        f"<serial type='tcp'><source mode='bind' host='127.0.0.1' service='{port}'/>"
        "<protocol type='raw'/><target type='usb-serial'/></serial>"
    )
