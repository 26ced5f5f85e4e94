# SPDX-License-Identifier: Apache-2.0
"""One live use of a console through a proxy."""

from __future__ import annotations

from oslo_versionedobjects import fields as ovo_fields

from consoled.objects import base, fields


@base.register
class ConsoleSession(base.ConsoledObject):
    """A session. ``id`` is chosen by the proxy and is no credential.

    ``ends_at`` is None for a session that may outlive its token; ``cut_reason`` is set once the session
    must end. Both moments are UTC by the database's clock. A ``limited`` one holds one of the places of its
    console: its proxy must end it before its lease is over for the manager (DESIGN invariant 4).
    """

    VERSION = '1.0'
    fields = {
        'id': fields.StrictUUIDField(),
        'proxy_id': fields.StrictUUIDField(),
        'console': ovo_fields.ObjectField('ConsoleConnection'),
        'user_id': fields.NameField(nullable=True, default=None),
        'project_id': fields.NameField(nullable=True, default=None),
        'client_address': fields.NameField(nullable=True, default=None),
        'limited': ovo_fields.BooleanField(default=False),
        'connected_at': fields.MomentField(),
        'ends_at': fields.MomentField(nullable=True, default=None),
        'cut_reason': fields.ShortNameField(nullable=True, default=None),
    }


@base.register
class ConsoleSessionList(base.ConsoledObjectList):
    """Live sessions."""

    VERSION = '1.0'
    fields = {'objects': ovo_fields.ListOfObjectsField('ConsoleSession')}
