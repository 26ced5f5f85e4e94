# SPDX-License-Identifier: Apache-2.0
"""The operators' tools without a network: what they print, where, and how they end."""

import csv
import datetime
import io
import json
import pathlib
import subprocess
import sys
import uuid
from unittest import mock

import fixtures
import testtools

from consoled import exception, objects
from consoled.cli import app as cli_app
from consoled.cmd import _setup, manage, status
from consoled.consolectl import app as consolectl_app
from consoled.consolectl import main
from consoled.consolectl.session import ListSessions
from consoled.db import models
from consoled.rpc.replies import Revocation

TOKEN = 'Zk3' + 'tOkEn_-' * 5 + 'tOkEn'
INSTANCE = str(uuid.uuid4())
COMMANDS = {
    main.Consolectl: sorted(main.Consolectl.COMMANDS),
    manage.Manage: sorted(manage.Manage.COMMANDS),
    status.Status: sorted(status.Status.COMMANDS),
}
MOMENT = datetime.datetime(2026, 1, 2, 4, 4, 5, 678, datetime.timezone(datetime.timedelta(hours=1)))


class Terminal(io.StringIO):
    def isatty(self):
        return True


def console(port=5900):
    return objects.ConsoleConnection(
        instance_uuid=INSTANCE,
        console_type='serial',
        host='192.0.2.9',
        port=port,
        compute_host='compute1',
        access_url_base=None,
        options={},
    )


def session(number):
    return objects.ConsoleSession(
        id=str(uuid.UUID(int=number)),
        proxy_id=str(uuid.UUID(int=99)),
        console=console(),
        user_id='alice',
        project_id='demo',
        client_address='192.0.2.1',
        connected_at=MOMENT,
        ends_at=None,
        cut_reason=None,
    )


class StubAPI:
    """Managers that answer from memory, or raise ``error``; ``calls`` has what they were asked."""

    def __init__(self, sessions=0, error=None, counts=(2, 1)):
        self.sessions = [session(number) for number in range(1, sessions + 1)]
        self.error = error
        self.counts = Revocation(*counts)
        self.calls = []

    def _asked(self, *call):
        self.calls.append(call)
        if self.error is not None:
            raise self.error

    def list_free_ports(self, context, instance_uuid, console_type):
        self._asked('list_free_ports', instance_uuid, console_type)
        return objects.ConsoleConnectionList(objects=[console(5900), console(5901)])

    def validate(self, context, token):
        self._asked('validate', token)
        return objects.ConsoleAuthToken(
            token=None,
            access_url=None,
            expires=MOMENT,
            user_id='alice',
            project_id='demo',
            **{name: getattr(console(), name) for name in console().fields},
        )

    def list_sessions(self, context, limit, marker=None, **filters):
        self._asked('list_sessions', limit, marker, filters)
        after = [found for found in self.sessions if marker is None or found.id > marker]
        return objects.ConsoleSessionList(objects=after[:limit])

    def revoke(self, context, reason, **filters):
        self._asked('revoke', reason, filters)
        return self.counts


class CliCase(testtools.TestCase):
    def run_app(self, app):
        """(exit code, stdout, stderr) of a program; argparse writes to the process's own streams."""
        out, err = self.stdout, self.stderr
        with mock.patch.object(sys, 'stdout', out), mock.patch.object(sys, 'stderr', err):
            code = cli_app.run(app, self.argv)
        return code, out.getvalue(), err.getvalue()

    def ctl(self, *argv, api=None, stdin=''):
        self.argv, self.stdout, self.stderr = argv, io.StringIO(), io.StringIO()
        stdin = io.StringIO(stdin) if isinstance(stdin, str) else stdin
        self.api = StubAPI() if api is None else api
        return self.run_app(main.Consolectl(self.api, stdin, self.stdout, self.stderr))

    def manage(self, *argv, stdin=''):
        self.argv, self.stdout, self.stderr = argv, io.StringIO(), io.StringIO()
        stdin = io.StringIO(stdin) if isinstance(stdin, str) else stdin
        return self.run_app(manage.Manage(stdin, self.stdout, self.stderr))

    def config(self, text):
        path = pathlib.Path(self.useFixture(fixtures.TempDir()).path) / 'test.conf'
        path.write_text(text)
        return str(path)


