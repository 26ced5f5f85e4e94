# SPDX-License-Identifier: Apache-2.0
"""The pages that the proxy serves: read into memory once, found by their exact URL path.

What is not in the table is not there: no path ever reaches the file system, so there is nothing to traverse,
to list or to redirect to. noVNC, spice-html5 and xterm.js are the operator's packages, found by options; the
pages around them are ours (``web/``).

    /novnc.html /spice.html /serial.html /web/…    ours
    /novnc/…                                       noVNC, as packaged
    /vnc.html /vnc_lite.html /app/… /core/… …      the same: addresses that clouds have configured today
    /spice/…  /terminal/…                          scripts of spice-html5 and xterm.js, without their pages
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from html.parser import HTMLParser

LOG = logging.getLogger(__name__)

MAX_BYTES = 20 * 1024 * 1024  # of all files together; the three packages have 5 MB
MAX_ENTRIES = 10_000  # of one directory: an option that says /usr must not stall the start
MAX_DEPTH = 16

# Ours, not the system's table: a browser that is told nosniff runs no script of another type.
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
_NAME = re.compile(r'[A-Za-z0-9_@+-][A-Za-z0-9_.@+-]*')  # no hidden files, nothing that a URL has to escape
# The first comes with spice-html5, for browsers without ES modules: 2 MB.
_UNUSED = frozenset(('browser-es-module-loader', 'node_modules'))
_SOURCE = re.compile(r'[!-+\--:<-~]+')  # one source of a policy: printable, without the separators , and ;

# noVNC's own page reads both since 1.6. Host and port from the query string would be void by the policy
# anyway; here they are void in a way that the user does not have to understand.
_NOVNC_DEFAULTS = b'{"autoconnect": true, "resize": "scale"}\n'
_NOVNC_MANDATORY = b'{"host": "", "port": 0}\n'


@dataclasses.dataclass(frozen=True)
class Page:
    """An answer without its Content-Length, Date and the like."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Pages:
    """All pages of one proxy. Immutable."""

    def __init__(self, pages: Mapping[str, Page]) -> None:
        self._pages = dict(pages)

    @classmethod
    def load(
        cls,
        novnc_path: str | None,
        spice_path: str | None,
        terminal_path: str | None,
        frame_ancestors: Sequence[str] = ("'self'",),
    ) -> Pages:
        """Read everything that will be served.

        A path of None leaves its page out. So does one that can not be used, with a warning that names its
        option: websockets work without pages.

        :param frame_ancestors: sources (CSP Level 3, 6.4.2) of the pages that may show ours in a frame
        :raises ValueError: a frame ancestor is not the form of a source
        """
        files = _Files()
        own = files.read(_WEB)
        make = _maker(frame_ancestors)
        pages = {f'/web/{name}': make(name, body) for name, body in own.items() if not name.endswith('.html')}
        pages['/favicon.ico'] = pages['/web/icon.svg']  # what browsers ask for on pages that name none
        for option, path, arrange in (
            ('novnc_path', novnc_path, _novnc),
            ('spice_path', spice_path, _spice),
            ('terminal_path', terminal_path, _terminal),
        ):
            if path is None:
                continue
            try:
                pages |= arrange(files.read(path), own, make)
            except (OSError, ValueError) as exc:
                reason = exc.strerror if isinstance(exc, OSError) else exc
                text = '[proxy] %s = %s can not be used (%s), so its page is not served.'
                LOG.warning(text, option, path, reason)
        return cls(pages)

    def __iter__(self) -> Iterator[str]:
        return iter(self._pages)

    def get(self, path: str, if_none_match: str | None = None) -> Page | None:
        """Return what is at a decoded URL path (without the query), or None.

        :param if_none_match: the request's header of that name (RFC 9110, 13.1.2)
        """
        page = self._pages.get(path)
        if page is not None and if_none_match is not None and _known(page, if_none_match):
            return Page(304, page.headers, b'')
        return page


def _known(page: Page, if_none_match: str) -> bool:
    tags = {tag.strip().removeprefix('W/') for tag in if_none_match.split(',')}
    return '*' in tags or dict(page.headers)['ETag'] in tags


