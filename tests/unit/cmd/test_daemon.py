# SPDX-License-Identifier: Apache-2.0
"""The steps that daemons share: options, and the directory for metrics."""

import contextlib
import io
import logging
import os
import pathlib
import socket
import subprocess
import sys
import threading
from unittest import mock

import fixtures
import testtools
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oslo_config import cfg

from consoled.cli import app as cli_app
from consoled.cmd import _daemon
from consoled.compute import service as compute_service
from consoled.consolectl.main import Consolectl
from consoled.manage.main import Manage
from consoled.manager import service as manager_service
from consoled.proxy import service as proxy_service
from consoled.testing.service_process import free_port
from consoled.upgradecheck.main import Status

VARIABLE = 'PROMETHEUS_MULTIPROC_DIR'

PREPARE_OF = {
    'consoled': manager_service.prepare,
    'consoled-compute': compute_service.prepare,
    'consoled-proxy': proxy_service.prepare,
}

LEGACY = '[workarounds]\nenable_consoleauth = true\nconsoleauth_transport_url = {url}'
NOTIFICATIONS = '[oslo_messaging_notifications]\ndriver = messagingv2\ntransport_url = {url}'

NOVA = '[nova]\nconnection = sqlite:////nova\ntransport_url = {url}'

CANARY = 'BUS-SECRET'
PUNCTUATION = ':@/#?,[]%$&=+;!~ 19'

# the directory is removed by the process that created it, not by a fork of it
PREPARE = """
import os, sys
from consoled.cmd import _daemon
_daemon.prepare_metrics()
directory = os.environ['PROMETHEUS_MULTIPROC_DIR']
if os.fork() == 0:
    sys.exit(0)
os.wait()
print(directory, os.path.isdir(directory))
"""


class PrepareMetricsTest(testtools.TestCase):
    def test_the_directory_lives_as_long_as_its_creator(self):
        directory = self.useFixture(fixtures.TempDir()).path
        env = {name: value for name, value in os.environ.items() if name != VARIABLE} | {'TMPDIR': directory}
        done = subprocess.run(
            [sys.executable, '-c', PREPARE], env=env, capture_output=True, text=True, timeout=60
        )
        self.assertEqual((0, ''), (done.returncode, done.stderr))
        created, existed = done.stdout.split()
        self.assertEqual(directory, str(pathlib.Path(created).parent))
        self.assertEqual('True', existed)
        self.assertEqual([], os.listdir(directory))

    def test_a_given_directory_is_left_alone(self):
        given = self.useFixture(fixtures.TempDir()).path
        self.useFixture(fixtures.EnvironmentVariable(VARIABLE, given))
        _daemon.prepare_metrics()
        self.assertEqual(given, os.environ[VARIABLE])

    def test_a_given_directory_that_cannot_be_used_is_named(self):
        """Each process would fail at its first metric, and be started again."""
        given = self.useFixture(fixtures.TempDir()).path
        denied = mock.patch('os.access', lambda path, mode: path != given)
        for directory, patched in ((f'{given}/none', contextlib.nullcontext()), (given, denied)):
            self.useFixture(fixtures.EnvironmentVariable(VARIABLE, directory))
            with patched:
                error = self.assertRaises(ValueError, _daemon.prepare_metrics)
            self.assertIn(f'{VARIABLE}: {directory} is not a directory', str(error))


