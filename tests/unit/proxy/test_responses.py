# SPDX-License-Identifier: Apache-2.0
"""HTTP responses to refused requests, and the memory of recent refusals."""

import html
import inspect
import json
import re

import h11
import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled import exception
from consoled import token as tokens
from consoled.proxy import pages, responses

CLASSES = sorted(
    (
        cls
        for _, cls in inspect.getmembers(exception, inspect.isclass)
        if issubclass(cls, exception.ConsoledException)
    ),
    key=lambda cls: cls.__name__,
)
TOKEN = tokens.mint()


def make_error(cls, value='x'):
    """Return an error of a class, with one value for all arguments of its message."""
    names = re.findall(r'%\((\w+)\)s', cls.msg_fmt)
    return cls(**dict.fromkeys(names, value))


def header_values(response):
    return {name.decode().lower(): value.decode() for name, value in response.headers}


class RefusalTest(testtools.TestCase):
    def test_the_errors_are_found(self):
        self.assertTrue(len(CLASSES) > 25)

    def test_the_response_to_each_error(self):
        for cls in CLASSES:
            error = make_error(cls)
            for as_json in (True, False):
                response, body = responses.refusal(error, as_json=as_json)
                headers = header_values(response)
                self.assertEqual(cls.http_status, response.status_code)
                self.assertTrue(response.reason)
                self.assertEqual(str(len(body)), headers['content-length'])
                self.assertEqual('no-store', headers['cache-control'])
                self.assertEqual('nosniff', headers['x-content-type-options'])
                self.assertIn("default-src 'none'", headers['content-security-policy'])
                self.assertIn('date', headers)
                self.assertEqual(cls.retryable, 'retry-after' in headers, cls)
                self.assertEqual(len(headers), len(response.headers), 'a header is repeated')

    def test_a_program_gets_json(self):
        for cls in CLASSES:
            error = make_error(cls)
            response, body = responses.refusal(error, as_json=True)
            self.assertEqual('application/json', header_values(response)['content-type'])
            self.assertEqual(
                {'code': cls.code, 'reason': str(error), 'retryable': cls.retryable}, json.loads(body)
            )

    def test_a_program_learns_what_is_free_instead(self):
        error = exception.ConsoleInUse(since='noon', serial_ports=4, free_ports=[2, 4])
        _, body = responses.refusal(error, as_json=True)
        found = json.loads(body)
        self.assertEqual((4, [2, 4]), (found['serial_ports'], found['free_ports']))

    def test_a_user_gets_a_page(self):
        for cls in CLASSES:
            error = make_error(cls)
            response, body = responses.refusal(error, as_json=False)
            self.assertEqual('text/html; charset=utf-8', header_values(response)['content-type'])
            self.assertIn(html.escape(str(error)), body.decode())
            self.assertIn(f'{cls.http_status} {cls.code}', body.decode())

    def test_the_refusal_of_a_websocket_ends_its_connection(self):
        for cls in CLASSES:
            error = make_error(cls)
            for as_json in (True, False):
                response, body = responses.refusal(error, as_json=as_json, for_websocket=True)
                headers = header_values(response)
                self.assertEqual('close', headers['connection'].rpartition(' ')[2])
                self.assertEqual(str(len(body)), headers['content-length'])
                self.assertEqual(cls.retryable, 'retry-after' in headers, cls)
                self.assertEqual(as_json, 'content-type' in headers)

    def test_the_refusal_of_a_websocket_has_a_body_only_for_programs_that_ask_for_json(self):
        """Tempest's websocket client takes what follows the head for frames."""
        error = exception.InvalidToken()
        self.assertEqual(b'', responses.refusal(error, as_json=False, for_websocket=True)[1])
        _, body = responses.refusal(error, as_json=True, for_websocket=True)
        self.assertEqual('invalid_token', json.loads(body)['code'])

    def test_an_upgrade_to_another_version_is_offered_and_the_connection_ended(self):
        response, _ = responses.refusal(exception.UpgradeRequired(), as_json=True, for_websocket=True)
        self.assertEqual('Upgrade, close', header_values(response)['connection'])

    @given(st.text(), st.booleans())
    def test_no_text_becomes_markup(self, text, as_json):
        error = exception.BadRequest(reason=f'<script>&"\'{text}')
        _, body = responses.refusal(error, as_json=as_json)
        if as_json:
            self.assertEqual(str(error), json.loads(body)['reason'])
            body.decode('ascii')
        else:
            self.assertNotIn(b'<script', body)
            self.assertIn(html.escape(str(error)), body.decode('utf-8', 'surrogatepass'))

    @given(st.floats(min_value=1e-9, max_value=1e6))
    def test_a_rate_limited_client_gets_its_wait_as_retry_after(self, seconds):
        response, _ = responses.refusal(exception.RateLimited(seconds=seconds), as_json=True)
        told = header_values(response)['retry-after']
        self.assertTrue(told.isdigit())
        self.assertTrue(seconds <= int(told) < seconds + 1)

    def test_other_retryable_errors_have_a_default_retry_after(self):
        response, _ = responses.refusal(exception.ManagerBusy(), as_json=True)
        self.assertTrue(1 <= int(header_values(response)['retry-after']) <= 60)

    def test_405_names_the_methods(self):
        response, _ = responses.refusal(exception.MethodNotAllowed(), as_json=True)
        self.assertEqual('GET, HEAD', header_values(response)['allow'])

    def test_426_names_the_protocol(self):
        """RFC 9110, sections 15.5.22 and 7.8: with Upgrade, which Connection names; RFC 6455, 4.4."""
        headers = header_values(responses.refusal(exception.UpgradeRequired(), as_json=True)[0])
        self.assertEqual('websocket', headers['upgrade'])
        self.assertEqual('13', headers['sec-websocket-version'])
        self.assertEqual('upgrade', headers['connection'].lower())

    def test_only_426_offers_an_upgrade(self):
        for cls in CLASSES:
            if cls is not exception.UpgradeRequired:
                self.assertNotIn(
                    'upgrade', header_values(responses.refusal(make_error(cls), as_json=True)[0])
                )

    def test_each_can_be_sent_and_keeps_the_connection_alive(self):
        for cls in CLASSES:
            user, proxy = h11.Connection(h11.CLIENT), h11.Connection(h11.SERVER)
            asked = user.send(h11.Request(method='GET', target='/', headers=[('Host', 'a.example')]))
            proxy.receive_data(asked + user.send(h11.EndOfMessage()))
            self.assertIsInstance(proxy.next_event(), h11.Request)
            self.assertIsInstance(proxy.next_event(), h11.EndOfMessage)
            response, body = responses.refusal(make_error(cls), as_json=True)
            sent = proxy.send(response) + proxy.send(h11.Data(data=body)) + proxy.send(h11.EndOfMessage())
            user.receive_data(sent)
            self.assertEqual(cls.http_status, user.next_event().status_code)
            self.assertEqual(body, bytes(user.next_event().data))
            self.assertIsInstance(user.next_event(), h11.EndOfMessage)
            self.assertEqual((h11.DONE, h11.DONE), (proxy.our_state, proxy.their_state), cls)


class PageTest(testtools.TestCase):
    def test_a_page_is_sent_unchanged(self):
        response, body = responses.page(pages.Page(200, (('Content-Type', 'text/css'),), b'p {}'))
        self.assertEqual((200, b'p {}'), (response.status_code, body))
        headers = header_values(response)
        self.assertEqual(('text/css', '4'), (headers['content-type'], headers['content-length']))

    def test_a_304_has_no_content_length(self):
        """It would have to be that of the page (RFC 9110, section 8.6)."""
        response = responses.response(304, [('ETag', '"x"')], 0)
        self.assertNotIn('content-length', header_values(response))
