# SPDX-License-Identifier: Apache-2.0
"""Base of the tests of attaching: a websocket server that stands for a proxy."""

import contextlib
import logging
import os
import pathlib
import ssl
import threading
import types

import fixtures
import testtools
from websockets.sync import server

from consoled.cli import errors
from consoled.consolectl.attachment import Attachment
from consoled.consolectl.terminal import Escape, Screen, Terminal

TOKEN = 'Zk3' + 'tOkEn_-' * 5 + 'tOkEn'
ESCAPE = b'\x1d'
PATIENCE = 20.0  # seconds; only used up by a failure


class Server(fixtures.Fixture):
    """A websocket server that stands for a proxy; ``handle`` serves each connection."""

    def __init__(self, handle, **how):
        super().__init__()
        self._handle = handle
        self._how = how
        self.requests = []

    def _setUp(self):  # noqa: N802 - named by the library
        answer = self._how.pop('process_request', lambda connection, request: None)

        def note(connection, request):
            self.requests.append(request)
            return answer(connection, request)

        logger = logging.Logger('silent', level=logging.CRITICAL + 1)
        self.server = server.serve(
            self._handle,
            '127.0.0.1',
            0,
            subprotocols=self._how.pop('subprotocols', ['binary']),
            process_request=note,
            close_timeout=0.5,
            logger=logger,
            **self._how,
        )
        self.port = self.server.socket.getsockname()[1]
        thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        thread.start()
        self.addCleanup(thread.join, PATIENCE)
        self.addCleanup(self.server.shutdown)


def echo(connection):
    for message in connection:
        connection.send(message)


class AttachCase(testtools.TestCase):
    """Attaches in this process, in the main thread."""

    def serve(self, handle=echo, **how):
        return self.useFixture(Server(handle, **how))

    def pipe(self):
        """Return a pipe; its ends are closed at the end, if they are still open."""
        ends = os.pipe()
        for end in ends:
            self.addCleanup(self.close, end)
        return ends

    @staticmethod
    def close(end):
        with contextlib.suppress(OSError):
            os.close(end)

    def grant(self, port, scheme='http', host='127.0.0.1'):
        return types.SimpleNamespace(
            instance_uuid='guest-1',
            token=TOKEN,
            access_url=f'{scheme}://{host}:{port}/serial.html?token={TOKEN}',
        )

    def attachment(self, authorize, stdin, stdout, **how):
        """Return an attachment.

        :param how: other options; ``notices`` is the stream for lines to the user
        """
        notices = how.pop('notices', open(os.devnull, 'w'))  # noqa: SIM115
        self.addCleanup(notices.close)
        options = {'tls': ssl.create_default_context(), 'escape': Escape.from_caret('^]'), 'wait': 0, **how}
        return Attachment(
            stdin,
            Terminal(stdin, notices),
            Screen(stdout),
            authorize=authorize,
            explain=errors.explain,
            **options,
        )

    def attach(self, source, data=b'', **how):
        """Attach with a file of ``data`` as input; return exit code or error, and the output."""
        authorize = source if callable(source) else lambda: self.grant(source.port)
        directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        (directory / 'in').write_bytes(data)
        with (directory / 'in').open('rb') as stdin, (directory / 'out').open('wb') as stdout:
            try:
                result = self.attachment(authorize, stdin.fileno(), stdout.fileno(), **how).run()
            except errors.Failed as exc:
                result = exc
        return result, (directory / 'out').read_bytes()
