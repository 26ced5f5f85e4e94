# SPDX-License-Identifier: Apache-2.0
"""The websocket of an attached console: its URL, its end, its relay between files and pipes."""

import http
import logging
import os
import socket
import ssl
import threading
import time

import fixtures
import testtools
import trustme
from websockets.datastructures import Headers
from websockets.http11 import Response

from consoled import exception
from consoled.consolectl import relay
from consoled.consolectl.relay import Ended, closed, refused, websocket_url
from tests.unit.consolectl.attach_base import ESCAPE, PATIENCE, TOKEN, AttachCase, Server, echo


class UrlTest(testtools.TestCase):
    def test_the_websocket_of_an_access_url(self):
        token = f'token={TOKEN}'
        for access_url, wanted in (
            (f'https://c.example/serial.html?{token}', 'wss://c.example/'),
            (
                f'https://c.example:6083/c/cell1/serial.html?title=x&{token}#y',
                'wss://c.example:6083/c/cell1/',
            ),
            (f'http://[::1]:6083?{token}', 'ws://[::1]:6083/'),
            (f'ws://c.example:6083/?{token}', 'ws://c.example:6083/'),
            (f'wss://c.example/a/b?x=1&{token}&y#y', 'wss://c.example/a/b?x=1&y='),
        ):
            self.assertEqual(wanted, websocket_url(access_url))

    def test_urls_without_a_websocket(self):
        for url in (
            '',
            'c.example',
            'ftp://c.example/',
            'https:///x',
            'https://c:x/',
            'https://[::1/',
            'ws:',
        ):
            error = self.assertRaises(Ended, websocket_url, f'{url}?token={TOKEN}')
            self.assertEqual('bad_access_url', error.code)
            self.assertNotIn(TOKEN, str(error))


class ClosedTest(testtools.TestCase):
    def test_each_close_code_has_its_meaning(self):
        for code, wanted in (
            (1000, ('closed', 1, False)),
            (1001, ('connection_lost', 3, True)),
            (1006, ('connection_lost', 3, True)),
            (1011, ('console_ended', 1, True)),
            (1012, ('proxy_restart', 3, True)),
            (1013, ('try_later', 3, True)),
            (4403, ('revoked', 1, False)),
            (4408, ('session_over', 1, False)),
            (4409, ('taken_over', 1, False)),
            (4999, ('closed', 1, False)),
        ):
            ended = closed(code, 'the text of the proxy')
            self.assertEqual(wanted, (ended.code, ended.exit_code, ended.retryable), code)
            self.assertEqual('the text of the proxy', str(ended))
            self.assertNotEqual('', str(closed(code)))

    def test_the_words_of_a_library_are_not_shown(self):
        """The library of either side ends websockets with these codes, and says what it has found."""
        for code in (1002, 1003, 1007, 1008, 1009, 1010):
            ended = closed(code, 'frame with 577 bytes after reading 1048000 bytes exceeds limit')
            self.assertNotIn('frame', str(ended))
            self.assertEqual(str(closed(code)), str(ended))

    def test_control_characters_are_not_shown(self):
        self.assertEqual('a\\x1b[31m\\nb', str(closed(4403, 'a\x1b[31m\nb')))

    def test_http_answers_to_the_handshake(self):
        busy = b'{"code": "console_in_use", "reason": "in use", "retryable": true}'
        for status, body, wanted in (
            (409, busy, ('console_in_use', 'in use', 1, True)),
            (503, busy, ('console_in_use', 'in use', 3, True)),
            (401, b'{"code": "x", "reason": "y"}', ('connection_failed', None, 1, False)),
            (403, b'<html>', ('connection_failed', None, 1, False)),
            (502, None, ('connection_failed', None, 3, True)),
            (500, b'\xff', ('connection_failed', None, 3, True)),
            (404, b'[1]', ('connection_failed', None, 1, False)),
        ):
            ended = refused(status, body)
            reason = wanted[1] or f'The console proxy answered with HTTP status {status}.'
            self.assertEqual(
                (wanted[0], reason, *wanted[2:]), (ended.code, str(ended), ended.exit_code, ended.retryable)
            )


