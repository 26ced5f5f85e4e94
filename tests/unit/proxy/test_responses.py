# SPDX-License-Identifier: Apache-2.0
"""RecentRefusals as HTTP answers, and what is remembered of them."""

import gc
import html
import inspect
import json
import re
import weakref

import h11
import testtools
from hypothesis import given, settings
from hypothesis import strategies as st

from consoled import exception
from consoled import token as tokens
from consoled.proxy import pages, responses

unhurried = settings(deadline=None)

CLASSES = sorted(
    (
        cls
        for _, cls in inspect.getmembers(exception, inspect.isclass)
        if issubclass(cls, exception.ConsoledException)
    ),
    key=lambda cls: cls.__name__,
)
TOKEN = tokens.mint()


def an_error(cls, value='x'):
    """An error of that class, with that value for all that its text names."""
    names = re.findall(r'%\((\w+)\)s', cls.msg_fmt)
    return cls(**dict.fromkeys(names, value))


def headers_of(response):
    return {name.decode().lower(): value.decode() for name, value in response.headers}


class RefusalTest(testtools.TestCase):
    def test_there_are_errors(self):
        self.assertTrue(len(CLASSES) > 25)

    def test_each_error_has_an_answer(self):
        for cls in CLASSES:
            error = an_error(cls)
            for as_json in (True, False):
                response, body = responses.refusal(error, as_json=as_json)
                headers = headers_of(response)
                self.assertEqual(cls.http_status, response.status_code)
                self.assertTrue(response.reason)
                self.assertEqual(str(len(body)), headers['content-length'])
                self.assertEqual('no-store', headers['cache-control'])
                self.assertEqual('nosniff', headers['x-content-type-options'])
                self.assertIn("default-src 'none'", headers['content-security-policy'])
                self.assertIn('date', headers)
                self.assertEqual(cls.retryable, 'retry-after' in headers, cls)
                self.assertEqual(len(headers), len(response.headers), 'a header is there twice')

    def test_a_program_gets_json(self):
        for cls in CLASSES:
            error = an_error(cls)
            response, body = responses.refusal(error, as_json=True)
            self.assertEqual('application/json', headers_of(response)['content-type'])
            self.assertEqual(
                {'code': cls.code, 'reason': str(error), 'retryable': cls.retryable}, json.loads(body)
            )

    def test_a_user_gets_a_page(self):
        for cls in CLASSES:
            error = an_error(cls)
            response, body = responses.refusal(error, as_json=False)
            self.assertEqual('text/html; charset=utf-8', headers_of(response)['content-type'])
            self.assertIn(html.escape(str(error)), body.decode())
            self.assertIn(f'{cls.http_status} {cls.code}', body.decode())

    @unhurried
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

    @unhurried
    @given(st.floats(min_value=1e-9, max_value=1e6))
    def test_one_who_comes_too_often_is_told_when_to_come_again(self, seconds):
        response, _ = responses.refusal(exception.RateLimited(seconds=seconds), as_json=True)
        told = headers_of(response)['retry-after']
        self.assertTrue(told.isdigit())
        self.assertTrue(seconds <= int(told) < seconds + 1)

    def test_others_who_may_come_again_are_told_some_seconds(self):
        response, _ = responses.refusal(exception.ManagerBusy(), as_json=True)
        self.assertTrue(1 <= int(headers_of(response)['retry-after']) <= 60)

    def test_405_names_the_methods(self):
        response, _ = responses.refusal(exception.MethodNotAllowed(), as_json=True)
        self.assertEqual('GET, HEAD', headers_of(response)['allow'])

    def test_426_names_the_protocol(self):
        """RFC 9110, sections 15.5.22 and 7.8: with Upgrade, which Connection names; RFC 6455, 4.4."""
        headers = headers_of(responses.refusal(exception.UpgradeRequired(), as_json=True)[0])
        self.assertEqual('websocket', headers['upgrade'])
        self.assertEqual('13', headers['sec-websocket-version'])
        self.assertEqual('upgrade', headers['connection'].lower())

    def test_only_426_offers_an_upgrade(self):
        for cls in CLASSES:
            if cls is not exception.UpgradeRequired:
                self.assertNotIn('upgrade', headers_of(responses.refusal(an_error(cls), as_json=True)[0]))

    def test_each_can_be_sent_and_the_connection_goes_on(self):
        for cls in CLASSES:
            user, proxy = h11.Connection(h11.CLIENT), h11.Connection(h11.SERVER)
            asked = user.send(h11.Request(method='GET', target='/', headers=[('Host', 'a.example')]))
            proxy.receive_data(asked + user.send(h11.EndOfMessage()))
            self.assertIsInstance(proxy.next_event(), h11.Request)
            self.assertIsInstance(proxy.next_event(), h11.EndOfMessage)
            response, body = responses.refusal(an_error(cls), as_json=True)
            sent = proxy.send(response) + proxy.send(h11.Data(data=body)) + proxy.send(h11.EndOfMessage())
            user.receive_data(sent)
            self.assertEqual(cls.http_status, user.next_event().status_code)
            self.assertEqual(body, bytes(user.next_event().data))
            self.assertIsInstance(user.next_event(), h11.EndOfMessage)
            self.assertEqual((h11.DONE, h11.DONE), (proxy.our_state, proxy.their_state), cls)


