# SPDX-License-Identifier: Apache-2.0
"""The pages: which files are served, at which addresses and with which headers, and that no others are."""

import json
import logging
import os
import re

import fixtures
import testtools

from consoled.proxy import pages
from tests.unit.proxy.test_csp import hash_source

INLINE = '\n  import RFB from "./core/rfb.js"; // < & é\n'
LITE = f'<style> b {{}} </style><script type="module">{INLINE}</script><script src="x.js"></script>'


class PagesTestCase(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.root = self.useFixture(fixtures.TempDir()).path
        self.log = self.useFixture(fixtures.FakeLogger('consoled.proxy.pages', logging.INFO))

    def tree(self, name, files):
        """Write files (content by relative path) to a directory of this name; return its path."""
        path = os.path.join(self.root, name)
        os.makedirs(path, exist_ok=True)
        for relative, content in files.items():
            target = os.path.join(path, relative)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, 'wb') as file:
                file.write(content if isinstance(content, bytes) else content.encode())
        return path

    def novnc(self, more=None):
        files = {
            'core/rfb.js': 'export default class RFB {}',
            'core/util/a.js': 'a',
            'vendor/pako/lib/utils/b.js': 'b',
            'app/ui.js': 'ui',
            'app/images/i.svg': '<svg/>',
            'app/styles/Orbitron700.woff': b'\0font',
            'vnc.html': '<!doctype html><script src="app/ui.js"></script>',
            'vnc_lite.html': LITE,
            'package.json': '{}',
            'mandatory.json': '{"host": "theirs"}',
            'utils/novnc_proxy': 'not served',
            'README.md': 'not served',
            '.git/config.json': 'not served',
        }
        return self.tree('novnc', files | (more or {}))

    def spice(self, prefix=''):
        files = {
            f'{prefix}main.js': 'export { SpiceMainConn };',
            f'{prefix}spicemsg.js': 'export { SpiceLinkAuthTicket };',
            'spice.html': '<script>hers()</script>',
            'spice_auto.html': '<p onclick="x()">',
            'spice.css': 'body {}',
        }
        return self.tree('spice' + prefix.strip('/'), files)

    def terminal(self, script='lib/xterm.js', style='css/xterm.css'):
        files = {script: 'Terminal; onData', style: '.xterm {}', 'src/x.json': '{}'}
        return self.tree('terminal' + script.replace('/', ''), files)

    def load(self, novnc=None, spice=None, terminal=None, **kwargs):
        return pages.Pages.load(novnc, spice, terminal, **kwargs)

    def load_all(self, **kwargs):
        return self.load(self.novnc(), self.spice(), self.terminal(), **kwargs)


