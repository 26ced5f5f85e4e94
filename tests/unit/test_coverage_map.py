# SPDX-License-Identifier: Apache-2.0
"""Every module has a unit test file of its name, or is listed here with the suite that covers it."""

import pathlib

import testtools

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Why a module has no unit test file: module under consoled/: suite under tests/ that covers it.
COVERED_BY = {
    'declares options; one suite checks the sample of them all': {
        'conf/base.py': 'unit/test_sample.py',
        'conf/cell.py': 'unit/test_sample.py',
        'conf/compute.py': 'unit/test_sample.py',
        'conf/consoleauth.py': 'unit/test_sample.py',
        'conf/consoles.py': 'unit/test_sample.py',
        'conf/database.py': 'unit/test_sample.py',
        'conf/manager.py': 'unit/test_sample.py',
        'conf/messaging.py': 'unit/test_sample.py',
        'conf/monitoring.py': 'unit/test_sample.py',
        'conf/nova.py': 'unit/test_sample.py',
        'nova/options.py': 'unit/nova/test_mapping.py',
        'conf/proxy.py': 'unit/test_sample.py',
        'conf/upgrade_levels.py': 'unit/test_sample.py',
        'conf/workarounds.py': 'unit/test_sample.py',
    },
    'declares data and decides nothing; whoever uses it is tested': {
        'compute/drivers/base.py': 'unit/compute/drivers/test_loading.py',
        'compute/drivers/libvirt_types.py': 'unit/compute/drivers/test_libvirt.py',
        'db/models.py': 'functional/db/test_migrations.py',
        'version.py': 'functional/test_wheel.py',
    },
    'small and pure; tested with its neighbours': {
        'conf/from_nova.py': 'unit/nova/test_conf_file.py',
        'nova/setup.py': 'unit/manager/test_nova_bridge.py',
        'objects/base.py': 'unit/objects/test_objects.py',
        'objects/connection.py': 'unit/objects/test_objects.py',
        'objects/session.py': 'unit/objects/test_objects.py',
        'objects/token.py': 'unit/objects/test_objects.py',
        'proxy/user_socket.py': 'unit/proxy/test_relay.py',
    },
    'a frame around the tools; tested as their users run them': {
        'consolectl/main.py': 'unit/cli/test_app.py',
        'consolectl/base.py': 'unit/cli/test_app.py',
        'consolectl/console_attach.py': 'functional/test_cli_console.py',
        'consolectl/filters.py': 'unit/cli/test_app.py',
        'manage/main.py': 'unit/manage/test_schema.py',
    },
    'a program; started as a process': {
        'cmd/compute.py': 'functional/test_compute_daemon.py',
        'cmd/consolectl.py': 'functional/test_cli.py',
        'cmd/demo.py': 'functional/test_demo.py',
        'cmd/manage.py': 'unit/cli/test_app.py',
        'cmd/manager.py': 'functional/test_daemon.py',
        'cmd/nova.py': 'functional/test_nova_mode.py',
        'cmd/proxy.py': 'functional/test_proxy_operations.py',
        'cmd/status.py': 'functional/test_status.py',
        'demo/cell.py': 'functional/test_demo.py',
        'demo/proxy.py': 'functional/test_demo.py',
        'demo/user.py': 'functional/test_demo.py',
        'proxy/service.py': 'functional/test_proxy_operations.py',
    },
    'decides together with real connections': {
        'proxy/connection.py': 'functional/test_proxy_hostile.py',
        'proxy/server.py': 'functional/test_proxy.py',
    },
    'is for tests itself; those that use it fail with it': {
        'testing/daemons.py': 'functional/test_daemon.py',
        'testing/driver_contract.py': 'unit/compute/drivers/test_demo.py',
        'testing/guests/base.py': 'unit/testing/guests/test_tcp_guests.py',
        'testing/guests/fixture.py': 'functional/test_proxy.py',
        'testing/guests/rfb_session.py': 'unit/testing/guests/test_vnc_guest.py',
        'testing/service_process.py': 'functional/test_services.py',
        'testing/services.py': 'functional/test_services.py',
    },
}


def modules():
    """Return the paths of all modules under consoled/; packages' __init__ only import."""
    found = (ROOT / 'consoled').rglob('*.py')
    return {str(path.relative_to(ROOT / 'consoled')) for path in found if path.name != '__init__.py'}


def unit_test(module):
    """Return the path of the unit test file of a module's name."""
    path = pathlib.PurePath(module)
    return ROOT / 'tests/unit' / path.with_name(f'test_{path.name.lstrip("_")}')


class CoverageMapTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.listed = [module for group in COVERED_BY.values() for module in group]
        self.with_test = {module for module in modules() if unit_test(module).exists()}

    def test_every_module_has_a_unit_test_file_or_is_listed(self):
        self.assertEqual(set(), modules() - self.with_test - set(self.listed))

    def test_those_listed_exist_once_and_have_no_unit_test_file(self):
        self.assertEqual(len(self.listed), len(set(self.listed)))
        self.assertEqual(set(), set(self.listed) - modules(), 'no such module')
        self.assertEqual(set(), set(self.listed) & self.with_test, 'these have a unit test file now')

    def test_the_suites_exist(self):
        suites = {suite for group in COVERED_BY.values() for suite in group.values()}
        self.assertEqual(set(), {suite for suite in suites if not (ROOT / 'tests' / suite).is_file()})
