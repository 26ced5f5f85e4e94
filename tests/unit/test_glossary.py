# SPDX-License-Identifier: Apache-2.0
"""One word for one thing: what the glossary of doc/design.md rules out does not appear."""

import dataclasses
import functools
import io
import pathlib
import re
import tokenize
from collections.abc import Iterator, Mapping

import testtools

from tests.unit import test_design

ROOT = test_design.ROOT

# Pages that are searched as text. The glossary itself is left out.
PAGES = ('*.md', 'doc/*.md', 'releasenotes/notes/*.yaml')
# Whether the code is searched too: identifiers word by word; strings, comments and other files as text.
SEARCH_CODE = True
OTHER_FILES = ('Makefile', 'etc/consoled/**/*', 'tools/*.sh', 'consoled/proxy/web/*')
PYTHON = ('consoled/**/*.py', 'tests/**/*.py', 'tools/*.py', 'alembic/**/*.py')


@dataclasses.dataclass(frozen=True)
class Rule:
    """A word that is not to be used.

    :ivar word: as the glossary has it, or what the rule is about
    :ivar pattern: regular expression, matched in lower case
    :ivar phrases: patterns in which the word is right, with the reason
    :ivar files: paths in which it is right, with the reason
    """

    word: str
    pattern: str
    phrases: Mapping[str, str] = dataclasses.field(default_factory=dict)
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)


RULES = (
    Rule('keeper', r'\bkeepers?\b'),
    Rule(
        'VM',
        r'\bvms?\b',
        phrases={r"'/ticket/[^']*'": 'a path of an ESXi host', 'vm[ _]state': 'a field of Nova'},
    ),
    Rule(
        'virtual machine',
        r'\bvirtual machines?\b',
        phrases={r'a virtual machine with two cores': 'where the benchmarks were measured'},
    ),
    Rule(
        'place',
        r'\bplaces?\b',
        phrases={
            r'\b(in one|in the|in|take|takes|took|take the|takes the|took the) place\b': 'an idiom',
            r'\bplaces videos\b': 'a verb',
            r'\bplace-items\b': 'a property of CSS',
        },
        files=dict.fromkeys(
            (
                'tests/functional/test_legacy_memcached.py',
                'tests/unit/proxy/test_limits.py',
                'tests/unit/proxy/test_session.py',
            ),
            'an argument of assertAlmostEqual',
        ),
    ),
    Rule(
        'ticket',
        r'\btickets?\b',
        phrases={
            r'\b(tls|session) tickets?\b': 'a term of TLS (RFC 5077)',
            r'\bticket 4711\b': "an operator's own reason",
            r"'/ticket/[^']*'": 'a path of an ESXi host',
        },
        files={
            'consoled/proxy/web/spice.js': 'a message of SPICE',
            'tests/e2e/test_qemu.py': 'a message of SPICE',
        },
    ),
    Rule('sign of life', r'\bsigns? of life\b'),
    Rule('take back', r'\b(take|takes|took) (it |them )?back\b'),
    Rule('taken back', r'\btaken back\b'),
    Rule('taking back', r'\btaking (it |them )?back\b'),
    Rule(
        'telling',
        r'\btelling\b',
        phrases={r'\b(most telling|telling systemd)\b': 'not a report to managers'},
    ),
    Rule('teller', r'\btellers?\b'),
    Rule('synchronizer', r'\bsynchronizers?\b'),
    Rule('agenda', r'\bagendas?\b'),
    Rule('scratch', r'\bscratch\b'),
    Rule('seldom', r'\bseldom\b'),
    Rule('placing', r'\bplacing\b'),
    Rule('wiring', r'\bwiring\b'),
    Rule('wired', r'\bwired\b'),
    Rule(
        'unsure',
        r'\bunsure\b',
        phrases={r'`unsure`|\bunsure=\[\]': 'the name on the wire'},
        files={
            'consoled/rpc/client.py': 'the name on the wire',
            'consoled/manager/manager.py': 'the name on the wire',
            'tests/unit/rpc/test_client.py': 'the name on the wire',
        },
    ),
)
STYLE = (
    Rule('can not', r'\bcan not\b'),
    Rule('by and by', r'\bby and by\b'),
)