class LayoutTestCase(PagesTestCase):
    def test_our_pages_and_their_scripts(self):
        loaded = self.load_all()
        for name in ('novnc', 'spice', 'serial'):
            self.assertIn(b'<!doctype html>', loaded.get(f'/{name}.html').body)
            self.assertIn(b'import', loaded.get(f'/web/{name}.js').body)
        self.assertEqual('', self.log.output)

    def test_novnc_is_served_at_its_own_and_at_the_customary_addresses(self):
        loaded = self.load_all()
        for name in (
            'core/rfb.js',
            'core/util/a.js',
            'vendor/pako/lib/utils/b.js',
            'app/ui.js',
            'package.json',
        ):
            self.assertIs(loaded.get(f'/novnc/{name}'), loaded.get(f'/{name}'))
        self.assertIn(b'app/ui.js', loaded.get('/vnc.html').body)
        self.assertEqual(LITE.encode(), loaded.get('/vnc_lite.html').body)

    def test_vnc_auto_is_our_page_whatever_the_package_has(self):
        loaded = self.load(self.novnc({'vnc_auto.html': LITE}))
        self.assertIs(loaded.get('/novnc.html'), loaded.get('/vnc_auto.html'))

    def test_tempest_knows_our_page(self):
        body = self.load_all().get('/vnc_auto.html').body.decode()
        for text in ('noVNC', '<script', '</html>'):
            self.assertIn(text, body)
        self.assertRegex(body, '<html.*>')

    def test_a_page_missing_from_the_package_is_replaced_by_ours(self):
        npm = self.tree('npm', {'core/rfb.js': 'export default class RFB {}'})
        loaded = self.load(npm)
        for name in ('vnc', 'vnc_lite', 'vnc_auto'):
            self.assertIs(loaded.get('/novnc.html'), loaded.get(f'/{name}.html'))

    def test_the_page_of_an_old_novnc_is_in_the_place_of_ours_which_needs_a_newer_one(self):
        for rfb in (
            'export default function RFB(target, url, options) {',
            'export default class RFB extends EventTargetMixin {\n    constructor(target, url, options) {',
        ):
            loaded = self.load(self.novnc({'core/rfb.js': rfb, 'vnc_lite.html': "import './core/rfb.js'"}))
            for name in ('novnc', 'vnc_auto', 'vnc_lite'):
                self.assertEqual(b"import './core/rfb.js'", loaded.get(f'/{name}.html').body)
            self.assertIn(b'app/ui.js', loaded.get('/vnc.html').body)
            self.assertEqual('', self.log.output)
            self.assertIsNone(self.load(self.tree('old', {'core/rfb.js': rfb})).get('/novnc.html'))
            self.assertIn('it has no vnc_lite.html; its page is not served', self.log.output)
            self.log.reset_output()

    def test_pages_of_novnc_itself_begin_with_our_script_and_may_run_it(self):
        loaded = self.load(self.novnc({'vnc.html': '<!doctype html><head><script src="app/ui.js"></script>'}))
        script = loaded.get('/web/novnc-page.js').body
        for path in ('/vnc.html', '/novnc/vnc.html'):
            page = loaded.get(path)
            self.assertIn(b'<head><script>' + script + b'</script><script src="app/ui.js">', page.body)
            self.assertIn(hash_source(script.decode()), dict(page.headers)['Content-Security-Policy'])
        self.assertNotIn(script, loaded.get('/novnc.html').body)

    def test_novnc_ignores_host_and_port_of_the_query(self):
        loaded = self.load_all()
        for prefix in ('/', '/novnc/'):
            self.assertEqual({'host': '', 'port': 0}, json.loads(loaded.get(prefix + 'mandatory.json').body))
            self.assertIs(True, json.loads(loaded.get(prefix + 'defaults.json').body)['autoconnect'])

    def test_spice_html5_in_both_layouts(self):
        for prefix in ('', 'src/'):
            loaded = self.load(None, self.spice(prefix))
            self.assertIsNotNone(loaded.get(f'/spice/{prefix}main.js'))
            adapter = loaded.get('/web/spice-html5.js').body.decode()
            self.assertIn(f"export * from '../spice/{prefix}main.js';\n", adapter)
            self.assertIn(f"export * as messages from '../spice/{prefix}spicemsg.js';\n", adapter)

    def test_the_pages_of_spice_html5_are_replaced_by_ours(self):
        loaded = self.load_all()
        self.assertIs(loaded.get('/spice.html'), loaded.get('/spice_auto.html'))
        self.assertIsNone(loaded.get('/spice/spice.html'))
        self.assertIsNone(loaded.get('/spice/spice_auto.html'))

    def test_xterm_in_both_layouts(self):
        for layout in (('lib/xterm.js', 'css/xterm.css'), ('xterm.js', 'xterm.css')):
            loaded = self.load(None, None, self.terminal(*layout))
            self.assertIn(b'onData', loaded.get('/terminal/xterm.js').body)
            self.assertIn(b'.xterm', loaded.get('/terminal/xterm.css').body)
            self.assertIsNone(loaded.get('/terminal/src/x.json'))

    def test_everything_that_our_pages_refer_to_is_served(self):
        loaded = self.load_all()
        own = ['/novnc.html', '/spice.html', '/serial.html', *(path for path in loaded if '/web/' in path)]
        for path in own:
            body = loaded.get(path).body.decode()
            where = os.path.dirname(path)
            names = re.findall(
                r"""(?:src|href)="([^"]+)"|(?:import|from) '(\.[^']+)'|import\('([^']+)'\)""", body
            )
            for name in filter(None, (name for groups in names for name in groups)):
                target = os.path.normpath(os.path.join(where, name))
                self.assertIsNotNone(loaded.get(target), f'{path} refers to {name}')


