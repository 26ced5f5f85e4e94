# SPDX-License-Identifier: Apache-2.0
"""Imports in the source follow the layers of doc/design.md, section 6."""

import ast
import pathlib

import testtools

import consoled

ROOT = pathlib.Path(consoled.__file__).parent

# unit -> units of consoled it may import; None: all
MAY_IMPORT = {
    'version': set(),
    'exception': set(),
    'token': set(),
    'conf': {'exception', 'version'},
    'context': {'exception'},
    'objects': {'exception'},
    'db': {'backoff', 'deadline', 'objects', 'conf', 'exception'},
    'rpc': {'backoff', 'conf', 'deadline', 'context', 'objects', 'exception', 'token'},
    'sources': {'context', 'objects'},
    'legacy': {'sources', 'objects', 'token', 'rpc', 'context', 'exception'},
    'nova': {'conf', 'context', 'db', 'exception', 'listening', 'objects', 'rpc', 'sources', 'token'},
    'backoff': set(),
    'deadline': set(),
    'listening': set(),
    'permits': set(),
    'printable': set(),
    'logs': {'backoff', 'printable'},
    'monitoring': {'listening'},
    'systemd': set(),
    'manager': {
        'backoff',
        'deadline',
        'db',
        'objects',
        'rpc',
        'token',
        'sources',
        'context',
        'conf',
        'exception',
        'monitoring',
        'permits',
        'systemd',
        'version',
    },
    'compute': {
        'backoff',
        'deadline',
        'objects',
        'rpc',
        'context',
        'conf',
        'exception',
        'monitoring',
        'permits',
        'systemd',
    },
    'proxy': {
        'backoff',
        'deadline',
        'conf',
        'objects',
        'rpc',
        'token',
        'context',
        'exception',
        'listening',
        'monitoring',
        'systemd',
    },
    'contrib': {'rpc', 'context', 'objects', 'exception', 'token', 'conf', 'proxy'},
    'cli': {'conf', 'db', 'exception', 'logs', 'objects', 'printable', 'version'},
    'consolectl': {
        'cli',
        'conf',
        'context',
        'exception',
        'objects',
        'printable',
        'rpc',
        'token',
        'version',
    },
    'manage': {'cli', 'db', 'exception', 'objects'},
    'upgradecheck': {
        *('cli', 'conf', 'db', 'deadline', 'exception', 'legacy', 'printable', 'rpc', 'sources'),
        'version',
    },
    'cmd': None,
    'demo': None,
    'testing': None,
}
# modules that may import more than their unit
EXCEPTIONS = {
    'conf/from_nova.py': {'nova'},
    'manager/legacy_bridge.py': {'legacy'},
    'manager/nova_bridge.py': {'nova'},
    'upgradecheck/main.py': {'nova'},
    'consolectl/relay.py': {'proxy'},
}
SANS_IO = ('token', 'exception', 'backoff')
PROXY_SANS_IO = {
    *('close_codes', 'csp', 'flow', 'forwarded', 'fragments', 'handshake', 'input_filter', 'limits'),
    *('origin', 'origin_policy', 'spice_messages', 'terminal_reports', 'user_socket'),
    *('base', 'messages', 'rfb', 'tunnel', 'vencrypt'),
}
IO_MODULES = {'socket', 'ssl', 'asyncio', 'sqlalchemy', 'oslo_messaging', 'oslo_config', 'oslo_log'}


def modules():
    """(unit, path, tree) of each module of the product."""
    for path in sorted(ROOT.rglob('*.py')):
        relative = path.relative_to(ROOT)
        if (
            relative.parts[:2] == ('db', 'alembic')
            or relative.name == '__init__.py'
            and len(relative.parts) == 1
        ):
            continue
        unit = relative.parts[0].removesuffix('.py')
        yield unit, relative, ast.parse(path.read_text())


def imported(tree):
    """(line, dotted name) of each import, `from a import b` giving a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.lineno, f'{node.module}.{alias.name}'


class LayersTest(testtools.TestCase):
    def test_units_import_only_what_the_design_allows(self):
        wrong = []
        for unit, path, tree in modules():
            self.assertIn(unit, MAY_IMPORT, f'{path}: say in MAY_IMPORT where it belongs')
            allowed = MAY_IMPORT[unit]
            for line, name in imported(tree):
                parts = name.split('.')
                if parts[0] != 'consoled' or allowed is None or len(parts) == 1:
                    continue
                if parts[1] not in {unit, *allowed, *EXCEPTIONS.get(str(path), ())}:
                    wrong.append(f'{path}:{line}: {unit} may not import consoled.{parts[1]}')
        self.assertEqual([], wrong)

    def test_only_the_backend_module_imports_eventlet(self):
        wrong = [
            f'{path}:{line}'
            for _, path, tree in modules()
            for line, name in imported(tree)
            if name.split('.')[0] == 'eventlet' and str(path) != 'cmd/_backend.py'
        ]
        self.assertEqual([], wrong)

    def test_pure_units_do_no_io(self):
        """They do not import objects either, which need oslo libraries; end reasons are only names."""
        wrong = [
            f'{path}:{line}: {name}'
            for unit, path, tree in modules()
            for line, name in imported(tree)
            if (unit in SANS_IO or (unit == 'proxy' and path.stem in PROXY_SANS_IO))
            and (
                name.split('.')[0] in IO_MODULES
                or (name.startswith('consoled.objects') and not name.startswith('consoled.objects.reasons'))
            )
        ]
        self.assertEqual([], wrong)

    def test_the_global_config_is_touched_by_programs_only(self):
        wrong = [
            f'{path}:{node.lineno}'
            for unit, path, tree in modules()
            for node in ast.walk(tree)
            if unit != 'cmd'
            and isinstance(node, ast.Attribute)
            and node.attr == 'CONF'
            and isinstance(node.value, ast.Name)
            and node.value.id == 'cfg'
        ]
        self.assertEqual([], wrong)

    def test_modules_and_functions_stay_short(self):
        wrong = []
        for _, path, tree in modules():
            length = len((ROOT / path).read_text().splitlines())
            if length > 400:
                wrong.append(f'{path}: {length} lines')
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    lines = node.end_lineno - node.lineno + 1
                    if lines > 50:
                        wrong.append(f'{path}:{node.lineno}: {node.name} has {lines} lines')
        self.assertEqual([], wrong)
