# SPDX-License-Identifier: Apache-2.0
"""Helpers for tests of sessions: sessions with users and guests in memory, and a recording observer."""

import datetime
import time
import uuid

import testtools

from consoled import objects
from consoled import token as tokens
from consoled.proxy.quota import SessionQuota
from consoled.proxy.registry import SessionRegistry
from consoled.proxy.session import Timeouts
from tests.unit.proxy import relay_base as relays

TOKEN, OTHER = tokens.mint(), tokens.mint()
ADDRESS = '192.0.2.1'
INSTANCE = str(uuid.uuid4())
NOON = datetime.datetime(2030, 1, 1, 12, tzinfo=datetime.UTC)

TIMEOUTS = Timeouts(idle=600, ping_interval=20, ping_timeout=15, greeting=10)
PATIENT = Timeouts(idle=0, ping_interval=10**9, ping_timeout=10**9, greeting=10**9)


def granted(console_type='novnc', *, limited=False, lasts=None, connected_at=NOON, cut_reason=None):
    """Return a ConsoleSession as a manager grants it.

    :param lasts: seconds from ``connected_at`` until it ends; None: it does not end
    """
    console = objects.ConsoleConnection(
        instance_uuid=INSTANCE,
        console_type=console_type,
        host='10.0.0.1',
        port=5900,
        compute_host='compute',
        access_url_base=None,
        options={},
    )
    return objects.ConsoleSession(
        id=str(uuid.uuid4()),
        proxy_id=str(uuid.uuid4()),
        console=console,
        user_id='user',
        project_id='project',
        client_address=ADDRESS,
        limited=limited,
        connected_at=connected_at,
        ends_at=None if lasts is None else connected_at + datetime.timedelta(seconds=lasts),
        cut_reason=cut_reason,
    )


class Recorder:
    """Observer that records its calls.

    :ivar calls: ('opened', session) and ('ended', session), in order
    :ivar over: (session, end reason) of each session that has ended
    :ivar seconds: duration of each session that has ended
    """

    def __init__(self):
        self.calls = []
        self.over = []
        self.seconds = []

    def opened(self, session):
        self.calls.append(('opened', session))

    def joined(self, session):
        self.calls.append(('joined', session))

    def ended(self, session):
        self.calls.append(('ended', session))
        self.over.append((session, session.end_reason))
        self.seconds.append(session.seconds)


class Process:
    """Sessions of a proxy process, with their registry, quota and observer."""

    def __init__(self, timeouts=PATIENT, max_sessions=10**6):
        self.recorder = Recorder()
        self.quota = SessionQuota(max_sessions, max_sessions)
        self.registry = SessionRegistry(self.quota, [self.recorder], timeouts)

    @property
    def over(self):
        return self.recorder.over

    def granted(self, console_type='novnc', token=TOKEN, address=ADDRESS, **values):
        """Create a session that a manager has granted; it has no channel yet."""
        session = self.registry.create(token, address)
        session.may_be_stored = True
        session.grant(granted(console_type, **values), time.monotonic())
        self.registry.make_joinable(session)
        return session

    def open(self, *args, **values):
        """Create a session with one channel; return it and the channel's wire."""
        session = self.granted(*args, **values)
        return session, self.connect(session)

    def join(self, token=TOKEN, address=ADDRESS, **values):
        """Join a session with another channel; return its wire, or None if there is no session to join."""
        session = self.registry.find(token, address)
        if session is None:
            return None
        session.join()
        return self.connect(session, **values)

    def connect(self, session, **values):
        """Add a channel to a session; return its wire."""
        wire = relays.Wire(**values)
        wire.channel._released = session.channel_released
        session.connected(wire.channel)
        return wire


class SessionCase(testtools.TestCase):
    def codes(self, wire):
        """Return the close codes that the user has received."""
        return [close.code for close in wire.close_frames()]
