# SPDX-License-Identifier: Apache-2.0
"""Health and metrics over HTTP."""

import json
from wsgiref import util

import testtools

from consoled import monitoring
from consoled.manager.metrics import Metrics


class ApplicationTest(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.metrics = Metrics('cell7')
        self.down = set()
        self.asked = []

    def check(self, name):
        def ask():
            self.asked.append(name)
            if name in self.down:
                raise ConnectionError('amqp://user:canary@host')

        return ask

    def get(self, path, app=None):
        app = app or monitoring.application(
            self.metrics.registry,
            monitoring.Readiness({name: self.check(name) for name in ('bus', 'database')}),
        )
        environ = {'PATH_INFO': path}
        util.setup_testing_defaults(environ)
        answer = {}

        def start_response(status, headers, exc_info=None):
            answer['status'] = status

        body = b''.join(app(environ, start_response))
        return answer['status'], body.decode()

    def test_ready_when_everything_answers(self):
        status, body = self.get('/readyz')
        self.assertEqual(('200 OK', {'bus': 'ok', 'database': 'ok'}), (status, json.loads(body)))
        self.assertEqual(['bus', 'database'], self.asked)

    def test_not_ready_when_something_does_not_answer_and_it_is_named(self):
        self.down = {'bus'}
        status, body = self.get('/readyz')
        self.assertEqual('503 Service Unavailable', status)
        self.assertEqual({'bus': 'ConnectionError', 'database': 'ok'}, json.loads(body))
        self.assertNotIn('canary', body)

    def test_alive_even_when_not_ready(self):
        self.down = {'bus', 'database'}
        self.assertEqual('200 OK', self.get('/healthz')[0])
        self.assertEqual([], self.asked)

    def test_metrics(self):
        self.metrics.called('validate', 'invalid_token', 0.002)
        self.metrics.closed(10, 20)
        status, body = self.get('/metrics')
        self.assertEqual('200 OK', status)
        self.assertIn(
            'consoled_rpc_seconds_count{cell="cell7",code="invalid_token",method="validate"} 1.0', body
        )
        self.assertIn('consoled_session_bytes_total{cell="cell7",direction="out"} 20.0', body)

    def test_few_answers_that_take_long_are_made_at_a_time(self):
        statuses = []

        class Slow:
            """Collector during which the next scrape comes."""

            def collect(slow):  # noqa: N805 - the test is self
                if app is not None and len(statuses) < 10:
                    statuses.append(self.get('/metrics', app)[0])
                return []

        app = None
        self.metrics.registry.register(Slow())
        app = monitoring.application(self.metrics.registry, monitoring.Readiness({}))
        for _ in range(2):
            statuses.clear()
            self.assertEqual('200 OK', self.get('/metrics', app)[0])
            self.assertEqual(4, len(statuses))
            self.assertEqual('503 Service Unavailable', statuses[0])
            self.assertEqual({'200 OK'}, set(statuses[1:]))

    def test_anything_else_is_not_found(self):
        for path in ('', '/', '/metrics/..', '/etc/passwd'):
            self.assertEqual('404 Not Found', self.get(path)[0])

    def test_results_are_cached_so_frequent_requests_are_cheap(self):
        readiness = monitoring.Readiness({'bus': self.check('bus')})
        for _ in range(100):
            readiness.check()
        self.assertEqual(['bus'], self.asked)
