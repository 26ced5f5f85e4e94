# SPDX-License-Identifier: Apache-2.0
"""``consolectl console`` without a network: its calls, output and exit codes."""

import io
import json

from consoled import exception, objects
from consoled.consolectl.main import Consolectl
from tests.unit.cli.base import INSTANCE, MOMENT, TOKEN, CliCase, StubAPI

HOST = 'compute7'
URL = f'https://console.example/serial.html?token={TOKEN}'


def console(port=10000, kind='serial', compute_host=HOST):
    return objects.ConsoleConnection(
        instance_uuid=INSTANCE,
        console_type=kind,
        host='192.0.2.9',
        port=port,
        compute_host=compute_host,
        access_url_base=None,
        options={},
    )


class Managers(StubAPI):
    """Managers that know these free consoles, by type; None: they do not know the guest."""

    def __init__(self, free=None, **how):
        super().__init__(**how)
        self.free = free

    def list_free_ports(self, context, instance_uuid, console_type):
        self._record('list_free_ports', console_type)
        if self.free is None:
            raise exception.InstanceNotFound(instance_uuid=instance_uuid)
        return objects.ConsoleConnectionList(objects=self.free.get(console_type, []))


class Agents:
    """Compute agents that answer from memory or raise ``error``."""

    def __init__(self, consoles=(), error=None, access_url=URL):
        self.consoles = list(consoles)
        self.error = error
        self.access_url = access_url
        self.calls = []

    def _record(self, *call):
        self.calls.append(call)
        if self.error is not None:
            raise self.error

    def get_console(self, context, compute_host, instance_uuid, console_type):
        self._record(compute_host, instance_uuid, console_type)
        self.context = context
        return objects.ConsoleAuthToken(
            instance_uuid=instance_uuid,
            console_type=console_type,
            host='192.0.2.9',
            port=10000,
            compute_host=compute_host,
            token=TOKEN,
            access_url=self.access_url,
            expires=MOMENT,
        )

    def list_consoles(self, context, compute_host, instance_uuid):
        self._record(compute_host, instance_uuid)
        return objects.ConsoleConnectionList(objects=self.consoles)


class CommandsCase(CliCase):
    def run_console(self, *argv, managers=None, agents=None):
        """Run ``consolectl console``; return (exit code, stdout, stderr)."""
        self.argv, self.stdout, self.stderr = ('console', *argv), io.StringIO(), io.StringIO()
        self.managers = managers or Managers()
        self.agents = agents or Agents()
        return self.run_app(Consolectl(self.managers, io.StringIO(), self.stdout, self.stderr, self.agents))

    def assert_ended(self, done, code, error):
        self.assertEqual((code, ''), done[:2], done[2])
        self.assertRegex(done[2], rf'\Aconsolectl: {error}: [^\n]+\n\Z')


class FindHostTest(CommandsCase):
    def test_the_host_option(self):
        self.assertEqual(0, self.run_console('open', INSTANCE, '--type', 'serial', '--host', HOST)[0])
        self.assertEqual([(HOST, INSTANCE, 'serial')], self.agents.calls)
        self.assertEqual([], self.managers.calls)

    def test_a_free_console_of_the_type_names_it(self):
        self.run_console('open', INSTANCE, '--type', 'serial', managers=Managers({'serial': [console()]}))
        self.assertEqual([('list_free_ports', 'serial')], self.managers.calls)
        self.assertEqual([(HOST, INSTANCE, 'serial')], self.agents.calls)

    def test_a_free_console_of_another_type_names_it(self):
        for argv in (('open', INSTANCE, '--type', 'serial'), ('list', INSTANCE)):
            self.run_console(*argv, managers=Managers({'webmks': [console(kind='webmks')]}))
            self.assertEqual(HOST, self.agents.calls[0][0])

    def test_a_session_names_it(self):
        self.run_console('open', INSTANCE, managers=Managers({}, sessions=1))
        self.assertEqual([('compute1', INSTANCE, 'novnc')], self.agents.calls)
        self.assertEqual(('list_sessions', 1, None, {'instance_uuid': INSTANCE}), self.managers.calls[-1])

    def test_an_unknown_host(self):
        for managers, error in (
            (Managers({}), 'compute_host_unknown'),
            (Managers(None), 'instance_not_found'),
        ):
            for command in ('open', 'list'):
                done = self.run_console(command, INSTANCE, managers=managers)
                self.assert_ended(done, 1, error)
                self.assertIn('--host', done[2])
                self.assertEqual([], self.agents.calls)

    def test_a_host_that_does_not_know_the_guest(self):
        error = exception.InstanceNotFound(instance_uuid=INSTANCE)
        done = self.run_console('list', INSTANCE, '--host', HOST, agents=Agents(error=error))
        self.assert_ended(done, 1, 'instance_not_found')
        self.assertIn(HOST, done[2])

    def test_errors_of_agents_have_their_exit_codes(self):
        for error, code in (
            (exception.ComputeUnreachable(), 3),
            (exception.HypervisorUnreachable(), 3),
            (exception.ManagerUnreachable(reason='no answer in time'), 3),
            (exception.InternalError(), 4),
            (exception.ConsolePortsExhausted(instance_uuid=INSTANCE, console_type='serial'), 1),
            (exception.ConsoleTypeUnavailable(instance_uuid=INSTANCE, console_type='serial'), 1),
            (exception.InstanceNotReady(instance_uuid=INSTANCE, reason='it is being migrated'), 1),
        ):
            done = self.run_console('open', INSTANCE, '--host', HOST, agents=Agents(error=error))
            self.assert_ended(done, code, error.code)
            self.assertIn(str(error), done[2])