class _Files:
    """Reads directories, within one bound of bytes for all of them."""

    def __init__(self) -> None:
        self._bytes = MAX_BYTES
        self._entries = MAX_ENTRIES

    def read(self, root: str) -> dict[str, bytes]:
        """Return what a page may need of a directory, by its relative path.

        :raises OSError: the directory or something in it can not be read
        :raises ValueError: it is over the bounds
        """
        self._entries = MAX_ENTRIES
        left = self._bytes
        try:
            return self._tree(root)
        except (OSError, ValueError):
            self._bytes = left  # what can not be used takes no room from the others
            raise

    def _tree(self, root: str) -> dict[str, bytes]:
        found = {}
        pending: list[tuple[str, tuple[str, ...]]] = [('', ())]
        while pending:
            prefix, parents = pending.pop()
            directory = os.path.join(root, prefix)
            real = os.path.realpath(directory)
            if real in parents:
                continue  # a link to where we came from
            for entry in self._list(directory):
                name = prefix + entry.name
                if entry.is_dir():
                    if entry.name not in _UNUSED and len(parents) < MAX_DEPTH:
                        pending.append((name + '/', (*parents, real)))
                elif os.path.splitext(name)[1] in CONTENT_TYPES and entry.is_file():
                    # packages link files to elsewhere (fonts, for one): what a regular file is at the end
                    found[name] = self._content(entry.path)
        return found

    def _list(self, directory: str) -> Iterator[os.DirEntry[str]]:
        with os.scandir(directory) as entries:
            for entry in entries:
                self._entries -= 1
                if self._entries < 0:
                    raise ValueError(f'over {MAX_ENTRIES} files')
                if _NAME.fullmatch(entry.name):
                    yield entry

    def _content(self, path: str) -> bytes:
        with open(path, 'rb') as file:
            content = file.read(self._bytes + 1)
        self._bytes -= len(content)
        if self._bytes < 0:
            raise ValueError(f'over {MAX_BYTES} bytes in all')
        return content


_Make = Callable[[str, bytes], Page]


def _novnc(files: Mapping[str, bytes], own: Mapping[str, bytes], make: _Make) -> dict[str, Page]:
    """noVNC from 1.3 on: a release, Debian's package, or the npm package ``@novnc/novnc`` (no pages)."""
    _require(files, 'core/rfb.js', b'export default')
    theirs = {name: make(name, body) for name, body in files.items()}
    theirs['defaults.json'] = make('defaults.json', _NOVNC_DEFAULTS)
    theirs['mandatory.json'] = make('mandatory.json', _NOVNC_MANDATORY)
    pages = {f'/novnc/{name}': page for name, page in theirs.items()}
    for name, page in theirs.items():
        if name.startswith(('app/', 'core/', 'vendor/')) or name.endswith('.json') and '/' not in name:
            pages[f'/{name}'] = page
    pages['/novnc.html'] = make('novnc.html', own['novnc.html'])
    for name in ('vnc.html', 'vnc_lite.html', 'vnc_auto.html'):
        pages[f'/{name}'] = theirs.get(name, pages['/novnc.html'])
    return pages


def _spice(files: Mapping[str, bytes], own: Mapping[str, bytes], make: _Make) -> dict[str, Page]:
    """spice-html5 from 0.3 on: flat as in Debian, or with ``src/``.

    Its pages are left out. They put the token into a cookie that any script can read, and the title from
    the URL into the page as HTML; ours takes the same query at the same address.
    """
    main = 'src/main.js' if 'src/main.js' in files else 'main.js'
    messages = main.replace('main.js', 'spicemsg.js')
    _require(files, main, b'SpiceMainConn')
    _require(files, messages, b'SpiceLinkAuthTicket')
    pages = {f'/spice/{name}': make(name, body) for name, body in files.items() if not name.endswith('.html')}
    adapter = f"export * from '../spice/{main}';\nexport * as messages from '../spice/{messages}';\n"
    pages['/web/spice-html5.js'] = make('spice-html5.js', adapter.encode())
    pages['/spice.html'] = pages['/spice_auto.html'] = make('spice.html', own['spice.html'])
    return pages


def _terminal(files: Mapping[str, bytes], own: Mapping[str, bytes], make: _Make) -> dict[str, Page]:
    """xterm.js from 5 on: the npm package ``@xterm/xterm``, or flat as in Debian 13 (``libjs-xterm``).

    Debian 12's package has a file of that name which no browser can run.
    """
    script, style = 'lib/xterm.js', 'css/xterm.css'
    if script not in files:
        script, style = 'xterm.js', 'xterm.css'
    _require(files, script, b'onData')
    _require(files, style, b'.xterm')
    return {
        '/terminal/xterm.js': make(script, files[script]),
        '/terminal/xterm.css': make(style, files[style]),
        '/serial.html': make('serial.html', own['serial.html']),
    }


