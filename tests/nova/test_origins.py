# SPDX-License-Identifier: Apache-2.0
"""``[proxy] match_origin_by_host`` beside the judgement of Nova's own proxies."""

import itertools
import json
import pathlib
import subprocess

import testtools

from consoled import exception
from consoled.proxy.forwarded import Client
from consoled.proxy.origin_policy import OriginPolicy
from tests.nova import base

ALLOWED = ['dashboard.example', '192.0.2.7', '2001:db8::2']
ORIGINS = [
    f'{scheme}://{host}{port}'
    for scheme in ('http', 'https')
    for host in (
        'proxy.example',
        'dashboard.example',
        '192.0.2.7',
        '[2001:db8::2]',
        'evil.example',
        'proxy.example.evil',
    )
    for port in ('', ':6080', ':8443')
] + ['null', '', 'nonsense', 'proxy.example', 'file://']
HOSTS = ['proxy.example', 'proxy.example:6080', '[2001:db8::2]:6080']
BASES = [f'{scheme}://console.example:6080/' for scheme in ('http', 'https', 'ws', 'wss')]


def judged_here(case):
    client = Client('203.0.113.5', 'https', case['host'], case['forwarded'])
    try:
        page = OriginPolicy.from_options(case['allowed'], True).identify(case['origin'], client)
        page.check_access_url(case['base'])
    except exception.OriginRefused:
        return False
    return True


class OriginsTest(testtools.TestCase):
    def judged_by_nova(self, cases):
        script = str(pathlib.Path(__file__).with_name('origin_side.py'))
        done = subprocess.run(
            [base.nova_python(), '-W', 'ignore', script],
            input=json.dumps(cases),
            capture_output=True,
            text=True,
            env=base.nova_environment(patched=False),
        )
        self.assertEqual(0, done.returncode, done.stderr)
        return json.loads(done.stdout)

    def test_the_same_judgement_except_that_a_page_with_tls_may_open_a_console_without(self):
        cases = [
            {'origin': origin, 'host': host, 'forwarded': forwarded, 'base': url, 'allowed': ALLOWED}
            for origin, host, forwarded, url in itertools.product(
                ORIGINS, HOSTS, (None, 'http', 'https'), BASES
            )
        ]
        verdicts = self.judged_by_nova(cases)
        self.assertEqual({True, False}, set(verdicts))
        for case, by_nova in zip(cases, verdicts, strict=True):
            scheme = case['forwarded'] or case['origin'].partition(':')[0]
            if scheme == 'https' and case['base'].startswith(('http:', 'ws:')):
                self.assertFalse(by_nova, case)
            else:
                self.assertEqual(by_nova, judged_here(case), case)
