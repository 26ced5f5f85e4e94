# SPDX-License-Identifier: Apache-2.0
"""A grant to open one console until it expires."""

from __future__ import annotations

from consoled.objects import base, fields


@base.register
class ConsoleAuthToken(base.ConsoledObject):
    """A console auth token with the console it is for.

    ``host`` and ``port`` are None when the next free console of the type is asked for. ``token`` and
    ``access_url`` are set in the reply of ``authorize`` only. ``expires`` is a moment in UTC by the
    database's clock.
    """

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
