# SPDX-License-Identifier: Apache-2.0
"""Registration of the options."""

from unittest import mock

import testtools
from oslo_config import cfg

from consoled import conf as consoled_conf
from consoled.conf import base, consoles, opts
from consoled.objects import ConsoleType


class OptionsTest(testtools.TestCase):
    def test_registering_twice_is_harmless(self):
        conf = cfg.ConfigOpts()
        consoled_conf.register_opts(conf)
        consoled_conf.register_opts(conf)
        conf([], default_config_files=[], default_config_dirs=[])
        self.assertEqual(600, conf.consoleauth.token_ttl)
        self.assertEqual(1, conf.serial_console.max_sessions)
        self.assertEqual('consoled', conf.control_exchange)
        self.assertEqual(24, conf.executor_thread_pool_size)

    def test_any_name_that_a_machine_may_have_is_a_host(self):
        """An underscore in it ended every program with a traceback."""
        for name, host in (('node_1', 'node_1'), ('n1.example.org', 'n1.example.org'), ('$a b', '-a-b')):
            with mock.patch('socket.gethostname', return_value=name):
                self.assertEqual(host, base.default_host())
            conf = cfg.ConfigOpts()
            conf.register_opts(base.OPTS)
            conf.set_override('host', host)
            self.assertEqual(host, conf.host)
        for name in ('', 'a b', 'a#', 'x' * 221):
            self.assertRaises(ValueError, conf.set_override, 'host', name)

    def test_every_option_is_explained(self):
        for group, options in opts.list_opts():
            for option in options:
                self.assertTrue(option.help, f'[{group}] {option.name} has no help')

    def test_groups_are_listed_once(self):
        groups = [group for group, _ in opts.list_opts()]
        self.assertEqual(sorted(groups, key=lambda group: group or ''), groups)
        self.assertEqual(len(set(groups)), len(groups))

    def test_each_console_type_has_its_group_or_none(self):
        self.assertEqual(set(ConsoleType.ALL), set(consoles.GROUP_OF_TYPE))
        self.assertEqual(set(consoles.OPTS), {group for group in consoles.GROUP_OF_TYPE.values() if group})