class UnusableDirectoriesTestCase(PagesTestCase):
    def test_pages_that_are_not_configured_are_left_out_silently(self):
        loaded = self.load()
        for path in ('/novnc.html', '/vnc.html', '/spice.html', '/serial.html', '/core/rfb.js'):
            self.assertIsNone(loaded.get(path))
        self.assertIsNotNone(loaded.get('/web/page.js'))
        self.assertEqual('', self.log.output)

    def test_unusable_directories_are_left_out_with_a_warning(self):
        not_there = os.path.join(self.root, 'nowhere')
        broken = self.tree('debian12', {'xterm.js': 'exports.Terminal', 'xterm.css': '.xterm'})
        loaded = self.load(not_there, self.tree('empty', {}), broken)
        for path in ('/novnc.html', '/vnc.html', '/spice.html', '/serial.html', '/terminal/xterm.js'):
            self.assertIsNone(loaded.get(path))
        novnc, spice, terminal = self.log.output.splitlines()
        self.assertIn(f'novnc_path = {not_there} cannot be used: No such file or directory', novnc)
        self.assertIn(': it has no main.js;', spice)
        self.assertIn('terminal_path', terminal)
        self.assertIn(': its xterm.js is of an unsupported version;', terminal)

    def test_invariant_9_the_size_is_limited(self):
        self.patch(pages, 'MAX_BYTES', 100_000)
        loaded = self.load(self.novnc({'app/big.js': b'x' * 100_000}), self.spice())
        self.assertIsNone(loaded.get('/novnc.html'))
        self.assertIn('more than 100000 bytes in total', self.log.output)
        self.assertIsNotNone(loaded.get('/spice.html'))  # not affected

    def test_invariant_9_the_number_of_files_is_limited(self):
        self.patch(pages, 'MAX_ENTRIES', 50)
        loaded = self.load(self.novnc({f'README{number}': '' for number in range(50)}), self.spice())
        self.assertIsNone(loaded.get('/novnc.html'))
        self.assertIsNotNone(loaded.get('/spice.html'))
        self.assertIn('more than 50 files', self.log.output)

    def test_links_to_parent_directories_are_not_followed(self):
        path = self.novnc()
        os.symlink('..', os.path.join(path, 'app', 'up'))
        os.symlink(path, os.path.join(path, 'core', 'again'))
        loaded = self.load(path)
        self.assertIsNotNone(loaded.get('/novnc.html'))
        self.assertEqual([], [name for name in loaded if 'again' in name or 'up/' in name])


class PathsTestCase(PagesTestCase):
    def test_paths_match_exactly(self):
        loaded = self.load_all()
        for path in (
            '',
            '/',
            '//',
            '/novnc',
            '/novnc/',
            '/web',
            '/web/',
            '/app/',
            '/core',
            'novnc.html',
            '//novnc.html',
            '/./novnc.html',
            '/web/../novnc.html',
            '/web//page.js',
            '/novnc.html/',
            '/novnc.html?token=x',
            '/NOVNC.html',
            '/novnc.html\0',
            '/novnc.html\0.js',
            '/novnc%2ehtml',
            '/web%2fpage.js',
            '\\novnc.html',
            '/web\\page.js',
            '/..',
            '/../etc/passwd',
            '/novnc/../../../../etc/passwd',
            '/novnc/..%2f..%2fetc%2fpasswd',
            '/novnc//etc/passwd',
            '/novnc/core/../../../etc/passwd',
            '/etc/passwd',
        ):
            self.assertIsNone(loaded.get(path), path)

    def test_files_that_no_page_needs_are_not_served(self):
        loaded = self.load_all()
        for name in ('README.md', 'utils/novnc_proxy', '.git/config.json'):
            self.assertIsNone(loaded.get(f'/novnc/{name}'))
            self.assertIsNone(loaded.get(f'/{name}'))

    def test_links_are_followed_to_regular_files_and_directories_only(self):
        elsewhere = self.tree('elsewhere', {'real.woff': b'font', 'dir/in.js': 'x'})
        path = self.novnc()
        app = os.path.join(path, 'app')
        os.symlink(os.path.join(elsewhere, 'real.woff'), os.path.join(app, 'font.woff'))
        os.symlink(os.path.join(elsewhere, 'dir'), os.path.join(app, 'dir'))
        os.symlink('/nowhere', os.path.join(app, 'gone.js'))
        os.symlink('/dev/zero', os.path.join(app, 'zero.js'))
        os.mkfifo(os.path.join(app, 'fifo.js'))
        loaded = self.load(path)
        self.assertEqual(b'font', loaded.get('/app/font.woff').body)
        self.assertEqual(b'x', loaded.get('/app/dir/in.js').body)
        for name in ('gone.js', 'zero.js', 'fifo.js'):
            self.assertIsNone(loaded.get(f'/app/{name}'))