class StartCase(testtools.TestCase):
    """Starts daemons in this process, as far as they go without forking."""

    def setUp(self):
        super().setUp()
        self.directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.path = self.directory / 'test.conf'
        self.log = self.useFixture(fixtures.FakeLogger(level=logging.DEBUG))
        # a test must not change the logging of its process
        self.useFixture(fixtures.MonkeyPatch('oslo_log.log.setup', lambda *args, **kwargs: None))
        self.useFixture(fixtures.MonkeyPatch('consoled.logs.Installation.apply', lambda *args: None))
        self.useFixture(fixtures.EnvironmentVariable(VARIABLE, str(self.directory)))
        self.useFixture(fixtures.MonkeyPatch('threading.excepthook', threading.excepthook))

    def start(self, prog, text):
        """Return exit code and output of a daemon with this configuration."""
        self.path.write_text(text)
        self.log.reset_output()
        conf = cfg.ConfigOpts()

        def start():
            argv = ['--config-file', str(self.path)]
            _daemon.configure(argv, prog=prog, conf=conf)
            conf.log_opt_values(logging.getLogger(), logging.DEBUG)
            made = PREPARE_OF[prog](conf)
            for sock in getattr(made, 'sockets', []) + [getattr(made, 'monitoring_socket', made)]:
                if sock is not None:
                    sock.close()
            _daemon.warn_of_unknown(conf)

        with contextlib.redirect_stderr(io.StringIO()) as stderr:
            code = _daemon.run(prog, start, conf)
        return code, stderr.getvalue()

    def text(self, bus='fake:/', database=None, extra=''):
        database = database or f'sqlite:///{self.directory}/db'
        return (
            f'[DEFAULT]\ntransport_url = {bus}\n[database]\nconnection = {database}\n'
            f'[compute]\ndriver = demo\n[proxy]\nhost = 127.0.0.1\nport = 0\n{extra}\n'
        )


