# SPDX-License-Identifier: Apache-2.0
"""Tables of Nova's cell database on an SQLite file, as far as they are read, and rows in them."""

import datetime
import pathlib
import tempfile

import sqlalchemy as sa

from consoled import token as tokens
from consoled.db.engine import Database
from consoled.nova import database
from consoled.nova.database import NovaDatabase
from tests.functional import base

METADATA = sa.MetaData()
TOKENS = sa.Table(
    'console_auth_tokens',
    METADATA,
    sa.Column('created_at', sa.DateTime),
    sa.Column('updated_at', sa.DateTime),
    sa.Column('id', sa.Integer, primary_key=True),
    sa.Column('token_hash', sa.String(255), nullable=False, unique=True),
    sa.Column('console_type', sa.String(255), nullable=False),
    sa.Column('host', sa.String(255), nullable=False),
    sa.Column('port', sa.Integer, nullable=False),
    sa.Column('internal_access_path', sa.String(255)),
    sa.Column('instance_uuid', sa.String(36), nullable=False),
    sa.Column('expires', sa.Integer, nullable=False),
    sa.Column('access_url_base', sa.String(255)),
)
INSTANCES = sa.Table(
    'instances',
    METADATA,
    sa.Column('id', sa.Integer, primary_key=True),
    sa.Column('uuid', sa.String(36), nullable=False, unique=True),
    sa.Column('host', sa.String(255)),
    sa.Column('project_id', sa.String(255)),
    sa.Column('launched_at', sa.DateTime),
    sa.Column('deleted', sa.Integer, nullable=False, default=0),
)
NOVNC = 'https://console.example.org/vnc_lite.html'


def now(seconds=0):
    """Return a moment, in whole seconds as Nova stores them: UTC, without a zone."""
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    return moment.replace(microsecond=0, tzinfo=None)


class NovaTables:
    """A mixin of test cases: ``self.nova`` is a database of Nova."""

    def new_nova_url(self):
        """Return the URL of an empty database that goes with the test."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        return f'sqlite:///{pathlib.Path(directory.name, "nova.db")}'

    def make_nova(self):
        self.nova_url = self.new_nova_url()
        self.tables = Database(self.nova_url, option=database.OPTION)
        self.addCleanup(self.tables.dispose)
        METADATA.create_all(self.tables.transactional_engine)
        self.nova = NovaDatabase(self.tables)

    def run_in_nova(self, statement):
        self.tables.single(lambda conn: conn.execute(statement))

    def add_instance(self, host='cmp1', **values):
        """Add an instance; return its UUID."""
        uuid = values.setdefault('uuid', base.new_uuid())
        row = {'host': host, 'project_id': 'project-1', 'launched_at': now(-60), 'deleted': 0}
        self.run_in_nova(sa.insert(INSTANCES).values(**row | values))
        return uuid

    def update_instance(self, uuid, **values):
        self.run_in_nova(sa.update(INSTANCES).where(INSTANCES.c.uuid == uuid).values(**values))

    def add_token(self, instance_uuid, ttl=600, **values):
        """Add a token; return its clear text."""
        token = base.new_uuid()
        row = {
            'created_at': now(),
            'token_hash': tokens.hashed(token),
            'console_type': 'novnc',
            'host': '192.0.2.10',
            'port': 5900,
            'internal_access_path': None,
            'instance_uuid': instance_uuid,
            'expires': int(now(ttl).replace(tzinfo=datetime.UTC).timestamp()),
            'access_url_base': NOVNC,
        }
        self.run_in_nova(sa.insert(TOKENS).values(**row | values))
        return token

    def delete_token(self, token):
        self.run_in_nova(sa.delete(TOKENS).where(TOKENS.c.token_hash == tokens.hashed(token)))