class ErrorsTest(CliCase):
    def test_each_domain_error_has_its_exit_code_and_one_line(self):
        for error, code in (
            (exception.InvalidToken(), 1),
            (exception.InstanceNotFound(instance_uuid=INSTANCE), 1),
            (exception.InvalidArgument(argument='x', reason='y'), 1),
            (exception.ManagerUnreachable(reason='no answer in time'), 3),
            (exception.ManagerBusy(), 3),
            (exception.DatabaseUnavailable(), 3),
            (exception.InternalError(), 4),
        ):
            got, out, err = self.ctl('session', 'list', api=StubAPI(error=error))
            self.assertEqual((code, ''), (got, out), error.code)
            self.assertTrue(err.startswith(f'consolectl: {error.code}: {error}'), err)
            self.assertEqual(1, err.count('\n'), err)

    def test_an_unreachable_manager_comes_with_advice(self):
        error = exception.ManagerUnreachable(reason='no answer in time')
        _, _, err = self.ctl('session', 'list', api=StubAPI(error=error))
        self.assertIn('transport_url', err)
        self.assertIn('that consoled runs', err)

    def test_a_bug_is_an_internal_error_in_one_line(self):
        code, _, err = self.ctl('session', 'list', api=StubAPI(error=KeyError('oops\nmore')))
        self.assertEqual(4, code)
        self.assertEqual(1, err.count('\n'), err)
        self.assertTrue(err.startswith('consolectl: internal_error: KeyError: '), err)

    def test_tracebacks_are_for_debug_only(self):
        api = StubAPI(error=exception.InvalidToken())
        _, _, err = self.ctl('--debug', 'session', 'list', api=api)
        self.assertIn('Traceback (most recent call last)', err)
        self.assertTrue(err.splitlines()[-1].startswith('consolectl: invalid_token: '), err)

    def test_wrong_usage(self):
        for argv in (
            (),
            ('nonsense',),
            ('nonsense', '--help'),
            ('session',),
            ('session', 'list', '--limit', '0'),
            ('session', 'list', '--limit', 'many'),
            ('session', 'list', '--project', ''),
            ('session', 'list', '-c', 'bogus'),
            ('session', 'list', '--lon'),
            ('session', 'cut', 'not-a-uuid'),
            ('session', 'cut', INSTANCE, '--reason', 'x' * 65),
            ('console', 'list-free-ports', INSTANCE, '--type', 'vga'),
            ('revoke',),
            ('--timeout', '0', 'session', 'list'),
            ('--log-file', '/nonexistent/log', 'session', 'list'),
        ):
            code, out, err = self.ctl(*argv)
            self.assertEqual((2, '', []), (code, out, self.api.calls), argv)
            self.assertRegex(err, r'\Aconsolectl[a-z -]*: usage_error: .+\n\Z')

    def test_wrong_configuration(self):
        for text in (
            '[DEFAULT]\ntransport_url = bogus://u:hidden@h/\n[database]\nconnection = bogus://u:hidden@h/x',
            '[DEFAULT]\ntransport_url = u:hidden@h\n[database]\nconnection = u hidden',
            '[upgrade_levels]\nconsoled = 9.9',
            '[DEFAULT\n',
        ):
            for app in (main.Consolectl, manage.Manage):
                self.stdout, self.stderr = io.StringIO(), io.StringIO()
                command = ['session', 'list'] if app is main.Consolectl else ['db', 'check']
                self.argv = ['--config-file', self.config(text), *command]
                code, out, err = self.run_app(app(stdout=self.stdout, stderr=self.stderr))
                self.assertEqual((2, ''), (code, out), err)
                self.assertIn(': configuration_error: ', err)
                self.assertEqual(1, err.count('\n'), err)
                self.assertNotIn('hidden', err)

    def test_a_config_file_that_is_not_there(self):
        for run in (
            lambda: self.manage('--config-file', '/nonexistent.conf', 'db', 'check'),
            lambda: self.manage('db', 'check', '--config-file', '/nonexistent.conf'),
        ):
            code, _, err = run()
            self.assertEqual(2, code)
            self.assertIn('/nonexistent.conf', err)


