# SPDX-License-Identifier: Apache-2.0
"""Options as the files have them: who sets one, and which nobody knows."""

import pathlib

import fixtures
import testtools
from oslo_config import cfg

from consoled.conf import files, written


class WrittenTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)

    def load(self, *texts):
        argv = []
        for number, text in enumerate(texts):
            path = self.directory / f'{number}.conf'
            path.write_text(text)
            argv += ['--config-file', str(path)]
        conf = cfg.ConfigOpts()
        files.load(conf, argv, prog='consoled')
        return conf

    def test_the_last_file_that_sets_an_option(self):
        conf = self.load('[proxy]\nport = 1\n', '[PROXY]\nport = 2\n', '[vnc]\nmax_sessions = 2\n')
        self.assertEqual(f'{self.directory}/1.conf', written.file_of(conf, 'proxy', 'port'))
        self.assertEqual('', written.file_of(conf, 'proxy', 'host'))
        self.assertEqual(
            f'[proxy] port ({self.directory}/1.conf): taken, [vnc] enabled',
            files.located(conf, '[proxy] port: taken, [vnc] enabled'),
        )
        for text in ('[proxy] port (OS_PROXY__PORT) is bad', '[proxy] port in /nova.conf, [proxy] port'):
            self.assertEqual(text, files.located(conf, text))

    def test_files_of_a_directory(self):
        (self.directory / 'b.conf').write_text('[proxy]\nport = 1\n')
        (self.directory / 'ignored.txt').write_text('[proxy]\nport = 1\n')
        conf = cfg.ConfigOpts()
        files.load(conf, ['--config-dir', str(self.directory)], prog='consoled')
        self.assertEqual(f'{self.directory}/b.conf', written.file_of(conf, 'proxy', 'port'))

    def test_options_that_nobody_knows(self):
        conf = self.load(
            '[DEFAULT]\ntransport_ulr = rabbit://u:canary@h/\n'
            '[proxy]\nmax_sesions = 3\nlease = 3\nzzz = 3\n[seriell_console]\nenabled = true\n'
        )
        found = written.unknown(conf)
        file = f'{self.directory}/0.conf'
        self.assertEqual(
            [
                f'[DEFAULT] transport_ulr in {file} is not an option: did you mean transport_url?',
                f'[proxy] max_sesions in {file} is not an option: did you mean max_sessions?',
                f'[proxy] lease in {file} is not an option: did you mean [manager] lease?',
                f'[proxy] zzz in {file} is not an option.',
                f'[seriell_console] in {file} is not a group of options: did you mean serial_console?',
            ],
            found,
        )

    def test_what_is_known_under_any_of_its_names(self):
        text = (
            '[DEFAULT]\nrpc_thread_pool_size = 3\ndebug = true\nlog-dir = /var/log\n'
            '[oslo_messaging_rabbit]\nssl = true\n[oslo_middleware]\nx = 1\n[cache]\nbackend = x\n'
        )
        self.assertEqual([], written.unknown(self.load(text)))

    def test_the_sample_has_no_unknown_option(self):
        sample = pathlib.Path(__file__).parents[3] / 'etc/consoled/consoled.conf.sample'
        lines = [
            line.lstrip('#') if line.startswith('#') and ' = ' in line and line[1] != ' ' else line
            for line in sample.read_text().splitlines()
        ]
        text = '\n'.join(line for line in lines if not line.startswith('#'))
        self.assertEqual([], written.unknown(self.load(text)))
