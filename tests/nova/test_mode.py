# SPDX-License-Identifier: Apache-2.0
"""``consoled-nova`` with the nova.conf of an unmodified Nova: Nova's tokens open consoles on Nova's ports."""

import json
import os
import subprocess

import testtools
import websockets.exceptions
from websockets.sync.client import connect

from consoled.nova.options import OLD_NAMES, OPTIONS
from consoled.testing import daemons
from consoled.testing.fixtures import wait_until
from consoled.testing.guests.fixture import GuestHostFixture
from consoled.testing.guests.tcp_guests import EchoGuest
from consoled.testing.services import free_port
from tests.functional import base as functional_base
from tests.nova import base

PATIENCE = 60  # seconds

# prints the options of Nova: default and old names, by group and name
LIST = """
import json
import nova.conf
found = {}
for info, group in nova.conf.CONF._all_opt_infos():
    option, name = info['opt'], 'DEFAULT' if group is None else group.name
    old = [[each.group or name, each.name or option.name] for each in option.deprecated_opts]
    found[f'{name}.{option.name}'] = [option.default, old]
print(json.dumps(found, default=str))
"""
# options of older releases, and those that libraries register later
GONE = {'vnc.xvpvncproxy_host', 'rdp.enabled', 'workarounds.enable_consoleauth', 'cells.enable'}
# of newer releases than the oldest
NEWER = {'consoleauth.enforce_session_timeout', 'console.ssl_ciphers', 'console.ssl_minimum_version'}
OF_LIBRARIES = {'DEFAULT.transport_url', 'DEFAULT.control_exchange'}
# defaults that Nova computes, or each proxy sets; and one that matters only if it is set
FOUND_BY_NOVA = {'DEFAULT.host', 'DEFAULT.web', 'vnc.xvpvncproxy_host'}
# of the base URLs and addresses only what a file says is taken, and not Nova's default
NOT_BY_DEFAULT = ('base_url', 'proxyclient_address')

# what the configuration of a controller has, besides that of the Nova of the tests
CONTROLLER = """
[vnc]
enabled = true
novncproxy_host = $my_ip
novncproxy_port = {novnc}
server_proxyclient_address = $my_ip
[serial_console]
enabled = true
serialproxy_host = $my_ip
serialproxy_port = {serial}
[console]
allowed_origins = dashboard.example.org
[consoleauth]
enforce_session_timeout = true
"""


class InPlaceOfNova(daemons.DaemonProcess):
    """``consoled-nova``, whose own configuration is its database and the names of Nova's files.

    :ivar ports: of Nova's proxies, by name
    """

    def __init__(self, nova, database):
        self._nova = nova
        self.ports = {'novnc': free_port(), 'serial': free_port()}
        super().__init__('consoled.cmd.nova', {'database': {'connection': database}})

    def write_config(self):
        controller = self.directory / 'controller.conf'
        controller.write_text(CONTROLLER.format(**self.ports))
        super().write_config()
        with self.config_file.open('a') as file:
            names = (self._nova.directory / 'nova.conf', controller)
            file.write(f'[nova]\nconfig_file = {",".join(map(str, names))}\n')

    def _prepare(self):
        daemons.ManagerProcess(self._nova.bus, self.options['database']['connection'])._prepare()


class ModeTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.nova = self.useFixture(base.Nova())
        self.guest = self.useFixture(GuestHostFixture()).add(EchoGuest())
        self.daemon = self.useFixture(InPlaceOfNova(self.nova, functional_base.database_url(self, 'mariadb')))
        self.uuid = self.nova.add_guest(serial=self.guest.port)
        self.token = self.nova.authorize(
            self.uuid,
            'serial',
            self.guest.port,
            host='127.0.0.1',
            base=f'ws://127.0.0.1:{self.daemon.ports["serial"]}/',
        )

    def open(self, name='serial', token=None, **headers):
        url = f'ws://127.0.0.1:{self.daemon.ports[name]}/'
        if token is not None:
            url += f'?token={token}'
        return connect(url, proxy=None, open_timeout=PATIENCE, additional_headers=headers)

    def opens(self, *args, **headers):
        """Return whether the console opens and what is typed comes back."""
        try:
            with self.open(*args, **headers) as user:
                user.send(b'typed')
                return user.recv(PATIENCE) == b'typed'
        except websockets.exceptions.InvalidStatus as exc:
            self.status = exc.response.status_code
            return False

    def assert_opens(self, *args, **headers):
        # the manager may still be starting, and the port may still have the session before this one
        wait_until(lambda: self.opens(*args, **headers), timeout=PATIENCE)

    def test_a_token_of_nova_opens_on_each_port(self):
        dashboard = 'http://dashboard.example.org:8443'
        for arguments, headers in (
            (('serial', self.token), {}),
            (('novnc', self.token), {}),
            (('serial',), {'Cookie': f'token={self.token}'}),
            (('serial', self.token), {'Origin': dashboard}),
        ):
            self.assert_opens(*arguments, **headers)
        self.assertFalse(self.opens('serial', self.token, Origin='http://evil.example.org'))
        self.assertEqual(403, self.status)
        self.nova.call('clean', self.uuid)
        self.assertFalse(self.opens('serial', self.token))
        self.assertEqual(401, self.status)
        for secret in (self.token, 'canary'):
            self.assertNotIn(secret, self.daemon.log())


class OptionsTest(testtools.TestCase):
    def test_options_have_the_defaults_and_the_old_names_that_they_have_in_nova(self):
        done = subprocess.run(
            [base.nova_python(), '-W', 'ignore', '-c', LIST],
            env={**os.environ, 'OS_NOVA_DISABLE_EVENTLET_PATCHING': 'true'},
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE * 2,
        )
        theirs = json.loads(done.stdout)
        ours = {
            f'{group}.{option.name}': (group, option)
            for group, options in OPTIONS.items()
            for option in options
            if group not in ('database', 'oslo_messaging_rabbit')
        }
        self.assertEqual(set(), set(ours) - set(theirs) - GONE - NEWER - OF_LIBRARIES)
        for name in set(ours) & set(theirs) - FOUND_BY_NOVA:
            group, option = ours[name]
            default, old = theirs[name]
            if not name.endswith(NOT_BY_DEFAULT):
                self.assertEqual(default, option.default, name)
            known = OLD_NAMES.get((group, option.name), ())
            self.assertEqual(set(), {tuple(each) for each in old} - set(known), name)
