# SPDX-License-Identifier: Apache-2.0
"""Pages of a dashboard that show consoles as Horizon's do."""

import html
import json

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


def frame(access_url):
    """Return a page that has a console in a frame."""
    return _FRAME.format(url=html.escape(f'{access_url}&title=guest%281%29'))


def serial(access_url):
    """Return a page that opens the websocket of a serial console itself."""
    return _SERIAL.format(url=json.dumps(access_url))
