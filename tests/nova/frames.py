# SPDX-License-Identifier: Apache-2.0
"""Pages of a dashboard that show consoles as Horizon's do, from a web server of their own."""

import html
import http.server
import json
import threading

import fixtures

# Horizon's project/instances/_detail_console.html: the access URL, with a title, in a frame.
_FRAME = """<!doctype html>
<title>Instance Console</title>
<p><a href="{url}">Click here to show only console</a></p>
<iframe id="console_embed" src="{url}" style="width:100%;height:700px"></iframe>
"""

# Horizon's serial_console.html with its static/js/angular/directives/serialConsole.js, and a plain element in
# the place of the terminal.
_SERIAL = """<!doctype html>
<html data-state="connecting" data-reason="">
<title>Serial Console</title>
<pre id="terminal"></pre>
<p id="why"></p>
<script>
  const url = {url}, protocols = ['binary', 'base64'], root = document.documentElement;
  const bytes = (text) => Uint8Array.from(text, (each) => each.charCodeAt(0)).buffer;
  const show = (text) => document.getElementById('terminal').append(text);
  const socket = new WebSocket(url, protocols);
  socket.onopen = () => {{
    root.dataset.state = 'connected';
    socket.send(bytes(String.fromCharCode(13)));
  }};
  socket.onclose = (event) => {{
    root.dataset.state = 'ended';
    root.dataset.reason = event.code;
    document.getElementById('why').textContent = event.reason;
  }};
  socket.onmessage = (event) => {{
    if (event.data instanceof Blob) {{
      const reader = new FileReader();
      reader.onload = () => show(reader.result);
      reader.readAsText(event.data);
    }} else {{
      show(event.data);
    }}
  }};
  document.onkeypress = (event) => socket.send(bytes(event.key === 'Enter' ? '\\r' : event.key));
</script>
"""


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):  # noqa: N802 - named by the library
        page = self.server.pages.get(self.path)
        self.send_response(404 if page is None else 200)
        self.send_header('Content-Type', 'text/html; charset=utf-8')
        self.end_headers()
        self.wfile.write((page or 'nothing').encode())

    def log_message(self, *args):
        """Log nothing."""


class Dashboard(fixtures.Fixture):
    """A web server on a port of 127.0.0.1."""

    def _setUp(self):  # noqa: N802 - named by the fixtures library
        self._server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), _Handler)
        self._server.pages = {}
        self.addCleanup(self._server.server_close)
        thread = threading.Thread(target=self._server.serve_forever)
        self.addCleanup(thread.join)
        self.addCleanup(self._server.shutdown)
        thread.start()

    def _serve(self, page, host):
        path = f'/{len(self._server.pages)}'
        self._server.pages[path] = page
        return f'http://{host}:{self._server.server_port}{path}'

    def frame(self, access_url, host='127.0.0.1'):
        """Return the URL of a page that has a console in a frame."""
        return self._serve(_FRAME.format(url=html.escape(f'{access_url}&title=guest%281%29')), host)

    def serial(self, access_url, host='127.0.0.1'):
        """Return the URL of a page that opens the websocket of a serial console itself."""
        return self._serve(_SERIAL.format(url=json.dumps(access_url)), host)
