# SPDX-License-Identifier: Apache-2.0
"""The pages name options, files, pages and headings that exist."""

import pathlib
import re

import testtools
from oslo_cache import core as cache
from oslo_config import cfg
from oslo_log import log

from consoled import conf as consoled_conf

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob('*.md'), *ROOT.glob('doc/*.md')])
EXAMPLE = re.compile(r'(?m)^    .*$')
# `[group] option`, `[group] option = value`, `[group] prefix_*`; a line may end between the two
OPTION = re.compile(r'`\[(\w+)\]\s+(\w+)(\*?)')
LINK = re.compile(r'\]\(([^()\s]+)\)')
GROUP = re.compile(r'    \[(\w+)\]( +#.*)?$')
HEADING = re.compile(r'(?m)^#+ (.+)$')
# options of the service that a cloud moves over from
OLD = {('DEFAULT', 'console_token_ttl'), ('DEFAULT', 'memcached_servers')}
ASSIGNED = re.compile(r'(\w+) = ')
CITED = re.compile(r'\bdoc/[\w-]+\.md\b')
FILE = re.compile(r'`([\w./-]+\.(?:py|sh|js))`')
# where the pages' paths of files begin
FOLDERS = ('', 'consoled')
# patterns of names
PATTERNS = {'alembic/versions/NNNN_what.py'}
CODE = ('consoled', 'tests', 'alembic', 'tools', 'etc')


def anchor(heading):
    """Return the fragment that GitHub makes of a heading."""
    return re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')


class DocsTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.conf = cfg.ConfigOpts()
        log.register_options(self.conf)
        consoled_conf.register_opts(self.conf)
        cache.configure(self.conf)

    def names(self, group):
        return set(self.conf if group == 'DEFAULT' else self.conf[group])

    def check(self, page, group, option, prefix=False):
        if (group, option) in OLD:
            return
        try:
            names = self.names(group)
        except cfg.NoSuchOptError:
            self.fail(f'{page.name}: there is no group [{group}]')
        found = any(name.startswith(option) for name in names) if prefix else option in names
        self.assertTrue(found, f'{page.name}: there is no [{group}] {option}')

    def test_options_in_the_text(self):
        found = 0
        for page in PAGES:
            for group, option, star in OPTION.findall(EXAMPLE.sub('', page.read_text())):
                self.check(page, group, option, prefix=bool(star))
                found += 1
        self.assertGreater(found, 50)

    def test_options_in_the_examples(self):
        found = 0
        for page in PAGES:
            group = None
            for line in page.read_text().splitlines():
                if not line.startswith('    '):
                    group = group if not line else None
                elif found_group := GROUP.match(line):
                    group = found_group[1]
                elif group and (option := ASSIGNED.match(line.strip())):
                    self.check(page, group, option[1])
                    found += 1
        self.assertGreater(found, 10)

    def test_links_within_the_project(self):
        for page in PAGES:
            for target in LINK.findall(page.read_text()):
                if '://' in target:
                    continue
                path, _, fragment = target.partition('#')
                linked = (page.parent / path) if path else page
                self.assertTrue(linked.exists(), f'{page.name}: {target}')
                if fragment:
                    anchors = {anchor(heading) for heading in HEADING.findall(linked.read_text())}
                    self.assertIn(fragment, anchors, f'{page.name}: {target}')

    def test_files_that_are_named_exist(self):
        for page in PAGES:
            for name in set(FILE.findall(page.read_text())) - PATTERNS:
                found = any((ROOT / folder / name).is_file() for folder in FOLDERS)
                self.assertTrue(found, f'{page.name}: there is no file {name}')

    def test_pages_that_the_code_cites(self):
        found = 0
        for folder in CODE:
            for path in (ROOT / folder).rglob('*'):
                if path.suffix in ('.py', '.sh', '.js', '.service', '.conf', '.sample'):
                    for page in CITED.findall(path.read_text()):
                        self.assertTrue((ROOT / page).exists(), f'{path.relative_to(ROOT)}: {page}')
                        found += 1
        self.assertGreater(found, 0)
