# SPDX-License-Identifier: Apache-2.0
"""Reading a nova.conf as it is."""

import socket

import fixtures
from oslo_config import cfg

from consoled.conf import files, from_nova
from consoled.nova import conf_file
from consoled.nova.conf_file import NovaConf
from tests.unit.nova.conf_base import NovaConfCase

# what may be in a nova.conf, and is no affair of consoled
FOREIGN = """
[DEFAULT]
my_ip = 10.0.0.1
state_path = /var/lib/nova
log_dir = /var/log/nova
use_syslog = nonsense
instance_name_template = instance-%08x
some_template = $unknown
metadata_listen = ${vnc.server_listen}
[keystone_authtoken]
password = canary-of-keystone
[filter_scheduler]
enabled_filters = a,b
[vnc]
server_listen = $my_ip
[vnc_strange]
port = x
"""


class FilesTest(NovaConfCase):
    def read(self, text, *more):
        self.nova.write_text(text)
        return NovaConf([str(self.nova), *map(str, more)])

    def test_foreign_options_are_left_alone(self):
        nova = self.read(FOREIGN + 'novncproxy_host = $my_ip\n')
        self.assertFalse(nova.is_set('vnc', 'novncproxy_host'))
        nova = self.read(FOREIGN.replace('server_listen', 'novncproxy_host'))
        self.assertEqual('10.0.0.1', nova.get('vnc', 'novncproxy_host'))

    def test_values_refer_to_others(self):
        text = '[DEFAULT]\nstate_path = /s\ncert = $state_path/c.pem\n[vnc]\nnovncproxy_host = h\n'
        nova = self.read(text + '[spice]\nhtml5proxy_host = ${vnc.novncproxy_host}\n')
        self.assertEqual(
            ('/s/c.pem', 'h'), (nova.get('DEFAULT', 'cert'), nova.get('spice', 'html5proxy_host'))
        )

    def test_the_address_that_nova_finds_itself(self):
        self.assertTrue(self.read('[vnc]\nnovncproxy_host = $my_ip').get('vnc', 'novncproxy_host'))

    def test_defaults_that_values_refer_to(self):
        nova = self.read('[vnc]\nnovncproxy_base_url = http://$host:$novncproxy_port/')
        self.assertEqual(f'http://{socket.gethostname()}:6080/', nova.get('vnc', 'novncproxy_base_url'))
        self.assertIsNone(nova.get('DEFAULT', 'host'))
        error = self.assertRaises(cfg.Error, self.read, '[DEFAULT]\ncert = $state_path/c.pem')
        self.assertIn(f'[DEFAULT] cert in {self.nova} refers with $ to an option that is not in', str(error))

    def test_several_files_and_directories(self):
        directory = self.directory / 'nova.conf.d'
        directory.mkdir()
        (directory / '1.conf').write_text('[vnc]\nnovncproxy_port = 3')
        other = self.directory / 'other.conf'
        other.write_text('[vnc]\nnovncproxy_port = 2\nnovncproxy_host = b')
        first = '[vnc]\nnovncproxy_port = 1\nnovncproxy_host = a\nenabled = true'
        nova = self.read(first, other)
        self.assertEqual((2, 'b'), (nova.get('vnc', 'novncproxy_port'), nova.get('vnc', 'novncproxy_host')))
        nova = self.read(first, other, directory)
        self.assertEqual(3, nova.get('vnc', 'novncproxy_port'))
        self.assertEqual(f'[vnc] enabled in {self.nova}', nova.where('vnc', 'enabled'))
        self.assertEqual(
            f'[vnc] novncproxy_port in {directory / "1.conf"}', nova.where('vnc', 'novncproxy_port')
        )

    def test_what_is_wrong_names_the_file_and_shows_nothing_of_it(self):
        for text, said in (
            ('canary', 'cannot be parsed'),
            ('[vnc]\nnovncproxy_port = canary', f'[vnc] novncproxy_port in {self.nova} must be an integer'),
            ('[DEFAULT]\nnovncproxy_port = canary', f'[DEFAULT] novncproxy_port in {self.nova} must be'),
            ('[vnc]\nenabled = canary://u@h', f'[vnc] enabled in {self.nova} is not valid'),
            ('[DEFAULT]\ntransport_url = rabbit://u:$canary@h/', 'transport_url in'),
            (
                '[database]\nconnection = mysql://u:${canary}@h/',
                f'[database] connection in {self.nova} ref',
            ),
            ('[console]\nssl_minimum_version = 3', '[console] ssl_minimum_version in'),
        ):
            error = str(self.assertRaises(cfg.Error, self.read, text))
            self.assertIn(said, error)
            self.assertIn(str(self.nova), error)
            self.assertNotIn('canary', error.replace(str(self.nova), ''))

    def test_a_file_that_is_not_there(self):
        error = self.assertRaises(cfg.Error, NovaConf, ['/missing/nova.conf'])
        self.assertEqual('/missing/nova.conf does not exist', str(error))