class TokenTest(CliCase):
    def test_from_standard_input(self):
        code, out, err = self.ctl('token', 'validate', '-f', 'json', stdin=TOKEN + '\n')
        self.assertEqual((0, ''), (code, err))
        self.assertEqual([('validate', TOKEN)], self.api.calls)
        self.assertEqual(
            {
                'instance_uuid': INSTANCE,
                'console_type': 'serial',
                'host': '192.0.2.9',
                'port': 5900,
                'compute_host': 'compute1',
                'user_id': 'alice',
                'project_id': 'demo',
                'expires': '2026-01-02T03:04:05Z',
            },
            json.loads(out),
        )

    def test_from_a_file(self):
        self.ctl('token', 'validate', '--token-file', self.config(f'  {TOKEN}\nanother line\n'))
        self.assertEqual([('validate', TOKEN)], self.api.calls)

    def test_from_a_terminal_without_echo(self):
        ask = self.useFixture(fixtures.MockPatch('getpass.getpass', return_value=TOKEN)).mock
        code, _, _ = self.ctl('token', 'validate', stdin=Terminal())
        self.assertEqual((0, [('validate', TOKEN)]), (code, self.api.calls))
        self.assertNotIn(TOKEN, str(ask.call_args))

    def test_none_is_wrong_usage(self):
        for argv, stdin in (
            ((), ''),
            ((), '\n'),
            (('--token-file', '/nonexistent'), ''),
            (('--token-file', '/dev/null'), ''),
        ):
            code, _, _ = self.ctl('token', 'validate', *argv, stdin=stdin)
            self.assertEqual((2, []), (code, self.api.calls))

    def test_what_can_not_be_a_token_is_not_sent(self):
        for stdin in ('short', 'x' * 100000, 'sixteen and more, but no token'):
            code, _, err = self.ctl('token', 'validate', stdin=stdin)
            self.assertEqual((1, []), (code, self.api.calls))
            self.assertIn('invalid_token', err)

    def test_on_the_command_line_it_is_neither_taken_nor_repeated(self):
        for argv in (
            ('token', 'validate', TOKEN),
            ('token', 'validate', '-v' + TOKEN),
            ('token', 'validate', '--' + TOKEN),
            ('token', 'validate', '--token', TOKEN),
            ('token', 'validate', '-f', TOKEN),
            ('token', 'validate', '--token-file', TOKEN),
            ('token', TOKEN),
            ('session', 'cut', TOKEN),
            ('session', 'list', '--instance', TOKEN),
            (TOKEN,),
        ):
            code, out, err = self.ctl(*argv)
            self.assertEqual((2, []), (code, self.api.calls), argv)
            self.assertNotIn(TOKEN, out + err)

    def test_no_output_has_it_whatever_happens(self):
        log_file = self.config('')
        for error in (None, exception.InvalidToken(), exception.InternalError(), ValueError('bug')):
            for style in ('table', 'json', 'value', 'shell', 'yaml'):
                _, out, err = self.ctl(
                    *('--debug', '-v', '--log-file', log_file, 'token', 'validate', '-f', style),
                    stdin=TOKEN,
                    api=StubAPI(error=error),
                )
                self.assertEqual([('validate', TOKEN)], self.api.calls)
                self.assertNotIn(TOKEN, out + err + pathlib.Path(log_file).read_text())