def _require(files: Mapping[str, bytes], name: str, text: bytes) -> None:
    if text not in files.get(name, b''):
        raise ValueError(f'has no {name}' if name not in files else f'its {name} is not the right one')


def _maker(frame_ancestors: Sequence[str]) -> _Make:
    """Return what makes a page of a file."""
    if not all(_SOURCE.fullmatch(source) for source in frame_ancestors):
        raise ValueError('a frame ancestor is not the form of a source')
    ancestors = ' '.join(frame_ancestors) or "'none'"

    def make(name: str, body: bytes) -> Page:
        suffix = os.path.splitext(name)[1]
        headers = {
            'Content-Type': CONTENT_TYPES[suffix],
            'Cache-Control': 'no-cache',  # keep, but ask: an update of a package must not mix with its past
            'ETag': f'"{hashlib.sha256(body).hexdigest()[:32]}"',
            'X-Content-Type-Options': 'nosniff',
            'Referrer-Policy': 'no-referrer',  # the token is in the URL
            'Cross-Origin-Resource-Policy': 'same-origin',
        }
        if suffix == '.html':
            headers['Cache-Control'] = 'no-store'
            headers['Content-Security-Policy'] = _policy(body, ancestors)
        elif suffix == '.svg':  # the other type that is a document when somebody opens it
            headers['Content-Security-Policy'] = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
        return Page(200, tuple(headers.items()), body)

    return make


def _policy(body: bytes, ancestors: str) -> str:
    """Content Security Policy (CSP Level 3) of a page: same origin only, inline only what it came with.

    ``connect-src 'self'`` covers the websocket of the same host and port; it is also what takes the power
    from the host and port that noVNC's own pages accept in the query string.
    """
    inline = _Inline(body)
    return '; '.join(
        (
            "default-src 'none'",
            ' '.join(("script-src 'self'", *_hashes(inline.texts['script']))),
            ' '.join(("style-src 'self'", *_hashes(inline.texts['style']))),
            "img-src 'self' data: blob:",
            "font-src 'self'",
            "media-src 'self' data: blob:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            f'frame-ancestors {ancestors}',
        )
    )


def _hashes(texts: Iterable[str]) -> list[str]:
    digests = [hashlib.sha256(text.encode()).digest() for text in texts]
    return [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]


class _Inline(HTMLParser):
    """The inline scripts and styles of a page, as a browser sees them."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.texts: dict[str, list[str]] = {'script': [], 'style': []}
        self._open: list[str] | None = None
        # the HTML standard makes every newline an LF before it parses
        self.feed(body.decode('utf-8-sig').replace('\r\n', '\n').replace('\r', '\n'))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open = None
        if tag in self.texts and 'src' not in dict(attrs):
            self._open = self.texts[tag]
            self._open.append('')

    def handle_endtag(self, tag: str) -> None:
        self._open = None

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self._open[-1] += data


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

# For both forms of a refusal; the Content-Type comes on top. A frame may show it: there is nothing to click.
REFUSAL_HEADERS = (
    ('Content-Security-Policy', f"default-src 'none'; style-src {_hashes([_REFUSAL_STYLE])[0]}"),
    ('X-Content-Type-Options', 'nosniff'),
    ('Referrer-Policy', 'no-referrer'),
    ('Cache-Control', 'no-store'),
)
HTML = CONTENT_TYPES['.html']
JSON = CONTENT_TYPES['.json']


def refusal_page(status: int, code: str, reason: str) -> bytes:
    """Return the page for a browser that was refused: no script, nothing from elsewhere."""
    if status in (401, 403, 404, 410):
        advice = 'Go back to where you opened the console, and open it from there again.'
    elif status == 409 or status >= 429:
        advice = 'Try again in a moment.'
    else:
        advice = 'Open the console from your dashboard.'
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>No console</title>\n<style>{_REFUSAL_STYLE}</style>\n'
        f'<main>\n<h1>The console can not be opened</h1>\n<p>{html.escape(reason)}</p>\n<p>{advice}</p>\n'
        f'<p class="code">{int(status)} {html.escape(code)}</p>\n</main>\n</html>\n'
    ).encode()


def refusal_json(code: str, reason: str, retryable: bool) -> bytes:
    """Return the same for a page of ours, which asks for it when its websocket was refused."""
    return json.dumps({'code': code, 'reason': reason, 'retryable': retryable}).encode()
