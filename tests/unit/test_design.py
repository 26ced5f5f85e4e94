# SPDX-License-Identifier: Apache-2.0
"""doc/design.md agrees with the code: invariants, tables, contract, errors, layers, options."""

import inspect
import pathlib
import re

import oslo_messaging
import testtools
from oslo_config import cfg
from oslo_log import log
from sqlalchemy.dialects import mysql

from consoled import conf as consoled_conf
from consoled import exception, objects
from consoled.compute.endpoint import ComputeConsoleEndpoint
from consoled.db import models
from consoled.legacy.consoleauth import ConsoleauthEndpoint
from consoled.manager.manager import ConsoleAuthManager
from consoled.objects import EndReason
from consoled.proxy import close_codes
from consoled.proxy.server import ProxyEndpoint
from consoled.proxy.session import TRANSITIONS, State
from consoled.rpc.client import ComputeConsoleAPI, ConsoleAuthAPI
from tests.unit import test_layers

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / 'doc/design.md'
TEXT = PAGE.read_text()

HEADING = re.compile(r'(?m)^#{2,4} (.+)$')
INVARIANT = re.compile(r'(?m)^### Invariant (\d+): ')
# "invariant 4", "Invariants 1 and 10", "invariants 1, 2 and 3", test_invariant_4_...
CITED = re.compile(r'(?i)invariants?[ _](\d+(?:(?:, | and |, and )\d+)*)')
# "doc/design.md, section 6"
SECTION = re.compile(r'design\.md,? section (\d+)')
CODE = re.compile(r'`([^`]+)`')
SIGNATURE = re.compile(r'(\w+)\((.*)\)')
MODULE = re.compile(r'^[\w/]+\.py$')
# folders with files that cite the page
CITING = ('consoled', 'tests', 'alembic', 'tools', 'doc')

ENDPOINTS = {
    'Topic `consoled`: managers': ConsoleAuthManager,
    'Topic `consoled-compute`: compute agents': ComputeConsoleEndpoint,
    'Topic `consoled-proxy`: proxies': ProxyEndpoint,
    '10. Legacy consoleauth': ConsoleauthEndpoint,
}
# the close code for a reason that an operator made up
REVOKED = 4403


def section(heading, text=TEXT):
    """Return the text below a heading, up to the next heading of any level."""
    found = re.search(rf'(?m)^#+ {re.escape(heading)}$', text)
    if found is None:
        raise AssertionError(f'design.md has no heading "{heading}"')
    return HEADING.split(text[found.end() :], maxsplit=1)[0]


def rows(text):
    """Yield the cells of each row of the Markdown tables in a text, without their heads."""
    for block in re.findall(r'(?m)(?:^\|.*\n?)+', text):
        for line in block.splitlines()[2:]:
            yield [cell.strip() for cell in re.split(r'(?<!\\)\|', line)[1:-1]]


def four_columns(text):
    return [row for row in rows(text) if len(row) == 4]


def two_columns(text):
    return [row for row in rows(text) if len(row) == 2]


def words(cell):
    """Return what a cell has between backticks."""
    return CODE.findall(cell)


def sources():
    """Yield (path below the root, text) of each file that may cite the page."""
    for folder in CITING:
        for path in sorted((ROOT / folder).rglob('*')):
            if path.suffix in ('.py', '.md', '.sh', '.js'):
                yield path.relative_to(ROOT), path.read_text()
    for path in sorted(ROOT.glob('*.md')):
        yield path.relative_to(ROOT), path.read_text()


def cited(text):
    """Return the numbers of the invariants that a text cites."""
    return {int(number) for found in CITED.findall(text) for number in re.findall(r'\d+', found)}


def exposed(endpoint):
    """Return the names of the methods that can be called over RPC."""
    policy = oslo_messaging.ExplicitRPCAccessPolicy()
    return {name for name in dir(endpoint) if policy.is_allowed(endpoint, name)}


def arguments(method):
    """Return the names of a method's arguments, and whether it takes others by keyword."""
    parameters = list(inspect.signature(method).parameters.values())[2:]  # without self and context
    names = {each.name for each in parameters if each.kind is not each.VAR_KEYWORD}
    return names, len(names) < len(parameters)


def errors():
    """Return all domain errors by the name of their class."""
    return {
        name: error
        for name, error in vars(exception).items()
        if isinstance(error, type)
        and issubclass(error, exception.ConsoledException)
        and error is not exception.ConsoledException
    }


