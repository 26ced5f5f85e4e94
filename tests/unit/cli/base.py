# SPDX-License-Identifier: Apache-2.0
"""Base of the tests that run the operators' tools in this process, against stub managers."""

import datetime
import io
import pathlib
import sys
import uuid
from unittest import mock

import fixtures
import testtools

from consoled import objects
from consoled.cli import app as cli_app
from consoled.consolectl.main import Consolectl
from consoled.manage.main import Manage
from consoled.rpc.replies import Revocation

TOKEN = 'Zk3' + 'tOkEn_-' * 5 + 'tOkEn'
INSTANCE = str(uuid.uuid4())
MOMENT = datetime.datetime(2026, 1, 2, 4, 4, 5, 678, datetime.timezone(datetime.timedelta(hours=1)))


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self):
        return True


def console(port=5900):
    return objects.ConsoleConnection(
        instance_uuid=INSTANCE,
        console_type='serial',
        host='192.0.2.9',
        port=port,
        compute_host='compute1',
        access_url_base=None,
        options={},
    )


def session(number):
    return objects.ConsoleSession(
        id=str(uuid.UUID(int=number)),
        proxy_id=str(uuid.UUID(int=99)),
        console=console(),
        user_id='alice',
        project_id='demo',
        client_address='192.0.2.1',
        connected_at=MOMENT,
        ends_at=None,
        cut_reason=None,
    )


class StubAPI:
    """Client of managers that answer from memory or raise ``error``; ``calls`` records the calls."""

    def __init__(self, sessions=0, error=None, counts=(2, 1)):
        self.sessions = [session(number) for number in range(1, sessions + 1)]
        self.error = error
        self.counts = Revocation(*counts)
        self.calls = []

    def _record(self, *call):
        self.calls.append(call)
        if self.error is not None:
            raise self.error

    def list_free_ports(self, context, instance_uuid, console_type):
        self._record('list_free_ports', instance_uuid, console_type)
        return objects.ConsoleConnectionList(objects=[console(5900), console(5901)])

    def validate(self, context, token):
        self._record('validate', token)
        return objects.ConsoleAuthToken(
            token=None,
            access_url=None,
            expires=MOMENT,
            user_id='alice',
            project_id='demo',
            **{name: getattr(console(), name) for name in console().fields},
        )

    def list_sessions(self, context, limit, marker=None, **filters):
        self._record('list_sessions', limit, marker, filters)
        after = [found for found in self.sessions if marker is None or found.id > marker]
        return objects.ConsoleSessionList(objects=after[:limit])

    def revoke(self, context, reason, **filters):
        self._record('revoke', reason, filters)
        return self.counts


class CliCase(testtools.TestCase):
    """Runs programs in this process."""

    def run_app(self, app):
        """Run a program; return (exit code, stdout, stderr).

        argparse writes to the streams of the process, so they are replaced too.
        """
        out, err = self.stdout, self.stderr
        with mock.patch.object(sys, 'stdout', out), mock.patch.object(sys, 'stderr', err):
            code = cli_app.run(app, self.argv)
        return code, out.getvalue(), err.getvalue()

    def ctl(self, *argv, api=None, stdin=''):
        """Run ``consolectl``."""
        self.argv, self.stdout, self.stderr = argv, io.StringIO(), io.StringIO()
        stdin = io.StringIO(stdin) if isinstance(stdin, str) else stdin
        self.api = StubAPI() if api is None else api
        return self.run_app(Consolectl(self.api, stdin, self.stdout, self.stderr))

    def manage(self, *argv, stdin=''):
        """Run ``consoled-manage``."""
        self.argv, self.stdout, self.stderr = argv, io.StringIO(), io.StringIO()
        stdin = io.StringIO(stdin) if isinstance(stdin, str) else stdin
        return self.run_app(Manage(stdin, self.stdout, self.stderr))

    def config(self, text):
        """Write a file, and return its path."""
        path = pathlib.Path(self.useFixture(fixtures.TempDir()).path) / 'test.conf'
        path.write_text(text)
        return str(path)
