# SPDX-License-Identifier: Apache-2.0
"""Log lines: harmless for a terminal, and few while a fault lasts."""

import contextlib
import io
import logging

import testtools
from oslo_config import cfg
from oslo_log import formatters
from oslo_log import log as oslo_log

from consoled import logs

BUS = 'oslo.messaging._drivers.impl_rabbit'


class ErrorSummaryTest(testtools.TestCase):
    def test_our_own_lines_do_not_say_twice_what_went_wrong(self):
        conf = cfg.ConfigOpts()
        oslo_log.register_options(conf)
        conf([], default_config_files=[], default_config_dirs=[])
        formatter = logs.HarmlessFormatter(formatters.ContextFormatter(config=conf, version='1'))
        for name, times in (('consoled.proxy.lease', 1), ('other', 2)):
            record = logging.LogRecord(name, logging.WARNING, '', 1, 'It failed: %s', ('canary',), None)
            try:
                raise RuntimeError('canary')
            except RuntimeError:
                self.assertEqual(times, formatter.format(record).count('canary'))


class FullDisk(io.StringIO):
    def write(self, text):
        raise OSError(28, 'No space left on device')


class LostLinesTest(testtools.TestCase):
    def test_a_disk_that_is_full_is_said_once_a_minute(self):
        logger = logging.Logger('x')
        logger.addHandler(logging.StreamHandler(FullDisk()))
        logs.Installation(logs.Throttle(), logger).apply()
        with contextlib.redirect_stderr(io.StringIO()) as stderr:
            for _ in range(3):
                logger.warning('canary')
        said = r'\ALog lines are lost, such as one of x:[0-9]+: OSError\(28, .*\n\Z'
        self.assertRegex(stderr.getvalue(), said)


class LogsCase(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.now = 1000.0
        self.debug = False
        self.out = io.StringIO()
        self.logger = logging.Logger('root')  # of its own: not in the hierarchy of the process
        self.logger.addHandler(logging.StreamHandler(self.out))
        self.logger.manager = logging.Manager(self.logger)
        throttle = logs.Throttle(lambda: self.debug, lambda text: text + ' (file)', lambda: self.now)
        self.installation = logs.Installation(throttle, self.logger)
        self.installation.apply()

    def log(self, name, level, message, *args, **kwargs):
        self.logger.name = name
        self.logger.log(level, message, *args, **kwargs)

    def lines(self):
        text = self.out.getvalue()
        self.out.seek(0)
        self.out.truncate()
        return text.splitlines()


class HarmlessTest(LogsCase):
    def test_an_event_is_one_line_without_escape_sequences(self):
        self.log('x', logging.INFO, 'refused: %s', 'a\x1b[2J\n2026-01-01 INFO forged\u202e')
        self.assertEqual([r'refused: a\x1b[2J\n2026-01-01 INFO forged\u202e'], self.lines())

    def test_a_traceback_keeps_its_lines_only(self):
        try:
            raise ValueError('a\x1b[2J')
        except ValueError:
            self.log('x', logging.ERROR, 'failed', exc_info=True)
        lines = self.lines()
        self.assertEqual('failed', lines[0])
        self.assertEqual(r'ValueError: a\x1b[2J', lines[-1])

    def test_handlers_of_other_loggers_and_those_added_later(self):
        """``[DEFAULT] log_config_append`` can have any handlers, and SIGHUP makes new ones."""
        named = self.logger.manager.getLogger('consoled.x')
        named.propagate = False
        for logger in (named, self.logger):
            for old in list(logger.handlers):
                logger.removeHandler(old)
            logger.addHandler(logging.StreamHandler(self.out))
            self.installation.apply()
            self.installation.apply()
            logger.warning('a\x1b[2J')
            self.assertEqual([r'a\x1b[2J'], self.lines())


class ThrottleTest(LogsCase):
    def fail(self, text='AMQP server on h:5672 is unreachable. Trying again in %d seconds.', *args, **kwargs):
        self.log(BUS, logging.ERROR, text, *(args or (1,)), **kwargs)

    def test_a_fault_that_lasts_is_logged_at_growing_intervals(self):
        shown = []
        for second in range(3600):
            self.now = 1000.0 + second
            self.fail()
            if lines := self.lines():
                self.assertEqual(1, len(lines))
                shown.append(second)
        self.assertEqual([0, 10, 30, 70, 150, 310, 630, 1230, 1830, 2430, 3030], shown)

    def test_a_line_says_how_many_were_left_out(self):
        for second in range(11):
            self.now = 1000.0 + second
            self.fail()
        self.assertIn('(9 more such lines were left out)', self.lines()[-1])

    def test_another_fault_and_one_after_a_pause_are_logged_at_once(self):
        self.fail()
        self.fail('another %s', 'fault')
        self.assertEqual(2, len(self.lines()))
        self.now += 61
        self.fail()
        self.assertEqual(1, len(self.lines()))

    def test_only_those_who_reconnect_are_held_back(self):
        for _ in range(3):
            self.log('consoled.manager.manager', logging.ERROR, 'bad')
            self.log(BUS, logging.INFO, 'good')
        self.assertEqual(6, len(self.lines()))

    def test_a_refused_password_is_one_line_that_names_the_option(self):
        for name in (BUS, 'amqp', 'consoled.rpc.starting', 'consoled.proxy.lease'):
            self.log(name, logging.ERROR, 'x: (0, 0): (403) ACCESS_REFUSED - Login was refused')
        (line,) = self.lines()
        self.assertIn('[DEFAULT] transport_url', line)
        self.assertTrue(line.endswith('(file)'), line)

    def test_tracebacks_are_for_debugging(self):
        for self.debug in (False, True):
            try:
                raise ConnectionError('gone')
            except ConnectionError:
                self.fail(f'failed %d, debug {self.debug}', exc_info=True)
            self.assertEqual(self.debug, 'Traceback (most recent call last):' in self.lines())

    def test_a_record_is_judged_once_for_all_handlers(self):
        second = io.StringIO()
        self.logger.addHandler(logging.StreamHandler(second))
        self.installation.apply()
        for _ in range(3):
            self.fail()
        self.assertEqual(1, len(self.lines()))
        self.assertEqual(1, len(second.getvalue().splitlines()))

    def test_what_is_remembered_is_bounded(self):
        throttle = self.logger.handlers[0].filters[0]
        for number in range(1000):
            self.fail('fault %s', ''.join(chr(97 + int(digit)) for digit in str(number)))
        self.assertTrue(len(throttle._kinds) <= 100)
