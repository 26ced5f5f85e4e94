# SPDX-License-Identifier: Apache-2.0
"""The pages that the proxy serves: read into memory once, looked up by their exact URL path.

No path of a request ever reaches the file system: there is nothing to traverse, list or redirect to. noVNC,
spice-html5 and xterm.js come from packages that the operator installs, in directories named by options; the
pages around them are consoled's own (``web/``).

    /novnc.html /spice.html /serial.html /web/…    consoled's own
    /novnc/…                                       noVNC, as packaged
    /vnc.html /vnc_lite.html /app/… /core/… …      the same, at the addresses that clouds have configured
    /spice/…  /terminal/…                          scripts of spice-html5 and xterm.js, without their pages
"""

from __future__ import annotations

import dataclasses
import hashlib
import html
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from oslo_config import cfg

from consoled.proxy import csp

LOG = logging.getLogger(__name__)

TERMINAL = '/serial.html'

MAX_BYTES = 20 * 1024 * 1024  # of all files together; the three packages have 5 MB
MAX_ENTRIES = 10_000  # per option, in all its directories: an option set to /usr must not stall the start
MAX_DEPTH = 16  # levels of directories

# Not the system's mimetypes, which may differ: with nosniff, browsers run scripts of the right type only.
CONTENT_TYPES = {
    '.css': 'text/css; charset=utf-8',
    '.gif': 'image/gif',
    '.html': 'text/html; charset=utf-8',
    '.ico': 'image/x-icon',
    '.jpg': 'image/jpeg',
    '.js': 'text/javascript; charset=utf-8',
    '.json': 'application/json',
    '.mjs': 'text/javascript; charset=utf-8',
    '.mp3': 'audio/mpeg',
    '.oga': 'audio/ogg',
    '.ogg': 'audio/ogg',
    '.png': 'image/png',
    '.svg': 'image/svg+xml; charset=utf-8',
    '.ttf': 'font/ttf',
    '.wasm': 'application/wasm',
    '.woff': 'font/woff',
    '.woff2': 'font/woff2',
}

_WEB = os.path.join(os.path.dirname(__file__), 'web')
# of files that are served: not hidden, and without characters that a URL has to escape
_NAME = re.compile(r'[A-Za-z0-9_@+-][A-Za-z0-9_.@+-]*')
# browser-es-module-loader comes with spice-html5, for browsers without ES modules: 2 MB.
_UNUSED_DIRECTORIES = frozenset(('browser-es-module-loader', 'node_modules'))

# noVNC's own page reads both files since 1.6. The Content-Security-Policy blocks any host and port from the
# query string anyway; with these settings noVNC ignores them, and the user sees no error.
_NOVNC_DEFAULTS = b'{"autoconnect": true, "resize": "scale"}\n'
_NOVNC_MANDATORY = b'{"host": "", "port": 0}\n'