class OpenTest(CommandsCase):
    def test_output_formats(self):
        argv = ('open', INSTANCE, '--type', 'spice-html5', '--host', HOST)
        _, out, _ = self.run_console(*argv, '-f', 'json')
        wanted = {
            'access_url': URL,
            'expires': '2026-01-02T03:04:05Z',
            'console_type': 'spice-html5',
            'compute_host': HOST,
        }
        self.assertEqual(wanted, json.loads(out))
        self.assertIn(URL, self.run_console(*argv)[1])
        self.assertEqual(f'{URL}\n', self.run_console(*argv, '-f', 'value', '-c', 'access_url')[1])

    def test_the_user_is_passed_to_the_agent(self):
        self.run_console('open', INSTANCE, '--host', HOST, '--user-id', 'alice', '--project-id', 'demo')
        self.assertEqual(('alice', 'demo'), (self.agents.context.user_id, self.agents.context.project_id))
        self.run_console('open', INSTANCE, '--host', HOST)
        self.assertEqual((None, None), (self.agents.context.user_id, self.agents.context.project_id))

    def test_a_host_without_base_url(self):
        done = self.run_console('open', INSTANCE, '--host', HOST, agents=Agents(access_url=None))
        self.assert_ended(done, 1, 'no_access_url')
        self.assertIn('[vnc] base_url', done[2])
        self.assertNotIn(TOKEN, done[2])

    def test_an_error_does_not_show_the_token(self):
        agents = Agents()
        agents.get_console = lambda *args: 1 / 0
        for debug in ((), ('--debug',)):
            _, out, err = self.run_console('open', INSTANCE, '--host', HOST, *debug, agents=agents)
            self.assertNotIn(TOKEN, out + err)

    def test_wrong_usage(self):
        for argv in (
            ('open',),
            ('open', 'x'),
            ('open', INSTANCE, '--type', 'rdp-html5'),
            ('open', INSTANCE, '--host', ''),
            ('list', INSTANCE, '--type', 'serial'),
            ('attach', INSTANCE, '--type', 'novnc'),
            ('attach', INSTANCE, '--wait', '-1'),
            *(('attach', INSTANCE, '--escape', value) for value in ('', 'x', '^', '^[', '^m', '^^^', '^1')),
            ('attach', INSTANCE, '--ca', '/nonexistent'),
            ('attach', INSTANCE, '--ca', __file__),
        ):
            code, out, err = self.run_console(*argv)
            self.assertEqual((2, '', []), (code, out, self.agents.calls), argv)
            self.assertRegex(err, r'\Aconsolectl[a-z -]*: usage_error: .+\n\Z')


class ListTest(CommandsCase):
    def test_connected_consoles_are_marked(self):
        found = [console(10000), console(5900, 'serial'), console(5900, 'novnc')]
        found[2].host = '192.0.2.10'
        done = self.run_console(
            'list',
            INSTANCE,
            '--host',
            HOST,
            '-f',
            'json',
            managers=Managers(sessions=1),
            agents=Agents(found),
        )
        columns = ('console_type', 'host', 'port', 'connected', 'compute_host')
        wanted = [
            ('novnc', '192.0.2.10', 5900, False, HOST),
            ('serial', '192.0.2.9', 5900, True, HOST),  # as the stub's session
            ('serial', '192.0.2.9', 10000, False, HOST),
        ]
        self.assertEqual([dict(zip(columns, row, strict=True)) for row in wanted], json.loads(done[1]))

    def test_no_consoles_are_an_empty_list(self):
        done = self.run_console('list', INSTANCE, '--host', HOST, '-f', 'json')
        self.assertEqual((0, '[]', ''), (done[0], done[1].strip(), done[2]))


class ListFreePortsTest(CliCase):
    def test_ports_of_the_type(self):
        _, out, _ = self.ctl('console', 'list-free-ports', INSTANCE, '-f', 'value', '-c', 'port')
        self.assertEqual('5900\n5901\n', out)
        self.assertEqual([('list_free_ports', INSTANCE, 'serial')], self.api.calls)
        self.ctl('console', 'list-free-ports', INSTANCE, '--type', 'novnc')
        self.assertEqual([('list_free_ports', INSTANCE, 'novnc')], self.api.calls)