class SessionsTest(CliCase):
    def test_formats(self):
        _, table, _ = self.ctl('session', 'list', api=StubAPI(2))
        self.assertIn(str(uuid.UUID(int=2)), table)
        self.assertNotIn('proxy_id', table)
        _, table, _ = self.ctl('session', 'list', '--long', api=StubAPI(2))
        self.assertIn('proxy_id', table)

        _, out, _ = self.ctl('session', 'list', '-f', 'json', api=StubAPI(2))
        rows = json.loads(out)
        self.assertEqual(list(ListSessions.columns), list(rows[0]))
        self.assertEqual('2026-01-02T03:04:05Z', rows[0]['connected_at'])
        self.assertIsNone(rows[0]['ends_at'])

        _, out, _ = self.ctl('session', 'list', '-f', 'csv', api=StubAPI(2))
        self.assertEqual(['alice', 'alice'], [row['user_id'] for row in csv.DictReader(io.StringIO(out))])

        _, out, _ = self.ctl('session', 'list', '-f', 'value', '-c', 'port', '-c', 'host', api=StubAPI(2))
        self.assertEqual('192.0.2.9 5900\n' * 2, out)

    def test_none(self):
        code, out, err = self.ctl('session', 'list', '-f', 'json')
        self.assertEqual((0, [], ''), (code, json.loads(out), err))

    def test_pages_until_the_end(self):
        self.useFixture(fixtures.MockPatchObject(consolectl_app, '_PAGE', 3))
        for count, calls in ((0, 1), (2, 1), (3, 2), (7, 3)):
            _, out, _ = self.ctl('session', 'list', '-f', 'value', '-c', 'id', api=StubAPI(count))
            self.assertEqual([found.id for found in self.api.sessions], out.split())
            self.assertEqual(calls, len(self.api.calls))

    def test_pages_until_the_limit(self):
        self.useFixture(fixtures.MockPatchObject(consolectl_app, '_PAGE', 3))
        _, out, _ = self.ctl('session', 'list', '-f', 'value', '-c', 'id', '--limit', '4', api=StubAPI(9))
        self.assertEqual([found.id for found in self.api.sessions[:4]], out.split())
        self.assertEqual([3, 1], [call[1] for call in self.api.calls])

    def test_filters(self):
        proxy = str(uuid.uuid4())
        self.ctl(
            *('session', 'list', '--instance', INSTANCE.upper(), '--project', 'p', '--user', 'u'),
            *('--compute-host', 'c', '--proxy', proxy),
        )
        wanted = {
            'instance_uuid': INSTANCE,
            'project_id': 'p',
            'user_id': 'u',
            'compute_host': 'c',
            'proxy_id': proxy,
        }
        self.assertEqual([('list_sessions', 1000, None, wanted)], self.api.calls)

    def test_free_ports(self):
        _, out, _ = self.ctl('console', 'list-free-ports', INSTANCE, '-f', 'value', '-c', 'port')
        self.assertEqual('5900\n5901\n', out)
        self.assertEqual([('list_free_ports', INSTANCE, 'serial')], self.api.calls)
        self.ctl('console', 'list-free-ports', INSTANCE, '--type', 'novnc')
        self.assertEqual([('list_free_ports', INSTANCE, 'novnc')], self.api.calls)


