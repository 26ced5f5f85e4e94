# SPDX-License-Identifier: Apache-2.0
"""A page with links that open the guests' consoles, as a cloud's dashboard has."""

from __future__ import annotations

import contextlib
import dataclasses
import html
import http.server
import threading
from collections.abc import Callable, Iterator, Mapping

from consoled import exception
from consoled.compute.drivers import demo as demo_driver
from consoled.context import RequestContext
from consoled.demo.cell import COMPUTE_HOST, Cell
from consoled.objects import ConsoleType


@dataclasses.dataclass(frozen=True)
class Links:
    """URLs by their description, and a sentence for each thing that is missing to open them."""

    urls: dict[str, str]
    missing: list[str]


@dataclasses.dataclass(frozen=True)
class _Link:
    """A link: title, description, and a function that requests an access URL."""

    title: str
    text: str
    access_url: Callable[[], str]


@contextlib.contextmanager
def dashboard(cell: Cell, host: str) -> Iterator[Links]:
    """Serve the page, after defining the guests that the walk has deleted."""
    cell.define_consoles()
    links = _links(cell)
    page = Dashboard(host, links)
    page.start()
    try:
        urls = {'both on one page': page.url}
        urls |= {link.title: page.url + path.lstrip('/') for path, link in links.items()}
        yield Links(urls, _missing(cell))
    finally:
        page.stop()


def _missing(cell: Cell) -> list[str]:
    pages = cell.proxy.pages
    lacking = [name for name in ('novnc', 'serial') if pages is None or pages.get(f'/{name}.html') is None]
    if not lacking:
        return []
    return [f'The pages of {" and ".join(lacking)} are not installed: run tools/setup-pages.sh as root.']


def _links(cell: Cell) -> dict[str, _Link]:
    context = RequestContext(user_id='you', project_id='demo')

    def opener(guest: demo_driver.Guest, console_type: str) -> Callable[[], str]:
        def request() -> str:
            grant = cell.compute.get_console(context, COMPUTE_HOST, guest.uuid, console_type)
            return str(grant.access_url)

        return request

    return {
        '/desktop': _Link(
            'screen of desktop',
            'VNC, shown by noVNC. Type something, move the pointer, open it twice.',
            opener(demo_driver.DESKTOP, ConsoleType.NOVNC),
        ),
        '/router': _Link(
            'serial port of router',
            'A terminal, shown by xterm.js. Type help. Each time, you get the next free one of four ports.',
            opener(demo_driver.ROUTER, ConsoleType.SERIAL),
        ),
    }


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>consoled demo</title>
<style>
:root {{ color-scheme: dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 4rem auto; padding: 0 1rem;
  background: #0d1117; color: #e6edf3 }}
a {{ display: block; margin: 1rem 0; padding: 1rem 1.25rem; border: 1px solid #30363d; border-radius: 12px;
  background: #161b22; color: inherit; text-decoration: none }}
a:hover, a:focus {{ border-color: #58a6ff }}
b {{ display: block }} small {{ color: #9198a1 }}
</style>
<h1>A cell with two guests</h1>
<p>This page stands for a cloud's dashboard: each link requests a console auth token and opens the
console with it.</p>
{links}
</html>
"""


class Dashboard:
    """HTTP server of the page.

    :param host: address to listen on, at any free port
    :param links: the links by their path
    :ivar url: of the page
    """

    def __init__(self, host: str, links: Mapping[str, _Link]) -> None:
        body = '\n'.join(
            f'<a href="{path}"><b>{html.escape(link.title)}</b> <small>{html.escape(link.text)}</small></a>'
            for path, link in links.items()
        )

        class Handler(http.server.BaseHTTPRequestHandler):
            timeout = 5

            def do_GET(self) -> None:  # noqa: N802 - the library's name
                if self.path in links:
                    self._open(links[self.path].access_url)
                elif self.path == '/':
                    self._answer(200, _PAGE.format(links=body))
                else:
                    self._answer(404, 'Page not found.')

            def _open(self, access_url: Callable[[], str]) -> None:
                try:
                    self._answer(302, '', ('Location', access_url()))
                except exception.ConsoledException as exc:
                    self._answer(exc.http_status, html.escape(str(exc)))

            def _answer(self, status: int, text: str, *headers: tuple[str, str]) -> None:
                data = text.encode()
                self.send_response(status)
                for name, value in (
                    ('Content-Type', 'text/html; charset=utf-8'),
                    ('Content-Length', str(len(data))),
                    ('Cache-Control', 'no-store'),
                    *headers,
                ):
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: object) -> None:
                """Log nothing: redirects contain tokens."""

        self._server = http.server.ThreadingHTTPServer((host, 0), Handler)
        self._server.daemon_threads = True
        self.url = 'http://{}:{}/'.format(*self._server.server_address[:2])

    def start(self) -> None:
        """Serve in a thread."""
        threading.Thread(target=self._server.serve_forever, name='dashboard', daemon=True).start()

    def stop(self) -> None:
        """Stop serving and close the socket."""
        self._server.shutdown()
        self._server.server_close()