class PipesTest(AttachCase):
    def test_all_input_and_output_is_relayed(self):
        proxy = self.serve()
        data = os.urandom(500_000) + ESCAPE + b'the rest'
        self.assertEqual((0, data), self.attach(proxy, data, wait=1))
        [request] = proxy.requests
        self.assertEqual('/', request.path)
        offered = f'consoled.serial, consoled.flow, binary, consoled.token.{TOKEN}'
        self.assertEqual(offered, request.headers['Sec-WebSocket-Protocol'])
        self.assertEqual('application/json', request.headers['Accept'])
        self.assertNotIn('Origin', request.headers)

    def test_empty_input_shows_the_output(self):
        proxy = self.serve(lambda connection: connection.send(b'log'))
        with open(os.devnull, 'rb') as stdin:
            reading, writing = self.pipe()
            attachment = self.attachment(
                lambda: self.grant(proxy.port), stdin.fileno(), writing, wait=PATIENCE
            )
            self.assertEqual('closed', self.assertRaises(Ended, attachment.run).code)
        self.assertEqual(b'log', os.read(reading, 100))

    def test_what_is_shown_is_acknowledged_so_that_the_proxy_can_hold_the_guest_back(self):
        sent, got = 10 * 50_000, []

        def flood(connection):
            for _ in range(10):
                connection.send(b'x' * 50_000)
            while not got or sent - int(got[-1]) >= 16 * 1024:
                got.append(connection.recv(PATIENCE))

        error, shown = self.attach(self.serve(flood, subprotocols=['consoled.flow']), wait=PATIENCE)
        self.assertEqual('closed', error.code)
        self.assertEqual(sent, len(shown))
        numbers = [int(text) for text in got if isinstance(text, str)]
        self.assertEqual(len(got), len(numbers))
        self.assertEqual(sorted(numbers), numbers)
        self.assertLessEqual(numbers[-1], sent)

    def test_another_serial_port_than_that_of_the_token_is_reported_and_not_shown_as_output(self):
        reported = []
        report = lambda attachment, number: reported.append(number)  # noqa: E731
        self.useFixture(fixtures.MonkeyPatch('consoled.consolectl.attachment.Attachment._say_port', report))
        for text in ('{"serial_port": 2}', '{"serial_port": "3"}', '[]', '{}', 'x', '[' * 5000):

            def greet(connection, text=text):
                connection.send(text)
                connection.send(b'router>')

            _, shown = self.attach(self.serve(greet, subprotocols=['consoled.serial']), wait=PATIENCE)
            self.assertEqual(b'router>', shown)
        self.assertEqual([2], reported)

    def test_a_proxy_that_does_not_ask_for_it_gets_no_acknowledgement(self):
        got = []

        def flood(connection):
            for _ in range(10):
                connection.send(b'x' * 50_000)
            got.append(connection.recv(PATIENCE))

        self.attach(self.serve(flood), b'key', wait=PATIENCE)
        self.assertEqual([b'key'], got)

    def test_input_is_sent_in_messages_that_any_proxy_accepts(self):
        """The least ``max_message_size`` of a proxy is 1024 bytes."""
        proxy = self.serve(max_size=1024)
        data = b'x' * 100_000
        self.assertEqual((0, data), self.attach(proxy, data, wait=1))

    def test_text_messages_are_shown_as_utf8(self):
        def greet(connection):
            connection.send('Grüße')
            connection.recv()

        self.assertEqual((0, 'Grüße'.encode()), self.attach(self.serve(greet), wait=1))

    def test_after_the_input_it_waits_for_silence(self):
        def slow(connection):
            for number in range(8):
                connection.send(b'%d' % number)
                time.sleep(0.1)
            connection.recv()

        self.useFixture(fixtures.MockPatchObject(relay, '_CLOSE_TIMEOUT', 0.2))
        self.assertEqual((0, b'01234567'), self.attach(self.serve(slow), wait=0.5))

    def test_closed_by_the_proxy(self):
        def end(connection):
            connection.send(b'last words')
            connection.close(4403, 'Revoked\x07now')

        error, shown = self.attach(self.serve(end), wait=PATIENCE)
        self.assertEqual(('revoked', 1, 'Revoked\\x07now'), (error.code, error.exit_code, str(error)))
        self.assertEqual(b'last words', shown)

    def test_a_lost_connection(self):
        def vanish(connection):
            connection.socket.shutdown(socket.SHUT_RDWR)

        error, _ = self.attach(self.serve(vanish), wait=PATIENCE)
        self.assertEqual(('connection_lost', 3), (error.code, error.exit_code))

    def test_a_proxy_that_answers_no_pings(self):
        self.useFixture(fixtures.MockPatchObject(relay, '_PING_INTERVAL', 0.1))
        self.useFixture(fixtures.MockPatchObject(relay, '_PING_TIMEOUT', 0.1))
        self.useFixture(fixtures.MockPatchObject(relay, '_CLOSE_TIMEOUT', 0.1))
        over = threading.Event()

        def deaf(connection):
            with connection.protocol_mutex:  # nothing that is received is processed
                over.wait(PATIENCE)

        proxy = self.serve(deaf)
        self.addCleanup(over.set)
        error, _ = self.attach(proxy, wait=PATIENCE)
        self.assertEqual(('connection_lost', 3), (error.code, error.exit_code))

    def test_the_refusal_of_the_proxy_is_shown_without_the_token(self):
        def refuse(connection, request):
            text = f'{{"code": "console_in_use", "reason": "not with {TOKEN}", "retryable": true}}'
            return Response(409, 'Conflict', Headers({'Content-Length': str(len(text))}), text.encode())

        error, _ = self.attach(self.serve(process_request=refuse))
        self.assertEqual(('console_in_use', 1, 'not with ***'), (error.code, error.exit_code, str(error)))

    def test_a_redirect_is_not_followed(self):
        elsewhere = self.serve()

        def redirect(connection, request):
            response = connection.respond(http.HTTPStatus.FOUND, '')
            response.headers['Location'] = f'ws://127.0.0.1:{elsewhere.port}{request.path}'
            return response

        error, _ = self.attach(self.serve(process_request=redirect))
        self.assertEqual('connection_failed', error.code)
        self.assertEqual([], elsewhere.requests)

    def test_a_closed_port(self):
        proxy = Server(echo)
        with proxy:
            pass
        error, _ = self.attach(proxy)
        self.assertEqual(('proxy_unreachable', 3), (error.code, error.exit_code))
        self.assertIn(f'127.0.0.1:{proxy.port} cannot be reached (Connection refused)', str(error))

    def test_a_server_of_another_protocol(self):
        listener = socket.create_server(('127.0.0.1', 0))
        self.addCleanup(listener.close)

        def answer():
            sock, _ = listener.accept()
            with sock:
                sock.recv(10000)
                sock.sendall(b'220 mail.example ESMTP\r\n')

        threading.Thread(target=answer, daemon=True).start()
        error, _ = self.attach(lambda: self.grant(listener.getsockname()[1]))
        self.assertEqual(('proxy_unreachable', 3), (error.code, error.exit_code))
        self.assertIn('cannot be reached (its answer is not that of a websocket)', str(error))

    def test_the_manager_refuses_the_token(self):
        def authorize():
            raise exception.ConsolePortsExhausted(instance_uuid='x', console_type='serial')

        error, _ = self.attach(authorize)
        self.assertEqual(('console_ports_exhausted', 1), (error.code, error.exit_code))

    def test_the_reader_of_the_output_exits(self):
        proxy = self.serve(lambda connection: connection.send(b'x'))
        reading, writing = self.pipe()
        os.close(reading)
        stdin, _ = self.pipe()
        attachment = self.attachment(lambda: self.grant(proxy.port), stdin, writing)
        self.assertRaises(BrokenPipeError, attachment.run)

    def test_non_blocking_descriptors(self):
        proxy = self.serve()
        data = os.urandom(300_000)
        (reading, writing), (stdin, source) = self.pipe(), self.pipe()
        for end in (writing, stdin):
            os.set_blocking(end, False)
        shown = []

        def user():
            with open(source, 'wb', closefd=False) as file:
                file.write(data)
            while sum(map(len, shown)) < len(data):
                time.sleep(0.01)  # slow: the pipe is full at times
                shown.append(os.read(reading, 65536))
            os.close(source)

        thread = threading.Thread(target=user)
        thread.start()
        self.assertEqual(0, self.attachment(lambda: self.grant(proxy.port), stdin, writing).run())
        thread.join()
        self.assertEqual(data, b''.join(shown))

    def test_neither_token_nor_input_is_logged(self):
        log = self.useFixture(fixtures.FakeLogger(level=logging.DEBUG))
        for handle in (echo, lambda connection: connection.close(1011, 'over')):
            self.attach(self.serve(handle), b'secret', wait=0.2)
        self.attach(lambda: self.grant(1))
        self.assertNotIn(TOKEN, log.output)
        self.assertNotIn('secret', log.output)


class TlsTest(AttachCase):
    def setUp(self):
        super().setUp()
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert('localhost').configure_cert(context)
        self.trusting = ssl.create_default_context()
        authority.configure_trust(self.trusting)
        self.proxy = self.serve(ssl=context)

    def test_a_trusted_certificate(self):
        done = self.attach(
            lambda: self.grant(self.proxy.port, 'https', 'localhost'), b'x', tls=self.trusting, wait=1
        )
        self.assertEqual((0, b'x'), done)

    def test_an_untrusted_certificate_or_another_name(self):
        for host, tls in (('localhost', ssl.create_default_context()), ('127.0.0.1', self.trusting)):
            error, _ = self.attach(lambda host=host: self.grant(self.proxy.port, 'https', host), tls=tls)
            self.assertEqual(('certificate_refused', 1), (error.code, error.exit_code))
            self.assertEqual([], self.proxy.requests)