class RevokeTest(CliCase):
    def test_cut(self):
        code, out, _ = self.ctl('session', 'cut', INSTANCE, '--reason', 'maintenance', '-f', 'json')
        self.assertEqual((0, {'tokens': 2, 'sessions': 1}), (code, json.loads(out)))
        self.assertEqual([('revoke', 'maintenance', {'session_id': INSTANCE})], self.api.calls)

    def test_cut_of_a_session_that_is_not_there(self):
        code, out, err = self.ctl('session', 'cut', INSTANCE, api=StubAPI(counts=(0, 0)))
        self.assertEqual((1, ''), (code, out))
        self.assertTrue(err.startswith('consolectl: session_not_found: '), err)

    def test_by_instance_does_not_ask(self):
        code, _, _ = self.ctl('revoke', '--instance', INSTANCE, stdin=Terminal('n\n'))
        self.assertEqual((0, [('revoke', 'operator', {'instance_uuid': INSTANCE})]), (code, self.api.calls))

    def test_wider_ones_ask_at_a_terminal(self):
        for argv in (('--project', 'p'), ('--user', 'u'), ('--compute-host', 'c')):
            for answer in ('n\n', '\n', '', 'perhaps\n'):
                code, _, err = self.ctl('revoke', *argv, stdin=Terminal(answer))
                self.assertEqual((1, []), (code, self.api.calls))
                self.assertIn('cancelled', err)
            for answer in ('y\n', 'Yes\n'):
                code, _, err = self.ctl('revoke', *argv, stdin=Terminal(answer))
                self.assertEqual((0, 1), (code, len(self.api.calls)))
                self.assertIn(argv[1], err)

    def test_they_do_not_ask_scripts_and_those_who_said_yes(self):
        for argv, stdin in ((('--yes',), Terminal('n\n')), ((), '')):
            code, _, err = self.ctl('revoke', '--user', 'u', *argv, stdin=stdin)
            self.assertEqual((0, 1, ''), (code, len(self.api.calls), err))


class HelpTest(CliCase):
    def test_every_command_explains_itself(self):
        for app, names in COMMANDS.items():
            for name in names:
                for argv in (
                    [*name.split(), '--help'],
                    ['help', *name.split()],
                    [*name.split(), '-v', '--bogus', '--help'],
                ):
                    self.argv, self.stdout, self.stderr = argv, io.StringIO(), io.StringIO()
                    code, out, err = self.run_app(app(stdout=self.stdout, stderr=self.stderr))
                    self.assertEqual((0, ''), (code, err if '-v' not in argv else ''), argv)
                    self.assertIn(f'usage: {app.NAME} {name} ', out)
                    self.assertIn(f'Example:\n  {app.NAME} ', out)
                    self.assertNotIn(TOKEN, out)

    def test_the_list_of_commands(self):
        for app, names in COMMANDS.items():
            for argv in (['--help'], ['help']):
                self.argv, self.stdout, self.stderr = argv, io.StringIO(), io.StringIO()
                code, out, _ = self.run_app(app(stdout=self.stdout, stderr=self.stderr))
                self.assertEqual(0, code)
                for name in names:
                    self.assertRegex(out, rf'\n  {name} +[A-Z].{{10,}}\n')

    def test_version(self):
        code, out, _ = self.manage('--version')
        self.assertEqual(0, code)
        self.assertRegex(out, r'\Aconsoled-manage \d+\.\d+')


