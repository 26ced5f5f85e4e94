# SPDX-License-Identifier: Apache-2.0
"""Hostile users and guests against the daemon. The tests are in the other ``test_proxy_hostile_*`` modules.

Each test ends with nothing left behind: no session, row, connection or descriptor, and no traceback.
"""

from tests.functional import proxy_base
from tests.functional.test_proxy_hostile_ends import Ends, EndsAtTheManager, EndsInTLS, LateAnswers
from tests.functional.test_proxy_hostile_frames import Frames
from tests.functional.test_proxy_hostile_guests import Flow, Guests, Ports
from tests.functional.test_proxy_hostile_refusals import RecentRefusals
from tests.functional.test_proxy_hostile_requests import ManyRequests, Requests, RequestsInTLS

_OPTIONS = {
    'ping_interval': 1,
    'ping_timeout': 1,
    'close_timeout': 1,
    'request_timeout': 2,
    'connect_timeout': 1,
    'tls_timeout': 2,
    'max_message_size': proxy_base.MIB,
    'max_failed_tokens': 10000,
}


class HostileTest(
    Frames,
    Requests,
    ManyRequests,
    Ends,
    LateAnswers,
    Flow,
    Ports,
    Guests,
    RecentRefusals,
    proxy_base.ProxyTestCase,
):
    proxy_options = _OPTIONS


class HostileOverTLSTest(
    Frames, Requests, RequestsInTLS, Ends, EndsInTLS, EndsAtTheManager, Flow, proxy_base.ProxyTestCase
):
    proxy_options = _OPTIONS
    tls = True