class StartTest(StartCase):
    def assert_refused(self, prog, text, named, code=2):
        got, err = self.start(prog, text)
        self.assertEqual(code, got, f'{text}: {err}')
        kind = {2: 'configuration_error', 3: 'unavailable'}[code]
        self.assertTrue(err.startswith(f'{prog}: {kind}: '), err)
        self.assertEqual(1, err.count('\n'), err)
        self.assertIn(named, err)
        return err

    def test_good_configurations(self):
        for prog in PREPARE_OF:
            self.assertEqual((0, ''), self.start(prog, self.text()))

    def test_wrong_arguments_are_one_line(self):
        for argv in (['x'], ['--nosuch'], ['--config-file'], ['--nosuch=\x1b[1m' + 'T' * 43]):
            with (
                contextlib.redirect_stderr(io.StringIO()) as stderr,
                testtools.ExpectedException(SystemExit, '2'),
            ):
                _daemon.configure(argv, prog='consoled', conf=cfg.ConfigOpts())
            self.assertRegex(stderr.getvalue(), r'\Aconsoled: usage_error: .+ See consoled --help\.\n\Z')
            self.assertNotIn('T' * 43, stderr.getvalue())

    def test_deprecated_options_are_no_error(self):
        """Reading one marks it, and the driver of the bus then refused it as another option of that name."""
        group = '[oslo_messaging_rabbit]'
        for option in ('ssl_enforce_hostname_verification', 'direct_mandatory_flag', 'rabbit_ha_queues'):
            text = self.text(bus='rabbit://u:p@h/', extra=f'{group}\n{option} = true')
            for prog in PREPARE_OF:
                self.assertEqual((0, ''), self.start(prog, text))

    def test_what_is_wrong_is_one_line_that_names_the_option_and_the_file(self):
        file = f'({self.path})'
        missing = '/nowhere/x.pem'
        rabbit = 'rabbit://u:p@h/'
        tls = '[oslo_messaging_rabbit]\nssl = true\n'
        for prog, text, named in (
            ('consoled', self.text(extra='[manager]\nworkers = many'), f'[manager] workers {file}'),
            ('consoled', self.text(bus='rabbit://u:p#1@h/'), f'[DEFAULT] transport_url {file}'),
            ('consoled', self.text(bus='nosuch://h/'), f'[DEFAULT] transport_url {file}'),
            ('consoled', self.text(database='nosuch://h/x'), f'[database] connection {file}'),
            ('consoled', self.text(database='sqlite:////nowhere/db'), f'[database] connection {file}'),
            ('consoled', self.text(database='mysql+mysqldb://u:p@h/x'), f'[database] connection {file}'),
            *(
                ('consoled', self.text(database=f'{url}?{option}'), f'[database] connection {file}')
                for url, option in (
                    ('mysql+pymysql://u:p@h/x', 'conect_timeout=2'),
                    ('mysql+pymysql://u:p@h/x', 'connect_timeout=soon'),
                    ('mysql+pymysql://u:p@h/x', 'charset=utf9'),
                    ('mysql+pymysql://u:p@h/x', 'ssl_ca=/etc/passwd'),
                    ('postgresql+psycopg://u:p@h/x', 'conect_timeout=2'),
                )
            ),
            *(
                (prog, f'{self.text()}[DEFAULT]\nexecutor_thread_pool_size = 0\n', f'pool_size {file}')
                for prog in PREPARE_OF
            ),
            ('consoled', self.text(database='mysql+pymysql://u:a@b@h/x'), f'[database] connection {file}'),
            (
                'consoled',
                self.text(database=f'mysql+pymysql://u:p@h/x?ssl_ca={missing}'),
                f'[database] connection {file}',
            ),
            (
                'consoled',
                self.text(extra='[upgrade_levels]\ncompute = 9.9'),
                '[upgrade_levels]',
            ),
            ('consoled', self.text(rabbit, extra=f'{tls}ssl_ca_file = {missing}'), f'ssl_ca_file {file}'),
            (
                'consoled-compute',
                self.text(rabbit, extra='[oslo_messaging_rabbit]\nssl_ca_file = /etc/passwd'),
                f'ssl_ca_file {file}',
            ),
            (
                'consoled-compute',
                self.text(rabbit, extra=f'{tls}ssl_key_file = /etc/passwd'),
                'ssl_cert_file',
            ),
            ('consoled-proxy', self.text(extra=f'[proxy]\nssl_cert = {missing}'), f'[proxy] ssl_cert {file}'),
            ('consoled-proxy', self.text(extra=f'[proxy]\nssl_key = {missing}'), f'[proxy] ssl_key {file}'),
            (
                'consoled-proxy',
                self.text(extra=f'[vnc]\nauth_schemes = vencrypt\nvencrypt_ca_certs = {missing}'),
                f'[vnc] vencrypt_ca_certs {file}',
            ),
            (
                'consoled-proxy',
                self.text(extra=f'[spice]\ntarget_ca_certs = {missing}'),
                f'[spice] target_ca_certs {file}',
            ),
            (
                'consoled-proxy',
                self.text(extra='[proxy]\nunix_socket = /nowhere/x.sock'),
                f'[proxy] unix_socket {file}',
            ),
            *(
                (
                    'consoled-proxy',
                    self.text(extra=f'[proxy]\n{option} = {value}'),
                    f'[proxy] {option} {file}',
                )
                for option, value in (
                    ('trusted_proxies', '10.0.0.0/33'),
                    ('allowed_networks', 'here'),
                    ('allowed_ports', '5900-'),
                    ('allowed_origins', 'here'),
                    ('frame_ancestors', '*;script-src'),
                )
            ),
            ('consoled-compute', self.text(extra='[compute]\ndriver = nosuch'), f'[compute] driver {file}'),
            (
                'consoled-proxy',
                self.text(extra=NOTIFICATIONS.format(url='rabbit://u:p#1@h/')),
                f'[oslo_messaging_notifications] transport_url {file}',
            ),
        ):
            self.assert_refused(prog, text, named)

    def test_what_is_wrong_in_the_environment(self):
        self.useFixture(fixtures.EnvironmentVariable('OS_MANAGER__WORKERS', 'many'))
        text = self.text(extra='[manager]\nworkers = 2')
        self.assert_refused('consoled', text, '[manager] workers (OS_MANAGER__WORKERS)')

    def test_what_is_not_set(self):
        for prog in PREPARE_OF:
            self.assert_refused(prog, '[compute]\ndriver = demo\n', '[DEFAULT] transport_url is not set')
        self.assert_refused(
            'consoled', '[DEFAULT]\ntransport_url = fake:/\n', '[database] connection is not set'
        )

    def test_an_address_in_use_may_be_free_later(self):
        with socket.create_server(('127.0.0.1', 0)) as other:
            port = other.getsockname()[1]
            for prog in PREPARE_OF:
                text = self.text(extra=f'[monitoring]\nport = {port}')
                self.assert_refused(prog, text, f'[monitoring] port ({self.path})', code=3)
            text = self.text(extra=f'[proxy]\nport = {port}')
            self.assert_refused('consoled-proxy', text, f'[proxy] port ({self.path})', code=3)

    def test_the_old_consoleauth_without_its_libraries(self):
        with mock.patch.dict(sys.modules, {'consoled.legacy': None}):
            text = self.text(extra='[workarounds]\nenable_consoleauth = true')
            err = self.assert_refused('consoled', text, '[workarounds] enable_consoleauth')
        self.assertIn('pip install consoled[legacy]', err)

    def test_a_bug_is_an_internal_error(self):
        def start():
            raise KeyError('oops\nmore')

        with contextlib.redirect_stderr(io.StringIO()) as stderr:
            self.assertEqual(4, _daemon.run('consoled', start, cfg.ConfigOpts()))
        self.assertRegex(stderr.getvalue(), r'\Aconsoled: internal_error: KeyError: .*\n\Z')

    def test_an_error_that_ends_a_thread_is_logged(self):
        def fail():
            raise RuntimeError('oops')

        self.start('consoled', self.text())
        self.log.reset_output()
        with contextlib.redirect_stderr(io.StringIO()) as stderr:
            thread = threading.Thread(target=fail, name='worker')
            thread.start()
            thread.join()
        self.assertEqual('', stderr.getvalue())
        self.assertIn('Unhandled error in the thread worker', self.log.output)
        self.assertIn('RuntimeError: oops', self.log.output)

    def test_a_misspelled_option_is_warned_of(self):
        for prog in PREPARE_OF:
            self.assertEqual((0, ''), self.start(prog, self.text(extra='[manager]\nlaese = 3')))
            self.assertEqual(1, self.log.output.count('[manager] laese in'))

    def test_plain_http_beside_tls_is_warned_of(self):
        certificate = self.directory / 'cert.pem'
        trustme.CA().issue_cert('localhost').private_key_and_cert_chain_pem.write_to_path(certificate)
        for host, ssl_only, warned in (
            ('0.0.0.0', 'false', True),  # noqa: S104 - closed at once
            ('0.0.0.0', 'true', False),  # noqa: S104
            ('127.0.0.1', 'false', False),
        ):
            options = f'[proxy]\nhost = {host}\nssl_cert = {certificate}\nssl_only = {ssl_only}'
            self.assertEqual((0, ''), self.start('consoled-proxy', self.text(extra=options)))
            self.assertEqual(warned, '[proxy] ssl_only is false' in self.log.output, options)

    def test_what_is_not_secure_is_warned_of(self):
        tls = '[oslo_messaging_rabbit]\nssl = true'
        mysql, postgresql = 'mysql+pymysql://u:p@h/x', 'postgresql+psycopg://u:p@h/x'
        for prog, text, named in (
            ('consoled-proxy', self.text(extra='[proxy]\nhost = 0.0.0.0'), '[proxy] ssl_cert is not set'),
            (
                'consoled-proxy',
                self.text(extra='[proxy]\nhost = 127.0.0.1\nadditional_addresses = [::]:0,127.0.0.1:0'),
                '[proxy] ssl_cert is not set: users reach [::]:0 without',
            ),
            (
                'consoled',
                self.text(extra=f'[monitoring]\nhost = 0.0.0.0\nport = {free_port()}'),
                '[monitoring]',
            ),
            ('consoled', self.text(bus='rabbit://u:p@h/', extra=tls), '[oslo_messaging_rabbit] ssl_ca_file'),
            ('consoled', self.text(database=f'{mysql}?ssl_check_hostname=true'), '[database] connection'),
            ('consoled', self.text(database=f'{postgresql}?sslmode=require'), '[database] connection'),
            (
                'consoled-compute',
                self.text(bus='rabbit://u:p@h/?ssl=1'),
                '[oslo_messaging_rabbit] ssl_ca_file',
            ),
            (
                'consoled-proxy',
                self.text(extra=NOTIFICATIONS.format(url='rabbit://u:p@h/?ssl=1')),
                '[oslo_messaging_rabbit] ssl_ca_file',
            ),
            ('consoled', self.text(extra=NOVA.format(url='rabbit://u:p@h/?ssl=1')), 'ssl_ca_file'),
            (
                'consoled',
                self.text(extra=f'[nova]\nconnection = {mysql}?ssl_check_hostname=true'),
                '[nova] connection',
            ),
            (
                'consoled',
                self.text(extra=LEGACY.format(url='rabbit://u:p@h/?ssl=1')),
                '[oslo_messaging_rabbit] ssl_ca_file',
            ),
        ):
            self.assertEqual((0, ''), self.start(prog, text))
            self.assertIn(named, self.log.output)

    def test_a_libvirt_that_others_can_speak_for(self):
        """Without its Python module, which not every machine has."""
        with mock.patch('consoled.compute.drivers.loading.load'):
            for uri, warnings in (
                ('qemu+tcp://h/system', 1),
                ('qemu+tls://h/system?x=1&no_verify=1', 1),
                ('qemu+tls://h/system', 0),
                ('qemu:///system', 0),
            ):
                text = self.text().replace('driver = demo', f'libvirt_uri = {uri}')
                self.assertEqual((0, ''), self.start('consoled-compute', text))
                self.assertEqual(warnings, self.log.output.count('[compute] libvirt_uri: '), uri)

    def test_files_that_logs_cannot_be_written_to(self):
        for error in (
            FileNotFoundError(2, 'No such file', '/nowhere/x.log'),
            PermissionError(13, 'no', '/x'),
        ):
            for option in ('log_file', 'log_dir'):
                text = f'{self.text()}[DEFAULT]\n{option} = /nowhere/x\n'
                with mock.patch('oslo_log.log.setup', side_effect=error):
                    err = self.assert_refused('consoled', text, f'[DEFAULT] {option} ({self.path})')
                self.assertIn(error.filename, err)

    def test_other_options_of_logs(self):
        for error, option in (
            (RuntimeError('Systemd bindings do not exist'), 'use_journal = true'),
            (ValueError("Unknown level: ''"), 'default_log_levels = x='),
        ):
            text = f'{self.text()}[DEFAULT]\n{option}\n'
            with mock.patch('oslo_log.log.setup', side_effect=error):
                self.assert_refused('consoled', text, f'[DEFAULT] {option.split()[0]} ({self.path})')


