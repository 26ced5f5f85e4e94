# SPDX-License-Identifier: Apache-2.0
"""The commands and the configuration files that the pages show are accepted by the programs."""

import contextlib
import io
import re
import shlex
import subprocess
import tempfile
import uuid
from unittest import mock

import fixtures
import oslo_messaging
import testtools
from oslo_cache import core as cache
from oslo_config import cfg

from consoled.conf import files
from consoled.consolectl.main import Consolectl
from consoled.manage.main import Manage
from consoled.upgradecheck.main import Status
from tests.bench import __main__ as bench
from tests.bench import watch as bench_watch
from tests.bench.hosts import __main__ as bench_hosts
from tests.bench.proxy import __main__ as bench_proxy
from tests.unit import test_docs

ROOT = test_docs.ROOT
TOOLS = {'consolectl': Consolectl, 'consoled-manage': Manage, 'consoled-status': Status}
BENCHMARKS = {
    'tests.bench': bench,
    'tests.bench.proxy': bench_proxy,
    'tests.bench.hosts': bench_hosts,
    'tests.bench.watch': bench_watch,
}
DAEMONS = {'consoled', 'consoled-proxy', 'consoled-compute', 'consoled-nova'}

INDENTED = re.compile(r'(?m)(?:^    .*\n(?:[ \t]*\n)*)+')
INLINE = re.compile(r'`([^`]+)`')
HERE = re.compile(r"<<'EOF'.*?^ *EOF$", re.DOTALL | re.MULTILINE)
INI_LINE = re.compile(r' *(\[\w+\].*|\w+ = .*|#.*|)$')
UPPER_CASE = re.compile(r'[A-Z]+')  # stands for a value of the reader's
TARGET = re.compile(r'(?m)^([a-z0-9-]+):')
# what a shell does with the words around a command
SEPARATORS = {'&', ';', '|', '&&', '||', '(', ')'}


def indented(page):
    """Return the indented blocks of a page, without their indentation."""
    return [re.sub(r'(?m)^    ', '', block) for block in INDENTED.findall(page.read_text())]