class InvariantsTest(testtools.TestCase):
    numbers = sorted(int(number) for number in INVARIANT.findall(TEXT))

    def test_they_are_numbered_from_one(self):
        self.assertEqual(list(range(1, len(self.numbers) + 1)), self.numbers)

    def test_each_that_is_cited_exists(self):
        unknown = {
            f'{path}: invariant {number}'
            for path, text in sources()
            for number in cited(text) - set(self.numbers)
        }
        self.assertEqual(set(), unknown)

    def test_each_is_proved_by_the_tests_it_names(self):
        for number in self.numbers:
            heading = re.search(rf'(?m)^### (Invariant {number}: .+)$', TEXT)[1]
            proof = section(heading).partition('- Proved by ')[2]
            named = [name for name in words(proof) if name.startswith('tests/')]
            self.assertNotEqual([], named, f'invariant {number} names no test')
            for name in named:
                self.assertTrue((ROOT / name).exists(), f'invariant {number}: {name}')
                self.assertIn(number, cited((ROOT / name).read_text()), f'{name} does not cite it')

    def test_each_test_that_proves_one_is_named(self):
        proofs = TEXT.partition('## 3. Invariants')[2].partition('\n## ')[0]
        missing = {
            f'{path}: {name}'
            for path, text in sources()
            if path.parts[0] == 'tests' and str(path) not in proofs
            for name in re.findall(r'def (test_invariant_\w+)', text)
        }
        self.assertEqual(set(), missing)

    def test_sections_that_are_cited_exist(self):
        known = {int(number) for number in re.findall(r'(?m)^## (\d+)\. ', TEXT)}
        for path, text in sources():
            for number in SECTION.findall(text):
                self.assertIn(int(number), known, f'{path}: section {number}')

    def test_modules_that_are_named_exist(self):
        for name in words(TEXT):
            if MODULE.match(name):
                found = [ROOT / name, ROOT / 'consoled' / name]
                self.assertTrue(any(path.exists() for path in found), name)


class DatabaseTest(testtools.TestCase):
    def test_the_tables_are_those_of_the_models(self):
        described = set(re.findall(r'(?m)^### `(\w+)`$', TEXT))
        self.assertEqual(set(models.metadata.tables), described)

    def test_their_columns_are_those_of_the_models(self):
        for name, table in models.metadata.tables.items():
            expected = [
                (column.name, column.type.compile(dialect=mysql.dialect()), 'null' if column.nullable else '')
                for column in table.columns
            ]
            found = [(words(row[0])[0], row[1], row[2]) for row in rows(section(f'`{name}`'))]
            self.assertEqual(expected, found, name)

    def test_their_keys_are_those_of_the_models(self):
        for name, table in models.metadata.tables.items():
            _, _, keys = section(f'`{name}`').partition('\nKey')
            primary = ', '.join(f'`{column.name}`' for column in table.primary_key)
            self.assertIn(primary, ' '.join(keys.split()), name)
            named = {word for word in words(keys) if word in table.columns}
            indexed = {column.name for index in table.indexes for column in index.columns}
            constrained = {column.name for each in table.constraints for column in each.columns}
            self.assertEqual(indexed | constrained, named, name)


