# SPDX-License-Identifier: Apache-2.0
"""Console auth tokens: each opens one console until it expires."""

from __future__ import annotations

import datetime

from consoled.objects import base, fields
from consoled.objects.connection import ConsoleConnection


@base.register
class ConsoleAuthToken(base.ConsoledObject):
    """A console auth token and the console that it opens.

    :ivar host: None, like ``port``, in a request for the next free console of the type
    :ivar token: the clear token; set in the reply of ``authorize`` only
    :ivar access_url: the URL for the user, with the token in it; set in the reply of ``authorize`` only
    :ivar expires: UTC, by the database's clock
    """

    instance_uuid: str
    console_type: str
    host: str | None
    port: int | None
    compute_host: str
    access_url_base: str | None
    options: dict[str, str | None]
    token: str | None
    access_url: str | None
    expires: datetime.datetime | None
    user_id: str | None
    project_id: str | None

    VERSION = '1.0'
    fields = {
        'instance_uuid': fields.StrictUUIDField(),
        'console_type': fields.ConsoleTypeField(),
        'host': fields.HostField(nullable=True, default=None),
        'port': fields.PortField(nullable=True, default=None),
        'compute_host': fields.NameField(),
        'access_url_base': fields.UrlField(nullable=True, default=None),
        'options': fields.OptionsField(default={}),
        'token': fields.SecretField(nullable=True, default=None),
        'access_url': fields.SecretField(nullable=True, default=None),
        'expires': fields.MomentField(nullable=True, default=None),
        'user_id': fields.NameField(nullable=True, default=None),
        'project_id': fields.NameField(nullable=True, default=None),
    }

    def console(self) -> ConsoleConnection:
        """Return the console that the token opens.

        :raises ValueError: ``host`` or ``port`` is not set
        """
        if self.host is None or self.port is None:
            raise ValueError('the token is for no particular console')
        return ConsoleConnection(
            instance_uuid=self.instance_uuid,
            console_type=self.console_type,
            host=self.host,
            port=self.port,
            compute_host=self.compute_host,
            access_url_base=self.access_url_base,
            options=self.options,
        )
