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
        'conf/opts.py': 'unit/test_sample.py',
        'conf/proxy.py': 'unit/test_sample.py',
        'conf/upgrade_levels.py': 'unit/test_sample.py',
        'conf/workarounds.py': 'unit/test_sample.py',
    },
    'declares data and decides nothing; whoever uses it is tested': {
        'compute/metrics.py': 'functional/test_compute_daemon.py',
        'manager/metrics.py': 'unit/test_monitoring.py',
        'proxy/metrics.py': 'functional/test_proxy_operations.py',
        'db/models.py': 'functional/db/test_migrations.py',
        'version.py': 'functional/test_wheel.py',
    },
    'small and pure; tested with its neighbours': {
        'backoff.py': 'unit/test_basics.py',
        'context.py': 'unit/test_basics.py',
        'deadline.py': 'unit/compute/test_deadline_driver.py',
        'exception.py': 'unit/test_basics.py',
        'sources.py': 'functional/test_token_sources.py',
        'token.py': 'unit/test_basics.py',
        'objects/base.py': 'unit/objects/test_objects.py',
        'objects/connection.py': 'unit/objects/test_objects.py',
        'objects/fields.py': 'unit/objects/test_objects.py',
        'objects/reasons.py': 'unit/objects/test_objects.py',
        'objects/session.py': 'unit/objects/test_objects.py',
        'objects/token.py': 'unit/objects/test_objects.py',
        'rpc/arguments.py': 'unit/rpc/test_rpcapi.py',
        'rpc/caller.py': 'unit/rpc/test_rpcapi.py',
        'rpc/client.py': 'unit/rpc/test_rpcapi.py',
        'rpc/serializer.py': 'unit/objects/test_objects.py',
        'rpc/server.py': 'unit/rpc/test_rpcapi.py',
        'rpc/transport.py': 'functional/test_canary.py',
        'rpc/versions.py': 'unit/objects/test_objects.py',
        'upgradecheck/deprecated_options.py': 'unit/upgradecheck/test_checks.py',
    },
    'the drivers and what they are made of; the tests lie one folder up': {
        'compute/port_conflicts.py': 'unit/compute/test_workqueue.py',
        'compute/reporter.py': 'unit/compute/test_reconciler.py',
        'compute/drivers/base.py': 'unit/compute/test_loading.py',
        'compute/drivers/console_builder.py': 'unit/compute/test_console_builder.py',
        'compute/drivers/deadline_driver.py': 'unit/compute/test_deadline_driver.py',
        'compute/drivers/demo.py': 'unit/compute/test_demo.py',
        'compute/drivers/domain_xml.py': 'unit/compute/test_domain_xml.py',
        'compute/drivers/libvirt.py': 'unit/compute/test_libvirt.py',
        'compute/drivers/libvirt_connection.py': 'unit/compute/test_libvirt.py',
        'compute/drivers/loading.py': 'unit/compute/test_loading.py',
    },
    'a frame around the tools; tested as their users run them': {
        'cli/arguments.py': 'unit/cli/test_app.py',
        'cli/database_app.py': 'unit/cli/test_app.py',
        'cli/errors.py': 'unit/cli/test_app.py',
        'cli/output.py': 'unit/cli/test_app.py',
        'consolectl/app.py': 'unit/cli/test_app.py',
        'consolectl/attachment.py': 'unit/consolectl/test_attach.py',
        'consolectl/bus.py': 'functional/test_cli.py',
        'consolectl/filters.py': 'unit/cli/test_app.py',
        'consolectl/main.py': 'unit/cli/test_app.py',
        'consolectl/revoke.py': 'unit/cli/test_app.py',
        'consolectl/session.py': 'unit/cli/test_app.py',
        'consolectl/terminal.py': 'unit/consolectl/test_attach.py',
        'consolectl/token.py': 'unit/cli/test_app.py',
    },
    'a program; started as a process': {
        'cmd/_backend.py': 'functional/test_daemon.py',
        'cmd/_daemon.py': 'functional/test_daemon.py',
        'cmd/_setup.py': 'unit/cli/test_app.py',
        'cmd/compute.py': 'functional/test_compute_daemon.py',
        'cmd/demo.py': 'functional/test_demo.py',
        'cmd/manage.py': 'unit/cli/test_app.py',
        'cmd/manager.py': 'functional/test_daemon.py',
        'cmd/proxy.py': 'functional/test_proxy_operations.py',
        'cmd/status.py': 'functional/test_status.py',
        'compute/service.py': 'functional/test_compute_daemon.py',
        'manager/service.py': 'functional/test_daemon.py',
        'proxy/service.py': 'functional/test_proxy_operations.py',
        'demo/bus.py': 'functional/test_demo.py',
        'demo/cell.py': 'functional/test_demo.py',
        'demo/links.py': 'functional/test_demo.py',
        'demo/main.py': 'functional/test_demo.py',
        'demo/proxy.py': 'functional/test_demo.py',
        'demo/user.py': 'functional/test_demo.py',
        'demo/walk.py': 'functional/test_demo.py',
    },
    'SQL, which differs between databases; tested on each of them': {
        'db/claims.py': 'functional/db/test_interleavings.py',
        'db/cleanup.py': 'functional/db/test_cleanup.py',
        'db/clock.py': 'functional/test_clocks.py',
        'db/consoles.py': 'functional/test_tokens.py',
        'db/hosts.py': 'functional/db/test_hosts.py',
        'db/legacy.py': 'functional/test_token_sources.py',
        'db/managers.py': 'functional/db/test_managers.py',
        'db/migration.py': 'functional/db/test_migrations.py',
        'db/proxies.py': 'functional/test_sessions.py',
        'db/session.py': 'functional/db/test_interleavings.py',
        'db/sessions.py': 'functional/test_sessions.py',
        'db/tokens.py': 'functional/test_tokens.py',
    },
    'decides together with the bus and the database': {
        'manager/manager.py': 'functional/test_tokens.py',
        'manager/periodic.py': 'functional/db/test_managers.py',
        'manager/sessions.py': 'functional/test_sessions.py',
        'manager/tokens.py': 'functional/test_tokens.py',
    },
    'decides together with real connections': {
        'proxy/audit.py': 'functional/test_proxy_audit.py',
        'proxy/connection.py': 'functional/test_proxy_hostile.py',
        'proxy/listener.py': 'functional/test_proxy_operations.py',
        'proxy/server.py': 'functional/test_proxy.py',
        'proxy/targets.py': 'functional/test_proxy_security.py',
    },
    'decides together with memcached or the libraries of the old service': {
        'legacy/bounds.py': 'unit/legacy/test_thread_pool.py',
        'legacy/consoleauth.py': 'functional/test_legacy_consoleauth.py',
        'legacy/memcache_clients.py': 'functional/test_legacy_memcached.py',
        'legacy/pymemcache_client.py': 'functional/test_legacy_faults.py',
        'legacy/setup.py': 'functional/test_legacy_consoleauth.py',
        'legacy/throttled_log.py': 'unit/legacy/test_thread_pool.py',
    },
    'is for tests itself; those that use it fail with it': {
        'testing/daemons.py': 'functional/test_daemon.py',
        'testing/driver_kit.py': 'unit/compute/test_demo.py',
        'testing/fixtures.py': 'functional/test_services.py',
        'testing/processes.py': 'functional/test_services.py',
        'testing/services.py': 'functional/test_services.py',
        'testing/sources.py': 'functional/test_token_sources.py',
        'testing/guests/backdrop.py': 'unit/testing/guests/test_picture.py',
        'testing/guests/base.py': 'unit/testing/guests/test_plain.py',
        'testing/guests/canvas.py': 'unit/testing/guests/test_picture.py',
        'testing/guests/desktop.py': 'unit/testing/guests/test_rfb.py',
        'testing/guests/fixture.py': 'unit/testing/guests/test_plain.py',
        'testing/guests/font.py': 'unit/testing/guests/test_picture.py',
        'testing/guests/pixels.py': 'unit/testing/guests/test_picture.py',
        'testing/guests/rfb_guest.py': 'unit/testing/guests/test_rfb.py',
        'testing/guests/serial_guest.py': 'unit/testing/guests/test_serial.py',
        'testing/guests/shell.py': 'unit/testing/guests/test_serial.py',
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