class ApplyTest(NovaConfCase):
    def test_without_the_option_nothing_of_nova_is_read(self):
        self.path.write_text('[proxy]\nport = 1\n')
        conf = cfg.ConfigOpts()
        files.load(conf, ['--config-file', str(self.path)], prog='consoled')
        from_nova.log(conf)
        self.assertEqual('', from_nova.source(conf, 'proxy', 'port'))

    def test_a_value_that_consoled_cannot_have(self):
        for nova, said in (
            (
                '[DEFAULT]\nhost = a b',
                f'[DEFAULT] host in {self.nova}, taken for [DEFAULT] host, is',
            ),
            ('[vnc]\nnovncproxy_host = a b', f'[vnc] novncproxy_host in {self.nova}, taken for [proxy] host'),
            ('[vnc]\nnovncproxy_base_url = canary', '[vnc] base_url, is not valid'),
            ('[serial_console]\nbase_url = canary', '[serial_console] base_url, is not valid'),
        ):
            error = str(self.assertRaises(cfg.Error, self.load, nova))
            self.assertIn(said, error)
            self.assertNotIn('canary', error)

    def test_a_proxy_that_nova_does_not_have(self):
        error = str(self.assertRaises(cfg.Error, self.load, '', 'proxies = vnc\n'))
        self.assertTrue(error.startswith(f'[nova] proxies ({self.path}) is not valid: '), error)

    def test_errors_name_the_option_of_nova(self):
        conf = self.load('[vnc]\nnovncproxy_port = 6085\n[spice]\nenabled = false\n')
        self.assertEqual(
            f'[proxy] port ([vnc] novncproxy_port in {self.nova}) is bad',
            files.located(conf, '[proxy] port is bad'),
        )
        self.assertEqual('[proxy] workers', files.where(conf, 'proxy', 'workers'))
        conf = self.load('[vnc]\nnovncproxy_port = 6085', '[proxy]\nport = 1')
        self.assertEqual(f'[proxy] port ({self.path})', files.where(conf, 'proxy', 'port'))

    def test_the_log_says_what_is_taken_and_keeps_secrets(self):
        conf = self.load(
            '[DEFAULT]\ntransport_url = rabbit://u:canary@h/\n[vnc]\nnovncproxy_port = 6085\n'
            '[database]\nconnection = mysql+pymysql://u:canary@h/n\nconnection_parameters = a=canary\n'
            '[DEFAULT]\nrecord = /r\n'
        )
        from_nova.log(conf)
        self.assertIn(f'Options taken from {self.nova}: ', self.log.output)
        for said in ('[nova] connection,', '[DEFAULT] transport_url,', '[proxy] port = 6085', 'record in'):
            self.assertIn(said, self.log.output)
        self.assertNotIn('canary', self.log.output)
        self.assertNotIn('canary', repr(conf_file.read(conf).nova))

    def test_several_files_from_the_environment(self):
        """For containers, which have no files of their own."""
        names = [self.directory / name for name in ('a.conf', 'b.conf')]
        for number, name in enumerate(names):
            name.write_text(f'[vnc]\nnovncproxy_port = {7000 + number}\n')
        self.useFixture(fixtures.EnvironmentVariable('OS_NOVA__CONFIG_FILE', ','.join(map(str, names))))
        self.assertEqual(7001, self.load('').proxy.port)


class ReloadTest(NovaConfCase):
    def test_options_that_may_change_follow_the_file(self):
        conf = self.load('[console]\nallowed_origins = a\n[vnc]\nnovncproxy_port = 1')
        for nova, expected in (
            ('[console]\nallowed_origins = b\n[vnc]\nnovncproxy_port = 2', ['b']),
            ('[vnc]\nnovncproxy_port = 2', []),
        ):
            self.nova.write_text(nova)
            self.assertTrue(files.reload(conf))
            self.assertEqual((expected, 1), (conf.proxy.allowed_origins, conf.proxy.port))
        said = f'Restart to apply [vnc] novncproxy_port in {self.nova}, taken for [proxy] port'
        self.assertEqual(2, self.log.output.count(said))
        self.assertEqual(2, self.log.output.count('Restart to apply'))
        self.path.write_text(self.path.read_text() + '[proxy]\nallowed_origins = https://own\n')
        self.assertTrue(files.reload(conf))
        self.assertEqual(['https://own'], conf.proxy.allowed_origins)

    def test_a_file_that_is_wrong_changes_nothing(self):
        conf = self.load('[console]\nallowed_origins = a')
        for nova in ('[console]\nallowed_origins = b\n[vnc]\nnovncproxy_port = x', 'nonsense'):
            self.nova.write_text(nova)
            self.assertFalse(files.reload(conf))
            self.assertEqual(['a'], conf.proxy.allowed_origins)
        self.assertIn(f'Not reloaded: {self.nova} cannot be parsed', self.log.output)
        self.nova.unlink()
        self.assertFalse(files.reload(conf))
        self.assertIn(f'Not reloaded: {self.nova} does not exist', self.log.output)
