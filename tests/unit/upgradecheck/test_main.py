# SPDX-License-Identifier: Apache-2.0
"""``consoled-status`` on an SQLite file: output, exit codes, and the configuration of memcached."""

import io
import json
import pathlib

import fixtures
from oslo_config import cfg

from consoled import conf as consoled_conf
from consoled.db import managers, migration
from consoled.db.engine import Database
from consoled.upgradecheck.main import Status, memcached_problem
from consoled.version import VERSION
from tests.unit.cli.base import CliCase


class StatusTest(CliCase):
    def setUp(self):
        super().setUp()
        directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.url = f'sqlite:///{directory}/cell.db'

    def status(self, *argv, text=''):
        path = self.config(text or f'[database]\nconnection = {self.url}\n')
        self.argv, self.stdout, self.stderr = ['--config-file', path, *argv], io.StringIO(), io.StringIO()
        return self.run_app(Status(io.StringIO(), self.stdout, self.stderr))

    def test_nova_is_checked_if_it_is_a_source_of_tokens(self):
        text = f'[database]\nconnection = {self.url}\n'
        for nova, titles in (('', []), ('[nova]\nconnection = canary\n', ['Nova database'])):
            code, out, err = self.status('upgrade', 'check', '--json', text=text + nova)
            found = [each['check'] for each in json.loads(out)['checks']]
            self.assertEqual((2, ''), (code, err))
            self.assertEqual(titles, [title for title in found if title.startswith('Nova')])
            self.assertNotIn('canary', out)

    def test_what_is_wrong_with_nova_names_its_files(self):
        for theirs, said in (
            ('', '[nova] connection is not set, and neither is [database] connection in the files of'),
            ('[database]\nconnection = canary\n', '[nova] connection ([database] connection in {}) is not'),
        ):
            nova = self.config(theirs)
            text = f'[database]\nconnection = {self.url}\n[nova]\nconfig_file = {nova}\n'
            _, out, _ = self.status('upgrade', 'check', '--json', text=text)
            found = {each['check']: each['details'] for each in json.loads(out)['checks']}
            self.assertIn(said.format(nova), found['Nova database'])
            self.assertNotIn('canary', out)

    def test_the_exit_code_is_the_worst_result(self):
        code, out, _ = self.status('upgrade', 'check', '--json')
        results = {check['check']: check['result'] for check in json.loads(out)['checks']}
        self.assertEqual((2, 2), (code, results['Database schema']))
        db = Database(self.url)
        self.addCleanup(db.dispose)
        migration.upgrade(db)
        self.assertEqual(1, self.status('upgrade', 'check')[0])  # no manager
        managers.record_heartbeat(db, 'm1', VERSION, '1.0')
        code, out, err = self.status('upgrade', 'check')
        self.assertEqual((0, ''), (code, err))
        self.assertEqual(7, out.count('| Result: Success '))

    def test_a_misspelled_option_is_a_warning(self):
        text = f'[database]\nconnection = {self.url}\n[manager]\nlaese = 3\n'
        _, out, _ = self.status('upgrade', 'check', '--json', text=text)
        (found,) = [each for each in json.loads(out)['checks'] if each['check'] == 'Unknown options']
        self.assertEqual(1, found['result'])
        self.assertIn('[manager] laese', found['details'])

    def test_when_no_check_is_made_the_exit_code_is_255(self):
        for argv, text, error in (
            (('upgrade', 'check'), '[DEFAULT]\n', 'configuration_error'),
            (('upgrade', 'check'), '[database\n', 'configuration_error'),
            (('upgrade', 'check', '--jso'), '', 'usage_error'),
            (('upgrade',), '', 'usage_error'),
            ((), '', 'usage_error'),
        ):
            code, out, err = self.status(*argv, text=text)
            self.assertEqual((255, ''), (code, out), argv)
            self.assertIn(f': {error}: ', err)
            self.assertEqual(1, err.count('\n'), err)


class MemcachedProblemTest(CliCase):
    def problem(self, **cache):
        conf = cfg.ConfigOpts()
        consoled_conf.register_opts(conf)
        lines = [f'{name} = {value}' for name, value in cache.items()]
        conf(['--config-file', self.config('\n'.join(['[cache]', *lines]))], project='consoled')
        return memcached_problem(conf)

    def test_each_configuration(self):
        self.useFixture(fixtures.FakeLogger())
        self.assertEqual('', self.problem(enabled='true', backend='dogpile.cache.memcached'))
        self.assertIn('[cache] enabled and backend are not set', self.problem())
        self.assertIn('Managers cannot use it', self.problem(enabled='true', backend='dogpile.cache.memory'))