class ContractTest(testtools.TestCase):
    def check(self, endpoint, text, name):
        found = {}
        for row in rows(text):
            method, given = SIGNATURE.fullmatch(words(row[0])[0].replace('\\|', ',')).groups()
            found[method] = {part.partition('=')[0].strip() for part in given.split(',') if part.strip()}
        self.assertEqual(exposed(endpoint), set(found), name)
        for method, given in found.items():
            names, more = arguments(getattr(endpoint, method))
            given = {argument for argument in given if not argument.startswith('**')}
            self.assertEqual(names, given & names if more else given, f'{name}: {method}')

    def test_the_methods_are_those_that_can_be_called(self):
        for heading, endpoint in ENDPOINTS.items():
            self.check(endpoint, section(heading), heading)

    def test_the_readme_has_the_same(self):
        readme = (ROOT / 'README.md').read_text()
        self.check(ConsoleAuthManager, section('The RPC contract', readme), 'README.md')

    def test_the_errors_they_refuse_with_exist(self):
        for heading in ENDPOINTS:
            for row in rows(section(heading)):
                self.assertEqual(set(), set(words(row[3])) - set(errors()), row[0])

    def test_clients_raise_the_errors_they_refuse_with(self):
        for api, endpoint in (
            (ConsoleAuthAPI, ConsoleAuthManager),
            (ComputeConsoleAPI, ComputeConsoleEndpoint),
        ):
            (heading,) = (name for name, each in ENDPOINTS.items() if each is endpoint)
            for row in rows(section(heading)):
                method = SIGNATURE.fullmatch(words(row[0])[0].replace('\\|', ',')).group(1)
                raised = {each.__name__ for each in api.refusals_of.get(method, api.refusals)}
                self.assertEqual(set(), set(words(row[3])) - raised, method)

    def test_objects(self):
        found = {}
        for names, fields in rows(section('Objects')):
            for name in words(names):
                found[name] = words(fields)
        for name, fields in found.items():
            self.assertEqual(list(getattr(objects, name).fields), fields, name)
        registered = objects.base.ConsoledObjectRegistry.obj_classes()
        self.assertEqual(set(registered), set(found))


class ErrorsTest(testtools.TestCase):
    def test_each_has_its_code_and_status(self):
        expected = {
            (name, error.code, error.http_status, 'yes' if error.retryable else 'no')
            for name, error in errors().items()
        }
        found = {
            (words(name)[0], words(code)[0], int(status), again)
            for name, code, status, again in rows(section('Errors'))
        }
        self.assertEqual(expected, found)

    def test_operators_are_told_the_same(self):
        expected = {
            (error.code, str(error.http_status), 'yes' if error.retryable else 'no')
            for error in errors().values()
        }
        found = set()
        for codes, statuses, again, *_ in rows(section('Errors', (ROOT / 'doc/operations.md').read_text())):
            status = statuses.split(', ')
            names = words(codes)
            found |= {
                (name, each, again)
                for name, each in zip(names, status * (len(names) if len(status) == 1 else 1), strict=True)
            }
        self.assertEqual(expected, found)

    def test_each_end_reason_has_its_close_code(self):
        found = {words(row[0])[0]: int(row[2]) for row in rows(section('End reasons'))}
        self.assertEqual({str(reason) for reason in EndReason}, set(found))
        self.assertEqual({reason: close_codes.ending(reason).code for reason in found}, found)
        self.assertEqual(REVOKED, close_codes.ending('an operator made this up').code)
        self.assertIn(f'closes the websocket with {REVOKED}', ' '.join(section('End reasons').split()))


class SessionTest(testtools.TestCase):
    def test_the_states_and_transitions_are_those_of_the_proxy(self):
        text = section('The life of a session')
        told = {
            (words(state)[0], words(event)[0], words(to)[0]) for state, event, to, _ in four_columns(text)
        }
        table = {
            (state.value, event.value, to.value)
            for state, events in TRANSITIONS.items()
            for event, to in events.items()
        }
        self.assertEqual(table, told)
        self.assertEqual([state.value for state in State], [words(row[0])[0] for row in two_columns(text)])


class LayersTest(testtools.TestCase):
    def test_the_units_may_import_what_their_test_allows(self):
        expected = {
            unit: 'everything' if allowed is None else ', '.join(sorted(allowed)) or 'nothing of consoled'
            for unit, allowed in test_layers.MAY_IMPORT.items()
        }
        found = {}
        for units, _, allowed in rows(section('6. Layout and layers')):
            for unit in words(units):
                found[unit] = ', '.join(sorted(words(allowed))) or allowed
        self.assertEqual(expected, found)

    def test_the_modules_that_may_import_more_are_named(self):
        exceptions = [line for line in TEXT.split('\n- ') if line.startswith('`tests/unit/test_layers.py`')]
        for path, units in test_layers.EXCEPTIONS.items():
            self.assertEqual(set(), {path, *units} - set(words(exceptions[0])))


class OptionsTest(testtools.TestCase):
    def test_those_that_the_outside_relies_on_exist(self):
        conf = cfg.ConfigOpts()
        log.register_options(conf)
        consoled_conf.register_opts(conf)
        for groups, names in rows(section('9. Options that the outside relies on')):
            for group in words(groups):
                known = conf if group == 'DEFAULT' else conf[group]
                for name in words(names):
                    self.assertIn(name, known, f'[{group}] {name}')