class HeadersTestCase(PagesTestCase):
    def headers(self, loaded, path):
        page = loaded.get(path)
        self.assertEqual(200, page.status)
        self.assertEqual(len(page.headers), len({name.lower() for name, _ in page.headers}))
        return dict(page.headers)

    def policy(self, loaded, path):
        policy = self.headers(loaded, path)['Content-Security-Policy']
        directives = [directive.split() for directive in policy.split('; ')]
        return {name: sources for name, *sources in directives}

    def test_headers_of_every_page(self):
        loaded = self.load_all()
        for path in loaded:
            headers = self.headers(loaded, path)
            self.assertEqual('nosniff', headers['X-Content-Type-Options'])
            self.assertEqual('no-referrer', headers['Referrer-Policy'])
            self.assertEqual('same-origin', headers['Cross-Origin-Resource-Policy'])
            self.assertNotIn('X-Frame-Options', headers)
            for name, value in headers.items():
                self.assertRegex(f'{name}: {value}', r'\A[!-~][ -~]*\Z')

    def test_content_types(self):
        loaded = self.load_all()
        for path, expected in (
            ('/novnc.html', 'text/html; charset=utf-8'),
            ('/core/rfb.js', 'text/javascript; charset=utf-8'),
            ('/web/page.css', 'text/css; charset=utf-8'),
            ('/app/images/i.svg', 'image/svg+xml; charset=utf-8'),
            ('/app/styles/Orbitron700.woff', 'font/woff'),
            ('/package.json', 'application/json'),
        ):
            self.assertEqual(expected, self.headers(loaded, path)['Content-Type'])

    def test_scripts_are_revalidated_and_pages_are_not_stored(self):
        loaded = self.load_all()
        self.assertEqual('no-cache', self.headers(loaded, '/core/rfb.js')['Cache-Control'])
        self.assertEqual('no-store', self.headers(loaded, '/novnc.html')['Cache-Control'])

    def test_our_pages_have_the_strictest_policy(self):
        loaded = self.load_all()
        for name in ('novnc', 'spice', 'serial'):
            self.assertEqual(
                {
                    'default-src': ["'none'"],
                    'script-src': ["'self'"],
                    'style-src': ["'self'"],
                    'img-src': ["'self'", 'data:', 'blob:'],
                    'font-src': ["'self'"],
                    'media-src': ["'self'", 'data:', 'blob:'],
                    'connect-src': ["'self'"],
                    'base-uri': ["'none'"],
                    'form-action': ["'none'"],
                    'frame-ancestors': ["'self'"],
                },
                self.policy(loaded, f'/{name}.html'),
            )

    def test_our_pages_have_nothing_inline(self):
        loaded = self.load_all()
        for name in ('novnc', 'spice', 'serial'):
            body = loaded.get(f'/{name}.html').body.decode()
            self.assertNotRegex(body, r'<style|\son\w+=|\sstyle=|javascript:|https?:')
            self.assertEqual(body.count('<script'), body.count('<script type="module" src="'))

    def test_inline_scripts_and_styles_are_allowed_by_their_hash(self):
        policy = self.policy(self.load_all(), '/vnc_lite.html')
        self.assertEqual(["'self'", hash_source(INLINE)], policy['script-src'])
        self.assertEqual(["'self'", hash_source(' b {} ')], policy['style-src'])

    def test_only_scripts_and_other_parts_of_a_page_can_be_read_by_a_page_without_an_origin(self):
        loaded = self.load_all()
        for path in loaded:
            readable = self.headers(loaded, path).get('Access-Control-Allow-Origin')
            self.assertEqual(None if path.endswith('.html') else '*', readable, path)

    def test_svg_images_are_sandboxed(self):
        policy = self.policy(self.load_all(), '/app/images/i.svg')
        self.assertEqual(["'none'"], policy['default-src'])
        self.assertIn('sandbox', policy)

    def test_frame_ancestors(self):
        sources = ("'self'", 'https://dashboard.example.org', 'https://*.example.com:8443')
        policy = self.policy(self.load_all(frame_ancestors=sources), '/vnc.html')
        self.assertEqual(list(sources), policy['frame-ancestors'])
        policy = self.policy(self.load_all(frame_ancestors=()), '/novnc.html')
        self.assertEqual(["'none'"], policy['frame-ancestors'])

    def test_more_hosts_may_embed_a_page_but_no_script(self):
        loaded = self.load_all()
        page = loaded.get('/vnc.html')
        policy = dict(page.embeddable_by('https', ['a.example']).headers)['Content-Security-Policy']
        self.assertEqual(f'{dict(page.headers)["Content-Security-Policy"]} https://a.example:*', policy)
        self.assertEqual(page.body, page.embeddable_by('https', ['a.example']).body)
        for path in ('/core/rfb.js', '/app/images/i.svg'):
            self.assertEqual(loaded.get(path), loaded.get(path).embeddable_by('https', ['a.example']))

    def test_a_frame_ancestor_cannot_change_the_policy(self):
        for source in ('', 'a b', "'self'; script-src *", 'a,b', 'a\r\nSet-Cookie: x', 'é'):
            self.assertRaises(ValueError, self.load, frame_ancestors=(source,))