class ManageTest(CliCase):
    def setUp(self):
        super().setUp()
        directory = self.useFixture(fixtures.TempDir()).path
        self.conf = self.config(f'[database]\nconnection = sqlite:///{directory}/cell.db\n')

    def on_file(self, *argv, **kwargs):
        return self.manage('--config-file', self.conf, *argv, **kwargs)

    def test_without_a_database(self):
        code, _, err = self.manage('--config-file', self.config('[DEFAULT]\n'), 'db', 'check')
        self.assertEqual(2, code)
        self.assertIn('[database] connection is not set', err)

    def test_from_nothing_to_head(self):
        for command in (('db', 'check'), ('purge',)):
            code, out, err = self.on_file(*command)
            self.assertEqual((1, ''), (code, out))
            self.assertIn('consoled-manage: database_behind: ', err)
            self.assertIn('consoled-manage db upgrade', err)
        _, out, _ = self.on_file('db', 'version', '-f', 'json')
        self.assertIsNone(json.loads(out)['current'])
        for _ in range(2):
            code, out, err = self.on_file('db', 'upgrade')
            self.assertEqual((0, ''), (code, err))
        code, _, err = self.on_file('db', 'check')
        self.assertEqual((0, ''), (code, err))
        _, out, _ = self.on_file('db', 'version', '-f', 'json')
        self.assertEqual(json.loads(out)['head'], json.loads(out)['current'])

    def test_a_revision_that_does_not_exist(self):
        code, _, err = self.on_file('db', 'upgrade', '--revision', 'nonsense')
        self.assertEqual(1, code)
        self.assertTrue(err.startswith('consoled-manage: migration_refused: '), err)

    def test_purge_of_an_empty_database(self):
        self.on_file('db', 'upgrade')
        code, out, err = self.on_file('purge', '--compute-host', 'c', '-f', 'json')
        self.assertEqual((0, ''), (code, err))
        self.assertEqual({'tokens': 0, 'proxies': 0, 'instances': 0}, json.loads(out))

    def fill(self):
        """An instance with a token that has expired."""
        self.on_file('db', 'upgrade')
        app = manage.Manage()
        self.addCleanup(app.resources.close)
        app.options = app.parser.parse_args(['--config-file', self.conf])
        past = datetime.datetime(2026, 1, 1)
        place = {'instance_uuid': INSTANCE, 'host': 'h', 'port': 1}
        made = {'created_at': past, 'compute_host': 'c'}
        rows = (
            (models.instances, {'uuid': INSTANCE, **made}),
            (
                models.console_connection,
                {'console_type': 'novnc', 'options': '{}', 'updated_at': past, 'created_at': past, **place},
            ),
            (models.console_auth_token, {'token_hash': '0' * 64, 'expires': past, **place, **made}),
        )
        for table, values in rows:
            app.db.single(lambda conn, t=table, v=values: conn.execute(t.insert().values(v)))

    def test_purge_shows_its_progress_to_those_who_watch(self):
        for stream, shown in ((io.StringIO(), False), (Terminal(), True)):
            self.fill()
            argv = ['--config-file', self.conf, 'purge', '--compute-host', 'c', '--yes', '-f', 'value']
            self.argv, self.stdout, self.stderr = argv, io.StringIO(), stream
            code, out, err = self.run_app(manage.Manage(stdout=self.stdout, stderr=self.stderr))
            self.assertEqual((0, '1\n0\n1\n'), (code, out))
            self.assertEqual((shown, shown), ('tokens:' in err, 'instances:' in err), err)

    def test_purge_of_a_compute_host_asks(self):
        self.fill()
        for stdin, code, error in (('', 2, 'usage_error'), (Terminal('n\n'), 1, 'cancelled')):
            got, out, err = self.on_file('purge', '--compute-host', 'c', stdin=stdin)
            self.assertEqual((code, ''), (got, out))
            self.assertIn(f'consoled-manage: {error}: ', err)
            self.assertIn('the instances of compute host c, 1 in all?', err)
        code, out, _ = self.on_file('purge', '--compute-host', 'c', '-f', 'value', stdin=Terminal('y\n'))
        self.assertEqual((0, '1\n0\n1\n'), (code, out))

    def test_purge_refuses_what_it_can_not_count(self):
        for value in ('-1', 'x', '9' * 12):
            self.assertEqual(2, self.on_file('purge', f'--older-than={value}')[0])


class SetupTest(testtools.TestCase):
    def test_importing_the_tools_has_no_effect(self):
        # the libraries below look at the concurrency when they are imported
        program = (
            'import sys\n'
            'from consoled.cmd import manage\n'
            'from consoled.consolectl import main\n'
            "late = {'oslo_messaging', 'oslo_service', 'oslo_config', 'oslo_db', 'sqlalchemy', 'alembic'}\n"
            'sys.exit(", ".join(late & set(sys.modules)) or 0)\n'
        )
        done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, timeout=60)
        self.assertEqual((0, ''), (done.returncode, done.stderr))

    def test_daemons_still_end_with_a_message(self):
        error = self.assertRaises(
            SystemExit, _setup.configure, ['--config-file', '/nonexistent'], prog='consoled', conf=_conf()
        )
        self.assertIn('/nonexistent', str(error.code))


def _conf():
    from oslo_config import cfg

    return cfg.ConfigOpts()
