# SPDX-License-Identifier: Apache-2.0
"""What Nova's proxies decide about origins, run by the Python of a virtualenv that has Nova.

The input is a JSON list of cases, each with ``origin``, ``host``, ``forwarded`` (or null), ``base`` and
``allowed``. The output is the JSON list of the verdicts: whether the proxy went on to connect to the console.
"""

import email.message
import json
import sys

import nova.conf
from nova import exception
from nova.console import websocketproxy


class Console(dict):
    """What is known of a token: attributes in newer releases, items in older ones (18, 19)."""

    def __init__(self, **values):
        super().__init__(values)
        vars(self).update(values)


class Connects(Exception):
    """The console would be connected now."""


def judge(case):
    nova.conf.CONF.set_override('allowed_origins', case['allowed'], group='console')
    handler = object.__new__(websocketproxy.NovaProxyRequestHandler)
    handler.path = '/?token=token'
    handler.headers = email.message.Message()
    handler.headers['Host'] = case['host']
    handler.headers['Origin'] = case['origin']
    if case['forwarded'] is not None:
        handler.headers['X-Forwarded-Proto'] = case['forwarded']
    console = Console(access_url_base=case['base'], access_url=case['base'], host='192.0.2.1', port=5900)
    handler._get_connect_info = lambda *args: console
    handler.msg = handler.vmsg = lambda *args, **values: None

    def connect(*args, **values):
        raise Connects

    handler.socket = connect
    try:
        handler.new_websocket_client()
    except Connects:
        return True
    except exception.ValidationError:
        return False


def main():
    nova.conf.CONF([], project='nova', default_config_files=[])
    print(json.dumps([judge(case) for case in json.load(sys.stdin)]))


if __name__ == '__main__':
    main()