def commands(line):
    """Yield the words of each command in a line of shell, without the directory of the program."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=';|&()')
    lexer.whitespace_split = True
    words = []
    for word in [*lexer, ';']:
        if word not in SEPARATORS:
            words.append(word)
        elif words:
            yield [words[0].rpartition('/')[2], *words[1:]]
            words = []


def in_blocks():
    """Yield (page, words) of each command in the blocks of the pages."""
    for page in test_docs.PAGES:
        for block in indented(page):
            for line in HERE.sub('', block).replace('\\\n', ' ').splitlines():
                with contextlib.suppress(ValueError):  # a drawing, or XML
                    for words in commands(line):
                        yield page.name, words


def in_text():
    """Yield (page, words) of each command that the text of the pages names, some without their arguments."""
    for page in test_docs.PAGES:
        for span in INLINE.findall(test_docs.EXAMPLE.sub('', page.read_text())):
            with contextlib.suppress(ValueError):
                for words in commands(span.replace('\n', ' ')):
                    yield page.name, words


def with_values(words):
    """Put values for what the reader has to fill in, and take what is optional as given."""
    words = [word.strip('[]') for word in words]
    return [
        str(uuid.UUID(int=1)) if UPPER_CASE.fullmatch(word) or word == '$guest' else word for word in words
    ]


def ini_files(page):
    """Yield the configuration files in the blocks of a page, from the first [group] on."""
    for block in indented(page):
        lines = []
        for line in [*block.splitlines(), 'the end']:
            if INI_LINE.fullmatch(line) and (lines or line.startswith('[')):
                lines.append(line)
            elif lines:
                yield '\n'.join(lines) + '\n'
                lines = []


class CommandsTest(testtools.TestCase):
    def parser_of(self, words, out):
        """Return the parser of a command of one of the tools, and the arguments for it."""
        app = TOOLS[words[0]](stdin=out, stdout=out, stderr=out)
        self.addCleanup(app.resources.close)
        _, rest = app.parser.parse_known_args(words[1:])
        factory, name, arguments = app.command_manager.find_command(rest)
        return factory(app, None).get_parser(name), arguments

    def test_the_tools_accept_what_the_blocks_show(self):
        found = [(page, words) for page, words in in_blocks() if words[0] in TOOLS and len(words) > 1]
        self.assertGreater(len(found), 5)
        for page, words in found:
            out = io.StringIO()
            with contextlib.redirect_stderr(out):
                try:
                    parser, arguments = self.parser_of(with_values(words), out)
                    parser.parse_args(arguments)
                except (SystemExit, ValueError) as exc:
                    self.fail(f'{page}: {" ".join(words)}: {exc} {out.getvalue()}')

    def test_the_tools_have_the_commands_and_options_that_the_text_names(self):
        found = [(page, words) for page, words in in_text() if words[0] in TOOLS and len(words) > 1]
        self.assertGreater(len(found), 20)
        for page, words in found:
            try:
                parser, arguments = self.parser_of(words, io.StringIO())
            except ValueError as exc:
                self.fail(f'{page}: {" ".join(words)}: {exc}')
            options = {word.strip('[]') for word in arguments if word.strip('[').startswith('-')}
            self.assertEqual(
                set(), options - set(parser._option_string_actions), f'{page}: {" ".join(words)}'
            )

    def test_the_benchmarks_accept_what_the_pages_show(self):
        found = [
            words for _, words in in_blocks() if words[:2] == ['python', '-m'] and words[2] in BENCHMARKS
        ]
        self.assertGreater(len(found), 10)
        for words in found:
            arguments = [word for word in words[3:] if word != '--help']
            with mock.patch('sys.argv', [words[2], *arguments]):
                BENCHMARKS[words[2]]._arguments()

    def test_targets_of_make_exist(self):
        targets = set(TARGET.findall((ROOT / 'Makefile').read_text()))
        named = {words[1] for _, words in [*in_blocks(), *in_text()] if words[0] == 'make' and len(words) > 1}
        self.assertGreater(len(named), 10)
        self.assertEqual(set(), named - targets)

    def test_daemons_are_started_without_arguments_that_they_do_not_have(self):
        found = [words for _, words in in_blocks() if words[0] in DAEMONS]
        self.assertGreater(len(found), 3)
        for words in found:
            self.assertEqual([], [word for word in words[1:] if word.startswith('-')], words)

    def test_shell_examples_are_shell(self):
        for page in test_docs.PAGES:
            for block in indented(page):
                if re.search(r'(?m)^(\S*/)?(consolectl|consoled[\w-]*|apt-get|pip|make|install|for) ', block):
                    script = re.sub(r'\[(OPTION|--\w+).*?\]', '', block)
                    done = subprocess.run(['bash', '-n'], input=script, text=True, capture_output=True)
                    self.assertEqual((0, ''), (done.returncode, done.stderr), f'{page.name}:\n{block}')


class ConfigurationTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.useFixture(fixtures.FakeLogger())  # warnings of deprecated options

    def load(self, text):
        """Read a configuration file as the programs do, every value included. Nova's is empty."""
        nova = self.useFixture(fixtures.TempDir()).path + '/nova.conf'
        open(nova, 'w').close()
        text = text.replace('/etc/nova/nova.conf', nova)
        with tempfile.NamedTemporaryFile('w', suffix='.conf') as file:
            file.write(text)
            file.flush()
            conf = cfg.ConfigOpts()
            cache.configure(conf)
            files.load(conf, ['--config-file', file.name], prog='consoled')
            files.check(conf)
            for group in ('DEFAULT', *conf.list_all_sections()):
                for option in conf if group == 'DEFAULT' else conf[group]:
                    _ = conf[option] if group == 'DEFAULT' else conf[group][option]
            oslo_messaging.TransportURL.parse(conf)
            return conf

    def test_programs_read_the_files_that_the_pages_show(self):
        found = [(page.name, text) for page in test_docs.PAGES for text in ini_files(page)]
        self.assertGreater(len(found), 6)
        for page, text in found:
            try:
                self.load(text)
            except (cfg.Error, ValueError) as exc:
                self.fail(f'{page}: {exc}\n{text}')

    def test_a_comment_behind_a_value_is_not_accepted(self):
        """oslo.config takes it as a part of the value."""
        self.assertRaises((ValueError, cfg.Error), self.load, '[consoleauth]\ntoken_ttl = 600  # seconds\n')
