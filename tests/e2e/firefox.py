# SPDX-License-Identifier: Apache-2.0
"""Headless Firefox, driven over WebDriver BiDi (https://w3c.github.io/webdriver-bidi/).

Selenium needs geckodriver for Firefox, which Debian does not have.
"""

import contextlib
import itertools
import json
import os
import re
import subprocess

import fixtures as fixtures_library
from websockets.sync import client

from consoled.testing import service_process, services
from consoled.testing.fixtures import wait_until
from tests.e2e import base

_LISTENING = re.compile(r'WebDriver BiDi listening on (ws://\S+)')
_TIMEOUT = 60.0  # seconds for a command
_CALL = '(text) => JSON.stringify((function () { %s }).apply(null, JSON.parse(text)) ?? null)'


class Driver:
    """The part of Selenium's driver that ``base.Browser`` uses."""

    def __init__(self, url):
        self._socket = client.connect(f'{url}/session', max_size=None, compression=None, ping_interval=None)
        self._ids = itertools.count(1)
        self._log = []
        self.command('session.new', capabilities={})
        self.command('session.subscribe', events=['log.entryAdded'])
        [tree] = self.command('browsingContext.getTree')['contexts']
        self._page = self._context = tree['context']

    def command(self, method, **parameters):
        number = next(self._ids)
        self._socket.send(json.dumps({'id': number, 'method': method, 'params': parameters}))
        while True:
            message = json.loads(self._socket.recv(_TIMEOUT))
            if message.get('method') == 'log.entryAdded':
                self._log.append(message['params'])
            elif message.get('id') == number:
                if message['type'] == 'error':
                    raise AssertionError(f'{method}: {message["error"]}: {message["message"]}')
                return message['result']

    def get(self, url):
        self.command('browsingContext.navigate', context=self._context, url=url, wait='complete')

    def execute_script(self, script, *arguments):
        answer = self.command(
            'script.callFunction',
            functionDeclaration=_CALL % script,
            arguments=[{'type': 'string', 'value': json.dumps(arguments)}],
            target={'context': self._context},
            awaitPromise=False,
        )
        if answer['type'] == 'exception':
            raise AssertionError(answer['exceptionDetails']['text'])
        return json.loads(answer['result']['value'])

    def enter_frame(self):
        """Run scripts in the first frame of the page, until ``leave_frame``."""
        [tree] = self.command('browsingContext.getTree', root=self._page)['contexts']
        self._context = tree['children'][0]['context']

    def leave_frame(self):
        self._context = self._page

    def press(self, *keys):
        """Press keys; a pair is a key and whether it goes down."""
        keys = [{'type': 'keyDown' if down else 'keyUp', 'value': key} for key, down in keys]
        actions = [{'type': 'key', 'id': 'keyboard', 'actions': keys}]
        self.command('input.performActions', context=self._context, actions=actions)

    def get_log(self, kind):
        self.command('session.status')  # what was logged before arrives before the answer
        entries, self._log = self._log, []
        uncaught = {'javascript': 'Uncaught '}
        return [{'message': uncaught.get(each['type'], '') + (each['text'] or '')} for each in entries]

    def quit(self):
        with contextlib.suppress(Exception):
            self.command('browser.close')
        self._socket.close()


class Firefox(base.Browser):
    """Headless Firefox with an empty profile."""

    def _setUp(self):  # noqa: N802 - named by the library
        home = self.useFixture(fixtures_library.TempDir()).path
        log = os.path.join(home, 'log')
        with open(log, 'wb') as output:
            process = service_process.spawn(
                [
                    *(services.find_program('firefox-esr'), '--headless', '--no-remote'),
                    *('--profile', home, '--remote-debugging-port', '0', 'about:blank'),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, 'HOME': home},
            )
        self.addCleanup(self._end, process)
        found = []
        wait_until(lambda: found.extend(_LISTENING.findall(_read(log))) or found, what='Firefox', timeout=120)
        self.driver = Driver(found[0])
        self.addCleanup(self.driver.quit)

    @staticmethod
    def _end(process):
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def enter_frame(self):
        self.driver.enter_frame()

    def leave_frame(self):
        self.driver.leave_frame()

    def type(self, text):
        text = text.replace('\n', '\ue007')  # Enter
        self.driver.press(*((key, down) for key in text for down in (True, False)))

    def interrupt(self):
        control = '\ue009'
        self.driver.press((control, True), ('c', True), ('c', False), (control, False))


def _read(path):
    with open(path, errors='replace') as file:
        return file.read()
