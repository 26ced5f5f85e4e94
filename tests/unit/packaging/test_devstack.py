# SPDX-License-Identifier: Apache-2.0
"""The devstack plugin, run with stand-ins for the functions of devstack, writes files that consoled reads."""

import os
import pathlib
import shutil
import subprocess
import sys

import fixtures
import testtools
from oslo_config import cfg

from consoled.conf import files

ROOT = pathlib.Path(__file__).resolve().parents[3]
SCRIPTS = ('devstack/settings', 'devstack/plugin.sh', 'tools/container/nova-proxy')

# what the plugin calls of devstack; each call is a line of $CALLS
DEVSTACK = """
set -eu
note() { echo "$*" >>"$CALLS"; }
functions="define_plugin disable_service enable_service run_process stop_process recreate_database"
for name in $functions echo_summary; do
    eval "$name() { note $name \\"\\$@\\"; }"
done
is_service_enabled() { [ "$1" = "$ENABLED" ]; }
database_connection_url() { echo "mysql+pymysql://root:se\\$\\$cret@db/$1?charset=utf8&plugin=dbcounter"; }
iniset() { "$PYTHON" -c "$INISET" "$@"; }
sudo() { "$@"; }
python3() { mkdir -p "$3/bin"; for name in pip consoled-manage; do
    printf '#!/bin/sh\\necho "%s $*" >>"$CALLS"\\n' "$name" >"$3/bin/$name"; chmod +x "$3/bin/$name"; done; }
source "$PLUGIN/settings"
source "$PLUGIN/plugin.sh" "$@"
"""
INISET = """
import configparser, sys
file, section, option, value = sys.argv[1:]
found = configparser.RawConfigParser(default_section='none')
found.read(file)
if not found.has_section(section):
    found.add_section(section)
found.set(section, option, value)
with open(file, 'w') as text:
    found.write(text)
"""


class ScriptsTest(testtools.TestCase):
    def test_shellcheck_finds_nothing(self):
        program = shutil.which(
            'shellcheck', path=os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.defpath])
        )
        if program is None:
            self.skipTest('shellcheck is not installed')
        done = subprocess.run([program, *SCRIPTS], cwd=ROOT, capture_output=True, text=True, timeout=60)
        self.assertEqual((0, ''), (done.returncode, done.stdout + done.stderr))


class PluginTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.calls = self.directory / 'calls'
        self.calls.touch()
        self.nova = self.directory / 'nova'
        self.nova.mkdir()
        (self.nova / 'nova.conf').write_text('[database]\nconnection = mysql+pymysql://n@h/cell0\n')
        (self.nova / 'nova_cell1.conf').write_text('[database]\nconnection = mysql+pymysql://n@h/cell1\n')

    def phase(self, *arguments, enabled='consoled'):
        """Run a phase of devstack, and return what the plugin called meanwhile."""
        before = len(self.calls.read_text().splitlines())
        directory = str(self.directory)
        done = subprocess.run(
            ['bash', '-c', DEVSTACK, 'bash', *arguments],
            env={
                'PATH': os.environ['PATH'],
                'CALLS': str(self.calls),
                'PYTHON': sys.executable,
                'INISET': INISET,
                'PLUGIN': str(ROOT / 'devstack'),
                'ENABLED': enabled,
                'DEST': directory,
                'DATA_DIR': directory + '/data',
                'CONSOLED_CONF_DIR': directory + '/etc',
                'CONSOLED_DIR': self.checkout(),
                'NOVA_CONF_DIR': str(self.nova),
                'NOVA_CONF': str(self.nova / 'nova.conf'),
                'STACK_USER': str(os.geteuid()),
                'HOST_IP': '192.0.2.7',
                'SERVICE_LISTEN_ADDRESS': '0.0.0.0',
                'ENABLE_DEBUG_LOG_LEVEL': 'True',
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual((0, ''), (done.returncode, done.stderr))
        return self.calls.read_text().splitlines()[before:]

    def checkout(self):
        tools = self.directory / 'checkout/tools'
        tools.mkdir(parents=True, exist_ok=True)
        (tools / 'setup-pages.sh').write_text('#!/bin/sh\necho setup-pages >>"$CALLS"\n')
        (tools / 'setup-pages.sh').chmod(0o755)
        return str(tools.parent)

    def test_settings_replace_the_proxies_of_nova(self):
        calls = self.phase('source')
        self.assertEqual(
            ['define_plugin consoled', 'disable_service n-novnc n-spice n-sproxy', 'enable_service consoled'],
            calls,
        )

    def test_a_stack_is_configured_and_started(self):
        self.assertIn('setup-pages', self.phase('stack', 'install'))
        calls = self.phase('stack', 'post-config')
        self.assertIn('recreate_database consoled', calls)
        conf_file = self.directory / 'etc/consoled.conf'
        self.assertEqual(f'consoled-manage --config-file {conf_file} db upgrade', calls[-1])
        self.assertEqual(0o640, conf_file.stat().st_mode & 0o777)
        conf = cfg.ConfigOpts()
        files.load(conf, ['--config-file', str(conf_file)], prog='consoled')
        files.check(conf)
        self.assertEqual('mysql+pymysql://n@h/cell1', conf.nova.connection)
        self.assertEqual('mysql+pymysql://root:se$cret@db/consoled?charset=utf8', conf.database.connection)
        self.assertEqual(
            ('0.0.0.0', 6080, ['0.0.0.0:6083']),
            (conf.proxy.host, conf.proxy.port, conf.proxy.additional_addresses),
        )
        self.assertIn('192.0.2.7/32', conf.proxy.allowed_networks)
        started = self.phase('stack', 'extra')[-1]
        self.assertTrue(started.startswith('run_process consoled '), started)
        self.assertTrue(started.endswith(f'consoled-nova --config-file {conf_file}'), started)

    def test_without_a_file_for_the_cell(self):
        (self.nova / 'nova_cell1.conf').unlink()
        self.phase('stack', 'install')
        self.phase('stack', 'post-config')
        text = (self.directory / 'etc/consoled.conf').read_text()
        self.assertIn(f'config_file = {self.nova / "nova.conf"}', text)

    def test_unstack_and_clean_leave_nothing(self):
        self.phase('stack', 'install')
        self.phase('stack', 'post-config')
        self.assertIn('stop_process consoled', self.phase('unstack'))
        self.phase('clean')
        self.assertFalse((self.directory / 'etc').exists())
        self.assertFalse((self.directory / 'data/consoled/venv').exists())

    def test_a_service_that_is_disabled_does_nothing(self):
        for arguments in (('stack', 'install'), ('stack', 'extra'), ('unstack',), ('clean',)):
            self.assertEqual(3, len(self.phase(*arguments, enabled='other')))
        self.assertFalse((self.directory / 'etc').exists())


class ContainerTest(testtools.TestCase):
    def test_each_name_of_a_proxy_serves_that_proxy(self):
        directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        program = directory / 'consoled-nova'
        program.write_text('#!/bin/sh\necho "$OS_NOVA__PROXIES $OS_DEFAULT__HOST $*"\n')
        program.chmod(0o755)
        for name, proxy in (
            ('nova-novncproxy', 'novnc'),
            ('nova-spicehtml5proxy', 'spice'),
            ('nova-serialproxy', 'serial'),
        ):
            (directory / name).symlink_to(ROOT / 'tools/container/nova-proxy')
            done = subprocess.run(
                [directory / name, '--web', '/x'],
                env={'PATH': os.environ['PATH'], 'CONSOLED_BIN': str(directory)},
                capture_output=True,
                text=True,
                timeout=60,
            )
            said = done.stdout.split()
            self.assertEqual((proxy, '--config-file', '/etc/consoled/consoled.conf'), (said[0], *said[2:]))
            self.assertRegex(said[1], rf'^[A-Za-z0-9_.-]+-{proxy}$')

    def test_the_configuration_of_the_image_is_accepted(self):
        nova = pathlib.Path(self.useFixture(fixtures.TempDir()).path) / 'nova.conf'
        nova.write_text('[vnc]\nnovncproxy_port = 6085\n')
        text = (ROOT / 'tools/container/consoled.conf').read_text()
        conf_file = nova.with_name('consoled.conf')
        conf_file.write_text(text.replace('/etc/nova/nova.conf', str(nova)))
        conf = cfg.ConfigOpts()
        files.load(conf, ['--config-file', str(conf_file)], prog='consoled')
        self.assertEqual(6085, conf.proxy.port)