class ConditionalTestCase(PagesTestCase):
    def test_unmodified_content_is_not_sent_again(self):
        loaded = self.load_all()
        page = loaded.get('/core/rfb.js')
        tag = dict(page.headers)['ETag']
        self.assertRegex(tag, r'\A"[0-9a-f]{32}"\Z')
        for header in (tag, f'W/{tag}', f'"other", {tag}', '*'):
            again = loaded.get('/core/rfb.js', header)
            self.assertEqual((304, page.headers, b''), (again.status, again.headers, again.body))

    def test_modified_content_is_sent(self):
        loaded = self.load_all()
        tag = dict(loaded.get('/core/rfb.js').headers)['ETag']
        for header in ('', '"other"', tag.strip('"'), 'W/"other"'):
            self.assertEqual(200, loaded.get('/core/rfb.js', header).status)
        self.assertIsNone(loaded.get('/nothing', '*'))

    def test_an_etag_depends_on_the_content(self):
        loaded = self.load_all()
        self.assertNotEqual(loaded.get('/core/rfb.js').headers, loaded.get('/core/util/a.js').headers)
        self.assertEqual(loaded.get('/core/rfb.js').headers, self.load_all().get('/core/rfb.js').headers)


class RefusalTestCase(testtools.TestCase):
    def test_the_page_gives_the_reason_escaped(self):
        body = pages.refusal_page(401, 'invalid_"token"', 'It is <script>alert(1)</script> & gone.').decode()
        self.assertIn('It is &lt;script&gt;alert(1)&lt;/script&gt; &amp; gone.', body)
        self.assertIn('401 invalid_&quot;token&quot;', body)
        self.assertNotIn('<script', body)

    def test_the_page_gives_advice(self):
        self.assertIn(b'and open it again', pages.refusal_page(404, 'console_gone', 'Gone.'))
        self.assertIn(b'Try again in a moment', pages.refusal_page(503, 'manager_busy', 'Busy.'))
        self.assertIn(b'Try again in a moment', pages.refusal_page(409, 'console_in_use', 'In use.'))
        self.assertIn(b'from your dashboard', pages.refusal_page(426, 'upgrade_required', 'No websocket.'))

    def test_the_page_loads_nothing(self):
        body = pages.refusal_page(403, 'origin', 'x').decode()
        self.assertNotRegex(body, r'(?i)https?:|src=|href=|url\(|@import|<link|\sstyle=')
        headers = dict(pages.REFUSAL_HEADERS)
        style = re.search('<style>(.*?)</style>', body, re.DOTALL).group(1)
        self.assertEqual(
            f"default-src 'none'; style-src {hash_source(style)}", headers['Content-Security-Policy']
        )

    def test_headers(self):
        headers = dict(pages.REFUSAL_HEADERS)
        self.assertEqual('nosniff', headers['X-Content-Type-Options'])
        self.assertEqual('no-referrer', headers['Referrer-Policy'])
        self.assertEqual('no-store', headers['Cache-Control'])

    def test_json_for_our_pages(self):
        self.assertEqual(
            {'code': 'console_in_use', 'reason': 'Since "now" <é>.', 'retryable': True},
            json.loads(pages.refusal_json('console_in_use', 'Since "now" <é>.', True)),
        )