@dataclasses.dataclass(frozen=True)
class Page:
    """An HTTP response, without Content-Length and Date."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def embeddable_by(self, scheme: str, hosts: Iterable[str]) -> Page:
        """Return the page with a policy that lets pages of these hosts embed it, too."""
        headers = dict(self.headers)
        policy = headers.get('Content-Security-Policy', '')
        headers['Content-Security-Policy'] = csp.with_ancestors(policy, scheme, hosts)
        return dataclasses.replace(self, headers=tuple(headers.items())) if policy else self


class Pages:
    """All pages of a proxy, by URL path. Immutable."""

    def __init__(self, pages: Mapping[str, Page]) -> None:
        self._pages = dict(pages)

    @classmethod
    def from_conf(cls, conf: cfg.ConfigOpts) -> Pages:
        """Load the pages from the directories that the configuration names.

        :raises ValueError: a frame ancestor is malformed
        """
        options = conf.proxy
        return cls.load(
            options.novnc_path,
            options.spice_path,
            options.terminal_path,
            frame_ancestors=options.frame_ancestors,
        )

    @classmethod
    def load(
        cls,
        novnc_path: str | None,
        spice_path: str | None,
        terminal_path: str | None,
        frame_ancestors: Sequence[str] = ("'self'",),
    ) -> Pages:
        """Read all files that are to be served.

        A page whose path is None is left out. So is one whose directory cannot be used, with a warning that
        names the option: websockets work without pages.

        :param frame_ancestors: CSP sources (CSP Level 3, section 6.4.2) of sites that may embed the pages
        :raises ValueError: a frame ancestor is malformed
        """
        reader = _DirectoryReader()
        own = reader.read(_WEB)
        build = _page_builder(frame_ancestors)
        pages = {
            f'/web/{name}': build(name, body) for name, body in own.items() if not name.endswith('.html')
        }
        pages['/favicon.ico'] = pages['/web/icon.svg']  # requested for pages that do not name an icon
        for option, path, arrange in (
            ('novnc_path', novnc_path, _arrange_novnc),
            ('spice_path', spice_path, _arrange_spice),
            ('terminal_path', terminal_path, _arrange_terminal),
        ):
            if path is None:
                continue
            try:
                pages |= arrange(reader.read(path), own, build)
            except (OSError, ValueError) as exc:
                reason = exc.strerror if isinstance(exc, OSError) else exc
                LOG.warning(
                    '[proxy] %s = %s cannot be used: %s; its page is not served', option, path, reason
                )
        return cls(pages)

    def __iter__(self) -> Iterator[str]:
        return iter(self._pages)

    def get(self, path: str, if_none_match: str | None = None) -> Page | None:
        """Return the page at a decoded URL path (without the query), or None.

        :param if_none_match: the request's header of this name (RFC 9110, section 13.1.2)
        :returns: the page, with status 304 and no body if the header matches its ETag
        """
        page = self._pages.get(path)
        if page is not None and if_none_match is not None and _matches(page, if_none_match):
            return Page(304, page.headers, b'')
        return page


def _matches(page: Page, if_none_match: str) -> bool:
    tags = {tag.strip().removeprefix('W/') for tag in if_none_match.split(',')}
    return '*' in tags or dict(page.headers)['ETag'] in tags


class _DirectoryReader:
    """Reads directories of files, with one limit on their total size."""

    def __init__(self) -> None:
        self._bytes_left = MAX_BYTES
        self._entries_left = MAX_ENTRIES

    def read(self, root: str) -> dict[str, bytes]:
        """Return the contents of all files in a directory that browsers may need, by their relative paths.

        :raises OSError: the directory or one of its files cannot be read
        :raises ValueError: a limit is exceeded
        """
        self._entries_left = MAX_ENTRIES
        bytes_left = self._bytes_left
        try:
            return self._read_tree(root)
        except (OSError, ValueError):
            self._bytes_left = bytes_left  # the others may use what this one has taken
            raise

    def _read_tree(self, root: str) -> dict[str, bytes]:
        found = {}
        pending: list[tuple[str, tuple[str, ...]]] = [('', ())]
        while pending:
            prefix, parents = pending.pop()
            directory = os.path.join(root, prefix)
            real = os.path.realpath(directory)
            if real in parents:
                continue  # a link to a directory that it lies in
            for entry in self._scan(directory):
                name = prefix + entry.name
                if entry.is_dir():
                    if entry.name not in _UNUSED_DIRECTORIES and len(parents) < MAX_DEPTH:
                        pending.append((name + '/', (*parents, real)))
                elif os.path.splitext(name)[1] in CONTENT_TYPES and entry.is_file():
                    # links are followed, as packages link to fonts of other packages
                    found[name] = self._read_file(entry.path)
        return found

    def _scan(self, directory: str) -> Iterator[os.DirEntry[str]]:
        with os.scandir(directory) as entries:
            for entry in entries:
                self._entries_left -= 1
                if self._entries_left < 0:
                    raise ValueError(f'more than {MAX_ENTRIES} files')
                if _NAME.fullmatch(entry.name):
                    yield entry

    def _read_file(self, path: str) -> bytes:
        with open(path, 'rb') as file:
            content = file.read(self._bytes_left + 1)
        self._bytes_left -= len(content)
        if self._bytes_left < 0:
            raise ValueError(f'more than {MAX_BYTES} bytes in total')
        return content


_Build = Callable[[str, bytes], Page]
_BEFORE_1_3 = b'(target, url, options)'  # parameters of RFB, in noVNC's core/rfb.js


def _arrange_novnc(files: Mapping[str, bytes], own: Mapping[str, bytes], build: _Build) -> dict[str, Page]:
    """Arrange noVNC, 1.0 or newer: a release, Debian's package, or npm's ``@novnc/novnc`` (until 1.4).

    A page that the package lacks (npm's has none) is replaced by consoled's own. That one needs 1.3, which
    takes a websocket of ours; with an older release noVNC's own simple page is served instead.
    """
    _require(files, 'core/rfb.js', b'export default')
    old = _BEFORE_1_3 in files['core/rfb.js']
    if old:
        _require(files, 'vnc_lite.html', b'core/rfb.js')
    packaged = {name: build(name, _adapt_novnc(name, body, own)) for name, body in files.items()}
    packaged['defaults.json'] = build('defaults.json', _NOVNC_DEFAULTS)
    packaged['mandatory.json'] = build('mandatory.json', _NOVNC_MANDATORY)
    pages = {f'/novnc/{name}': page for name, page in packaged.items()}
    for name, page in packaged.items():
        if name.startswith(('app/', 'core/', 'vendor/')) or name.endswith('.json') and '/' not in name:
            pages[f'/{name}'] = page
    pages['/novnc.html'] = packaged['vnc_lite.html'] if old else build('novnc.html', own['novnc.html'])
    for name in ('vnc.html', 'vnc_lite.html'):
        pages[f'/{name}'] = packaged.get(name, pages['/novnc.html'])
    # Nova's default. noVNC's connected by itself while it had one; Debian's is vnc.html, which does not.
    pages['/vnc_auto.html'] = pages['/novnc.html']
    return pages


def _adapt_novnc(name: str, body: bytes, own: Mapping[str, bytes]) -> bytes:
    """Let a page of noVNC itself begin with consoled's ``novnc-page.js``; return other files as they are."""
    if not name.endswith('.html'):
        return body
    return body.replace(b'<head>', b'<head><script>' + own['novnc-page.js'] + b'</script>', 1)


def _arrange_spice(files: Mapping[str, bytes], own: Mapping[str, bytes], build: _Build) -> dict[str, Page]:
    """Arrange spice-html5, 0.3 or newer: flat as in Debian, or with ``src/``.

    Its own pages are left out: they store the token in a cookie that any script can read, and insert the
    title from the URL as HTML. consoled's page takes the same query at the same address.
    """
    main = 'src/main.js' if 'src/main.js' in files else 'main.js'
    messages = main.replace('main.js', 'spicemsg.js')
    _require(files, main, b'SpiceMainConn')
    _require(files, messages, b'SpiceLinkAuthTicket')
    pages = {
        f'/spice/{name}': build(name, body) for name, body in files.items() if not name.endswith('.html')
    }
    adapter = f"export * from '../spice/{main}';\nexport * as messages from '../spice/{messages}';\n"
    pages['/web/spice-html5.js'] = build('spice-html5.js', adapter.encode())
    pages['/spice.html'] = pages['/spice_auto.html'] = build('spice.html', own['spice.html'])
    return pages


def _arrange_terminal(files: Mapping[str, bytes], own: Mapping[str, bytes], build: _Build) -> dict[str, Page]:
    """Arrange xterm.js, 5 or newer: the npm package ``@xterm/xterm``, or Debian 13's ``libjs-xterm`` (flat).

    The xterm.js in Debian 12's package cannot run in a browser.
    """
    script, style = 'lib/xterm.js', 'css/xterm.css'
    if script not in files:
        script, style = 'xterm.js', 'xterm.css'
    _require(files, script, b'onData')
    _require(files, style, b'.xterm')
    return {
        '/terminal/xterm.js': build(script, files[script]),
        '/terminal/xterm.css': build(style, files[style]),
        TERMINAL: build('serial.html', own['serial.html']),
    }


def _require(files: Mapping[str, bytes], name: str, text: bytes) -> None:
    """Check that a file is there, and contains a text by which the supported versions are known."""
    if name not in files:
        raise ValueError(f'it has no {name}')
    if text not in files[name]:
        raise ValueError(f'its {name} is of an unsupported version')


def _page_builder(frame_ancestors: Sequence[str]) -> _Build:
    """Return a function that builds a page from the name and the content of a file."""
    if not all(csp.is_source(source) for source in frame_ancestors):
        raise ValueError('[proxy] frame_ancestors: not a valid CSP source')
    ancestors = ' '.join(frame_ancestors) or "'none'"

    def build(name: str, body: bytes) -> Page:
        suffix = os.path.splitext(name)[1]
        headers = {
            'Content-Type': CONTENT_TYPES[suffix],
            'Cache-Control': 'no-cache',  # revalidate, so that files of two versions of a package never mix
            'ETag': f'"{hashlib.sha256(body).hexdigest()[:32]}"',
            'X-Content-Type-Options': 'nosniff',
            'Referrer-Policy': 'no-referrer',  # the token is in the URL
            'Cross-Origin-Resource-Policy': 'same-origin',
        }
        if suffix == '.html':
            headers['Cache-Control'] = 'no-store'
            headers['Content-Security-Policy'] = csp.page_policy(body, ancestors)
        else:  # a page in a sandboxed frame has no origin, but has to run to say so; packages are no secret
            headers['Access-Control-Allow-Origin'] = '*'
        if suffix == '.svg':  # opened directly, it is a document that could run scripts
            headers['Content-Security-Policy'] = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
        return Page(200, tuple(headers.items()), body)

    return build


_REFUSAL_STYLE = """
:root { color-scheme: dark; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; background: #0d1117; color: #e6edf3;
  font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 32rem; margin: 1rem; padding: 2rem; border: 1px solid #30363d; border-radius: 12px;
  background: #161b22; }
h1 { margin: 0 0 1rem; font-size: 1.25rem; }
p { margin: 0 0 1rem; }
.code { margin: 0; color: #9198a1; font-size: .875rem; }
"""

# For both forms of a refusal, in addition to the Content-Type. Sites may embed it: there is nothing to click.
REFUSAL_HEADERS = (
    ('Content-Security-Policy', f"default-src 'none'; style-src {csp.hash_sources([_REFUSAL_STYLE])[0]}"),
    ('X-Content-Type-Options', 'nosniff'),
    ('Referrer-Policy', 'no-referrer'),
    ('Cache-Control', 'no-store'),
)
HTML = CONTENT_TYPES['.html']
JSON = CONTENT_TYPES['.json']


def refusal_page(status: int, code: str, reason: str) -> bytes:
    """Return the page that tells a user why a request was refused; it has no scripts and loads nothing."""
    if status in (401, 403, 404, 410):
        advice = 'Go back to the page where you opened the console, and open it again.'
    elif status == 409 or status >= 429:
        advice = 'Try again in a moment.'
    else:
        advice = 'Open the console from your dashboard.'
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>Console unavailable</title>\n<style>{_REFUSAL_STYLE}</style>\n'
        f'<main>\n<h1>Cannot open the console</h1>\n<p>{html.escape(reason)}</p>\n<p>{advice}</p>\n'
        f'<p class="code">{int(status)} {html.escape(code)}</p>\n</main>\n</html>\n'
    ).encode()


def refusal_json(code: str, reason: str, retryable: bool, extra: Mapping[str, object] | None = None) -> bytes:
    """Return the JSON that tells a program, such as the console pages, why a request was refused.

    :param extra: what some errors say besides
    """
    return json.dumps({'code': code, 'reason': reason, 'retryable': retryable, **(extra or {})}).encode()