@functools.cache
def as_words(name: str) -> str:
    """Split an identifier into words: ``TokenKeeper``, ``_token_keeper`` -> ``token keeper``."""
    return re.sub(r'(?<=[a-z0-9])(?=[A-Z])|_+', ' ', name).lower()


def pieces_of_python(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of each identifier, string and block of comments."""
    comment_line, comment = 0, ''
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comment_line = comment_line or token.start[0]
            comment += ' ' + token.string.lstrip('#')
            continue
        if token.type in (tokenize.NL, tokenize.INDENT, tokenize.DEDENT):
            continue
        if comment:
            yield comment_line, comment
            comment_line, comment = 0, ''
        if token.type == tokenize.NAME:
            yield token.start[0], as_words(token.string)
        elif token.type not in (tokenize.OP, tokenize.NUMBER, tokenize.NEWLINE):
            yield token.start[0], token.string


def paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of each paragraph of a page."""
    line = 1
    for paragraph in text.split('\n\n'):
        yield line, paragraph
        line += paragraph.count('\n') + 2


def without_glossary(text: str) -> str:
    """Return the page without the section that names the words it rules out; line numbers stay."""
    before, heading, rest = text.partition('## 1. Words\n')
    glossary, following, after = rest.partition('\n## 2. ')
    return before + heading + '\n' * glossary.count('\n') + following + after


def offences(rules: tuple[Rule, ...], path: str, pieces: Iterator[tuple[int, str]]) -> Iterator[str]:
    """Yield a line for each piece of a file that breaks a rule."""
    seen: set[str] = set()
    any_word = re.compile('|'.join(rule.pattern for rule in rules))
    for line, piece in pieces:
        if piece in seen:
            continue  # one line for an identifier that a file has many times
        seen.add(piece)
        text = ' '.join(piece.lower().split())
        if not any_word.search(text):
            continue
        for rule in rules:
            if path in rule.files:
                continue
            rest = text
            for phrase in rule.phrases:
                rest = re.sub(phrase, ' ', rest)
            if hit := re.search(rule.pattern, rest):
                around = rest[max(0, hit.start() - 40) : hit.end() + 40]
                yield f'{path}:{line}: "{rule.word}" in: {around}'


def search(rules: tuple[Rule, ...], root: pathlib.Path, *, code: bool) -> list[str]:
    """Return the offences in the files below a root, as lines for the developer."""
    found: list[str] = []
    for pattern in (*PAGES, *(OTHER_FILES if code else ())):
        for path in sorted(each for each in root.glob(pattern) if each.is_file()):
            name, text = str(path.relative_to(root)), path.read_text()
            if name == 'doc/design.md':
                text = without_glossary(text)
            found += offences(rules, name, paragraphs(text))
    for pattern in PYTHON if code else ():
        for path in sorted(root.glob(pattern)):
            if path.name != pathlib.Path(__file__).name:
                name = str(path.relative_to(root))
                found += offences(rules, name, pieces_of_python(path.read_text()))
    return found


class GlossaryTest(testtools.TestCase):
    def test_each_word_of_the_table_has_a_rule(self):
        table = test_design.rows(test_design.section('1. Words'))
        ruled_out = {word for _, _, words in table for word in test_design.words(words)}
        self.assertEqual(ruled_out, {rule.word for rule in RULES})

    def test_the_words_are_not_used(self):
        self.assertEqual([], search((*RULES, *STYLE), ROOT, code=SEARCH_CODE))

    def test_files_with_a_reason_still_need_it(self):
        for rule in RULES:
            for path in rule.files:
                self.assertTrue(re.search(rule.pattern, (ROOT / path).read_text().lower()), path)

    def test_identifiers_strings_and_comments_are_searched(self):
        code = "class TokenKeeper:\n    # any sign\n    # of life\n    x = f'the {y} is taken back'\n"
        found = list(offences(RULES, 'x.py', pieces_of_python(code)))
        self.assertEqual(
            [('x.py:1', 'keeper'), ('x.py:2', 'sign of life'), ('x.py:4', 'taken back')],
            [(each.split(': ')[0], each.split('"')[1]) for each in found],
        )