class PageTest(testtools.TestCase):
    def test_a_page_is_sent_as_it_is(self):
        response, body = responses.page(pages.Page(200, (('Content-Type', 'text/css'),), b'p {}'))
        self.assertEqual((200, b'p {}'), (response.status_code, body))
        headers = headers_of(response)
        self.assertEqual(('text/css', '4'), (headers['content-type'], headers['content-length']))

    def test_what_was_not_modified_has_no_length(self):
        """RFC 9110, section 8.6: it would have to be that of the page."""
        response = responses.response(304, [('ETag', '"x"')], 0)
        self.assertNotIn('content-length', headers_of(response))


class RefusalsTest(testtools.TestCase):
    def test_a_refusal_is_remembered_for_a_while(self):
        refusals = responses.RecentRefusals(keep=60)
        refusals.note(TOKEN, exception.ConsoleInUse(since='noon'), 100.0)
        for now in (100.0, 130.0, 160.0):
            error = refusals.recent(TOKEN, now)
            self.assertIsInstance(error, exception.ConsoleInUse)
            self.assertEqual('The console has been in use since noon.', str(error))
            self.assertEqual({'since': 'noon'}, error.kwargs)
        self.assertIsNone(refusals.recent(TOKEN, 160.1))

    def test_of_another_token_nothing_is_known(self):
        refusals = responses.RecentRefusals()
        refusals.note(TOKEN, exception.ConsoleGone(), 100.0)
        self.assertIsNone(refusals.recent(tokens.mint(), 100.0))

    def test_the_last_one_counts(self):
        refusals = responses.RecentRefusals(keep=60)
        refusals.note(TOKEN, exception.ConsoleGone(), 100.0)
        refusals.note(TOKEN, exception.TargetTimeout(), 150.0)
        self.assertIsInstance(refusals.recent(TOKEN, 205.0), exception.TargetTimeout)

    @unhurried
    @given(st.integers(1, 5), st.lists(st.integers(0, 9), max_size=30))
    def test_they_are_bounded_and_the_latest_are_kept(self, limit, whose):
        refusals = responses.RecentRefusals(keep=1000, limit=limit)
        latest = []
        for now, number in enumerate(whose):
            refusals.note(f'{number:016}', exception.ConsoleGone(), float(now))
            latest = [number, *(each for each in latest if each != number)]
            for each in range(10):
                known = refusals.recent(f'{each:016}', float(now)) is not None
                self.assertEqual(each in latest[:limit], known)

    def test_no_token_is_kept(self):
        refusals = responses.RecentRefusals()
        refusals.note(TOKEN, exception.ConsoleGone(), 100.0)
        self.assertNotIn(TOKEN, repr(vars(refusals)))

    def test_what_was_going_on_when_it_was_refused_is_not_kept(self):
        """A traceback would keep the frames alive, and in them the connection and the clear token."""

        class Connection:
            pass

        def refuse(connection):
            try:
                try:
                    raise OSError(connection)
                except OSError as exc:
                    raise exception.TargetFailed() from exc
            except exception.TargetFailed as exc:
                refusals.note(TOKEN, exc, 100.0)

        refusals = responses.RecentRefusals()
        connection = Connection()
        alive = weakref.ref(connection)
        refuse(connection)
        del connection
        gc.collect()
        self.assertIsNone(alive())
        self.assertIsInstance(refusals.recent(TOKEN, 100.0), exception.TargetFailed)

    def test_the_error_of_the_one_who_was_refused_is_left_as_it_is(self):
        refusals = responses.RecentRefusals()
        try:
            raise exception.TargetFailed()
        except exception.TargetFailed as exc:
            refusals.note(TOKEN, exc, 100.0)
            self.assertIsNotNone(exc.__traceback__)

    def test_each_error_can_be_remembered(self):
        for cls in CLASSES:
            refusals = responses.RecentRefusals()
            error = an_error(cls)
            refusals.note(TOKEN, error, 100.0)
            known = refusals.recent(TOKEN, 100.0)
            self.assertEqual((type(error), str(error), error.kwargs), (type(known), str(known), known.kwargs))
