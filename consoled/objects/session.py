# SPDX-License-Identifier: Apache-2.0
"""Sessions: live uses of a console through a proxy."""

from __future__ import annotations

import datetime

from oslo_versionedobjects import fields as ovo_fields

from consoled.objects import base, fields
from consoled.objects.connection import ConsoleConnection


@base.register
class ConsoleSession(base.ConsoledObject):
    """A live use of a console through a proxy.

    Both moments are UTC by the database's clock.

    :ivar id: chosen by the proxy; not a credential
    :ivar limited: the session holds a slot of its console, so its proxy must end it before the manager
        considers the proxy's lease over (doc/design.md, invariant 4)
    :ivar ends_at: when the session must end; None if it may outlive its token
    :ivar cut_reason: why the session must end now; None while it may go on
    """

    id: str
    proxy_id: str
    console: ConsoleConnection
    user_id: str | None
    project_id: str | None
    client_address: str | None
    limited: bool
    connected_at: datetime.datetime
    ends_at: datetime.datetime | None
    cut_reason: str | None

    VERSION = '1.0'
    fields = {
        'id': fields.StrictUUIDField(),
        'proxy_id': fields.StrictUUIDField(),
        'console': ovo_fields.ObjectField('ConsoleConnection'),
        'user_id': fields.NameField(nullable=True, default=None),
        'project_id': fields.NameField(nullable=True, default=None),
        'client_address': fields.NameField(nullable=True, default=None),
        'limited': fields.BooleanField(default=False),
        'connected_at': fields.MomentField(),
        'ends_at': fields.MomentField(nullable=True, default=None),
        'cut_reason': fields.ShortNameField(nullable=True, default=None),
    }


@base.register
class ConsoleSessionList(base.ConsoledObjectList):
    """Live sessions."""

    objects: list[ConsoleSession]

    VERSION = '1.0'
    fields = {'objects': ovo_fields.ListOfObjectsField('ConsoleSession')}