class SecretTest(StartCase):
    """Nothing that a program prints or logs has a part of a URL with a password."""

    @settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(
        st.sampled_from(sorted(PREPARE_OF)),
        st.sampled_from(
            (
                *('transport_url', 'connection', 'consoleauth_transport_url', 'notifications'),
                *('nova', 'nova_bus', 'base_url', 'no option'),
            )
        ),
        st.sampled_from(
            ('rabbit://', 'kombu+memory://', 'nosuch://', 'rabbit:', '', 'mysql+pymysql://', 'http:')
        ),
        st.sampled_from(('', 'u', 'u:12', 'u@v')),
        st.text(PUNCTUATION, max_size=3),
        st.text(PUNCTUATION, max_size=3),
        st.sampled_from(('@h/', '@h', '@h:5672/v', '@h:port/', '@h,u:p@i/', '', '@[::1]/', '@h/x?ssl=1')),
    )
    def test_no_part_of_a_url(self, prog, option, scheme, user, before, after, rest):
        url = f'{scheme}{user}:{before}{CANARY}{after}{rest}'
        text = {
            'transport_url': self.text(bus=url),
            'connection': self.text(database=url),
            'consoleauth_transport_url': self.text(extra=LEGACY.format(url=url)),
            'notifications': self.text(extra=NOTIFICATIONS.format(url=url)),
            'nova': self.text(extra=f'[nova]\nconnection = {url}'),
            'nova_bus': self.text(extra=NOVA.format(url=url)),
            'base_url': self.text(extra=f'[vnc]\nbase_url = {url}'),
            'no option': f'[DEFAULT]\n  {url}\n',
        }[option]
        code, err = self.start(prog, text)
        self.assertIn(code, (0, 2), err)
        self.assertNotIn(CANARY.lower(), err.lower())
        if option != 'base_url' or code:  # it is no secret, so a good one is in the log of all options
            self.assertNotIn(CANARY.lower(), self.log.output.lower())

    def test_the_tools(self):
        for url in (
            f'rabbit://u:{CANARY}#1@h/',
            f'rabbit://u:{CANARY}/1@h/',
            f'rabbit://u:{CANARY}@b@h:x/',
            f'u:{CANARY}',
        ):
            self.path.write_text(self.text(bus=url, database=url))
            for app, command in (
                (Consolectl, ['session', 'list']),
                (Manage, ['db', 'check']),
                (Status, ['upgrade', 'check']),
            ):
                out, err = io.StringIO(), io.StringIO()
                argv = ['--debug', '--config-file', str(self.path), *command]
                with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                    self.assertIn(cli_app.run(app(stdout=out, stderr=err), argv), (2, 255))
                self.assertNotIn(CANARY.lower(), (out.getvalue() + err.getvalue() + self.log.output).lower())
